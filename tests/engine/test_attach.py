"""An engine attaches, obeys, and comes back, over real gRPC to a controller that the test plays."""

import time
from pathlib import Path
from typing import Any

import pytest
import trustme

from rapid.core.cluster import Mark, Phase
from rapid.core.errors import ConfigInvalid, EngineRefused, EngineTaken
from rapid.engine import NotSwitched, SwitchFailed
from rapid.tls import TlsConfig
from rapid.wire.engine import Goodbye
from tests.certificates import issue
from tests.engine.bench import CHANGED, DECODE, PREFILL, ROLLED_BACK, Bench, care
from tests.engine.fakes import (
    SOON_S,
    FakeController,
    FakeDaemon,
    ReadableEngine,
    RoutedEngine,
    ScriptedEngine,
    served,
)
from tests.wait import wait_until

# ---- a change ----


async def test_order_is_carried_out_step_by_step_and_told(tmp_path: Path) -> None:
    bench = Bench(ScriptedEngine())
    async with bench.attached(tmp_path, product="toy 1", switch_s=2.5) as attached:
        (hello,) = bench.controller.hellos
        assert (hello.instance, hello.node, hello.gpus, hello.engine) == ("p0", "h1", ("GPU-1",), "toy 1")
        assert (hello.role, hello.phase, hello.mark, hello.switch_s) == (PREFILL, Phase.SERVING, Mark(), 2.5)
        assert (hello.parks, hello.reads_role, hello.incarnation) == (True, False, attached.incarnation)
        assert 0.0 <= time.monotonic() - hello.engine_time_s < SOON_S

        await bench.controller.order(DECODE)

        end = await bench.settles(CHANGED)
        assert (end.role, end.mark, end.error) == (DECODE, Mark(1, 1), "")
        assert bench.engine.calls == ["close", "switch decode", "open decode"]
        assert (attached.role, attached.phase) == (DECODE, Phase.SERVING)
        await bench.controller.order(DECODE)  # once more, as after a lost answer
        assert await bench.settles([*CHANGED, Phase.SERVING]) == end
        await bench.controller.order(PREFILL, seq=2, late_s=6.0)
        assert "too late" in (await bench.settles([*CHANGED, Phase.SERVING, Phase.SERVING])).error
        assert len(bench.engine.calls) == 3
    assert bench.controller.heard[-1] == Goodbye("stopped")


async def test_nothing_is_switched_before_the_drain_is_over(tmp_path: Path) -> None:
    bench = Bench(ScriptedEngine(left=3))
    async with bench.attached(tmp_path):
        await bench.controller.order(DECODE)
        assert (await bench.settles([Phase.DRAINING])).requests_left == 3
        asked = bench.engine.asked
        await wait_until(lambda: bench.engine.asked > asked + 3, SOON_S, "more questions")
        assert bench.engine.calls == ["close"]
        bench.engine.left = 0
        await bench.settles(CHANGED)


async def test_cancel_opens_what_was_closed(tmp_path: Path) -> None:
    bench = Bench(ScriptedEngine(left=1))
    async with bench.attached(tmp_path):
        await bench.controller.order(DECODE)
        await bench.reaches(Phase.DRAINING)
        await bench.controller.cancel()
        end = await bench.settles(ROLLED_BACK)
        assert (end.role, end.error) == (PREFILL, "cancelled by the controller")
        assert bench.engine.calls == ["close", "open prefill"]


async def test_cancel_is_obeyed_while_the_engine_still_closes(tmp_path: Path) -> None:
    bench = Bench(ScriptedEngine(holds={"close"}))
    async with bench.attached(tmp_path):
        await bench.controller.order(DECODE)
        await wait_until(lambda: bench.engine.calls, SOON_S, "close")
        await bench.controller.cancel()
        await bench.reaches(Phase.ROLLING_BACK)
        assert bench.engine.calls == ["close"], "one step at a time"
        bench.engine.released["close"].set()
        await bench.settles(ROLLED_BACK)
        assert bench.engine.calls == ["close", "open prefill"]


async def test_cancel_of_a_switch_is_answered_and_changes_nothing(tmp_path: Path) -> None:
    bench = Bench(ScriptedEngine(holds={"switch"}))
    async with bench.attached(tmp_path):
        await bench.controller.order(DECODE)
        await bench.reaches(Phase.SWITCHING)
        await bench.controller.cancel()
        await bench.settles([Phase.DRAINING, Phase.SWITCHING, Phase.SWITCHING])
        bench.engine.released["switch"].set()
        assert (await bench.reaches(Phase.SERVING)).role is DECODE


async def test_drain_that_takes_too_long_is_rolled_back(tmp_path: Path) -> None:
    bench = Bench(ScriptedEngine(left=2))
    async with bench.attached(tmp_path):
        await bench.controller.order(DECODE, drain_s=0.1)
        end = await bench.settles(ROLLED_BACK)
        assert end.error == "drain took longer than 0.1 s, 2 requests left"


async def test_parked_engine_serves_nobody_until_it_is_given_a_role(tmp_path: Path) -> None:
    bench = Bench(ScriptedEngine())
    async with bench.attached(tmp_path):
        await bench.controller.order(PREFILL, park=True)
        await bench.settles([Phase.DRAINING, Phase.PARKED])
        assert bench.engine.calls == ["close"]
        await bench.controller.order(PREFILL, seq=2)
        await bench.reaches(Phase.SERVING)
        assert bench.engine.calls == ["close", "open prefill"]


async def test_last_of_a_role_refuses_to_leave_it(tmp_path: Path) -> None:
    bench = Bench(RoutedEngine(seen=0))
    async with bench.attached(tmp_path):
        await bench.controller.order(DECODE)
        end = await bench.settles([Phase.SERVING])
        assert end.error == "the last that serves prefill, as its own side sees it"
        assert isinstance(bench.engine, RoutedEngine)
        bench.engine.seen = 1
        await bench.controller.order(DECODE, seq=2)
        assert (await bench.settles([Phase.SERVING, *CHANGED])).role is DECODE


# ---- steps that do not work out ----


async def test_what_cannot_be_closed_is_opened_again(tmp_path: Path) -> None:
    bench = Bench(ScriptedEngine(raises={"close": OSError("router http://r1 answers 503: start it")}))
    async with bench.attached(tmp_path):
        await bench.controller.order(DECODE)
        end = await bench.settles(ROLLED_BACK)
        assert end.error == "could not close: router http://r1 answers 503: start it"
        assert bench.engine.calls == ["close", "open prefill"]


async def test_close_that_hangs_is_given_up_with_the_drain(tmp_path: Path) -> None:
    bench = Bench(ScriptedEngine(holds={"close"}))
    async with bench.attached(tmp_path):
        await bench.controller.order(DECODE, drain_s=0.2)
        assert (await bench.settles(ROLLED_BACK)).error.startswith("could not close: close did not return within 0.")


async def test_engine_that_does_not_say_what_is_left_is_not_drained(tmp_path: Path) -> None:
    bench = Bench(ScriptedEngine(raises={"drained": OSError("no route")}))
    async with bench.attached(tmp_path):
        await bench.controller.order(DECODE, drain_s=0.2)
        await bench.settles(ROLLED_BACK)
        assert bench.engine.calls == ["close", "open prefill"]
    assert "drained: no route" in bench.log


async def test_refused_switch_is_rolled_back(tmp_path: Path) -> None:
    bench = Bench(ScriptedEngine(raises={"switch": NotSwitched("engine e1: not idle")}))
    async with bench.attached(tmp_path):
        await bench.controller.order(DECODE)
        end = await bench.settles([Phase.DRAINING, Phase.SWITCHING, Phase.ROLLING_BACK, Phase.SERVING])
        assert (end.role, end.error) == (PREFILL, "engine e1: not idle")
        assert bench.engine.calls == ["close", "switch decode", "open prefill"]


async def test_failed_switch_leaves_the_engine_out_of_service(tmp_path: Path) -> None:
    bench = Bench(ScriptedEngine(raises={"switch": SwitchFailed("engine e1: rebuild failed: restart it")}))
    async with bench.attached(tmp_path):
        await bench.controller.order(DECODE)
        end = await bench.settles([Phase.DRAINING, Phase.SWITCHING, Phase.FAILED])
        assert end.error == "engine e1: rebuild failed: restart it"
        await bench.controller.order(PREFILL, seq=2)
        assert (await bench.settles([Phase.DRAINING, Phase.SWITCHING, Phase.FAILED, Phase.FAILED])).error.startswith(
            "has failed"
        )
        assert bench.engine.calls == ["close", "switch decode"]


@pytest.mark.parametrize("has_it", [True, False])
async def test_switch_of_unknown_outcome_is_resolved_by_reading_the_role_and_never_by_switching_again(
    tmp_path: Path, has_it: bool
) -> None:
    live: list[Any] = [None, OSError("no route"), DECODE if has_it else PREFILL]
    bench = Bench(ReadableEngine(raises={"switch": TimeoutError()}, live_roles=live))
    async with bench.attached(tmp_path):
        await bench.controller.order(DECODE)
        end = await bench.reaches(Phase.SERVING)
        assert end.role is (DECODE if has_it else PREFILL)
        way = Phase.WARMING if has_it else Phase.ROLLING_BACK
        assert bench.controller.phases == [Phase.DRAINING, Phase.SWITCHING, Phase.UNCERTAIN, way, Phase.SERVING]
        assert bench.engine.calls == ["close", "switch decode", "read", "read", "read", f"open {end.role.value}"]


async def test_engine_that_says_it_switched_and_did_not_is_found_out(tmp_path: Path) -> None:
    bench = Bench(ReadableEngine(live_roles=[PREFILL]))
    async with bench.attached(tmp_path):
        assert bench.controller.hellos[0].reads_role
        await bench.controller.order(DECODE)
        end = await bench.settles([Phase.DRAINING, Phase.SWITCHING, Phase.ROLLING_BACK, Phase.SERVING])
        assert end.error == "it says that it has switched, but it still has role prefill"


async def test_engine_that_finds_itself_broken_while_it_reads_its_role_has_failed(tmp_path: Path) -> None:
    live: list[Any] = [SwitchFailed("engine e1: unhealthy: restart it")]
    bench = Bench(ReadableEngine(live_roles=live))
    async with bench.attached(tmp_path):
        await bench.controller.order(DECODE)
        assert (await bench.reaches(Phase.FAILED)).error == "engine e1: unhealthy: restart it"


async def test_switch_that_hangs_is_of_unknown_outcome(tmp_path: Path) -> None:
    bench = Bench(ScriptedEngine(holds={"switch"}))
    async with bench.attached(tmp_path, switch_within_s=0.05):
        await bench.controller.order(DECODE)
        end = await bench.settles([Phase.DRAINING, Phase.SWITCHING, Phase.UNCERTAIN])
        assert end.error == "switch did not return within 0.05 s"


async def test_opening_is_tried_again(tmp_path: Path) -> None:
    bench = Bench(ScriptedEngine(raises={"open": OSError("router http://r1 answers 503: start it")}))
    async with bench.attached(tmp_path):
        await bench.controller.order(DECODE)
        await bench.settles([Phase.DRAINING, Phase.SWITCHING, Phase.WARMING, Phase.WARMING, Phase.SERVING])
        assert bench.controller.progress[3].error == "cannot open, tries again: router http://r1 answers 503: start it"
        assert bench.engine.calls == ["close", "switch decode", "open decode", "open decode"]


# ---- the connection ----


async def test_controller_that_comes_back_hears_where_the_engine_stands(tmp_path: Path) -> None:
    engine = ScriptedEngine(holds={"switch"})
    first, second = FakeController(), FakeController(epoch=2)
    async with care(engine, f"unix:{tmp_path / 'c.sock'}") as attached:
        async with served(tmp_path / "c.sock", first):
            await wait_until(lambda: first.hellos, SOON_S, "a hello")
            await first.order(DECODE)
            await wait_until(lambda: first.phases[-1:] == [Phase.SWITCHING], SOON_S, "the switch")
        async with served(tmp_path / "c.sock", second):
            await wait_until(lambda: second.progress, SOON_S, "another hello")
            (hello,) = second.hellos
            assert (hello.incarnation, hello.mark, hello.phase) == (attached.incarnation, Mark(1, 1), Phase.SWITCHING)
            assert (hello.role, hello.from_role, hello.to_role) == (DECODE, PREFILL, DECODE)
            engine.released["switch"].set()
            await wait_until(lambda: second.phases[-1] is Phase.SERVING, SOON_S, "the change is over")
            assert (second.progress[-1].role, second.progress[-1].mark) == (DECODE, Mark(2, 0))


async def test_change_goes_on_while_the_controller_is_away(tmp_path: Path) -> None:
    engine, first, second = ScriptedEngine(left=1), FakeController(), FakeController()
    async with care(engine, f"unix:{tmp_path / 'c.sock'}") as attached:
        async with served(tmp_path / "c.sock", first):
            await wait_until(lambda: first.hellos, SOON_S, "a hello")
            await first.order(DECODE)
            await wait_until(lambda: first.phases, SOON_S, "the order is taken")
        engine.left = 0
        await wait_until(lambda: attached.phase is Phase.SERVING, SOON_S, "the change is over")
        async with served(tmp_path / "c.sock", second):
            await wait_until(lambda: second.hellos, SOON_S, "another hello")
            assert (second.hellos[0].role, second.hellos[0].phase) == (DECODE, Phase.SERVING)


@pytest.mark.parametrize(
    ("refusal", "help_"),
    [
        (EngineRefused("instance p0: no node has reported gpu GPU-1"), "(check its GPUs and its node, and that rapidd"),
        (
            EngineTaken("instance p0: another process of this name is attached and lives"),
            "(stop the other one, or give",
        ),
    ],
)
async def test_refused_engine_serves_on_tries_again_and_says_what_to_do(
    tmp_path: Path, refusal: EngineRefused, help_: str
) -> None:
    bench = Bench(ScriptedEngine())
    bench.controller.refuse = refusal
    async with served(tmp_path / "c.sock", bench.controller) as address, care(bench.engine, address, bench.log):
        await wait_until(lambda: bench.log, SOON_S, "a word about it")
        assert bench.log[0].startswith(f"{refusal} {help_}")
        bench.controller.refuse = None
        await wait_until(lambda: bench.controller.hellos, SOON_S, "a hello")


async def test_tls_is_spoken_and_a_stranger_is_told(tmp_path: Path) -> None:
    ours, theirs = trustme.CA(), trustme.CA()
    bench = Bench(ScriptedEngine())
    server = issue(ours, tmp_path / "server", "127.0.0.1")
    async with served("127.0.0.1:0", bench.controller, server) as address:
        async with care(bench.engine, address, tls=issue(ours, tmp_path / "ours", "engine")):
            await wait_until(lambda: bench.controller.hellos, SOON_S, "a hello")
        async with care(bench.engine, address, bench.log, tls=issue(theirs, tmp_path / "theirs", "engine")):
            await wait_until(lambda: bench.log, SOON_S, "a word about it")
            assert "its certificate is not signed by the authority in tls.ca" in bench.log[0]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"address": "nonsense"}, "'nonsense' is no address"),
        ({"address": "controller.example:7600"}, "is another host, so it needs TLS"),
        ({"tls": TlsConfig(Path("/no/ca"), Path("/no/cert"), Path("/no/key"))}, "there is no file /no/ca"),
        ({"load_address": "unix:relative"}, "load_address"),
    ],
)
async def test_what_no_retry_can_heal_is_said_at_once(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigInvalid, match=words):
        async with care(ScriptedEngine(), **({"address": "127.0.0.1:1"} | given)):
            pass


async def test_error_of_the_block_comes_out_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^of the engine's own$"):
        async with care(ScriptedEngine(), f"unix:{tmp_path / 'nobody.sock'}"):
            raise ValueError("of the engine's own")


# ---- load ----


@pytest.mark.parametrize(("interval_s", "some"), [(0.05, True), (0.0, False)])
async def test_load_goes_to_the_controller_only_if_it_asks(tmp_path: Path, interval_s: float, some: bool) -> None:
    bench = Bench(ScriptedEngine(left=4), FakeController(interval_s))
    async with bench.attached(tmp_path):
        if some:
            await wait_until(lambda: len(bench.controller.loads) >= 2, SOON_S, "two loads")
            assert bench.controller.loads[0].running_requests == 4
        else:
            await bench.controller.order(PREFILL)
            await bench.settles([Phase.SERVING])
            assert bench.controller.loads == []


async def test_load_is_pushed_and_again_after_rapidd_was_away(tmp_path: Path) -> None:
    first, second = FakeDaemon(), FakeDaemon()
    load_address = f"unix:{tmp_path / 'l.sock'}"
    async with care(ScriptedEngine(), f"unix:{tmp_path / 'nobody.sock'}", load_address=load_address):
        for daemon in (first, second):
            async with served(tmp_path / "l.sock", daemon):
                await wait_until(lambda daemon=daemon: len(daemon.loads) >= 2, SOON_S, "two loads")  # type: ignore[misc]
    assert second.loads[0].at_s > first.loads[-1].at_s
