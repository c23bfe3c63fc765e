"""kill -9 of adapter, engine, router and controller at each step of a change of role, with sglang-router between.

Whoever is killed, and is started again as a service manager would, the site settles by itself: controller, router and
engine agree on one role, and it changes again. Requests are lost only with the process that carried them.
"""

import contextlib
import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rapid.core.cluster import Phase, Role
from tests.engines.dynamo_cluster import Process
from tests.engines.dynamo_traffic import Traffic, steady
from tests.engines.kill_site import BUDGET_MW, DECODE, MISSING, PREFILL, ROLES, VICTIM, WITHIN_S, KillSite, worst_mw
from tests.seen import SEEN
from tests.wait import wait_for
from tools.fake_gpu import Record

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(bool(MISSING), reason=MISSING)]

RATE_RPS, PROMPT, ANSWER = 12.0, 4, 30  # answers take 0.6 s
# While the router is stopped, for 5 s, all that comes waits in it. What of that goes to a dead decode engine fails at
# its prefill engine too, and after ten of those in a row the router's circuit breaker keeps that one from everybody.
RATES_RPS = {"closing": 2.0}
# What a client hears at once, that has found no router, or one that does not know its workers yet; it asks again.
AWAY = ("ClientConnectorError", '503: {"error":{"type":"Service Unavailable","code":"server_selection_failed"')
STEPS = ("ordered", "closing", "draining", "switching", "opening", "just committed")
VICTIMS = ("adapter", "engine", "router", "controller")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KillSite]:
    with KillSite(tmp_path_factory.mktemp("k")) as site:
        yield site


# ---- the steps ----


@contextlib.contextmanager
def stopped(process: Process) -> Iterator[None]:
    """SIGSTOP, until the block is over; it may have been killed by then."""
    assert process.running is not None
    os.kill(process.running.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        if process.alive:
            os.kill(process.running.pid, signal.SIGCONT)


@contextlib.contextmanager
def ordered(site: KillSite) -> Iterator[None]:
    """The controller has given the order, and the adapter has not read it."""
    with stopped(site.workers[VICTIM].adapter):
        site.set_role(VICTIM, PREFILL)
        site.becomes(VICTIM, Phase.DRAINING)
        yield


@contextlib.contextmanager
def closing(site: KillSite) -> Iterator[None]:
    """The adapter has told the router to take the worker out, and waits for its answer."""
    said = site.workers[VICTIM].adapter.log.stat().st_size
    with stopped(site.router):
        site.set_role(VICTIM, PREFILL)
        wait_for(lambda: "draining as decode" in tail(site, said), WITHIN_S, "the close")
        yield


@contextlib.contextmanager
def draining(site: KillSite) -> Iterator[None]:
    """The router sends it nothing more, and it has requests to finish."""
    site.set_role(VICTIM, PREFILL)
    wait_for(lambda: not site.listed(VICTIM), WITHIN_S, f"{VICTIM} gone from the list")
    yield


@contextlib.contextmanager
def switching(site: KillSite) -> Iterator[None]:
    """The engine changes its role, and has not answered."""
    with held(site, "switch", Phase.SWITCHING):
        yield


@contextlib.contextmanager
def opening(site: KillSite) -> Iterator[None]:
    """The engine has its new role, and the router asks whether it is well before it takes it in."""
    with held(site, "open", Phase.WARMING):
        yield


@contextlib.contextmanager
def just_committed(site: KillSite) -> Iterator[None]:
    """The controller has just heard that it serves in its new role."""
    site.set_role(VICTIM, PREFILL)
    site.becomes(VICTIM, Phase.SERVING, PREFILL)
    yield


@contextlib.contextmanager
def held(site: KillSite, step: str, phase: Phase) -> Iterator[None]:
    worker = site.workers[VICTIM]
    if step == "open":
        # The router looks after workers that it has at any time, so this one is held when it has left the list.
        worker.hold("switch")
        site.set_role(VICTIM, PREFILL)
        wait_for(lambda: worker.stopped_at() == "switch", WITHIN_S, "the switch")
        worker.hold("open")
        (worker.folder / "hold-switch").unlink()
    else:
        worker.hold(step)
        site.set_role(VICTIM, PREFILL)
    wait_for(lambda: worker.stopped_at() == step, WITHIN_S, f"{VICTIM} to stop at {step}")
    site.becomes(VICTIM, phase)
    try:
        yield
    finally:
        worker.let_go()


BRING = dict(zip(STEPS, (ordered, closing, draining, switching, opening, just_committed), strict=True))


# ---- the kills ----


@dataclass(frozen=True, slots=True)
class Kill:
    """Who is killed, and how he comes back; who says what has happened, in words like these."""

    kill: Callable[[KillSite], None]
    start: Callable[[KillSite], None]
    log: Callable[[KillSite], Path]
    words: str


def adapter_log(site: KillSite) -> Path:
    return site.workers[VICTIM].adapter.log


KILLS = {
    "adapter": Kill(
        lambda site: site.workers[VICTIM].adapter.kill(),
        lambda site: site.workers[VICTIM].adapter.start(),
        lambda site: site.home.log,
        "engine gone: it has ended its stream",
    ),
    "engine": Kill(
        lambda site: site.workers[VICTIM].engine.kill(),
        lambda site: site.workers[VICTIM].engine.start(),
        adapter_log,
        "see that the engine runs|the engine was started anew|another hand has made it decode",
    ),
    "router": Kill(
        lambda site: site.router.kill(),
        lambda site: site.router.start(),
        adapter_log,
        "see that the router runs|the router lists it as|the router did not list it",
    ),
    "controller": Kill(
        lambda site: site.controller.kill(),
        lambda site: site.restart_controller(),
        adapter_log,
        "attached to controller .*, epoch",
    ),
}


def test_the_matrix_is_whole() -> None:
    assert (tuple(KILLS), len(BRING)) == (VICTIMS, 6)


def test_a_raise_before_the_cut_that_pays_for_it_would_be_seen() -> None:
    def set_to(gpu: str, limit_mw: int) -> Record:
        return Record(0, gpu, limit_mw, limit_mw, 7)

    landed = [set_to("a", 400_000), set_to("b", 400_000)]
    cut_first = [*landed, set_to("a", 700_000), set_to("a", 400_000), set_to("b", 700_000)]
    raised_first = [*landed, set_to("a", 700_000), set_to("b", 700_000), set_to("a", 400_000)]
    assert worst_mw(cut_first, ["a", "b"]) == 1_100_000
    assert worst_mw(raised_first, ["a", "b"]) == 1_400_000


@pytest.mark.timeout(150)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("victim", VICTIMS)
def test_it_settles_by_itself_and_changes_again(
    site: KillSite, victim: str, step: str, record_property: Callable[[str, object], None]
) -> None:
    worker = site.workers[VICTIM]
    kill = KILLS[victim]
    begin(site)
    with Traffic(site.router_url, steady(RATES_RPS.get(step, RATE_RPS), PROMPT, ANSWER)) as traffic:
        wait_for(lambda: worker.told()["held"] > 0, WITHIN_S, "a request in the worker")
        with BRING[step](site):
            carried = worker.told()["held"] if victim == "engine" else 0
            sent_before, under_way = traffic.sent, traffic.sent - len(traffic.served)
            said = kill.log(site).stat().st_size
            kill.kill(site)
            came = traffic.sent - sent_before  # on the way to it when it was killed
        kill.start(site)
        settled = settle(site)
        sent, while_down = traffic.sent, traffic.sent - sent_before
        wait_for(lambda: traffic.sent > sent + 3, WITHIN_S, "requests after that")
    shown = site.shown(VICTIM)
    change_again(site, settled)

    ours = {"engine": carried + came, "router": under_way + came}.get(victim, 0)
    away = [one for one in traffic.lost if victim == "router" and one.error.startswith(AWAY)]
    lost = len(traffic.lost) - len(away)
    worst_mw = site.worst_mw()
    record_property(
        SEEN,
        f"kill -9 of the {victim:<10} {step:<14}  ends as {settled.value:<7}  {len(traffic.served):>3} requests, "
        f"{lost:>2} lost ({ours:>2} were in the killed process), {len(away):>2} found no router  "
        f"{worst_mw // 1000} of {BUDGET_MW // 1000} W at most",
    )
    assert worst_mw <= BUDGET_MW, "promise 1: the budget holds at every instant"
    assert re.search(kill.words, kill.log(site).read_bytes()[said:].decode()), site.story()
    assert (shown["phase"], shown["role"], shown["target_role"]) == ("serving", settled.value, settled.value)
    assert len(away) <= while_down
    assert lost <= ours, (Counter(one.error for one in traffic.lost), site.story())


def settle(site: KillSite) -> Role:
    """The role in which it serves in the end, as all three say: controller, router and the engine itself."""

    def agreed() -> Role | None:
        one = site.instance(VICTIM)
        if one is None or one.phase is not Phase.SERVING:
            return None
        with contextlib.suppress(OSError, ValueError):
            engine = site.workers[VICTIM].told()["role"]
            if engine == one.role.value and site.listed(VICTIM) == [(engine, True)]:
                return one.role
        return None

    return wait_for(agreed, WITHIN_S, "controller, router and engine of one mind") or DECODE


def begin(site: KillSite) -> None:
    """Everybody is in the role he was launched in, and the router sends him requests."""
    for name, role in ROLES.items():
        one = site.becomes(name, Phase.SERVING)
        if one.role is not role:
            site.set_role(name, role)
        site.becomes(name, Phase.SERVING, role)
        wait_for(lambda name=name, role=role: site.listed(name) == [(role.value, True)], WITHIN_S, f"{name} listed")  # type: ignore[misc]


def change_again(site: KillSite, role: Role) -> None:
    """To the role that it has not."""
    for name in ROLES:
        site.becomes(name, Phase.SERVING)  # or it might be the last of its role
    to = PREFILL if role is DECODE else DECODE
    site.set_role(VICTIM, to)
    site.becomes(VICTIM, Phase.SERVING, to)


def tail(site: KillSite, since: int) -> str:
    return site.workers[VICTIM].adapter.log.read_bytes()[since:].decode()
