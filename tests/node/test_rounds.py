"""Samples in rounds: on the grid of the interval, each clock once a second, and no GPU waits for another's driver."""

import threading

import pytest

from rapidd.rounds import APART_S, LATE_S, Rounds
from tests.node.at_work import TIMEOUT_S

Look = tuple[str, str, bool]  # how it was sampled ("now", or "apart": by its own worker), the GPU, with its clock


class Timeline:
    """A clock that moves when a driver takes its time."""

    def __init__(self, at_s: float = 1_000.0) -> None:
        self.now_s = at_s
        self.looks: list[Look] = []

    def clock(self) -> float:
        return self.now_s


class Gpu:
    """A sampler whose driver takes `takes_s` for each sample; it hangs while `may_go` is not set."""

    def __init__(self, name: str, timeline: Timeline, takes_s: float = 0.0003) -> None:
        self.name, self.takes_s, self._timeline = name, takes_s, timeline
        self.entered, self.may_go = threading.Event(), threading.Event()
        self.may_go.set()

    def sample_now(self, *, clock: bool) -> None:
        self.entered.set()
        assert self.may_go.wait(TIMEOUT_S)
        self._timeline.now_s += self.takes_s
        self._timeline.looks.append(("now", self.name, clock))

    def submit_sample(self, *, clock: bool) -> None:
        self._timeline.looks.append(("apart", self.name, clock))


def rounds_of(timeline: Timeline, gpus: list[Gpu], interval_s: float = 0.1) -> Rounds:
    rounds = Rounds(timeline.clock, interval_s)
    for gpu in gpus:
        rounds.add(gpu)
    return rounds


def walk(timeline: Timeline, rounds: Rounds, seconds: float) -> list[tuple[float, list[Look]]]:
    """What each round does in this time, and when it begins; no thread and no waiting."""
    found, end_s = [], timeline.now_s + seconds
    while timeline.now_s < end_s:
        begun_s, before = timeline.now_s, len(timeline.looks)
        pause_s = rounds.turn()
        timeline.now_s += pause_s
        found.append((begun_s, timeline.looks[before:]))
    return found


@pytest.mark.parametrize("interval_s", [0.01, 0.1, 0.3, 1.0])
def test_rounds_come_on_the_grid_and_none_is_missed_or_doubled(interval_s: float) -> None:
    timeline = Timeline(1_000.0503)
    found = walk(timeline, rounds_of(timeline, [Gpu("a", timeline), Gpu("b", timeline)], interval_s), 12.0)
    first, *others = [at_s for at_s, _ in found]
    assert first == 1_000.0503
    assert len(others) == pytest.approx(12.0 / interval_s, abs=1.1)
    for at_s in others:
        assert at_s / interval_s == pytest.approx(round(at_s / interval_s), abs=1e-6)


def test_rounds_that_were_missed_are_not_made_up_for() -> None:
    timeline = Timeline()
    gpu = Gpu("a", timeline, takes_s=60.02)
    rounds = rounds_of(timeline, [gpu])
    assert rounds.turn() == 0, "late, so the next comes at once"
    gpu.takes_s = 0.0
    assert rounds.turn() == pytest.approx(0.08)
    assert len(timeline.looks) == 2


def test_each_gpu_has_its_clock_read_once_a_second_and_not_all_at_once() -> None:
    timeline = Timeline()
    found = walk(timeline, rounds_of(timeline, [Gpu(str(number), timeline) for number in range(8)]), 30.0)
    for number in range(8):
        assert sum((("now", str(number), True) in looks) for _, looks in found) in {29, 30, 31}
    assert max(sum(clock for _, _, clock in looks) for _, looks in found) == 1


def test_rounds_a_second_apart_all_have_the_clocks() -> None:
    timeline = Timeline()
    found = walk(timeline, rounds_of(timeline, [Gpu("a", timeline), Gpu("b", timeline)], 1.0), 10.0)
    assert all(clock for _, looks in found for _, _, clock in looks)


def test_a_slow_gpu_goes_apart_for_a_while_and_the_others_keep_their_pace() -> None:
    timeline = Timeline()
    rounds = rounds_of(timeline, [Gpu("a", timeline), Gpu("slow", timeline, takes_s=0.09), Gpu("c", timeline)])
    (_, first), *others = walk(timeline, rounds, APART_S - 1.0)
    assert [how for how, _, _ in first] == ["now", "now", "now"]
    for _, looks in others:
        assert [(how, gpu) for how, gpu, _ in looks] == [("now", "a"), ("apart", "slow"), ("now", "c")]
    assert len(others) == pytest.approx((APART_S - 1.0) / 0.1, abs=2)
    later = [look for _, looks in walk(timeline, rounds, 2.0) for look in looks]
    assert sum((how, gpu) == ("now", "slow") for how, gpu, _ in later) == 1


def test_where_all_are_slow_the_rounds_shrink_until_they_fit() -> None:
    timeline = Timeline()
    rounds = rounds_of(timeline, [Gpu(str(number), timeline, takes_s=0.015) for number in range(8)])
    walk(timeline, rounds, 3.0)
    (_, looks) = walk(timeline, rounds, 0.1)[0]
    assert sorted(how for how, _, _ in looks) == ["apart"] * 5 + ["now"] * 3


def test_while_a_driver_hangs_every_gpu_is_sampled_by_its_own_worker() -> None:
    timeline = Timeline()
    gpus = [Gpu("a", timeline), Gpu("hangs", timeline), Gpu("c", timeline)]
    rounds = rounds_of(timeline, gpus)
    assert not rounds.rescue()
    gpus[1].may_go.clear()
    rounds.start()
    assert gpus[1].entered.wait(TIMEOUT_S)
    assert not rounds.rescue(), "a round that has only begun is not late"
    timeline.looks.clear()
    for _ in range(2):
        timeline.now_s += LATE_S
        assert rounds.rescue()
    assert timeline.looks == [("apart", name, False) for name in ("a", "hangs", "c")] * 2
    assert not rounds.stop(timeout_s=0.01)
    gpus[1].may_go.set()
    assert rounds.stop(TIMEOUT_S)
    assert not rounds.rescue()


def test_a_gpu_that_comes_later_is_in_the_next_round() -> None:
    timeline = Timeline()
    rounds = rounds_of(timeline, [Gpu("a", timeline)])
    rounds.turn()
    rounds.add(Gpu("b", timeline))
    timeline.looks.clear()
    rounds.turn()
    assert [gpu for _, gpu, _ in timeline.looks] == ["a", "b"]


def test_rounds_that_were_never_started_stop() -> None:
    assert Rounds(Timeline().clock, 0.1).stop(TIMEOUT_S)
