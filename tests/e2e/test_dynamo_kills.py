"""kill -9 of each process around a Dynamo worker, at each step of its change of role: the site settles by itself.

Only requests that were in the killed process may be lost: none for adapter and controller; the worker's own, which
while it drains are those that it has not finished; for the frontend those that it was streaming, or that found nobody.
"""

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rapid.core.cluster import Phase, Role
from tests.e2e.test_dynamo import COMPONENTS, ROLES
from tests.engines.dynamo_cluster import MISSING, WITHIN_S, Cluster
from tests.engines.dynamo_site import Site
from tests.engines.dynamo_traffic import Traffic, steady
from tests.seen import SEEN
from tests.wait import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(bool(MISSING), reason=MISSING)]

PREFILL, DECODE = Role.PREFILL, Role.DECODE
VICTIM = "w2"  # workers[2], a decode worker, whose drain takes as long as its answers
STEPS = ("drain", "switch", "open")
RATE_RPS, PROMPT, ANSWER = 6.0, 100, 60
ENGINES = dict.fromkeys(Role, ("--speedup-ratio", "0.25"))  # four times slower: answers take 1.5 s


@dataclass(frozen=True)
class Kill:
    """Who is killed and how he comes back; who says so, in which words. Of a frontend that is back at once nobody does:
    whoever looks for it looks again."""

    what: str
    kill: Callable[[Site], None]
    start: Callable[[Site], None]
    log: Callable[[Site], Path]
    words: str


def adapter_log(site: Site) -> Path:
    return site.adapters[VICTIM].log


def worker_log(site: Site) -> Path:
    return site.cluster.workers[2].process.log


KILLS = (
    Kill(
        "worker",
        lambda site: site.cluster.workers[2].process.kill(),
        lambda site: site.cluster.workers[2].process.start(),
        adapter_log,
        "its engine has ended: the worker has hung up",
    ),
    Kill(
        "adapter",
        lambda site: site.adapters[VICTIM].kill(),
        lambda site: site.adapters[VICTIM].start(),
        worker_log,
        "its adapter has gone; it serves on",
    ),
    Kill(
        "frontend",
        lambda site: site.cluster.frontend.kill(),
        lambda site: site.cluster.frontend.start(),
        adapter_log,
        "",
    ),
    Kill(
        "controller",
        lambda site: site.controller.kill(),
        lambda site: site.start_controller(),
        adapter_log,
        "attached to controller",
    ),
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("d")
    with Cluster(folder / "dynamo", ROLES, engines=ENGINES, held=True) as cluster, Site(folder, cluster) as site:
        yield site


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("kill", KILLS, ids=lambda kill: kill.what)
def test_it_settles_by_itself_and_changes_again(
    site: Site, kill: Kill, step: str, record_property: Callable[[str, object], None]
) -> None:
    cluster = site.cluster
    worker = cluster.workers[2]
    site.becomes(VICTIM, Phase.SERVING, DECODE)
    with Traffic(cluster.url, steady(RATE_RPS, PROMPT, ANSWER)) as traffic:
        wait_for(lambda: worker.say("state")["left"] > 0, WITHIN_S, "a request in the worker")
        bring_to(site, step)
        left = worker.say("state")["left"]
        sent_before, under_way = traffic.sent, traffic.sent - len(traffic.served)
        said = kill.log(site).stat().st_size

        kill.kill(site)
        cluster.let_go(VICTIM)
        kill.start(site)

        settled = settle(site)
        sent_while_down = traffic.sent - sent_before
    back(site, settled)

    lost = traffic.lost
    record_property(
        SEEN,
        f"kill -9 of the {kill.what} at {step}: serves {settled.value}, {len(traffic.served)} requests, "
        f"{len(lost)} lost ({left} were in the worker, {under_way} under way)",
    )
    allowed = {"worker": left, "frontend": under_way + sent_while_down}.get(kill.what, 0)
    assert len(lost) <= allowed, [one.error for one in lost]
    assert kill.words in kill.log(site).read_bytes()[said:].decode()
    assert site.worst_mw() <= site.budget_mw, "promise 1: the budget holds at every instant"


def bring_to(site: Site, step: str) -> None:
    """The worker is in the middle of a change to prefill, at this step, and stays there or drains for long."""
    cluster = site.cluster
    if step != "drain":
        cluster.hold(VICTIM, step)
    site.set_role(VICTIM, PREFILL)
    if step == "drain":
        # Killed while it is listed, it would be sent requests until its lease in discovery runs out, 10 s later.
        worker = cluster.workers[2]
        wait_for(lambda: cluster.role_of(worker) is None, WITHIN_S, f"{VICTIM} gone from the frontend")
        assert worker.say("state")["left"], f"{VICTIM} is not drained yet"
    else:
        wait_for(lambda: cluster.stopped_at(VICTIM) == step, WITHIN_S, f"{VICTIM} to stop at {step}")


def settle(site: Site) -> Role:
    """The role in which it serves in the end, as all three say: controller, frontend and the engine itself."""
    worker = site.cluster.workers[2]

    def agreed() -> Role | None:
        try:
            role = site.cluster.role_of(worker)
        except (OSError, KeyError, ValueError):
            return None
        one = site.instance(VICTIM)
        fits = one is not None and one.phase is Phase.SERVING and one.role is role and not one.problem
        return role if fits and role is not None and worker.component() == COMPONENTS[role] else None

    found = wait_for(agreed, WITHIN_S, f"{VICTIM} settled, last {site.instance(VICTIM)}")
    assert found is not None
    return found


def back(site: Site, settled: Role) -> None:
    """It can change again."""
    if settled is not DECODE:
        site.set_role(VICTIM, DECODE)
    site.becomes(VICTIM, Phase.SERVING, DECODE)


def test_a_worker_that_stood_still_beyond_its_lease_comes_back(site: Site) -> None:
    """Dynamo forgets it after 10 s and for good: it would hold a GPU, be well, and never get a request again."""
    cluster = site.cluster
    worker = cluster.workers[1]
    site.becomes(worker.name, Phase.SERVING, PREFILL)
    forgotten, process = worker.id, worker.process.running
    assert process is not None

    process.send_signal(signal.SIGSTOP)
    wait_for(lambda: forgotten not in cluster.registered(), WITHIN_S, "the end of its lease")
    process.send_signal(signal.SIGCONT)

    wait_for(lambda: cluster.role_of(worker) is PREFILL, WITHIN_S, f"{worker.name} at the frontend again")
    site.becomes(worker.name, Phase.SERVING, PREFILL)
    assert "it is published anew" in site.adapters[worker.name].log.read_text()
