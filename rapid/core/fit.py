"""Limits that fit: the fairest cut of what is asked for to what a tree of domains has room for."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from rapid.core.cluster import GpuView


def fit(
    asked_mw: Mapping[str, int],
    gpus: Iterable[GpuView],
    rooms_mw: Mapping[str, int],
    chains: Mapping[str, tuple[str, ...]],
) -> dict[str, int]:
    """Every GPU gets what is asked for it, within floor..ceiling; where a domain has no room for the sum, the highest
    limits in it come down to one level, and none below its floor (a max-min fair share).

    When not even the floors fit, all are at their floors. Domains are cut from the leaves to the root, so that a
    cut higher up only lowers what is below it, which goes on fitting.
    """
    by_gpu = {gpu.gpu: gpu for gpu in gpus}
    limits = {
        name: min(max(asked_mw.get(name, gpu.limit_mw), gpu.floor_mw), gpu.ceiling_mw) for name, gpu in by_gpu.items()
    }
    members: dict[str, list[str]] = {}
    depths: dict[str, int] = {}
    for name, gpu in by_gpu.items():
        chain = chains[gpu.node]
        for depth, domain in enumerate(reversed(chain)):
            members.setdefault(domain, []).append(name)
            depths[domain] = depth
    for domain in sorted(members, key=lambda name: -depths[name]):
        inside = members[domain]
        if sum(limits[name] for name in inside) > rooms_mw[domain]:
            pairs = [(by_gpu[name].floor_mw, limits[name]) for name in inside]
            level_mw = _level_mw(pairs, rooms_mw[domain])
            for name in inside:
                limits[name] = min(limits[name], max(by_gpu[name].floor_mw, level_mw))
    return limits


def fair(gpus: Sequence[GpuView], rooms_mw: Mapping[str, int], chains: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """Equal limits as high as the domains have room for: what policy `uniform` gives."""
    return fit({gpu.gpu: gpu.ceiling_mw for gpu in gpus}, gpus, rooms_mw, chains)


def _level_mw(pairs: Sequence[tuple[int, int]], room_mw: int) -> int:
    """The highest level with sum(min(limit, max(floor, level))) <= room; the least floor when there is none.

    pairs: (floor_mw, limit_mw) of each GPU. The sum grows by one per milliwatt and GPU between two neighbouring
    bounds, so the level is found by walking down the bounds.
    """
    bounds = sorted({bound for pair in pairs for bound in pair}, reverse=True)
    for upper, lower in pairwise(bounds):
        sum_mw = sum(min(limit, max(floor, lower)) for floor, limit in pairs)
        if sum_mw <= room_mw:
            growing = sum(1 for floor, limit in pairs if floor <= lower and limit >= upper)
            return lower + (room_mw - sum_mw) // growing if growing else lower
    return bounds[-1]
