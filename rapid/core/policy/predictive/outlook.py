"""What a plan would bring: SLO attainment over the next seconds by a small fluid model, and the headroom it leaves.

The model has two tanks. Prompts are work that flows into prefill and out of it at the speed that its limits buy;
what comes out lives in decode for output_tokens steps, and a step takes longer the more live there. A request attains
its TTFT if what is before it in the tank, with the waiting of an M/G/n queue on top, leaves time for its own prompt; it
attains its TPOT if a step takes less than the target. Instances on their way to another role serve nobody until then.

The demand of the next seconds is not known, so the same is asked for several: as it is, and in bursts of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, log, sqrt

from rapid.core.cluster import GpuView, SloTargets
from rapid.core.policy.predictive.demand import Demand
from rapid.core.policy.predictive.models import Models

FRONT_S = 0.04  # of TTFT before and after the engine (35 to 45 ms in front of vLLM)
BURSTS = ((1.0, 0.45), (1.6, 0.25), (2.5, 0.18), (4.0, 0.12))  # times the demand, and how much it counts (assumed)
BURST_S = 4.0  # a burst is over half-way after this long
TPOT_MARGIN, TPOT_WIDTH = 0.95, 0.03  # a step of this share of the target is even odds, and how sharp that is
SMALL_BATCH, LARGE_BATCH = 8.0, 128.0  # between and beyond which a step is taken as linear in its batch
MOST_HEADROOM = 16.0  # more than that is worth nothing
HOPELESS = 1.0  # by how much more headroom weighs when nothing is attained (assumed)
LEAST_SLACK = 0.1  # of the target, that a mean prompt is taken to leave for waiting: shorter ones do
REACT_S = 1.0  # until a burst has been seen, and an order given (assumed)
TRANSIT_S = 1.5  # what an instance that is on its way already still needs, on average (assumed)


@dataclass(frozen=True, slots=True)
class Fleet:
    """Instances that serve a role, and those on their way to it."""

    prefill: int
    decode: int
    to_prefill: int = 0
    to_decode: int = 0

    @property
    def count(self) -> int:
        """All of them."""
        return self.prefill + self.decode + self.to_prefill + self.to_decode

    @property
    def most_moving(self) -> int:
        """How many may be on their way at once: the rest has to serve."""
        return max(2, self.count // 8)


@dataclass(frozen=True, slots=True)
class Plan:
    """Instances that change to prefill (negative: to decode), and the mean limit of the GPUs of each role then."""

    moves: int
    prefill_mw: int
    decode_mw: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a plan brings.

    value        what plans are compared by: attainment in all bursts, and a slope towards more headroom
    attainment   what will be measured over the horizon, with the demand as it is: the share of first tokens in time,
                 times the share of answers with their TPOT
    headroom     by how much the demand of a past burst could grow before the first phase misses its target
    """

    value: float
    attainment: float
    headroom: float


@dataclass(frozen=True, slots=True)
class Gear:
    """What the limits of a plan buy: speed of prefill, and seconds of a decode step as base_s + slope_s * batch."""

    prefill_speed: float
    base_s: float
    slope_s: float

    def step_s(self, batch: float) -> float:
        return self.base_s + self.slope_s * batch


class Outlook:
    """Answers for one view. gpu: one that stands for all; sequences: most that an instance decodes at once;
    switch_s: to prefill, to decode: how long a change of role takes with its drain (None: not measured yet);
    oldest_s: how long the first in the queue has waited; drain_s: how long the decode instance that would leave first
    needs to finish its answers."""

    def __init__(
        self,
        demand: Demand,
        fleet: Fleet,
        models: Models,
        gpu: GpuView,
        slo: SloTargets,
        *,
        horizon_s: float,
        steps: int,
        sequences: float,
        reserve: float,
        switch_s: Mapping[bool, float | None],
        engine_switch_s: float,
        oldest_s: float,
        drain_s: float,
    ) -> None:
        self._demand, self._fleet, self._models, self._gpu, self._slo = demand, fleet, models, gpu, slo
        self._horizon_s, self._step_s, self._steps = horizon_s, horizon_s / steps, steps
        self._sequences, self._reserve = sequences, reserve
        self._token_s = models.prefill_token_s(demand.prompt_tokens)
        self._prompt_s = self._token_s * max(1.0, demand.prompt_tokens)  # of a typical prompt, at full speed
        self._switch_s, self._engine_switch_s = switch_s, engine_switch_s
        self._prompts = _prompts(models.prompt_spread)
        self._oldest_s, self._drain_s = oldest_s, drain_s
        self._gears: dict[tuple[int, int], Gear] = {}

    # ---- questions ----

    def forecast(self, plan: Plan) -> Forecast:
        """What the plan would bring."""
        gear = self._gear(plan)
        serving = self._serving(plan, gear)
        shares = [self._attainment(gear, serving, times) for times, _ in BURSTS]
        expected = sum(share * weight for share, (_, weight) in zip(shares, BURSTS, strict=True))
        least, greatest = self._headrooms(plan, gear)
        # Where nothing can be attained any more, headroom is all that tells plans apart: then it weighs more.
        slope = self._reserve * (1.0 + HOPELESS * (1.0 - expected)) * (log(least) + 0.1 * log(greatest))
        return Forecast(expected + slope, self._measured(gear, serving), least)

    # ---- inside ----

    def _gear(self, plan: Plan) -> Gear:
        key = (plan.prefill_mw, plan.decode_mw)
        gear = self._gears.get(key)
        if gear is None:
            context_tokens = self._demand.context_tokens
            small_s, large_s = (
                self._models.step_s(batch, context_tokens, plan.decode_mw, self._gpu)
                for batch in (SMALL_BATCH, LARGE_BATCH)
            )
            slope_s = max(0.0, (large_s - small_s) / (LARGE_BATCH - SMALL_BATCH))
            base_s = max(1e-4, small_s - slope_s * SMALL_BATCH)
            speed = max(0.01, self._models.prefill_speed(plan.prefill_mw, self._gpu))
            gear = self._gears[key] = Gear(speed, base_s, slope_s)
        return gear

    def _serving(self, plan: Plan, gear: Gear) -> list[tuple[float, float]]:
        """How many instances serve prefill and decode in each step of the horizon."""
        fleet, moves = self._fleet, plan.moves
        prefill, decode = fleet.prefill - max(0, -moves), fleet.decode - max(0, moves)
        there_s = self._moved_after_s(moves > 0, gear)
        served = []
        for number in range(self._steps):
            at_s = (number + 0.5) * self._step_s
            more_prefill = (fleet.to_prefill if at_s > TRANSIT_S else 0) + (max(0, moves) if at_s > there_s else 0)
            more_decode = (fleet.to_decode if at_s > TRANSIT_S else 0) + (max(0, -moves) if at_s > there_s else 0)
            served.append((max(0.01, prefill + more_prefill), max(0.01, decode + more_decode)))
        return served

    def _moved_after_s(self, to_prefill: bool, gear: Gear) -> float:
        """How long a change takes: as measured, or the time to finish what runs, and the switch."""
        if not to_prefill:
            return self._to_decode_s(gear.prefill_speed)
        # How long a drain takes depends on what there is to finish now; what was measured knows the rest.
        return self._drain_s + self._engine_switch_s

    def _to_decode_s(self, prefill_speed: float = 1.0) -> float:
        return self._switch_s[False] or self._prompt_s / prefill_speed + self._engine_switch_s

    def _attainment(self, gear: Gear, serving: list[tuple[float, float]], times: float) -> float:
        """The share of requests that arrive within the horizon and attain both targets, with the demand times that."""
        demand, slo, dt_s = self._demand, self._slo, self._step_s
        rate_rps, answer = max(0.05, demand.prompt_rps), demand.output_tokens
        work, queue = max(0.002, demand.prompt_tps * self._token_s), demand.queued_tokens * self._token_s
        prompt_s = self._prompt_s / gear.prefill_speed
        resident = demand.resident
        attained = offered = 0.0
        speed, base_s, slope_s = gear.prefill_speed, gear.base_s, gear.slope_s
        # Most of a decision is spent here: no calls where a comparison does.
        for number, (prefill, decode) in enumerate(serving):
            many = times if number * dt_s < BURST_S else 1.0 + (times - 1.0) / 2
            capacity = prefill * speed
            come, done = work * many * dt_s, capacity * dt_s
            if done > queue + come:
                done = queue + come
            queue += come - done
            busy = work * many / capacity
            idle = 1.0 - busy
            if idle < 0.05:
                idle = 0.05
            # Waiting in an M/G/n queue, roughly, beside the deterministic backlog (policies after DOPD).
            wait_s = (0.5 * busy / idle / prefill + 0.02) * prompt_s + 0.01
            in_time = self._in_time(queue / capacity, prompt_s, busy, wait_s)
            batch = resident / decode
            step_s = base_s + slope_s * batch
            crowd = batch / self._sequences
            if crowd > 1.0:
                step_s *= crowd  # those without a place wait as long again
            joined, fastest = rate_rps * many * done / (work * many), 4 * rate_rps * many * dt_s
            if joined > fastest:
                joined = fastest
            ended = dt_s / (answer * step_s)
            resident = resident - resident * ended + joined if ended < 1.0 else joined
            attained += many * in_time * _fluent(step_s, slo.tpot_s)
            offered += many
        return attained / offered

    def _in_time(self, waited_s: float, prompt_s: float, busy: float, wait_s: float) -> float:
        """The share of prompts that attain their TTFT after waited_s of backlog and wait_s of random waiting: a short
        prompt leaves more time for both than a long one."""
        busy = min(1.0, busy)
        left_s = self._slo.ttft_s - FRONT_S - waited_s - busy * prompt_s / 2  # half of a prompt that runs already
        share = 0.0
        for times, weight in self._prompts:
            spare = (left_s - times * prompt_s) / wait_s
            if spare > 0.0:
                share += weight * (1.0 - busy * exp(-spare)) if spare < 30.0 else weight
        return share

    def _measured(self, gear: Gear, serving: list[tuple[float, float]]) -> float:
        """The share of first tokens made within the horizon that are in time, times that of answers.

        Prompts go first come, first served: those that wait now came over the last oldest_wait_s.
        """
        demand, slo, dt_s = self._demand, self._slo, self._step_s
        work, queue = max(0.002, demand.prompt_tps * self._token_s), demand.queued_tokens * self._token_s
        prompt_s, resident = self._prompt_s / gear.prefill_speed, demand.resident
        waiting, served, made, in_time, fluent, steps = queue, 0.0, 0.0, 0.0, 0.0, 0.0
        for number, (prefill, decode) in enumerate(serving):
            at_s = (number + 0.5) * dt_s
            capacity = prefill * gear.prefill_speed
            done = min(waiting + work * dt_s, capacity * dt_s)
            middle = served + done / 2
            waiting, served = waiting + work * dt_s - done, served + done
            if middle < queue:
                waited_s = at_s + self._oldest_s * (1.0 - middle / queue)
            else:
                waited_s = max(0.0, at_s - (middle - queue) / work)
            busy = work / capacity
            wait_s = (0.5 * busy / (1.0 - min(busy, 0.95)) / prefill + 0.02) * prompt_s + 0.01
            made += done
            in_time += done * self._in_time(waited_s, prompt_s, busy, wait_s)
            step_s = gear.step_s(resident / decode) * max(1.0, resident / decode / self._sequences)
            joined = demand.prompt_rps * done / work
            resident = max(0.0, resident + joined - resident * min(1.0, dt_s / (demand.output_tokens * step_s)))
            fluent += _fluent(step_s, slo.tpot_s)
            steps += 1.0
        return in_time / made * fluent / steps if made else fluent / steps

    def _headrooms(self, plan: Plan, gear: Gear) -> tuple[float, float]:
        """By how much the demand of a burst may grow until prefill, or decode, misses its target: less, then more."""
        demand, slo = self._demand, self._slo
        prefill = self._fleet.prefill + self._fleet.to_prefill + plan.moves
        decode = self._fleet.decode + self._fleet.to_decode - plan.moves
        prompt_s = self._prompt_s / gear.prefill_speed
        # In an M/G/n queue one request in twenty waits longer than ln 20 mean waits: busy up to x/(1+x).
        slack_s = max(LEAST_SLACK * slo.ttft_s, slo.ttft_s - FRONT_S - prompt_s)
        x = slack_s * prefill / (1.5 * prompt_s)
        for_prefill = x / (1 + x) * prefill * gear.prefill_speed
        backlog = demand.queued_tokens / self._horizon_s
        of_prefill = for_prefill / max(0.01, (demand.reserve_tps + backlog) * self._token_s)
        batch = (0.93 * slo.tpot_s - gear.base_s) / max(1e-7, gear.slope_s)
        batch = min(max(0.5, batch), self._sequences)
        step_s = gear.step_s(batch)
        for_decode = decode * batch / step_s
        of_decode = for_decode / max(2.0, self._burst_output_tps(demand.output_tokens * step_s))
        least, greatest = sorted((of_prefill, of_decode))
        return min(max(least, 1e-3), MOST_HEADROOM), min(max(greatest, 1e-3), MOST_HEADROOM)

    def _burst_output_tps(self, answer_s: float) -> float:
        """What of a burst decode has to bear before help can come: it fills up as slowly as answers take, and prefill
        gives an instance away in no time. The other way round it takes a drain: prefill has to bear all of a burst.
        """
        demand = self._demand
        now_tps = demand.prompt_rps * demand.output_tokens
        come = 1.0 - exp(-(self._to_decode_s() + REACT_S) / max(answer_s, 0.1))
        return now_tps + (demand.reserve_output_tps - now_tps) * come


def _fluent(step_s: float, tpot_s: float) -> float:
    """The share of answers that attain their TPOT at that pace."""
    late = (step_s / tpot_s - TPOT_MARGIN) / TPOT_WIDTH
    if late < -30.0:
        return 1.0
    return 1.0 / (1.0 + exp(late)) if late < 30.0 else 0.0


def _prompts(spread: float) -> tuple[tuple[float, float], ...]:
    """Lengths by their mean, with their shares: short, middle and long prompts with about that spread (assumed)."""
    deviation = min(1.5, sqrt(max(0.0, spread - 1.0)))
    if deviation < 0.15:
        return ((1.0, 1.0),)
    return ((max(0.15, 1.0 - 0.9 * deviation), 0.45), (1.0, 0.30), (1.0 + 1.1 * deviation, 0.25))
