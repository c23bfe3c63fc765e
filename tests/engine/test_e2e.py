"""Real processes: a controller, a rapidd, engines on rapid.engine. Whoever is killed, at whichever step of a role
change, the site settles by itself; and no request is lost.
"""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rapid.core.cluster import Phase, Role
from rapid.core.errors import RoleRefused
from tests.controller.process import DEADLINE_S, ROOT
from tests.engine.site import Engine, EngineSite
from tests.wait import wait_for

pytestmark = pytest.mark.e2e

PREFILL, DECODE, MIXED = Role.PREFILL, Role.DECODE, Role.MIXED
STEPS = {
    "close": Phase.DRAINING,
    "drained": Phase.DRAINING,
    "switch": Phase.SWITCHING,
    "open": Phase.WARMING,
    "roll back": Phase.ROLLING_BACK,
}
FLIPS = 8
REQUEST_MS, PAUSE_S = 100, 0.025


@pytest.fixture(scope="module")
def whole_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineSite]:
    with EngineSite(tmp_path_factory.mktemp("s")) as site:
        yield site


@pytest.fixture
def site(whole_site: EngineSite) -> Iterator[EngineSite]:
    """With an e1 that serves both roles, so that e0 may leave either."""
    whole_site.clear()
    for name in ("e0", "e1"):
        wait_for(lambda name=name: _is_gone(whole_site, name), DEADLINE_S, f"the end of {name}")  # type: ignore[misc]
    whole_site.held("e1", MIXED, name_of_folder="e1")
    whole_site.becomes("e1", Phase.SERVING, MIXED)
    yield whole_site
    whole_site.clear()


def _is_gone(site: EngineSite, name: str) -> bool:
    one = site.instance(name)
    return one is None or one.phase is Phase.GONE


def e0(site: EngineSite, folder: Path) -> Engine:
    engine = site.held("e0", PREFILL, name_of_folder=folder.name)
    site.becomes("e0", Phase.SERVING, PREFILL)
    return engine


def changing(site: EngineSite, folder: Path, step: str) -> Engine:
    """e0 on its way to decode, held at this step."""
    engine = e0(site, folder)
    engine.hold(held(step))
    if step == "roll back":
        engine.fault("switch", "refuse engine e0: not idle")
    site.set_role("e0", DECODE)
    site.becomes("e0", STEPS[step])
    if step != "drained":
        wait_for(lambda: held(step) in engine.steps, DEADLINE_S, f"{step} to begin")
    return engine


def held(step: str) -> str:
    """What the engine is in the middle of."""
    return "open" if step == "roll back" else step


@pytest.mark.parametrize("step", STEPS)
def test_an_engine_killed_in_a_change_comes_back_and_can_change_again(
    site: EngineSite, tmp_path: Path, step: str
) -> None:
    engine = changing(site, tmp_path, step)

    engine.kill()

    site.becomes("e0", Phase.GONE)
    engine.let_go(held(step))
    engine.start()
    site.becomes("e0", Phase.SERVING, PREFILL)
    site.set_role("e0", DECODE)
    site.becomes("e0", Phase.SERVING, DECODE)


@pytest.mark.parametrize("step", STEPS)
def test_a_controller_killed_in_a_change_finds_it_and_sees_it_to_its_end(
    site: EngineSite, tmp_path: Path, step: str
) -> None:
    engine = changing(site, tmp_path, step)

    site.restart_controller()

    end = PREFILL if step == "roll back" else DECODE
    one = site.becomes("e0", STEPS[step], PREFILL)
    assert one.target_role is end, "the engine has said where it goes"
    engine.let_go(held(step))
    site.becomes("e0", Phase.SERVING, end)
    assert engine.steps == ["close", "switch", "open"], "each of them once"


@pytest.mark.parametrize("step", STEPS)
def test_both_killed_in_a_change_start_afresh(site: EngineSite, tmp_path: Path, step: str) -> None:
    engine = changing(site, tmp_path, step)

    engine.kill()
    site.restart_controller()
    engine.let_go(held(step))
    engine.start()

    site.becomes("e0", Phase.SERVING, PREFILL)
    site.becomes("e1", Phase.SERVING, MIXED)
    site.set_role("e0", DECODE)
    site.becomes("e0", Phase.SERVING, DECODE)


def test_a_change_ends_while_the_controller_is_away(site: EngineSite, tmp_path: Path) -> None:
    engine = changing(site, tmp_path, "switch")
    site.controller.kill()
    engine.let_go("switch")
    wait_for(lambda: "open" in engine.steps, DEADLINE_S, "the end of the change")

    site.controller = site.home.start()

    site.becomes("e0", Phase.SERVING, DECODE)


def test_a_drain_that_takes_too_long_is_rolled_back(site: EngineSite, tmp_path: Path) -> None:
    engine = changing(site, tmp_path, "drained")

    one = site.becomes("e0", Phase.SERVING, PREFILL)

    assert one.problem == "drain took longer than 6 s, 1 requests left"
    assert engine.steps == ["close", "open"]


def test_a_refused_switch_is_rolled_back_and_an_outage_of_the_router_is_waited_for(
    site: EngineSite, tmp_path: Path
) -> None:
    engine = e0(site, tmp_path)
    engine.fault("switch", "refuse engine e0: not idle")
    engine.fault("open", "break router http://r1 answers 503: start it")
    site.set_role("e0", DECODE)

    wait_for(lambda: engine.steps == ["close", "switch", "open", "open"], DEADLINE_S, "the roll-back")

    one = site.becomes("e0", Phase.SERVING, PREFILL)
    assert one.problem == "engine e0: not idle"


def test_an_engine_of_a_role_unknown_to_itself_is_shown_as_that_and_never_switched_again(
    site: EngineSite, tmp_path: Path
) -> None:
    engine = e0(site, tmp_path)
    engine.fault("switch", "break connection reset")
    site.set_role("e0", DECODE)

    one = site.becomes("e0", Phase.UNCERTAIN)

    assert one.problem == "connection reset"
    with pytest.raises(RoleRefused, match="instance e0: is uncertain, not serving"):
        site.set_role("e0", DECODE)
    engine.stop()
    engine.start()
    site.becomes("e0", Phase.SERVING, PREFILL)
    assert engine.steps == ["close", "switch"]


def test_an_engine_is_parked_and_serves_again(site: EngineSite, tmp_path: Path) -> None:
    engine = e0(site, tmp_path)
    before_mw = site.host.limits_mw()
    site.set_role("e0", None, park=True)
    site.becomes("e0", Phase.PARKED, PREFILL)
    wait_for(lambda: site.host.limits_mw()[0] == 400_000, DEADLINE_S, "its GPU at its floor")
    wait_for(lambda: site.host.limits_mw()[1] > before_mw[1], DEADLINE_S, "its watts at the other")

    site.set_role("e0", None)

    site.becomes("e0", Phase.SERVING, PREFILL)
    assert engine.steps == ["close", "open"]


# ---- the example, with traffic ----


class Front:
    """A router of the simplest kind: asks an engine, and when that is closed, the other one."""

    def __init__(self, sockets: list[Path]) -> None:
        self._sockets = sockets
        self.answers: list[str] = []
        self.turned_away = 0
        self.lost: list[str] = []

    async def ask(self, number: int) -> None:
        for socket in (*self._sockets, *self._sockets):
            try:
                reader, writer = await asyncio.open_unix_connection(socket)
                writer.write(f"{REQUEST_MS}\n".encode())
                answer = (await reader.readline()).decode().strip()
                writer.close()
            except OSError as error:
                self.lost.append(f"request {number}: {error}")
                return
            if answer == "closed":
                self.turned_away += 1
            elif answer:
                self.answers.append(answer)
                return
            else:
                break
        self.lost.append(f"request {number}: no answer")


def test_no_request_is_lost_while_an_engine_changes_role_again_and_again(whole_site: EngineSite) -> None:
    whole_site.clear()
    sockets = [whole_site.folder / f"{name}.sock" for name in ("t0", "t1")]
    for name, role, socket in zip(("e0", "e1"), (PREFILL, MIXED), sockets, strict=True):
        wait_for(lambda name=name: _is_gone(whole_site, name), DEADLINE_S, f"the end of {name}")  # type: ignore[misc]
        command = [sys.executable, str(ROOT / "examples/engine.py"), *whole_site.words(name, role)]
        whole_site.run(name, whole_site.folder / f"toy-{name}", [*command, "--socket", str(socket)])
        whole_site.becomes(name, Phase.SERVING, role)
    moves, front, sent = whole_site.status().role_moves, Front(sockets), 0

    def flip() -> None:
        for number in range(FLIPS):
            role = (DECODE, PREFILL)[number % 2]
            whole_site.set_role("e0", role)
            whole_site.becomes("e0", Phase.SERVING, role)

    async def load() -> None:
        nonlocal sent
        async with asyncio.TaskGroup() as tasks:
            flipping = tasks.create_task(asyncio.to_thread(flip))
            while not flipping.done():
                sent += 1
                tasks.create_task(front.ask(sent))
                await asyncio.wait([flipping], timeout=PAUSE_S)

    asyncio.run(load())

    assert front.lost == []
    assert len(front.answers) == sent
    assert set(front.answers) == {"prefill", "decode", "mixed"}, "e0 has served both roles"
    assert front.turned_away > 0, "and was closed in between"
    assert whole_site.status().role_moves == moves + FLIPS
