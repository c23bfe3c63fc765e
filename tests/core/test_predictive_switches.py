"""How long changes of role take, drain included: each direction by itself, and only those that arrive."""

from dataclasses import replace

import pytest

from rapid.core.cluster import Phase, Role, View
from rapid.core.policy.predictive.switches import FORGOTTEN_S, MAX_UNDER_WAY, Switches
from tests.core.views import changed, gpu, instance, paper, view

PREFILL, DECODE = Role.PREFILL, Role.DECODE


def at(at_s: float, seen: View | None = None) -> View:
    return replace(paper() if seen is None else seen, at_s=at_s)


def moving(role: Role, phase: Phase, at_s: float) -> View:
    """d7 on its way, or there."""
    return at(at_s, changed(paper(), d7=instance("d7", role, ["g7"], phase=phase)))


def arrives(switches: Switches, taken_s: float, at_s: float = 100.0) -> None:
    """d7 goes to prefill in so long, and is seen on its way."""
    switches.ordered({"d7": PREFILL}, at_s)
    switches.observe(moving(PREFILL, Phase.DRAINING, at_s + taken_s / 2))
    switches.observe(moving(PREFILL, Phase.SERVING, at_s + taken_s))


def test_nothing_is_known_before_the_first_has_arrived() -> None:
    switches = Switches()
    switches.ordered({"d7": PREFILL}, 100.0)
    switches.observe(moving(PREFILL, Phase.SWITCHING, 103.0))

    assert switches.mean_s(True) is None


def test_the_first_says_how_long_it_takes_in_its_direction_alone() -> None:
    switches = Switches()
    arrives(switches, 4.0)

    assert switches.mean_s(True) == 4.0
    assert switches.mean_s(False) is None


def test_the_mean_follows() -> None:
    switches = Switches()
    arrives(switches, 4.0)
    arrives(switches, 8.0, at_s=200.0)
    once = switches.mean_s(True)
    for turn in range(20):
        arrives(switches, 8.0, at_s=300.0 + 100 * turn)

    assert once is not None
    assert 4.0 < once < 8.0
    assert switches.mean_s(True) == pytest.approx(8.0, abs=0.1)


def test_one_that_is_rolled_back_says_nothing() -> None:
    switches = Switches()
    switches.ordered({"d7": PREFILL}, 100.0)
    switches.observe(moving(DECODE, Phase.ROLLING_BACK, 103.0))
    switches.observe(moving(DECODE, Phase.SERVING, 105.0))
    switches.observe(moving(PREFILL, Phase.SERVING, 109.0))

    assert switches.mean_s(True) is None


def test_one_that_leaves_the_site_is_forgotten() -> None:
    switches = Switches()
    switches.ordered({"d7": PREFILL}, 100.0)
    switches.observe(at(101.0, view([gpu("g0", 600)], [instance("p0", PREFILL, ["g0"])])))
    switches.observe(moving(PREFILL, Phase.SERVING, 104.0))

    assert switches.mean_s(True) is None


def test_one_that_takes_for_ever_is_forgotten() -> None:
    switches = Switches()
    switches.ordered({"d7": PREFILL}, 100.0)
    switches.observe(moving(PREFILL, Phase.SWITCHING, 100.0 + FORGOTTEN_S + 1))
    switches.observe(moving(PREFILL, Phase.SERVING, 100.0 + FORGOTTEN_S + 2))

    assert switches.mean_s(True) is None


def test_memory_is_bounded() -> None:
    switches = Switches()
    for number in range(3 * MAX_UNDER_WAY):
        switches.ordered({f"e{number}": PREFILL}, 100.0)

    assert len(switches.state()[0]) == MAX_UNDER_WAY


def test_it_goes_on_from_its_state() -> None:
    one = Switches()
    arrives(one, 4.0)
    one.ordered({"d7": PREFILL, "p0": DECODE}, 200.0)
    other = Switches()
    other.restore(one.state())
    assert other.state() == one.state()
    for each in (one, other):
        each.observe(moving(PREFILL, Phase.SERVING, 206.0))

    assert other.mean_s(True) == one.mean_s(True) != 4.0
    assert other.state() == one.state()
