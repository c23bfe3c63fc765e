"""Worlds that are not as the policy believes, and what it believes: a start profile fitted to the nominal engine."""

from collections import deque
from dataclasses import dataclass, replace
from math import log, sqrt

from rapid.core.cluster import NodeReport, PhaseLoad
from rapid.core.commands import Command
from rapid.core.control import Control
from rapid.core.events import EngineCame, Event, NodeHeard
from rapid.core.policy import settings_of
from rapid.core.settings import POLICY_START
from rapid.sim.model.curves import QuadraticKnee, SpeedCurve
from rapid.sim.model.profile import Profile
from rapid.sim.world.build import Parts
from rapidctl.sim.options import PolicyChoice

_SURE = 0.10  # how sure an operator is who has measured the engine (assumed)
_STALL = 0.20  # no cliff goes below this speed (assumed): 2.5 times the sharp one would end below 0


@dataclass(frozen=True, slots=True)
class Wrong:
    """What is different from what was believed. All at its default: nothing.

    decode_ms        factor on the times of decode, the host's too
    prefill_exponent added to the exponent of prefill speed by limit / ceiling
    cliff            factor on the gain of the decode curve's knee
    draw             factor on what every power meter shows
    late_s           age of the loads that the controller hears, which their time stamps do not tell
    switch_s         of role changes; engines go on to say what the profile has. 0: as they say
    """

    name: str
    decode: float = 1.0
    prefill_exponent: float = 0.0
    cliff: float = 1.0
    draw: float = 1.0
    late_s: float = 0.0
    switch_s: float = 0.0

    def engine(self, nominal: Profile) -> Profile:
        """As it really is."""
        made = replace(
            nominal,
            decode_ms=self.decode * nominal.decode_ms,
            decode_sequence_ms=self.decode * nominal.decode_sequence_ms,
            decode_context_ms=self.decode * nominal.decode_context_ms,
            host_ms=self.decode * nominal.host_ms,
            host_sequence_ms=self.decode * nominal.host_sequence_ms,
            steep=_Tilted(nominal.steep, self.prefill_exponent),
            shallow=_Tilted(nominal.shallow, self.prefill_exponent),
            switch_s=self.switch_s or nominal.switch_s,
        )
        # No argument: a profile takes its decode curve by its corner.
        object.__setattr__(made, "decode_curve", _sharper(nominal.decode_curve, self.cliff))
        return made

    def parts(self, nominal: Profile) -> Parts:
        """A controller that hears what is not so."""
        return Parts(control=_misled(self, nominal.switch_s))


RIGHT = Wrong("nominal")
WRONGS = (
    Wrong("decode", decode=1.15),
    Wrong("exp +.2", prefill_exponent=0.2),
    Wrong("exp -.2", prefill_exponent=-0.2),
    Wrong("cliff", cliff=2.5),
    Wrong("meter +", draw=1.05),
    Wrong("meter -", draw=0.95),
    Wrong("late 2 s", late_s=2.0),
    Wrong("switch", switch_s=6.0),
)


def believing(policy: PolicyChoice, nominal: Profile) -> PolicyChoice:
    """The policy with a start profile fitted to the engine, where it can have one and none was given."""
    if not any(key.startswith(POLICY_START) for key in settings_of(policy.name)):
        return policy
    fitted = {POLICY_START + key: value for key, value in _start(nominal).items()}
    return replace(policy, settings=tuple({**fitted, **dict(policy.settings)}.items()))


def _start(engine: Profile) -> dict[str, float]:
    same = ("prefill_ms", "prefill_token_ms", "prefill_square_ms", "decode_ms", "decode_sequence_ms")
    more = ("decode_context_ms", "host_ms", "host_sequence_ms")
    return {
        **{name: getattr(engine, name) for name in (*same, *more)},
        "prefill_exponent": _exponent(engine),
        "natural_fraction": engine.decode_draw_mw(32) / engine.ceiling_mw,
        "sure": _SURE,
    }


def _exponent(engine: Profile) -> float:
    """Of x ** (exponent * (1.5 - x)), by least squares over the logarithms from floor to ceiling."""
    floor = engine.floor_mw / engine.ceiling_mw
    limits = [floor + (1 - floor) * step / 20 for step in range(20)]
    shapes = [(1.5 - x) * log(x) for x in limits]
    logs = [log(engine.prefill_curve.speed(x)) for x in limits]
    return sum(a * b for a, b in zip(shapes, logs, strict=True)) / sum(a * a for a in shapes)


@dataclass(frozen=True, slots=True)
class _Tilted:
    """A curve of another exponent."""

    curve: SpeedCurve
    exponent: float

    def speed(self, fraction: float) -> float:
        return min(1.0, self.curve.speed(fraction) * float(min(1.0, fraction) ** self.exponent))


def _sharper(curve: SpeedCurve, factor: float) -> SpeedCurve:
    if factor == 1.0:
        return curve
    assert isinstance(curve, QuadraticKnee), f"{curve} has no cliff"
    gain = factor * curve.gain
    return QuadraticKnee(curve.knee, gain, max(curve.measured_from, curve.knee - sqrt((1 - _STALL) / gain)))


def _misled(wrong: Wrong, told_switch_s: float) -> type[Control]:
    """The controller, told what is not so."""
    history: dict[str, deque[PhaseLoad]] = {}

    def late(load: PhaseLoad, now_s: float) -> PhaseLoad | None:
        loads = history.setdefault(load.instance, deque())
        loads.append(load)
        while len(loads) > 1 and loads[1].at_s + wrong.late_s <= now_s:
            loads.popleft()
        then = loads[0]
        return replace(then, at_s=then.at_s + wrong.late_s) if then.at_s + wrong.late_s <= now_s else None

    def heard(report: NodeReport) -> NodeReport:
        gpus = tuple(
            replace(gpu, draw_mw=None if gpu.draw_mw is None else round(wrong.draw * gpu.draw_mw))
            for gpu in report.gpus
        )
        loads = tuple(late(load, report.node_time_s) for load in report.loads)
        return replace(report, gpus=gpus, loads=tuple(load for load in loads if load is not None))

    class Misled(Control):
        def step(self, event: Event) -> list[Command]:
            if isinstance(event, NodeHeard):
                event = replace(event, report=heard(event.report))
            elif isinstance(event, EngineCame):
                event = replace(event, hello=replace(event.hello, switch_s=told_switch_s))
            return super().step(event)

    return Misled
