"""Orders, operators, restarts and clocks in any order: no wrong clock makes a budget higher than a right one would, and
nothing rises that was not signed for now."""

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapid.core.commands import Command
from rapid.core.control import Control
from rapid.core.events import Event, Started
from rapid.core.facility.clocks import Clocks, When
from rapid.core.facility.nouns import LiveOrder
from tests.facility.town import Town, settled

CEILING_W = 2_600.0
Step = Callable[[Town], object]


def _ask(source: str, budget_w: float | None, begins_s: float, lasts_s: float, ramp_s: float = 0.0) -> Step:
    def act(town: Town) -> object:
        name = f"o{len(town.events)}-{town.now:g}"
        times = {"begins_s": begins_s, "lasts_s": lasts_s, "ramp_down_s": ramp_s, "ramp_up_s": ramp_s}
        # The clock of its sender is right, whatever ours shows: what was made later says so.
        return town.ask(name, budget_w, source=source, made_s=-town.skew_s, **times)

    return act


def _restart(away_s: float) -> Step:
    return lambda town: town.restart(away_s=away_s)


def _operator(budget_w: float) -> Step:
    return lambda town: town.set_budget(budget_w)


asked = (
    st.sampled_from(["bms", "grid"]),
    st.sampled_from([None, 0.0, 1_000.0, 1_800.0, 2_100.0, 2_500.0, 2_600.0]),
    st.sampled_from([-1.0, 0.0, 4.07, 15.07]),  # between two ticks, where both towns do the same
    st.sampled_from([5.13, 20.13, float("inf")]),
)
asks, ramped = st.builds(_ask, *asked), st.builds(_ask, *asked, st.sampled_from([0.0, 3.0, 10.0]))
operators = st.builds(_operator, st.sampled_from([1_500.0, 2_200.0]))
restarts = st.builds(_restart, st.sampled_from([0.5, 12.0]))
Story = list[tuple[Step, float, int]]


def stories(orders: st.SearchStrategy[Step]) -> st.SearchStrategy[Story]:
    """What is done, for how long time then passes, and where the clock on the wall is set before it does."""
    done = st.one_of(orders, orders, orders, operators, restarts)
    return st.lists(st.tuples(done, st.sampled_from([0.5, 2.0, 6.0]), st.integers(-3, 3)), max_size=10)


def live_through(story: Story, control: type[Control] = Control) -> None:
    """The same story twice: once the clock on the wall is right, and once it is set between any two steps, by quarters
    of a minute. Without ramps, whose slopes would differ, the second is never above the first."""
    right, wrong = settled(), settled(control=control)
    for act, seconds, turns in story:
        for _ in lived(act, seconds, turns, right, wrong):
            assert wrong.budget_w <= right.budget_w, f"a clock that was set raised it from {right.budget_w} W"
            check(wrong)


def lived(act: Step, seconds: float, turns: int, right: Town, wrong: Town) -> Iterator[None]:
    right.stormy = wrong.stormy = True  # a cut may come while a raise is on its way: what is booked for it may come yet
    act(right)
    act(wrong)
    yield
    wrong.skew_s = 15.0 * turns
    for _ in range(round(seconds / 0.5)):
        right.run(0.5)
        wrong.run(0.5)
        yield


def check(town: Town) -> None:
    """It stands above the operator's budget only by an order that may raise and is in its time, for sure."""
    facility = town.control.facility
    assert town.budget_w <= CEILING_W
    signed = [it for it in facility.of("room") if it.raises and facility.clocks.within(it) is When.YES]
    assert town.budget_w * 1000 <= facility.standing_mw["room"] or signed, "it was raised without anybody's word"


@settings(max_examples=50)
@given(stories(asks))
def test_no_clock_that_is_set_makes_a_budget_higher(story: Story) -> None:
    """Promises 1 and 2: Site.check holds the first after every event, message and write."""
    live_through(story)


@settings(max_examples=50)
@given(stories(ramped))
def test_with_ramps_too_nothing_rises_that_was_not_signed(story: Story) -> None:
    right, wrong = settled(), settled()
    for act, seconds, turns in story:
        for _ in lived(act, seconds, turns, right, wrong):
            check(right)
            check(wrong)


class _WallOnly(Clocks):
    """The planted bug: UTC is believed, whoever has set it."""

    def within(self, live: LiveOrder) -> When:
        inside = live.order.not_before_wall_s - 1e-3 <= self.wall_s < live.order.expires_wall_s
        return When.YES if inside else When.NO

    def ended(self, live: LiveOrder) -> When:
        return When.YES if self.wall_s >= live.order.expires_wall_s else When.NO


class _Gullible(Control):
    def step(self, event: Event) -> list[Command]:
        commands = super().step(event)
        if isinstance(event, Started):
            self.facility.clocks.__class__ = _WallOnly
        return commands


@pytest.mark.parametrize("turns", [-1, 2])
def test_the_comparison_catches_a_controller_that_believes_its_wall_clock(turns: int) -> None:
    cut = _ask("bms", 1_000.0, 0.0 if turns > 0 else 4.0, 20.0)
    with pytest.raises(AssertionError, match="a clock that was set raised it"):
        live_through([(cut, 6.0, turns), (_operator(2_200.0), 6.0, turns)], _Gullible)
    live_through([(cut, 6.0, turns), (_operator(2_200.0), 6.0, turns)])
