"""Policies `rapid`, `power` and `roles`: the reactive rule of the RAPID paper (arXiv 2601.12241), and its two halves.

Once a tick, unless a move is still settling or cooling down:

    prefill is short  when TTFT is over its target, the prefill queue is over its threshold, and TPOT has slack
    decode is short   when TPOT is over its target (or decode requests queue), and TTFT has slack
    neither, or both  no move
    0. watts that nobody has, since the budget was raised, are given out first
    1. power: the GPUs of the other role give a step each, the GPUs of the short role get it
    2. roles, only when power cannot do it: one instance of the other role is drained and switched; then every limit
       goes back to the equal share

That cuts are confirmed before the raises they pay for is the ledger's affair, not this one's. Published readings of
the paper leave the numbers open; each is a named setting here, and "assumed".
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from rapid.core.cluster import GpuView, InstanceView, Phase, Role, Targets, View
from rapid.core.errors import watts
from rapid.core.fit import fair
from rapid.core.policy.base import NO_CHANGE
from rapid.core.policy.uniform import move_to


@dataclass(frozen=True, slots=True)
class Rapid:
    """The paper's rule. Power moves within a node, as in the paper; roles move across all instances.

    step_mw             what one GPU gives in one power move (assumed 25 W)
    slack               a latency below this share of its target has slack (assumed 0.8)
    prefill_queue       waiting requests per prefill instance that make prefill short (assumed)
    decode_queue        waiting requests per decode instance that make decode short (assumed)
    power_cooldown_s, role_cooldown_s  after a move of that kind (assumed 1 s and 5 s)
    least_move_mw       a power move smaller than this in sum is none (assumed)
    """

    step_mw: int = 25_000
    slack: float = 0.8
    prefill_queue: float = 2.0
    decode_queue: float = 2.0
    power_cooldown_s: float = 1.0
    role_cooldown_s: float = 5.0
    least_move_mw: int = 5_000
    moves_power: bool = True
    moves_roles: bool = True
    name: str = "rapid"

    def decide(self, view: View) -> Targets:
        """One power move, or one role move, or nothing."""
        if not view.settled or any(one.phase is not Phase.SERVING for one in view.instances if _present(one)):
            return NO_CHANGE
        if view.since_power_s < self.power_cooldown_s or view.since_role_s < self.role_cooldown_s:
            return NO_CHANGE
        spare = self._spend_spare(view)
        if spare.limits_mw:
            return spare
        needs = _Needs.of(view, self)
        short = needs.short()
        if short is None:
            return NO_CHANGE
        donor = Role.DECODE if short is Role.PREFILL else Role.PREFILL
        inputs = needs.inputs()
        if self.moves_power:
            limits_mw = self._power_move(view, donor, short)
            if limits_mw:
                return Targets(
                    limits_mw, {}, f"{short.value} is short: {needs.why(short)}; watts from {donor.value}", inputs
                )
        chosen = _choose(view, donor, short) if self.moves_roles else None
        if chosen is None:
            return NO_CHANGE
        how = "power cannot do it; " if self.moves_power else ""
        reason = f"{short.value} is short: {needs.why(short)}; {how}{chosen.instance} changes role"
        # The paper resets every limit to the equal share with a role move, and tunes power anew from there.
        limits_mw = dict(move_to(view, fair(view.gpus, view.rooms_mw, view.chains), "").limits_mw)
        return Targets(limits_mw, {chosen.instance: short}, reason, inputs)

    def _power_move(self, view: View, donor: Role, short: Role) -> dict[str, int]:
        """New limits: donors give a step, recipients share it evenly; per node, and equal inside an instance."""
        moved: dict[str, int] = {}
        of_donor, of_short = _by_node(view, donor), _by_node(view, short)
        for node, givers in of_donor.items():
            takers = of_short.get(node, [])
            give_mw = sum(min(self.step_mw, gpu.limit_mw - gpu.floor_mw) for gpu in givers)
            take_mw = sum(gpu.ceiling_mw - gpu.limit_mw for gpu in takers)
            sum_mw = min(give_mw, take_mw)
            if sum_mw < max(self.least_move_mw, 1):
                continue
            given = _spread(givers, sum_mw, [min(self.step_mw, gpu.limit_mw - gpu.floor_mw) for gpu in givers])
            given_mw = sum(part_mw for _, part_mw in given)
            taken = _spread(takers, given_mw, [gpu.ceiling_mw - gpu.limit_mw for gpu in takers])
            moved |= {gpu.gpu: gpu.limit_mw - part_mw for gpu, part_mw in given if part_mw}
            moved |= {gpu.gpu: gpu.limit_mw + part_mw for gpu, part_mw in taken if part_mw}
        return moved

    def _spend_spare(self, view: View) -> Targets:
        """Watts that a raised budget has freed and that nobody has lift the lowest limits; none comes down for it."""
        wanted = fair([replace(gpu, floor_mw=gpu.limit_mw) for gpu in view.gpus], view.rooms_mw, view.chains)
        spare_mw = sum(wanted.values()) - sum(gpu.limit_mw for gpu in view.gpus)
        if spare_mw < max(self.least_move_mw * len(view.gpus), 1):
            return NO_CHANGE
        return move_to(view, wanted, f"{watts(spare_mw)} of the budget are unused")


@dataclass(frozen=True, slots=True)
class _Needs:
    """How each phase stands against its target. A mixed instance is one of either phase, with no queue of its own."""

    ttft_s: float | None
    tpot_s: float | None
    prefill_queue: float
    decode_queue: float
    prefill_instances: int
    decode_instances: int
    ttft_target_s: float
    tpot_target_s: float
    rule: Rapid

    @classmethod
    def of(cls, view: View, rule: Rapid) -> "_Needs":
        prefill = [one for one in view.instances if one.role is Role.PREFILL and _present(one)]
        decode = [one for one in view.instances if one.role is Role.DECODE and _present(one)]
        mixed = sum(1 for one in view.instances if one.role is Role.MIXED and _present(one))
        wait_s = view.latencies.oldest_wait_s
        ttft_s = view.latencies.ttft_s
        if wait_s > 0:
            ttft_s = max(ttft_s or 0.0, wait_s)  # what waits still has no TTFT, but it will not be less than this
        return cls(
            ttft_s,
            view.latencies.tpot_s,
            _waiting(prefill) / max(1, len(prefill)),
            _waiting(decode) / max(1, len(decode)),
            len(prefill) + mixed,
            len(decode) + mixed,
            view.slo.ttft_s,
            view.slo.tpot_s,
            rule,
        )

    def short(self) -> Role | None:
        """The phase that is short of power, if exactly one is. A phase without any instance is short."""
        if self.prefill_instances == 0 or self.decode_instances == 0:
            if self.prefill_instances == self.decode_instances:
                return None
            return Role.PREFILL if self.prefill_instances == 0 else Role.DECODE
        slack = self.rule.slack
        ttft_late = self.ttft_s is not None and self.ttft_s > self.ttft_target_s
        tpot_late = self.tpot_s is not None and self.tpot_s > self.tpot_target_s
        ttft_slack = self.ttft_s is None or self.ttft_s < slack * self.ttft_target_s
        tpot_slack = self.tpot_s is None or self.tpot_s < slack * self.tpot_target_s
        prefill_short = ttft_late and self.prefill_queue > self.rule.prefill_queue and tpot_slack
        decode_short = (tpot_late or self.decode_queue > self.rule.decode_queue) and ttft_slack
        if prefill_short == decode_short:
            return None
        return Role.PREFILL if prefill_short else Role.DECODE

    def why(self, short: Role) -> str:
        """The measure that made a phase short, in words."""
        if short is Role.PREFILL:
            if self.prefill_instances == 0:
                return "no instance serves it"
            return f"TTFT {_ms(self.ttft_s)} over {_ms(self.ttft_target_s)}, {self.prefill_queue:.1f} waiting each"
        if self.decode_instances == 0:
            return "no instance serves it"
        return f"TPOT {_ms(self.tpot_s)} against {_ms(self.tpot_target_s)}, {self.decode_queue:.1f} waiting each"

    def inputs(self) -> tuple[tuple[str, float | str], ...]:
        """The numbers, for the record."""
        return (
            ("ttft_s", "none" if self.ttft_s is None else round(self.ttft_s, 6)),
            ("ttft_target_s", self.ttft_target_s),
            ("tpot_s", "none" if self.tpot_s is None else round(self.tpot_s, 6)),
            ("tpot_target_s", self.tpot_target_s),
            ("prefill_queue", round(self.prefill_queue, 3)),
            ("decode_queue", round(self.decode_queue, 3)),
            ("prefill_instances", float(self.prefill_instances)),
            ("decode_instances", float(self.decode_instances)),
        )


def _present(one: InstanceView) -> bool:
    """It serves or will. One whose stream broke goes on serving; it is gone when its load is no longer reported."""
    return one.phase is not Phase.FAILED and (one.phase is not Phase.GONE or one.load is not None)


def _waiting(instances: Iterable[InstanceView]) -> int:
    return sum(one.load.waiting_requests for one in instances if one.load is not None)


def _choose(view: View, donor: Role, short: Role) -> InstanceView | None:
    """The donor instance with the least to drain that may change; None when it would be the last of its role."""
    serving = [one for one in view.instances if one.role is donor and one.phase is Phase.SERVING]
    able = [one for one in serving if short in one.roles and not one.pinned]
    if len(serving) < 2 or not able:
        return None

    def to_drain(one: InstanceView) -> tuple[int, str]:
        left = 0 if one.load is None else one.load.running_requests + one.load.waiting_requests
        return (left, one.instance)

    return min(able, key=to_drain)


def _by_node(view: View, role: Role) -> dict[str, list[GpuView]]:
    """The movable GPUs of a role, by node."""
    names = {gpu for one in view.instances if one.role is role and _present(one) for gpu in one.gpus}
    nodes: dict[str, list[GpuView]] = {}
    for gpu in view.gpus:
        if gpu.gpu in names:
            nodes.setdefault(gpu.node, []).append(gpu)
    return nodes


def _spread(gpus: list[GpuView], sum_mw: int, bounds_mw: list[int]) -> list[tuple[GpuView, int]]:
    """Parts of sum_mw for each GPU, as even as the bounds allow; whole milliwatts, never more than sum_mw in all.

    What the division leaves over is not handed out: equal GPUs get equal limits (tensor parallelism needs it).
    """
    parts = [0] * len(gpus)
    open_ = [index for index, bound_mw in enumerate(bounds_mw) if bound_mw > 0]
    left_mw = sum_mw
    while open_ and left_mw >= len(open_):
        share_mw = min(left_mw // len(open_), min(bounds_mw[index] - parts[index] for index in open_))
        for index in open_:
            parts[index] += share_mw
        left_mw -= share_mw * len(open_)
        open_ = [index for index in open_ if parts[index] < bounds_mw[index]]
    return list(zip(gpus, parts, strict=True))


def _ms(time_s: float | None) -> str:
    return "none" if time_s is None else f"{time_s * 1000:.0f} ms"
