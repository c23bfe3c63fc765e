"""The real sglang-router 0.3.2 and smg 1.13.0 in PD mode, with mock SGLang engines behind them, under traffic: roles
change and no request is lost. Real controller, rapidd, and `rapidctl attach` processes.
"""

import itertools
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rapid.core.cluster import Phase, Role
from rapid.core.status import InstanceStatus
from tests.engines.dynamo_cluster import ROOT, WITHIN_S, Process
from tests.engines.dynamo_traffic import Traffic, steady
from tests.engines.router_site import MISSING, RouterSite, fetch
from tests.seen import SEEN
from tests.wait import wait_for

pytestmark = pytest.mark.e2e

PREFILL, DECODE = Role.PREFILL, Role.DECODE
FLIPS = 40
RATE_RPS = 60.0
TOKENS = 15  # of an answer: 0.3 s
BREAKER_S = 90.0  # a router keeps its breaker open for a minute
OTHER = {PREFILL: DECODE, DECODE: PREFILL}


@pytest.fixture(scope="module", params=["sglang", "smg"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RouterSite]:
    if why := MISSING[request.param]:
        pytest.skip(why)
    with RouterSite(tmp_path_factory.mktemp("r"), request.param) as whole:
        yield whole


def test_forty_flips_under_sixty_requests_a_second_lose_none(
    site: RouterSite, record_property: Callable[[str, object], None]
) -> None:
    times_s, roles = [], {engine.name: engine.launched for engine in site.engines}
    with Traffic(site.url, steady(RATE_RPS, 4, TOKENS)) as traffic:
        for flip in range(FLIPS):
            # In turn, so that two of each role are followed by one and three, and none is ever the last.
            name = f"e{(0, 0, 2, 2, 1, 1, 3, 3)[flip % 8]}"
            roles[name] = OTHER[roles[name]]
            began_s = time.monotonic()
            site.flip(name, roles[name])
            times_s.append(time.monotonic() - began_s)
    refused = [why for engine in site.engines for why in engine.said["refused"]]
    counts = f"{FLIPS} flips, {traffic.sent} requests, {len(traffic.lost)} lost"
    times = f"a flip takes {statistics.median(times_s):.2f} s, at most {max(times_s):.2f} s"
    record_property(SEEN, f"{site.kind}: {counts}; {times}")

    assert not traffic.lost, traffic.lost[:3]
    assert refused == []
    assert traffic.sent > FLIPS
    for engine in site.engines:
        assert site.listed()[engine.name] == [roles[engine.name].value]
        assert engine.said["role"] == roles[engine.name].value
        assert len(engine.said["switched"]) == FLIPS / 4


def settled(site: RouterSite) -> bool:
    """Router, engines and controller say the same of every engine, and it is in one pool."""
    status, listed = {one.instance: one for one in site.status().instances}, site.listed()
    return all(
        status[engine.name].phase is Phase.SERVING
        and listed[engine.name] == [status[engine.name].role.value] == [engine.said["role"]]
        for engine in site.engines
    )


def refused(site: RouterSite) -> int:
    """Requests that engines have turned away."""
    return sum(len(engine.said["refused"]) for engine in site.engines)


def noticed(site: RouterSite, name: str) -> int:
    """How often this adapter has noticed anything."""
    return site.adapters[name].log.read_text().count('"event": "noticed: ')


def at_work(one: InstanceStatus) -> bool:
    return one.load is not None and one.load.running_requests > 0


def put_back(site: RouterSite) -> set[str]:
    """Who has told the controller that it was put back."""
    text = "the router listed it nowhere; that was put right"
    return {one.by.removeprefix("engine ") for one in site.decisions() if one.reason == text}


def test_a_router_that_forgets_is_put_right_once_and_nothing_flaps(site: RouterSite) -> None:
    wait_for(lambda: settled(site), WITHIN_S, "a settled site")
    before = {engine.name: noticed(site, engine.name) for engine in site.engines}

    site.router.kill()
    site.router.start()

    wait_for(lambda: settled(site), WITHIN_S, "every engine in its pool again")
    wait_for(lambda: put_back(site) == {engine.name for engine in site.engines}, WITHIN_S, "everybody's word on it")
    for engine in site.engines:
        assert noticed(site, engine.name) == before[engine.name] + 1
    with Traffic(site.url, itertools.islice(steady(RATE_RPS, 4, TOKENS), 30)) as traffic:
        wait_for(lambda: traffic.all_sent, WITHIN_S, "all to be sent")
    assert not traffic.lost
    assert [one.problem for one in site.status().instances] == [""] * 4


def test_a_check_of_a_site_at_work_looks_and_changes_nothing(site: RouterSite) -> None:
    wait_for(lambda: settled(site), WITHIN_S, "a settled site")
    done = subprocess.run([*site.words("e0"), "--check", "--json"], capture_output=True, cwd=ROOT, timeout=WITHIN_S)
    found = {finding["topic"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert (done.returncode, done.stderr) == (0, b"")
    greens = {topic for topic, finding in found.items() if finding["grade"] == "green"}
    assert greens == {"controller", "node", "gpus", "engine", "router", "worker", "metrics"}
    assert found["instance"]["what"].startswith("an instance e0 is attached already")
    wrong = subprocess.run([*site.words("e0", "GPU-9"), "--check"], capture_output=True, cwd=ROOT, timeout=WITHIN_S)
    assert wrong.returncode == 1
    assert b"node node-1 has no GPU GPU-9" in wrong.stdout


def test_an_adapter_that_is_stopped_says_goodbye_and_its_engine_serves_on(site: RouterSite) -> None:
    wait_for(lambda: settled(site), WITHIN_S, "a settled site")
    role = next(one.role for one in site.status().instances if one.instance == "e2")

    assert site.adapters["e2"].stop() == 0

    site.becomes("e2", Phase.GONE)
    assert "engine gone: it said goodbye: stopped" in site.home.log.read_text()
    assert site.listed()["e2"] == [role.value]
    site.adapters["e2"].start()
    site.becomes("e2", Phase.SERVING, role)


def test_an_adapter_on_a_gpu_that_its_node_does_not_have_is_refused_and_says_what_to_do(
    site: RouterSite, tmp_path: Path
) -> None:
    wait_for(lambda: settled(site), WITHIN_S, "a settled site")
    site.adapters["e2"].stop()
    stranger = Process("stranger", site.words("e2", "GPU-9"), dict(os.environ), tmp_path / "log")
    stranger.start()
    try:
        text = "instance e2: no node has reported gpu GPU-9 (check its GPUs and its node, and that rapidd runs there)"
        wait_for(lambda: text in stranger.log.read_text(), WITHIN_S, "the refusal")
    finally:
        stranger.kill()
        site.adapters["e2"].start()
    site.becomes("e2", Phase.SERVING)


def test_the_load_of_engines_comes_from_their_own_metrics(site: RouterSite) -> None:
    wait_for(lambda: settled(site), WITHIN_S, "a settled site")
    with Traffic(site.url, steady(RATE_RPS, 4, 60)):
        wait_for(lambda: all(one.load is not None for one in site.status().instances), WITHIN_S, "every load")
        wait_for(
            lambda: any(one.load and one.load.running_requests for one in site.status().instances), WITHIN_S, "work"
        )


def test_a_router_killed_in_the_middle_of_a_drain_is_survived(site: RouterSite) -> None:
    wait_for(lambda: settled(site), WITHIN_S, "a settled site")
    role = next(one.role for one in site.status().instances if one.instance == "e0")
    before = len(site.engines[0].said["switched"])
    with Traffic(site.url, steady(RATE_RPS, 4, 60)):
        wait_for(lambda: site.engines[0].said["held"], WITHIN_S, "e0 to be at work")
        site.set_role("e0", OTHER[role])
        wait_for(lambda: site.phase("e0") is not Phase.SERVING, WITHIN_S, "the change to begin")
        site.router.kill()
        site.router.start()
        wait_for(lambda: settled(site), WITHIN_S, "every engine in one pool again")
    assert len(site.engines[0].said["switched"]) - before <= 1, "nobody was told twice"


def test_a_role_that_another_hand_changes_is_adopted_and_the_router_follows(site: RouterSite) -> None:
    wait_for(lambda: settled(site), WITHIN_S, "a settled site")
    role = next(one.role for one in site.status().instances if one.instance == "e1")
    other = OTHER[role]

    # What was on its way when the router was killed keeps an engine from being idle for as long as it waits for it.
    wait_for(lambda: site.engines[1].said["held"] == 0, WITHIN_S, "an idle engine")
    fetch(f"{site.engines[1].url}/pd_role_switch", {"new_role": other.value, "decode_cuda_graph_memory_gb": 1.0})

    site.becomes("e1", Phase.SERVING, other)
    wait_for(lambda: settled(site), WITHIN_S, "the router to follow")
    told = next(one for one in site.decisions() if one.by == "engine e1")
    assert told.reason == f"another hand has made it {other.value}"
    assert told.changes == (("e1", role.value, other.value),)


def test_an_engine_that_was_killed_is_out_of_service_and_taken_in_again_in_the_role_it_starts_in(
    site: RouterSite,
) -> None:
    wait_for(lambda: settled(site), WITHIN_S, "a settled site")
    engine = site.engines[3]

    engine.process.kill()

    lost = site.becomes(engine.name, Phase.FAILED)
    assert lost.problem.startswith(f"it is lost: {engine.name}: look: GET {engine.url}/server_info: connection refused")
    engine.process.start()
    site.becomes(engine.name, Phase.SERVING, engine.launched)
    wait_for(lambda: settled(site), WITHIN_S, "the router to list it")


def test_requests_that_come_in_the_wrong_role_are_counted_as_lost(site: RouterSite) -> None:
    """The checks of the tests above can fail."""
    wait_for(lambda: settled(site), WITHIN_S, "a settled site")
    before = refused(site)
    with Traffic(site.url, steady(RATE_RPS, 4, TOKENS)) as traffic:
        for engine in site.engines:
            engine.plant("refuse all")
        wait_for(lambda: traffic.lost, WITHIN_S, "a lost request")
        # An engine was killed before: until its breaker closes the router turns requests away by itself.
        wait_for(lambda: refused(site) > before, BREAKER_S, "an engine that says that it refused one")
        for engine in site.engines:
            engine.plant("refuse all", "")
