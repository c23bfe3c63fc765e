"""Plans: the whole room is divided, within what devices and domains allow; who moves; and the limits of every GPU."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from random import Random

import pytest

from rapid.core.cluster import Phase, Role, View
from rapid.core.policy.predictive.models import Models
from rapid.core.policy.predictive.outlook import Plan
from rapid.core.policy.predictive.plan import Ground
from tests.core.engines import load
from tests.core.hosts import W
from tests.core.taped import CEILING_MW as TAPE_CEILING_MW
from tests.core.taped import TICK_S, Deck, Tape
from tests.core.views import changed, gpu, instance, paper, view

PREFILL, DECODE = Role.PREFILL, Role.DECODE
LEVELS = 6


def ground(seen: View) -> Ground:
    found = Ground.of(seen)
    assert found is not None
    return found


def pair(count: int = 8, *, wide: int = 1, room_w: float | None = None, nodes: int = 1, **more: object) -> View:
    """Instances of so many GPUs each, alternating between prefill and decode, spread over nodes in turns."""
    gpus, instances = [], []
    for index in range(count):
        names = [f"g{index}.{part}" for part in range(wide)]
        gpus += [gpu(name, 600, node=f"n{index // 2 % nodes}") for name in names]
        role = DECODE if index % 2 else PREFILL
        queue = load(f"e{index}", role, running=index)
        instances.append(instance(f"e{index}", role, names, queue=queue))
    rooms_w = {"room": 600.0 * count * wide if room_w is None else room_w}
    return view(gpus, instances, **{"rooms_w": rooms_w, **more})  # type: ignore[arg-type]


def spent_mw(seen: View, limits_mw: dict[str, int], domain: str = "room") -> int:
    return sum(limits_mw[each.gpu] for each in seen.gpus if domain in seen.chains[each.node])


def limits_of(seen: View, plan: Plan, models: Models | None = None) -> dict[str, int]:
    here, models = ground(seen), models or Models()
    return here.limits(plan, here.movers(plan.moves, models) if plan.moves else [], models)


def random_views(seed: int) -> Iterator[View]:
    """Fleets of equal instances of one to three GPUs, on two nodes in a tree with some spare GPUs, well loaded or not,
    settled or in the middle of changes; roomy, tight, or with a room that has not even space for the floors."""
    dice = Random(f"plans {seed}")
    for _ in range(60):
        count, wide = dice.randint(2, 9), dice.randint(1, 3)
        gpus, instances = [], []
        for index in range(count):
            names = [f"g{index}.{part}" for part in range(wide)]
            node = dice.choice("ab")
            gpus += [gpu(name, dice.randint(400, 750), node=node) for name in names]
            role = (PREFILL, DECODE)[index] if index < 2 else dice.choice((PREFILL, DECODE))
            phases = [Phase.SERVING] * 8 + [Phase.GONE, Phase.FAILED, Phase.DRAINING, Phase.SWITCHING]
            queue = load(f"e{index}", role, waiting=dice.randint(0, 9), running=dice.randint(0, 30))
            instances.append(
                instance(
                    f"e{index}",
                    role,
                    names,
                    phase=Phase.SERVING if index < 2 else dice.choice(phases),
                    queue=queue,
                    pinned=dice.random() < 0.2,
                )
            )
        gpus += [gpu(f"spare{index}", 500, node="a") for index in range(dice.randint(0, 2))]
        rooms_w = {
            domain: sum(each.limit_mw for each in gpus if each.node in inside) / W * dice.choice((0.5, 0.9, 1.0, 1.3))
            for domain, inside in (("root", "ab"), ("rack", "b"))
        }
        yield view(gpus, instances, rooms_w=rooms_w, chains={"a": ("root",), "b": ("rack", "root")})


# ---- the split ----


@pytest.mark.parametrize("moves", [-1, 0, 1])
@pytest.mark.parametrize("each_w", [430, 600, 700])
def test_every_split_spends_the_whole_room(each_w: float, moves: int) -> None:
    seen = paper(budget_w=8 * each_w)
    plans = list(ground(seen).splits(moves, LEVELS))

    assert plans
    for plan in plans:
        limits_mw = limits_of(seen, plan)
        assert spent_mw(seen, limits_mw) <= seen.rooms_mw["room"], plan
        assert spent_mw(seen, limits_mw) >= seen.rooms_mw["room"] - 8 * 5_000, (plan, limits_mw)


def test_more_room_than_ceilings_is_left() -> None:
    seen = paper(budget_w=10_000)

    for plan in ground(seen).splits(0, LEVELS):
        assert set(limits_of(seen, plan).values()) == {750 * W}, plan


def test_splits_reach_from_one_end_to_the_other() -> None:
    plans = list(ground(paper(budget_w=4_800)).splits(0, LEVELS))

    assert len(plans) == LEVELS
    assert plans[0].prefill_mw < 500 * W < 700 * W < plans[0].decode_mw
    assert plans[-1].decode_mw < 500 * W < 700 * W < plans[-1].prefill_mw
    assert sorted(plans, key=lambda plan: plan.prefill_mw) == plans


@pytest.mark.parametrize("seed", range(5))
def test_whatever_is_planned_fits_devices_and_every_domain(seed: int) -> None:
    for seen in random_views(seed):
        floors_mw = {each.gpu: each.floor_mw for each in seen.gpus}
        for moves in (-1, 0, 1):
            for plan in ground(seen).splits(moves, LEVELS):
                limits_mw = limits_of(seen, plan)
                assert set(limits_mw) == {each.gpu for each in seen.gpus}
                for each in seen.gpus:
                    assert each.floor_mw <= limits_mw[each.gpu] <= each.ceiling_mw, (seed, plan)
                for domain, room_mw in seen.rooms_mw.items():
                    least_mw = spent_mw(seen, floors_mw, domain)
                    assert spent_mw(seen, limits_mw, domain) <= max(room_mw, least_mw), (seed, plan, domain)


def test_a_room_below_the_floors_leaves_floors() -> None:
    seen = paper(budget_w=2_000)
    plans = list(ground(seen).splits(0, LEVELS))

    assert plans
    assert all(set(limits_of(seen, plan).values()) == {400 * W} for plan in plans)


def test_rooms_of_racks_are_not_taken_for_the_room_of_all() -> None:
    """Each of two racks has room for its own, and so has the root for both: every watt can be used."""
    rooms_w = {"rack0": 2_400.0, "rack1": 2_400.0, "root": 4_800.0}
    chains = {f"n{index}": (f"rack{index}", "root") for index in range(2)}
    seen = pair(nodes=2, rooms_w=rooms_w, chains=chains)

    for plan in ground(seen).splits(0, LEVELS):
        assert spent_mw(seen, limits_of(seen, plan), "root") >= 4_800 * W - 8 * 5_000, plan


def test_gpus_without_an_instance_keep_their_floor_and_the_others_get_the_rest() -> None:
    seen = paper(budget_w=5_200)
    seen = replace(seen, gpus=(*seen.gpus, gpu("spare", 400)))
    for plan in ground(seen).splits(0, LEVELS):
        limits_mw = limits_of(seen, plan)
        assert limits_mw["spare"] == 400 * W
        assert spent_mw(seen, limits_mw) >= 5_200 * W - 8 * 5_000


# ---- instances in transit ----


@pytest.mark.parametrize("phase", [Phase.SWITCHING, Phase.WARMING, Phase.ROLLING_BACK])
def test_gpus_in_transit_get_their_floor_and_their_watts_are_used_at_once(phase: Phase) -> None:
    seen = paper(budget_w=4_800)
    moving = instance("d7", PREFILL, ["g7"], phase=phase)
    seen = changed(seen, d7=moving)
    for plan in ground(seen).splits(0, LEVELS):
        limits_mw = limits_of(seen, plan)
        assert limits_mw["g7"] == 400 * W
        assert spent_mw(seen, limits_mw) >= 4_800 * W - 8 * 5_000


def test_an_instance_on_its_way_serves_neither_role() -> None:
    seen = changed(paper(), d7=instance("d7", PREFILL, ["g7"], phase=Phase.SWITCHING))
    fleet = ground(seen).fleet

    assert (fleet.prefill, fleet.decode, fleet.to_prefill, fleet.to_decode) == (4, 3, 1, 0)


@pytest.mark.parametrize("phase", [Phase.GONE, Phase.FAILED])
def test_an_instance_that_is_gone_counts_nowhere(phase: Phase) -> None:
    seen = changed(paper(), d7=instance("d7", DECODE, ["g7"], phase=phase))
    fleet = ground(seen).fleet

    assert (fleet.prefill, fleet.decode, fleet.to_prefill, fleet.to_decode) == (4, 3, 0, 0)


@pytest.mark.parametrize("prefill", [0, 8])
def test_there_is_no_plan_without_both_roles(prefill: int) -> None:
    assert Ground.of(paper(prefill=prefill)) is None


# ---- tensor parallel instances ----


@pytest.mark.parametrize("wide", [2, 3, 4])
@pytest.mark.parametrize("moves", [-1, 0, 1])
def test_gpus_of_an_instance_have_equal_limits_and_move_as_a_whole(wide: int, moves: int) -> None:
    seen = pair(4, wide=wide)
    for plan in ground(seen).splits(moves, LEVELS):
        limits_mw = limits_of(seen, plan)
        for one in seen.instances:
            assert len({limits_mw[name] for name in one.gpus}) == 1, (plan, limits_mw)
        assert spent_mw(seen, limits_mw) <= seen.rooms_mw["room"]
        assert spent_mw(seen, limits_mw) >= seen.rooms_mw["room"] - 4 * wide * 5_000


# ---- who moves ----


def test_those_with_least_to_drain_move() -> None:
    seen = paper()  # d4 runs 4 requests, d5 runs 5, and so on

    assert [one.instance for one in ground(seen).movers(2, Models())] == ["d4", "d5"]
    assert [one.instance for one in ground(seen).movers(-2, Models())] == ["p0", "p1"]


def test_those_that_wait_count_as_much() -> None:
    seen = paper()
    seen = changed(seen, d4=instance("d4", DECODE, ["g4"], queue=load("d4", DECODE, running=1, waiting=9)))

    assert ground(seen).movers(1, Models())[0].instance == "d5"


@pytest.mark.parametrize(
    "held", [{"pinned": True}, {"roles": (DECODE,)}, {"phase": Phase.SWITCHING}, {"phase": Phase.GONE}]
)
def test_what_is_pinned_or_cannot_serve_the_other_role_or_does_not_serve_stays(held: dict[str, object]) -> None:
    seen = changed(paper(), d4=instance("d4", DECODE, ["g4"], **held))  # type: ignore[arg-type]

    assert "d4" not in [one.instance for one in ground(seen).movers(4, Models())]


@dataclass(slots=True)
class Dice:
    """Engines that are alike but for the time that one die takes, and models that have watched them."""

    slow: str
    slowness: float
    roles: dict[str, Role]
    models: Models = field(default_factory=Models)

    def learned(self) -> Models:
        tapes = [Tape(name, role) for name, role in self.roles.items()]
        for tape in tapes:
            if tape.name == self.slow:
                tape.token_s *= self.slowness
                tape.step_s *= self.slowness
        deck = Deck(*tapes)
        for _ in range(round(90.0 / TICK_S)):
            self.models.observe(deck.turn())
        return self.models


def fleet(roles: Iterable[tuple[str, Role]], room_w: float) -> View:
    """The same engines as a view with the same names, nothing to drain."""
    named = list(roles)
    gpus = [gpu(f"{name}-gpu", 500, floor_w=200, ceiling_w=TAPE_CEILING_MW / W) for name, _ in named]
    instances = [instance(name, role, [f"{name}-gpu"], queue=load(name, role)) for name, role in named]
    return view(gpus, instances, rooms_w={"room": room_w})


ROLES = {"p0": PREFILL, "p1": PREFILL, "p2": PREFILL, "d0": DECODE, "d1": DECODE, "d2": DECODE}


@pytest.mark.parametrize("moves", [1, -1])
def test_better_dies_go_to_prefill(moves: int) -> None:
    """The odd one takes 20 % longer: into prefill it goes last, out of it first."""
    roles = {name: DECODE if name.startswith("d") else PREFILL for name in ROLES}
    slow = "d0" if moves > 0 else "p2"
    models = Dice(slow, 1.2, dict.fromkeys(ROLES, PREFILL)).learned()
    order = [one.instance for one in ground(fleet(roles.items(), 3_000)).movers(3 * moves, models)]

    assert order.index(slow) == (len(order) - 1 if moves > 0 else 0), order


# ---- water-filling ----


def test_a_better_die_gets_more_of_the_same_watts() -> None:
    models = Dice("p1", 1.2, ROLES).learned()
    seen = fleet(ROLES.items(), 3_000)
    plan = list(ground(seen).splits(0, LEVELS))[3]
    limits_mw = limits_of(seen, plan, models)
    prefill = [limits_mw[f"p{index}-gpu"] for index in range(3)]

    assert limits_mw["p1-gpu"] < min(limits_mw["p0-gpu"], limits_mw["p2-gpu"])
    assert sum(prefill) == pytest.approx(3 * plan.prefill_mw, rel=0.02)
    assert sum(prefill) <= 3 * plan.prefill_mw
    assert len({limits_mw[f"d{index}-gpu"] for index in range(3)}) == 1, "decode waits for its slowest"


def test_dies_that_are_alike_get_the_same() -> None:
    models = Dice("", 1.0, ROLES).learned()
    seen = fleet(ROLES.items(), 3_000)
    for plan in ground(seen).splits(0, LEVELS):
        limits_mw = limits_of(seen, plan, models)
        assert len({limits_mw[f"p{index}-gpu"] for index in range(3)}) == 1


# ---- planted bugs ----


def test_a_plan_that_would_not_fit_is_cut_and_the_cut_is_seen() -> None:
    """What the checks above look for can be there: a plan beyond the room, and limits from it that fit all the same."""
    seen = paper(budget_w=4_800)
    greedy = Plan(0, 750 * W, 750 * W)

    assert 4 * greedy.prefill_mw + 4 * greedy.decode_mw > seen.rooms_mw["room"]
    assert spent_mw(seen, limits_of(seen, greedy)) == 4_800 * W
