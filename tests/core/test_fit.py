"""fit() gives the fairest limits that the budgets leave room for, whatever the tree, the floors and the asks."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from rapid.core.cluster import GpuView
from rapid.core.fit import fair, fit

Fit = Callable[
    [Mapping[str, int], Sequence[GpuView], Mapping[str, int], Mapping[str, tuple[str, ...]]],
    dict[str, int],
]


@dataclass(frozen=True, slots=True)
class Case:
    """GPUs on nodes of a tree of domains, what is asked for them, and the room of each domain."""

    gpus: tuple[GpuView, ...]
    asked_mw: Mapping[str, int]
    rooms_mw: Mapping[str, int]
    chains: Mapping[str, tuple[str, ...]]

    def solve(self, solver: Fit) -> dict[str, int]:
        return solver(self.asked_mw, self.gpus, self.rooms_mw, self.chains)

    def wish_mw(self, gpu: GpuView) -> int:
        return min(max(self.asked_mw.get(gpu.gpu, gpu.limit_mw), gpu.floor_mw), gpu.ceiling_mw)

    def inside(self, domain: str) -> list[GpuView]:
        return [gpu for gpu in self.gpus if domain in self.chains[gpu.node]]

    def floors_mw(self, domain: str) -> int:
        return sum(gpu.floor_mw for gpu in self.inside(domain))


def gpu(name: str, *, node: str = "n", floor: int = 10, ceiling: int = 100, limit: int = 50) -> GpuView:
    return GpuView(name, node, floor, ceiling, limit, None, None)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A small tree, instances of up to three equal GPUs on three nodes; rooms from far too small to plenty."""
    parents = {"root": None, "row": "root", "rack": "row", "other": "root"}
    chains: dict[str, tuple[str, ...]] = {}
    for node in ("n1", "n2", "n3"):
        chain: list[str] = []
        at: str | None = draw(st.sampled_from(sorted(parents)))
        while at is not None:
            chain.append(at)
            at = parents[at]
        chains[node] = tuple(chain)
    gpus: list[GpuView] = []
    asked: dict[str, int] = {}
    for _ in range(draw(st.integers(1, 4))):
        node = draw(st.sampled_from(sorted(chains)))
        floor = draw(st.integers(1, 60))
        ceiling = draw(st.integers(floor, 120))
        limit = draw(st.integers(floor, ceiling))
        ask = draw(st.none() | st.integers(0, 150))
        for _ in range(draw(st.integers(1, 3))):
            gpus.append(gpu(f"g{len(gpus)}", node=node, floor=floor, ceiling=ceiling, limit=limit))
            if ask is not None:
                asked[gpus[-1].gpu] = ask
    rooms = {domain: draw(st.integers(-50, 800)) for domain in parents}
    return Case(tuple(gpus), asked, rooms, chains)


# ---- the promises, each as a checker ----


def within_bounds(case: Case, limits: Mapping[str, int]) -> bool:
    """Every limit lies within floor..ceiling, and there is one for every GPU."""
    return limits.keys() == {each.gpu for each in case.gpus} and all(
        each.floor_mw <= limits[each.gpu] <= each.ceiling_mw for each in case.gpus
    )


def within_rooms(case: Case, limits: Mapping[str, int]) -> bool:
    """A domain that has room for its floors is not passed; in one that has not, all are at their floors."""
    for domain, room in case.rooms_mw.items():
        inside = case.inside(domain)
        total = sum(limits[each.gpu] for each in inside)
        if case.floors_mw(domain) <= room:
            if total > room:
                return False
        elif any(limits[each.gpu] != each.floor_mw for each in inside):
            return False
    return True


def no_more_than_asked(case: Case, limits: Mapping[str, int]) -> bool:
    return all(limits[each.gpu] <= case.wish_mw(each) for each in case.gpus)


def fairest(case: Case, limits: Mapping[str, int]) -> bool:
    """Max-min fair: who got less than it asked for sits in a domain that is full, and nobody there is above it, but
    for those at their floors. Full: what is left is less than a milliwatt for each that could take it."""
    for each in case.gpus:
        mine = limits[each.gpu]
        if mine == case.wish_mw(each):
            continue
        if not any(_holds_back(case, limits, domain, mine) for domain in case.chains[each.node]):
            return False
    return True


def _holds_back(case: Case, limits: Mapping[str, int], domain: str, mine: int) -> bool:
    inside = case.inside(domain)
    left = case.rooms_mw[domain] - sum(limits[each.gpu] for each in inside)
    level = all(limits[each.gpu] <= max(mine, each.floor_mw) for each in inside)
    return level and left < len(inside)


def equals_for_equals(case: Case, limits: Mapping[str, int]) -> bool:
    """GPUs alike on one node that ask for the same get the same (tensor parallelism needs it)."""
    seen: dict[tuple[str, int, int, int], int] = {}
    for each in case.gpus:
        kind = (each.node, each.floor_mw, each.ceiling_mw, case.wish_mw(each))
        if seen.setdefault(kind, limits[each.gpu]) != limits[each.gpu]:
            return False
    return True


PROMISES = [within_bounds, within_rooms, no_more_than_asked, fairest, equals_for_equals]


@pytest.mark.parametrize("promise", PROMISES)
@given(case=cases())
def test_what_fit_promises_holds_for_every_tree(promise: Callable[[Case, Mapping[str, int]], bool], case: Case) -> None:
    assert promise(case, case.solve(fit))


@given(case=cases())
def test_fitting_what_fits_changes_nothing(case: Case) -> None:
    limits = case.solve(fit)

    assert fit(limits, case.gpus, case.rooms_mw, case.chains) == limits


@given(case=cases(), more=st.integers(1, 200))
def test_more_room_at_the_root_takes_from_nobody(case: Case, more: int) -> None:
    before = case.solve(fit)
    wider = {**case.rooms_mw, "root": case.rooms_mw["root"] + more}

    after = fit(case.asked_mw, case.gpus, wider, case.chains)

    assert all(after[name] >= limit for name, limit in before.items())


# ---- planted bugs ----


def passes_the_room(asked: Mapping[str, int], gpus: Sequence[GpuView], rooms: object, chains: object) -> dict[str, int]:
    return {each.gpu: min(max(asked.get(each.gpu, each.limit_mw), each.floor_mw), each.ceiling_mw) for each in gpus}


def knows_no_floor(
    asked: Mapping[str, int], gpus: Sequence[GpuView], rooms: Mapping[str, int], chains: Mapping[str, tuple[str, ...]]
) -> dict[str, int]:
    bare = [GpuView(each.gpu, each.node, 0, each.ceiling_mw, each.limit_mw, None, None) for each in gpus]
    return fit(asked, bare, rooms, chains)


def gives_more(
    asked: Mapping[str, int], gpus: Sequence[GpuView], rooms: Mapping[str, int], chains: Mapping[str, tuple[str, ...]]
) -> dict[str, int]:
    return fair(gpus, rooms, chains)


def scales_down(
    asked: Mapping[str, int], gpus: Sequence[GpuView], rooms: Mapping[str, int], chains: Mapping[str, tuple[str, ...]]
) -> dict[str, int]:
    """In proportion to the ask: fits, and is not max-min fair."""
    limits = fit(asked, gpus, rooms, chains)
    greatest = max(limits, key=lambda name: limits[name])
    floor = next(each.floor_mw for each in gpus if each.gpu == greatest)
    return limits | {greatest: max(floor, limits[greatest] - 5)}


@pytest.mark.parametrize(
    ("promise", "bug"),
    [
        (within_bounds, knows_no_floor),
        (within_rooms, passes_the_room),
        (no_more_than_asked, gives_more),
        (fairest, scales_down),
        (equals_for_equals, scales_down),
    ],
)
def test_each_promise_is_broken_by_a_planted_bug(promise: Callable[[Case, Mapping[str, int]], bool], bug: Fit) -> None:
    quick = settings(max_examples=2000, database=None, phases=[Phase.generate])

    case = find(cases(), lambda case: not promise(case, case.solve(bug)), settings=quick, random=random.Random(1))

    assert promise(case, case.solve(fit)), "the bug is to blame, and not the case"


# ---- by example ----


def test_the_highest_come_down_to_one_level_and_the_modest_keep_what_they_ask() -> None:
    gpus = [gpu("a"), gpu("b"), gpu("c")]

    assert fit({"a": 90, "b": 80, "c": 20}, gpus, {"root": 100}, {"n": ("root",)}) == {"a": 40, "b": 40, "c": 20}


def test_a_floor_above_the_level_is_paid_by_the_others() -> None:
    gpus = [gpu("a", floor=70), gpu("b"), gpu("c")]

    assert fit({"a": 90, "b": 90, "c": 90}, gpus, {"root": 100}, {"n": ("root",)}) == {"a": 70, "b": 15, "c": 15}


def test_a_small_rack_leaves_its_share_to_the_rest_of_the_room() -> None:
    gpus = [gpu("a", node="small"), gpu("b", node="small"), gpu("c", node="big")]
    chains = {"small": ("rack", "room"), "big": ("room",)}

    assert fair(gpus, {"rack": 40, "room": 120}, chains) == {"a": 20, "b": 20, "c": 80}


def test_a_full_room_lowers_what_its_racks_would_allow() -> None:
    gpus = [gpu("a", node="x"), gpu("b", node="y")]
    chains = {"x": ("rack x", "room"), "y": ("rack y", "room")}

    assert fair(gpus, {"rack x": 100, "rack y": 30, "room": 100}, chains) == {"a": 70, "b": 30}


def test_what_does_not_divide_is_left_over() -> None:
    gpus = [gpu("a"), gpu("b"), gpu("c")]

    assert fair(gpus, {"root": 100}, {"n": ("root",)}) == {"a": 33, "b": 33, "c": 33}


def test_no_room_at_all_puts_every_gpu_at_its_floor() -> None:
    gpus = [gpu("a", floor=10), gpu("b", floor=30)]

    assert fit({"a": 100, "b": 100}, gpus, {"root": -500}, {"n": ("root",)}) == {"a": 10, "b": 30}
