"""What engines push: the newest of each instance, bounded in number and in age."""

import contextlib

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from rapid.core.cluster import PhaseLoad, Role
from rapid.core.errors import Refused, WireInvalid
from rapid.v1 import load_pb2
from rapid.wire.common import decode_push, encode_push
from rapidd.load.push import FRESH_S, LoadTable
from tests.wire import nouns


def load(instance: str = "i0", at_s: float = 100.0, waiting_requests: int = 0) -> PhaseLoad:
    return PhaseLoad(instance, Role.PREFILL, at_s, waiting_requests=waiting_requests)


def test_the_newest_load_of_an_instance_is_kept() -> None:
    table = LoadTable(2)
    table.take(load(at_s=100.0, waiting_requests=1), 100.0)
    table.take(load(at_s=101.0, waiting_requests=2), 101.0)
    table.take(load(at_s=100.5, waiting_requests=3), 101.0)  # overtaken on the way
    assert table.fresh(101.0) == (load(at_s=101.0, waiting_requests=2),)


def test_a_load_from_the_future_is_refused_with_how_far_it_is_ahead() -> None:
    table = LoadTable(2)
    with pytest.raises(WireInvalid) as caught:
        table.take(load(at_s=100.25), 100.0)
    assert "load.at_s: 100.250 s is 0.250 s ahead of this host's CLOCK_MONOTONIC" in str(caught.value)
    assert table.fresh(100.0) == ()
    table.take(load(at_s=100.0), 100.0)
    assert len(table.fresh(100.0)) == 1


def test_a_silent_instance_ages_out_at_the_bound() -> None:
    table = LoadTable(2)
    table.take(load(at_s=100.0), 100.0)
    assert table.fresh(100.0 + FRESH_S - 0.001) == (load(at_s=100.0),)
    assert table.fresh(100.0 + FRESH_S) == ()


def test_a_load_that_comes_too_late_is_not_shown() -> None:
    table = LoadTable(2)
    table.take(load(at_s=100.0), 100.0 + FRESH_S)
    assert table.fresh(100.0) == ()


def test_one_instance_more_than_the_bound_is_refused_and_the_others_go_on() -> None:
    table = LoadTable(2)
    for instance in ("a", "b"):
        table.take(load(instance), 100.0)
    with pytest.raises(Refused) as caught:
        table.take(load("c"), 100.0)
    assert "instance c: this host carries the load of 2 instances already; raise load.max_instances" in str(
        caught.value
    )
    table.take(load("b", at_s=100.5), 100.5)
    assert [each.instance for each in table.fresh(100.5)] == ["a", "b"]


def test_a_full_table_has_room_again_when_one_has_aged_out() -> None:
    table = LoadTable(2)
    table.take(load("a", at_s=100.0), 100.0)
    table.take(load("b", at_s=105.0), 105.0)
    table.take(load("c", at_s=110.0), 110.0)
    assert [each.instance for each in table.fresh(110.0)] == ["b", "c"]


def test_what_is_wrong_with_a_load_is_told_as_long_as_it_lasts() -> None:
    table = LoadTable(2)
    table.note("a", "hangs")
    table.note("b", "")
    assert table.problems() == (("a", "hangs"),)
    table.note("a", "")
    assert table.problems() == ()


# ---- fuzz: whatever is pushed, the table holds, refuses or forgets it, and what it holds can be reported ----

pushes = st.builds(encode_push, nouns.loads).map(lambda push: push.SerializeToString())
spoiled = st.tuples(pushes, st.integers(0, 200), st.binary(max_size=6)).map(lambda of: of[0][: of[1]] + of[2])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(pushes | spoiled | st.binary(max_size=64), st.floats(0, 1e10)), max_size=8))
def test_whatever_is_pushed_is_taken_or_refused(pushed: list[tuple[bytes, float]]) -> None:
    table, now_s = LoadTable(2), 0.0
    for data, at_s in pushed:
        now_s = max(now_s, at_s)
        with contextlib.suppress(DecodeError, WireInvalid, Refused):
            table.take(decode_push(load_pb2.PushRequest.FromString(data)), now_s)
        kept = table.fresh(now_s)
        assert len(kept) <= 2
        assert all(0 <= now_s - each.at_s < FRESH_S for each in kept)
        assert [decode_push(encode_push(each)) for each in kept] == list(kept)
