"""Which plans are weighed, and the limits of every GPU under one."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from rapid.core.cluster import GpuView, InstanceView, Phase, Role, View
from rapid.core.fit import fit
from rapid.core.policy.predictive.models import Models
from rapid.core.policy.predictive.outlook import Fleet, Plan

_WATER_STEP_MW = 5_000  # watts move between the GPUs of a role in steps of this
_WATER_MOST = 0.03  # of a limit that a GPU may get more or less than the mean of its role
_SAME_DIES = 0.04  # GPUs whose factors differ by less get equal limits


@dataclass(frozen=True, slots=True)
class Ground:
    """What all plans of one view share. Limits are means over GPUs; in transit counts those that serve nobody."""

    view: View
    fleet: Fleet
    serving: Mapping[Role, tuple[InstanceView, ...]]
    gpus: Mapping[str, GpuView]
    room_mw: int
    floor_mw: int
    ceiling_mw: int
    prefill_gpus: int  # of an instance, on average; so for decode
    transit_gpus: int
    draining: tuple[InstanceView, ...]  # decode instances on their way out that still have answers to finish

    @classmethod
    def of(cls, view: View) -> "Ground | None":
        """None: a role has no serving instance, or no GPU may be moved."""
        gpus = {gpu.gpu: gpu for gpu in view.gpus}
        usable = [one for one in view.instances if any(gpu in gpus for gpu in one.gpus)]
        serving = {
            role: tuple(one for one in usable if one.role is role and one.phase is Phase.SERVING)
            for role in (Role.PREFILL, Role.DECODE)
        }
        moving = [one for one in usable if one.phase in _MOVING]
        if not serving[Role.PREFILL] or not serving[Role.DECODE]:
            return None
        fleet = Fleet(
            len(serving[Role.PREFILL]),
            len(serving[Role.DECODE]),
            sum(one.role is Role.PREFILL for one in moving),
            sum(one.role is Role.DECODE for one in moving),
        )
        draining = [one for one in moving if one.phase is Phase.DRAINING and one.role is Role.PREFILL]
        owned = {gpu for one in usable for gpu in one.gpus if gpu in gpus}
        most_mw = fit(
            {gpu.gpu: gpu.ceiling_mw if gpu.gpu in owned else gpu.floor_mw for gpu in view.gpus},
            view.gpus,
            view.rooms_mw,
            view.chains,
        )
        room_mw = sum(most_mw[gpu] for gpu in owned)
        return cls(
            view,
            fleet,
            serving,
            gpus,
            room_mw,
            sum(gpus[gpu].floor_mw for gpu in owned) // len(owned),
            sum(gpus[gpu].ceiling_mw for gpu in owned) // len(owned),
            max(1, round(len(owned) / len(usable))),
            sum(1 for one in moving for gpu in one.gpus if gpu in gpus),
            tuple(draining),
        )

    def mean_mw(self, role: Role) -> int:
        """The mean limit of the GPUs that serve a role now."""
        limits = [self.gpus[gpu].limit_mw for one in self.serving[role] for gpu in one.gpus if gpu in self.gpus]
        return sum(limits) // len(limits)

    def hold(self) -> Plan:
        """Everything as it is."""
        return Plan(0, self.mean_mw(Role.PREFILL), self.mean_mw(Role.DECODE))

    def splits(self, moves: int, levels: int) -> Iterator[Plan]:
        """The budget divided between prefill and decode in so many ways, all of it spent as far as ceilings allow."""
        each, floor_mw, ceiling_mw = self.prefill_gpus, self.floor_mw, self.ceiling_mw
        prefill = each * (self.fleet.prefill - max(0, -moves))
        decode = each * (self.fleet.decode - max(0, moves))
        # What leaves decode finishes its answers first, at the pace of the others; all else in transit needs its floor.
        drains = sum(len(one.gpus) for one in self.draining) + each * max(0, moves)
        idle = self.transit_gpus + each * abs(moves) - drains
        room_mw = self.room_mw - floor_mw * idle
        decode += drains
        if prefill <= 0 or decode <= 0:
            return
        low_mw = max(floor_mw, (room_mw - decode * ceiling_mw) // prefill)
        high_mw = max(floor_mw, min(ceiling_mw, (room_mw - decode * floor_mw) // prefill))
        low_mw = min(low_mw, high_mw)
        seen = -1
        for level in range(levels):
            prefill_mw = low_mw + (high_mw - low_mw) * level // max(1, levels - 1)
            if prefill_mw == seen:
                continue
            seen = prefill_mw
            decode_mw = min(ceiling_mw, max(floor_mw, (room_mw - prefill * prefill_mw) // decode))
            yield Plan(moves, prefill_mw, decode_mw)

    def static(self, moves: int = 0) -> Plan:
        """The configured static split in kind: prefill as high as decode's floor lets it."""
        return list(self.splits(moves, 2))[-1]

    def movers(self, moves: int, models: Models) -> list[InstanceView]:
        """The instances that would change role: those with the least to drain, the better GPUs first into prefill."""
        source, target = (Role.DECODE, Role.PREFILL) if moves > 0 else (Role.PREFILL, Role.DECODE)
        able = [one for one in self.serving[source] if target in one.roles and not one.pinned]

        def to_drain(one: InstanceView) -> tuple[float, float, str]:
            left = 0 if one.load is None else one.load.running_requests + one.load.waiting_requests
            factor = max(models.factor(gpu, Role.PREFILL) for gpu in one.gpus)
            return (left, factor if moves > 0 else -factor, one.instance)

        return sorted(able, key=to_drain)[: abs(moves)]

    def changes(self, plan: Plan, movers: Iterable[InstanceView], models: Models) -> dict[str, int]:
        """The limits under the plan that are not as they are now."""
        limits_mw = self.limits(plan, movers, models)
        return {gpu.gpu: limits_mw[gpu.gpu] for gpu in self.view.gpus if limits_mw[gpu.gpu] != gpu.limit_mw}

    def limits(self, plan: Plan, movers: Iterable[InstanceView], models: Models) -> dict[str, int]:
        """A limit for every GPU in the view that the domains have room for.

        Those in transit get their floors, but for those that still finish answers: at their floors these would miss
        their TPOT, and the drain would take longer.
        """
        leaving = {one.instance for one in movers}
        asked = {gpu.gpu: gpu.floor_mw for gpu in self.view.gpus}
        for role, mean_mw in ((Role.PREFILL, plan.prefill_mw), (Role.DECODE, plan.decode_mw)):
            stay = [one for one in self.serving[role] if one.instance not in leaving]
            if role is Role.DECODE:
                asked |= {gpu: mean_mw for one in self._finishing(leaving) for gpu in one.gpus if gpu in asked}
            for one, limit_mw in zip(stay, self._shared(role, stay, mean_mw, models), strict=True):
                asked |= {gpu: limit_mw for gpu in one.gpus if gpu in asked}
        return fit(asked, self.view.gpus, self.view.rooms_mw, self.view.chains)

    def _finishing(self, leaving: set[str]) -> list[InstanceView]:
        """Decode instances that leave, or will."""
        return [*self.draining, *(one for one in self.serving[Role.DECODE] if one.instance in leaving)]

    def _shared(self, role: Role, stay: list[InstanceView], mean_mw: int, models: Models) -> list[int]:
        """The limits of the instances of a role around their mean: water-filling, watts go where they buy most.

        Where speed rises by a power p of the limit, the sum of speed/kappa over GPUs is greatest with limits in
        proportion to (1/kappa)^(1/(1-p)); within bounds, since p is only known near the limits that were seen.
        """
        factors = [max(models.factor(gpu, role) for gpu in one.gpus) for one in stay]
        if role is Role.DECODE or len(stay) < 2 or max(factors) - min(factors) < _SAME_DIES:
            return [mean_mw] * len(stay)  # decode waits for its slowest instance, and is flat in watts
        gpu = next(self.gpus[gpu] for one in stay for gpu in one.gpus if gpu in self.gpus)
        speed = models.prefill_speed(mean_mw, gpu)
        power = min(0.9, 1e-3 * mean_mw * models.prefill_slope(mean_mw, gpu) / max(speed, 0.01))
        if power < 0.05:
            return [mean_mw] * len(stay)
        wanted = [(1.0 / factor) ** (1.0 / (1.0 - power)) for factor in factors]
        mean = sum(wanted) / len(wanted)
        low, high = 1.0 - _WATER_MOST, 1.0 + _WATER_MOST
        limits = [int(mean_mw * min(max(each / mean, low), high)) for each in wanted]
        return [limit_mw // _WATER_STEP_MW * _WATER_STEP_MW for limit_mw in limits]


_MOVING = (Phase.DRAINING, Phase.SWITCHING, Phase.WARMING, Phase.ROLLING_BACK)
