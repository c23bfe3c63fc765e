"""Policy `predictive` over time, in a fleet whose engines do what formulas say: what it wants, when, and why."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

import pytest

from rapid.core.cluster import Phase, Role, Targets, View
from rapid.core.policy import make
from rapid.core.policy.predictive import Predictive, PredictiveSettings
from rapid.core.policy.static import Static
from tests.core.fluid import CEILING_MW, FLOOR_MW, TICK_S, Asked, Fluid
from tests.core.hosts import W
from tests.core.views import goes_on

EASY = Asked(3.0, 1_000.0, 50.0)
PROMPTS = Asked(11.0, 6_000.0, 100.0)  # more than half of the instances can prefill
ANSWERS = Asked(30.0, 400.0, 400.0)  # and more than half can decode
IDLE = Asked(0.0)
IDLE_MW = PredictiveSettings().least_move_mw  # of a limit, which it does not take the trouble to move

Seen = tuple[View, Targets]


def live(policy: Predictive, fleet: Fluid, asked: Asked, seconds: float) -> list[Seen]:
    """The policy has its way for so long."""
    found: list[Seen] = []
    for _ in range(round(seconds / TICK_S)):
        seen = fleet.turn(asked)
        targets = policy.decide(seen)
        fleet.obey(targets)
        found.append((seen, targets))
    return found


def swings(seconds: float) -> Iterator[Asked]:
    """Long prompts with short answers and the other way round, in turns."""
    for number in range(round(seconds / 20.0)):
        yield PROMPTS if number % 2 == 0 else ANSWERS


def swung(fleet: Fluid, seconds: float = 160.0, policy: Predictive | None = None) -> list[Seen]:
    policy = policy or Predictive()
    return [each for asked in swings(seconds) for each in live(policy, fleet, asked, 20.0)]


def series(seconds: float, **fleet: float) -> list[View]:
    """What a policy that has its way sees."""
    return [seen for seen, _ in swung(Fluid(**fleet), seconds)]  # type: ignore[arg-type]


def after_mw(seen: View, targets: Targets) -> dict[str, int]:
    """All limits when the targets are in force."""
    return {each.gpu: targets.limits_mw.get(each.gpu, each.limit_mw) for each in seen.gpus}


def in_transit(seen: View) -> int:
    return sum(one.phase is Phase.SWITCHING for one in seen.instances)


def changes(targets: Targets) -> bool:
    return bool(targets.limits_mw or targets.roles)


@pytest.fixture(scope="module")
def run() -> list[Seen]:
    """Eight GPUs, and a load that swings."""
    return swung(Fluid())


# ---- nothing to do ----


def test_it_does_nothing_when_nothing_can_be_won_and_says_so() -> None:
    policy, fleet = Predictive(), Fluid()
    live(policy, fleet, EASY, 30.0)
    for _, targets in live(policy, fleet, EASY, 30.0):
        assert not changes(targets), targets
        assert "nothing" in targets.reason


def test_it_leans_to_prefill_while_nobody_asks_for_anything() -> None:
    """A burst of prompts queues at once, and decode gives an instance away slowly: so it is done while it is free."""
    policy, fleet = Predictive(), Fluid()
    turns = live(policy, fleet, IDLE, 30.0)

    assert all("nobody has asked" in targets.reason for _, targets in turns)
    assert "leans to prefill" in turns[0][1].reason
    assert fleet.count(Role.PREFILL) == 6
    assert not any(changes(targets) for _, targets in turns[10:])


@pytest.mark.parametrize("role", [Role.PREFILL, Role.DECODE])
def test_it_waits_until_both_roles_are_served(role: Role) -> None:
    fleet = Fluid()
    seen = fleet.view(EASY)
    gone = replace(
        seen,
        instances=tuple(replace(one, phase=Phase.GONE) if one.role is role else one for one in seen.instances),
    )
    targets = Predictive().decide(gone)

    assert not changes(targets)
    assert "both roles" in targets.reason


# ---- watts and roles go where they are needed ----


@pytest.mark.parametrize(
    ("asked", "role", "other"), [(PROMPTS, Role.PREFILL, Role.DECODE), (ANSWERS, Role.DECODE, Role.PREFILL)]
)
def test_what_is_starved_gets_more(asked: Asked, role: Role, other: Role) -> None:
    policy, fleet = Predictive(), Fluid()
    live(policy, fleet, asked, 60.0)
    power_mw = {each: sum(fleet.limits_mw[g] for e in fleet.engines if e.role is each for g in e.gpus) for each in Role}

    assert power_mw[role] > power_mw[other] + 200 * W


def test_it_serves_what_fixed_splits_cannot() -> None:
    served, kept = Fluid(), Fluid()
    live(Predictive(), served, PROMPTS, 60.0)
    for _ in range(120):
        kept.turn(PROMPTS)

    assert kept.waiting_s > 1.0
    assert served.waiting_s < 0.2


@pytest.mark.parametrize("nodes", [1, 4, 16, 125])
def test_a_large_fleet_moves_as_large_a_share_as_a_small_one(nodes: int) -> None:
    """The same load for each GPU."""
    fleet = Fluid(nodes=nodes)
    live(Predictive(), fleet, replace(PROMPTS, rps=PROMPTS.rps * nodes), 60.0)

    assert fleet.waiting_s < 0.2
    assert fleet.count(Role.PREFILL) >= 4.4 * nodes


# ---- role changes ----


def test_a_role_change_must_be_wanted_several_times_in_a_row() -> None:
    first: list[int] = []
    for confirmations in (1, 2, 5):
        policy, fleet = Predictive(PredictiveSettings(confirmations=confirmations)), Fluid()
        turns = live(policy, fleet, PROMPTS, 60.0)
        first.append(next(number for number, (_, targets) in enumerate(turns) if targets.roles and targets.candidates))

    assert first[0] + 1 <= first[1]
    assert first[1] + 3 <= first[2]


def test_it_holds_off_before_it_moves_the_other_way(run: list[Seen]) -> None:
    settings = PredictiveSettings()
    moves = [(seen.at_s, role) for seen, targets in run for role in set(targets.roles.values())]
    pairs = list(pairwise(moves))

    assert {role for _, role in moves} == {Role.PREFILL, Role.DECODE}, "it moves both ways"
    for (before_s, before), (after_s, after) in pairs:
        assert after_s - before_s >= (settings.again_s if before is after else settings.back_s)


@pytest.mark.parametrize("switch_ticks", [3, 30])
def test_at_most_two_of_eight_are_on_their_way(switch_ticks: int) -> None:
    turns = swung(Fluid(switch_ticks=switch_ticks))
    under_way = [in_transit(seen) + len(targets.roles) for seen, targets in turns]

    assert 1 <= max(under_way) <= 2


def test_watts_of_gpus_in_transit_are_in_use_at_once() -> None:
    looked = 0
    for seen, targets in swung(Fluid(switch_ticks=8)):
        after = after_mw(seen, targets)
        moving = {name for one in seen.instances if one.phase is Phase.SWITCHING for name in one.gpus}
        if moving and not targets.roles:
            looked += 1
            serving_mw = sum(limit_mw for name, limit_mw in after.items() if name not in moving)
            room_mw = min(seen.rooms_mw["site"] - FLOOR_MW * len(moving), CEILING_MW * (8 - len(moving)))
            assert serving_mw >= room_mw - 8 * IDLE_MW, targets
    assert looked > 4


def test_what_it_wants_fits_at_all_times(run: list[Seen]) -> None:
    for seen, targets in run:
        after = after_mw(seen, targets)
        assert sum(after.values()) <= seen.rooms_mw["site"]
        assert all(gpu.floor_mw <= after[gpu.gpu] <= gpu.ceiling_mw for gpu in seen.gpus)


def test_no_role_loses_its_last_instance() -> None:
    """Two instances, and a load that wants both in prefill; then one that wants both in decode."""
    fleet = Fluid(gpus=2)
    for seen, _ in swung(fleet):
        assert {one.role for one in seen.instances} == {Role.PREFILL, Role.DECODE}


# ---- trouble ----


def is_static(seen: View, targets: Targets) -> bool:
    """All limits are those of the configured static split."""
    settings = PredictiveSettings()
    return after_mw(seen, targets) == after_mw(seen, Static(settings.prefill_mw, settings.decode_mw).decide(seen))


@pytest.mark.parametrize("role", [Role.PREFILL, Role.DECODE])
def test_it_goes_to_the_static_split_while_too_few_report(role: Role) -> None:
    policy, fleet = Predictive(), Fluid()
    live(policy, fleet, EASY, 10.0)
    silent = [one for one in fleet.engines if one.role is role][:2]
    for one in silent:
        one.heard = False
    for seen, targets in live(policy, fleet, EASY, 5.0):
        assert is_static(seen, targets)
        assert not targets.roles
        assert f"of {fleet.count(role)} {role.value} instances report" in targets.reason
    for one in silent:
        one.heard = True
    _, targets = live(policy, fleet, EASY, 5.0)[-1]

    assert targets.predicted is not None


def test_one_silent_instance_of_four_is_no_trouble() -> None:
    policy, fleet = Predictive(), Fluid()
    live(policy, fleet, EASY, 10.0)
    fleet.engines[0].heard = False
    for _, targets in live(policy, fleet, EASY, 5.0):
        assert targets.predicted is not None


def test_it_falls_back_on_an_engine_that_nothing_it_knows_describes_and_tries_again() -> None:
    policy, fleet, asked = Predictive(), Fluid(), replace(PROMPTS, rps=8.0)
    live(policy, fleet, asked, 60.0)
    odd = next(one for one in fleet.engines if one.role is Role.PREFILL)
    odd.kappa = 3.0
    turns = live(policy, fleet, asked, 120.0)
    told = [targets.reason for _, targets in turns if odd.name in targets.reason]
    assert told
    assert all("static split" in reason for reason in told), told
    odd.kappa = 1.0
    turns = live(policy, fleet, asked, 240.0)

    assert turns[-1][1].predicted is not None, turns[-1][1].reason


def scored(seen: View, *scores: tuple[float, float]) -> View:
    return replace(seen, scores=scores)


def test_it_falls_back_when_predictions_did_not_come_true_and_tries_again() -> None:
    """Where the instances are now, however they came there, the load cannot be served; where they were, it can."""
    settings = PredictiveSettings()
    policy, fleet, wrong = Predictive(settings), Fluid(), [(0.95, 0.1)] * 8
    live(policy, fleet, EASY, 10.0)
    for one in fleet.engines[4:7]:
        one.role = Role.PREFILL
    doubted_s = 0.0
    while not doubted_s and fleet.at_s < 1_030.0:
        seen = fleet.turn(ANSWERS)
        targets = policy.decide(scored(seen, *wrong))
        fleet.obey(targets)
        if "predictions were" in targets.reason:
            doubted_s = fleet.at_s
            assert is_static(seen, targets)
            assert "static split" in targets.reason
    assert doubted_s, "it trusts itself whatever comes of it"
    while fleet.at_s - doubted_s < settings.retry_s - TICK_S:
        seen = fleet.turn(ANSWERS)
        targets = policy.decide(scored(seen, *wrong))
        assert "tries again" in targets.reason
        fleet.obey(targets)
    assert fleet.count(Role.PREFILL) == 4, "it has gone back to where it began"
    fleet.turn(ANSWERS)

    assert policy.decide(scored(fleet.turn(ANSWERS), *wrong)).predicted is not None


@pytest.mark.parametrize("scores", [[(0.95, 0.9)] * 8, [(0.2, 0.9)] * 8, [(0.95, 0.1)] * 2, []])
def test_predictions_that_are_right_or_too_low_or_few_are_no_trouble(scores: list[tuple[float, float]]) -> None:
    policy, fleet = Predictive(), Fluid()
    live(policy, fleet, EASY, 10.0)

    assert policy.decide(scored(fleet.turn(EASY), *scores)).predicted is not None


def test_going_back_leaves_the_last_of_a_role_where_it_is() -> None:
    """Prefill had four, three of them are gone, and decode is down to one."""
    policy, fleet = Predictive(), Fluid()
    live(policy, fleet, EASY, 10.0)
    seen = fleet.turn(EASY)
    left = {fleet.engines[0].name, fleet.engines[7].name}
    seen = replace(
        seen,
        instances=tuple(one if one.instance in left else replace(one, phase=Phase.GONE) for one in seen.instances),
    )

    assert not policy.decide(scored(seen, *[(0.95, 0.1)] * 4)).roles


@pytest.mark.parametrize("each_w", [100, 399])
def test_a_budget_below_the_floors_leaves_all_at_their_floors(each_w: float) -> None:
    policy, fleet = Predictive(), Fluid()
    live(policy, fleet, PROMPTS, 20.0)
    fleet.limits_mw = dict.fromkeys(fleet.limits_mw, FLOOR_MW)  # the controller has made the cut by itself
    for _ in range(20):
        seen = fleet.turn(PROMPTS)
        targets = policy.decide(replace(seen, rooms_mw={"site": round(8 * each_w * W)}))
        assert not targets.limits_mw
        fleet.obey(targets)


# ---- what it says ----


def test_it_says_so_when_both_phases_are_hopeless() -> None:
    turns = live(Predictive(), Fluid(), Asked(60.0, 6_000.0, 600.0), 30.0)

    assert any("not both phases can be saved" in targets.reason for _, targets in turns if changes(targets))


def test_every_decision_says_what_it_rests_on_and_what_it_expects(run: list[Seen]) -> None:
    decisions = [targets for _, targets in run if targets.candidates]
    assert len(decisions) > len(run) / 2
    for targets in decisions:
        assert targets.reason
        assert targets.inputs
        assert targets.predicted is not None
        assert 0.0 <= targets.predicted <= 1.0
        assert targets.held is not None
        assert 0.0 <= targets.held <= 1.0
        assert targets.horizon_s > 0
        assert 1 <= len(targets.candidates) <= 8
        assert all(0.0 <= each.predicted <= 1.0 for each in targets.candidates)
        assert sum(each.chosen for each in targets.candidates) <= 1
    assert {name for name, _ in decisions[-1].inputs} >= {"offered_rps", "prompt_tokens", "output_tokens"}


def test_a_change_without_a_reason_would_be_seen(run: list[Seen]) -> None:
    assert any(changes(targets) for _, targets in run)
    assert all(targets.reason for _, targets in run)


# ---- memory ----


@pytest.mark.parametrize("break_at", [1, 40, 90, 159])
def test_it_goes_on_from_its_state(break_at: int) -> None:
    seen = series(80.0, seed=5)

    assert goes_on(Predictive, seen, break_at)


def test_one_that_forgets_does_not_go_on_alike() -> None:
    """What the check above is worth."""

    class Forgetful(Predictive):
        """Bug: what is restored is lost."""

        def restore(self, state: object) -> None:
            pass

    assert not goes_on(Forgetful, series(80.0, seed=5), 90)


@pytest.mark.parametrize("maker", [Predictive, lambda: make("predictive", {})])
def test_the_same_views_give_the_same_targets(maker: Callable[[], Predictive]) -> None:
    seen = series(60.0, seed=3)
    one, other = maker(), maker()

    assert [one.decide(each) for each in seen] == [other.decide(each) for each in seen]
    assert one.state() == other.state()


def test_state_does_not_change_but_by_deciding(run: list[Seen]) -> None:
    policy = Predictive()
    for seen, _ in run[:50]:
        policy.decide(seen)
    before = policy.state()
    policy.state()

    assert policy.state() == before


def test_memory_is_bounded() -> None:
    def size(values: object) -> int:
        return sum(map(size, values)) if isinstance(values, tuple) else 1

    policy, fleet = Predictive(), Fluid()
    swung(fleet, 400.0, policy)
    before = size(policy.state().values)
    swung(fleet, 200.0, policy)

    assert size(policy.state().values) <= 1.1 * before
