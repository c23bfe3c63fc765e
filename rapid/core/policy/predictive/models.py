"""What the policy believes of the engines: cost and speed of both phases, learned online from the loads in the view.

Evidence is what an instance did between two loads under one limit: the tokens of its prompts against the time it was
busy, the steps of its decode against the time they took. Evidence fades, so what changes is followed.
"""

from rapid.core.cluster import GpuView, PhaseLoad, Role, View
from rapid.core.policy.predictive.decode_model import DecodeModel, DecodeState
from rapid.core.policy.predictive.lengths import Contexts, ContextsState, Lengths, LengthsState
from rapid.core.policy.predictive.prefill_model import PrefillModel, PrefillState
from rapid.core.policy.predictive.seen import GREATEST, LEAST, LONGEST_S, Seen, SeenState
from rapid.core.policy.predictive.start import Start

FORGET_S = 240.0  # evidence counts 1/e of what it did after so long
SETTLE_S = 1.0  # after a new limit or role was seen: a load may be 0.5 s old, raises wait for cuts, and limits lag
MISFIT_AFTER_S = 30.0
_FULL_RING = 0.9  # a prefill engine whose ring is that full may have stood still between two looks
_SURE = 0.5  # before a phase is known so well, no GPU is held against it
_SPARE = 64  # instances that are remembered after they have left, besides as many as there are

ModelsState = tuple[
    float | None,
    PrefillState,
    DecodeState,
    LengthsState,
    ContextsState,
    tuple[tuple[str, SeenState], ...],
    tuple[tuple[str, str], ...],
]


class Models:
    """Starts from a profile, or from a conservative curve. observe() once a tick; all else only answers."""

    def __init__(self, start: Start | None = None) -> None:
        self._start = start or Start()
        self._prefill = PrefillModel(self._start)
        self._decode = DecodeModel(self._start)
        self._lengths, self._contexts = Lengths(), Contexts()
        self._seen: dict[str, Seen] = {}  # by instance; at most twice those in the view and _SPARE
        self._owners: dict[str, str] = {}  # instance by GPU, of the last view
        self._at_s: float | None = None  # of the last view
        self.misfit = ""  # empty, or one line that says what does not fit

    # ---- questions ----

    def prefill_token_s(self, prompt_tokens: float) -> float:
        """Seconds per prompt token at full speed, for prompts of that mean length as they are batched."""
        return self._prefill.token_s(prompt_tokens, self._lengths.spread)

    def prefill_speed(self, limit_mw: float, gpu: GpuView) -> float:
        """Speed relative to that at the ceiling: concave and increasing, 1 at the ceiling."""
        return self._prefill.speed.at(limit_mw / gpu.ceiling_mw)

    def prefill_slope(self, limit_mw: float, gpu: GpuView) -> float:
        """What one watt more adds to prefill_speed."""
        return 1e3 * self._prefill.speed.slope(limit_mw / gpu.ceiling_mw) / gpu.ceiling_mw

    def step_s(self, batch: float, context_tokens_per_sequence: float, limit_mw: float, gpu: GpuView) -> float:
        """Seconds of one decode step on one instance whose GPUs have that limit each."""
        decode = self._decode
        speed = decode.speed.at(limit_mw / (gpu.ceiling_mw * decode.natural.at(batch)))
        return decode.step_s(batch, context_tokens_per_sequence, speed)

    def decode_speed(self, limit_mw: float, gpu: GpuView, batch: float) -> float:
        """Speed relative to that without a limit: never falls as the limit grows, and may have a cliff."""
        decode = self._decode
        return decode.speed.at(limit_mw / (gpu.ceiling_mw * decode.natural.at(batch)))

    def decode_slope(self, limit_mw: float, gpu: GpuView, batch: float) -> float:
        """What one watt more adds to decode_speed."""
        natural_mw = self.natural_mw(gpu, batch)
        return 1e3 * self._decode.speed.slope(limit_mw / natural_mw) / natural_mw

    def natural_mw(self, gpu: GpuView, batch: float) -> float:
        """What a decode step draws without a limit; a limit above it buys nothing."""
        return gpu.ceiling_mw * self._decode.natural.at(batch)

    def factor(self, gpu: str, role: Role) -> float:
        """Kappa: the time that this GPU takes by what the model says. Above 1: it is slower. 1: not known."""
        owner = self._owners.get(gpu)
        return 1.0 if owner is None else self._seen[owner].factor(role)

    def confidence(self, role: Role) -> float:
        """From 0, nothing but the start profile, to 1. Grows with evidence, falls as that fades.

        0.5: the time of prefill is known to 8 %, that of a decode step to 2 % (one standard deviation).
        """
        return self._prefill.confidence if role is Role.PREFILL else self._decode.confidence

    @property
    def prompt_spread(self) -> float:
        """Mean square of the lengths of prompts by their squared mean: 1 when all are alike."""
        return self._lengths.spread

    @property
    def context_tokens(self) -> float:
        """What the sequences that run now hold on average."""
        return self._contexts.now(self._lengths.context_tokens)

    # ---- evidence ----

    def observe(self, view: View) -> None:
        """Take a view in. The order of instances in it is part of the input."""
        self._fade(view.at_s)
        gpus = {gpu.gpu: gpu for gpu in view.gpus}
        self._owners = {name: one.instance for one in view.instances for name in one.gpus}
        for one in view.instances:
            mine = [gpus[name] for name in one.gpus if name in gpus]
            seen = self._seen.get(one.instance)
            if seen is None:
                seen = self._seen[one.instance] = Seen()
            seen.look(one, mine, view.at_s)
            load = one.load
            if load is None or load.role is not one.role or not mine:
                seen.role = ""
            elif load.at_s != seen.at_s or seen.role != load.role.value:
                self._hear(seen, load, mine[0], view.at_s)
        self._prefill.refit()
        self._decode.refit()
        self._sum_up(view)

    def _fade(self, at_s: float) -> None:
        lived_s = 0.0 if self._at_s is None else min(LONGEST_S, max(0.0, at_s - self._at_s))
        self._prefill.forget(1.0 - lived_s / FORGET_S)
        self._decode.forget(1.0 - lived_s / FORGET_S)
        self._lengths.forget(lived_s)
        self._contexts.forget(lived_s)
        self._at_s = at_s

    def _hear(self, seen: Seen, load: PhaseLoad, gpu: GpuView, at_s: float) -> None:
        """A new load of an instance that serves."""
        firsts, lasts = sum(load.ttft.counts), sum(load.tpot.counts)
        if seen.follows(load, firsts, lasts):
            settled = seen.heard_s >= seen.changed_s + SETTLE_S
            if load.role is Role.PREFILL:
                if firsts > seen.firsts:
                    self._lengths.add_prompts(load.prompt_tokens - seen.prompt_tokens, firsts - seen.firsts)
                if settled:
                    self._see_prefill(seen, load)
            elif load.role is Role.DECODE:
                finished, joined = lasts - seen.lasts, load.running_requests - seen.running
                self._lengths.add_answers(load.output_tokens - seen.output_tokens, finished, joined)
                self._see_decode(seen, load, gpu, settled)
        seen.take(load, firsts, lasts, at_s)
        seen.judge(load.role, at_s)

    def _see_prefill(self, seen: Seen, load: PhaseLoad) -> None:
        """Busy at both ends of an interval, half of it at one: right on average, as the ends are nobody's choice."""
        lived_s = load.at_s - seen.at_s
        certain = seen.running > 0 < seen.waiting and load.running_requests > 0 < load.waiting_requests
        certain = certain and max(seen.full, load.kv_used_fraction) < _FULL_RING
        busy_s = lived_s * ((seen.running > 0) + (load.running_requests > 0)) / 2
        tokens = load.prompt_tokens - seen.prompt_tokens
        model, lengths = self._prefill, self._lengths
        prior_s = tokens * model.prior_token_s(lengths.prompt_tokens, lengths.spread)
        model.add(seen.limit, busy_s, prior_s, lived_s, certain)
        if (busy_s or tokens) and model.confidence >= _SURE:
            seen.worked(Role.PREFILL, busy_s, prior_s * model.slowness / model.speed.at(seen.limit))

    def _see_decode(self, seen: Seen, load: PhaseLoad, gpu: GpuView, settled: bool) -> None:
        made = load.output_tokens - seen.output_tokens
        if seen.running <= 0 or load.running_requests <= 0 or made <= 0:
            return
        lived_s = load.at_s - seen.at_s
        batch = (seen.running + load.running_requests) / 2
        used = (seen.full + load.kv_used_fraction) / 2
        context_tokens = self._contexts.add(batch, used, self._lengths.context_tokens)
        if not settled:
            return
        steps = made / batch
        changed = (load.running_requests - seen.running) / batch
        # The batch is known at the ends alone, and a step may be cut by either of them (assumed).
        error = (0.015**2 + (0.4 / steps) ** 2 + (0.3 * changed) ** 2 + 0.05 / batch) ** 0.5
        model = self._decode
        x = seen.limit / model.natural.at(batch)
        model.add(x, batch, context_tokens, lived_s / steps, error)
        if gpu.draw_mw is not None:
            model.natural.add(batch, seen.limit, gpu.draw_mw / gpu.ceiling_mw)
        if model.confidence >= _SURE:
            seen.worked(Role.DECODE, lived_s, steps * model.step_s(batch, context_tokens, model.speed.at(x)))

    def _sum_up(self, view: View) -> None:
        """One line for what has not fitted for long; and the memory is kept bounded."""
        self.misfit = ""
        for one in view.instances:
            seen = self._seen[one.instance]
            since_s = seen.misfit_since_s
            if seen.role and since_s is not None and view.at_s - since_s >= MISFIT_AFTER_S:
                kappa = seen.kappa(one.role)
                self.misfit = (
                    f"{one.instance} takes {kappa:.2f} of the time predicted for {one.role.value}, "
                    f"outside {LEAST:g} to {GREATEST:g}"
                )
                break
        if len(self._seen) > 2 * len(view.instances) + _SPARE:
            self._seen = {one.instance: self._seen[one.instance] for one in view.instances}

    # ---- memory ----

    def state(self) -> ModelsState:
        """All that from_state() needs besides the start profile: tuples of plain values, bounded in size."""
        return (
            self._at_s,
            self._prefill.state(),
            self._decode.state(),
            self._lengths.state(),
            self._contexts.state(),
            tuple([(name, seen.state()) for name, seen in self._seen.items()]),
            tuple(self._owners.items()),
        )

    @classmethod
    def from_state(cls, state: ModelsState, start: Start | None = None) -> "Models":
        """The same models again: they answer and learn alike."""
        models = cls(start)
        models._at_s, prefill, decode, lengths, contexts, seen, owners = state
        models._prefill.restore(prefill)
        models._decode.restore(decode)
        models._lengths.restore(lengths)
        models._contexts.restore(contexts)
        for name, values in seen:
            models._seen[name] = Seen()
            models._seen[name].restore(values)
        models._owners = dict(owners)
        return models


__all__ = ["Models", "ModelsState", "Start"]
