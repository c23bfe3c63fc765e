"""Which requests come, how fast, and when they are sent."""

import time
from pathlib import Path

import pytest

from rapid.core.cluster import SloTargets
from rapid.core.errors import UsageError
from rapid.sim.model.profile import profile_named
from rapid.sim.model.requests import Finished, Request
from rapidctl.demo.load import Load, cast_dies, prepare
from rapidctl.demo.replay import finish, replay
from rapidctl.demo.router import FrontEnd


def prepared(name: str, said: list[str], *, seconds: float = 10.0, scale: float | None = None) -> Load:
    return prepare(
        name,
        seconds=seconds,
        scale=scale,
        profile=profile_named("mi300x-8b"),
        dies=cast_dies(0),
        limit_mw=600_000,
        slo=SloTargets(),
        say=said.append,
    )


def test_rate_is_chosen_by_the_rule_which_is_said() -> None:
    said: list[str] = []
    load = prepared("sonnet", said)
    assert load.chosen is not None
    assert 0.5 <= load.chosen.attainment <= 0.7
    assert load.scale == load.chosen.rate_scale
    assert "rate rule: the uniform host attains between 50 and 70 %" in said[0]
    assert f"sonnet x {load.scale:.2f}" in said[0]
    assert prepared("sonnet", []) == load


def test_given_rate_is_taken_without_a_word() -> None:
    said: list[str] = []
    load = prepared("azure", said, scale=2.0)
    assert (load.scale, load.chosen, said) == (2.0, None, [])
    assert load.offered_rps == len(load.requests) / 10.0


def test_trace_that_brings_nothing_in_time_is_refused(tmp_path: Path) -> None:
    trace = tmp_path / "late.csv"
    trace.write_text("arrival_s,input_tokens,output_tokens\n50,10,10\n")
    with pytest.raises(UsageError, match=r"no request of .*late\.csv arrives in 10 s at rate scale 1; raise one"):
        prepared(str(trace), [], scale=1.0)


async def test_same_requests_go_to_every_host_with_the_time_they_were_due() -> None:
    fronts = [FrontEnd(name, SloTargets(), print) for name in ("a", "b")]
    requests = (Request(0, 0.0, 100, 5), Request(1, 0.01, 200, 5))
    start_s = time.monotonic()
    lag_s = await replay(fronts, requests, start_s=start_s, slowdown=2.0, first_number=10)
    offered = [front.record.offered for front in fronts]
    assert offered[0] == offered[1]
    assert offered[0][11] == Request(11, start_s + 0.02, 200, 5)
    assert list(offered[0]) == [10, 11]
    assert 0.0 <= lag_s < 5.0
    assert fronts[0].waiting == 2  # no engine is there


async def test_finish_waits_for_the_last_request_only_as_long_as_there_is_one() -> None:
    front = FrontEnd("a", SloTargets(), print)
    request = Request(1, 0.0, 100, 5)
    front.arrive(request)
    front.record.end(Finished(request, 1.0, 0.5, 0.01))
    began_s = time.monotonic()
    await finish([front], began_s - 1.0)
    assert time.monotonic() - began_s < 5.0
