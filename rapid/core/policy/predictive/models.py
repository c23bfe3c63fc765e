"""What the policy believes of the engines: cost and speed of both phases, learned online from the loads in the view."""

from rapid.core.cluster import GpuView, InstanceView, Phase, PhaseLoad, Role, View
from rapid.core.policy.predictive.decode_model import DecodeModel, DecodeState
from rapid.core.policy.predictive.lengths import Lengths, LengthsState
from rapid.core.policy.predictive.prefill_model import PrefillModel, PrefillState
from rapid.core.policy.predictive.start import Start

FORGET_S = 240.0  # evidence counts 1/e of what it did after so long
SETTLE_S = 1.0  # after a new limit or role was seen: a load may be 0.5 s old, and limits lag
LONGEST_S = 5.0  # an interval between two loads that is longer says too little
KAPPA_LEAST, KAPPA_GREATEST = 0.7, 1.4  # a GPU outside is not what the model describes
_MISFIT_AFTER_S = 30.0
_KAPPA_MEMORY_S = 60.0  # of work
_KAPPA_FIRST_S = 10.0  # of work as predicted, that nobody did
_SPARE = 64  # instances that are remembered after they have left, besides as many as there are

SeenState = tuple[str, tuple[str | float, ...]]
ModelsState = tuple[int, float, PrefillState, DecodeState, LengthsState, tuple[SeenState, ...]]
_VERSION = 1


class _Seen:
    """What was last seen of one instance, and how it differs from the model. Limits are by ceiling."""

    __slots__ = (
        "at_s",
        "changed_s",
        "firsts",
        "full",
        "heard_s",
        "lasts",
        "limit",
        "misfit_since_s",
        "observed_d",
        "observed_p",
        "output_tokens",
        "predicted_d",
        "predicted_p",
        "prompt_tokens",
        "role",
        "running",
        "waiting",
    )

    def __init__(self) -> None:
        self.role = ""  # of the last load, if it serves that role; else empty
        self.at_s = self.heard_s = 0.0  # of the last load: its own clock, and the view's
        self.changed_s = float("-inf")  # when another limit or role was first seen
        self.limit = 0.0
        self.running = self.waiting = 0
        self.full = 0.0  # KV used
        self.prompt_tokens = self.output_tokens = self.firsts = self.lasts = 0
        self.observed_p = self.predicted_p = self.observed_d = self.predicted_d = _KAPPA_FIRST_S
        self.misfit_since_s = float("inf")

    def take(self, role: str, load: PhaseLoad, firsts: int, lasts: int, at_s: float) -> None:
        self.role, self.at_s, self.heard_s = role, load.at_s, at_s
        self.running, self.waiting, self.full = load.running_requests, load.waiting_requests, load.kv_used_fraction
        self.prompt_tokens, self.output_tokens = load.prompt_tokens, load.output_tokens
        self.firsts, self.lasts = firsts, lasts

    def state(self) -> tuple[str | float, ...]:
        return tuple(getattr(self, field) for field in self.__slots__)

    def kappa(self, role: Role) -> float:
        """Time taken by time predicted."""
        if role is Role.PREFILL:
            return self.observed_p / self.predicted_p
        return self.observed_d / self.predicted_d

    def worked(self, role: Role, observed_s: float, predicted_s: float) -> None:
        """Ratio of sums, since a single interval may well have seen no token at all."""
        keep = max(0.0, 1.0 - predicted_s / _KAPPA_MEMORY_S)
        if role is Role.PREFILL:
            self.observed_p = self.observed_p * keep + observed_s
            self.predicted_p = self.predicted_p * keep + predicted_s
        else:
            self.observed_d = self.observed_d * keep + observed_s
            self.predicted_d = self.predicted_d * keep + predicted_s


class Models:
    """Starts from a profile, or from a conservative curve. observe() once a tick; all else only answers."""

    def __init__(self, start: Start | None = None) -> None:
        self._start = start or Start()
        self._prefill = PrefillModel(self._start)
        self._decode = DecodeModel(self._start)
        self._lengths = Lengths()
        self._seen: dict[str, _Seen] = {}  # by instance; at most twice those in the view and _SPARE
        self._owners: dict[str, _Seen] = {}  # by GPU
        self._at_s = float("-inf")
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
        natural_mw = gpu.ceiling_mw * self._decode.natural.at(batch)
        return 1e3 * self._decode.speed.slope(limit_mw / natural_mw) / natural_mw

    def natural_mw(self, gpu: GpuView, batch: float) -> float:
        """What a decode step draws without a limit; a higher limit buys nothing."""
        return gpu.ceiling_mw * self._decode.natural.at(batch)

    def factor(self, gpu: str, role: Role) -> float:
        """Kappa: time that this GPU takes by what the model says. Above 1: it is slower. 1: not known."""
        seen = self._owners.get(gpu)
        return 1.0 if seen is None else seen.kappa(role)

    def confidence(self, role: Role) -> float:
        """From 0, nothing but the start profile, to 1. Grows with evidence, falls as that is forgotten."""
        return self._prefill.confidence if role is Role.PREFILL else self._decode.confidence

    @property
    def context_tokens(self) -> float:
        """What a running sequence holds on average, as the decode model takes it."""
        return self._lengths.context_tokens

    # ---- evidence ----

    def observe(self, view: View) -> None:
        """Take a view in. The order of instances in it is part of the input."""
        lived_s = min(LONGEST_S, view.at_s - self._at_s)
        if lived_s > 0.0:
            keep = 1.0 - lived_s / FORGET_S
            self._prefill.forget(keep)
            self._decode.forget(keep)
        self._at_s = view.at_s
        gpus = {gpu.gpu: gpu for gpu in view.gpus}
        self._owners = {}
        token_s = self._prefill.prior_token_s(self._lengths.prompt_tokens, self._lengths.spread)
        slowness = self.prefill_token_s(self._lengths.prompt_tokens) / token_s
        context_tokens = self._lengths.context_tokens
        done = _Done()
        for one in view.instances:
            mine = [gpus[name] for name in one.gpus if name in gpus]
            seen = self._look(one, mine, view.at_s)
            load = one.load
            if load is None or one.phase is not Phase.SERVING or load.role is not one.role or not mine:
                seen.role = ""
                continue
            if load.at_s == seen.at_s and seen.role == load.role.value:
                continue
            firsts, lasts = sum(load.ttft.counts), sum(load.tpot.counts)
            if _follows(seen, load, firsts, lasts):
                done.count(seen, load, firsts, lasts)
                settled = seen.heard_s >= seen.changed_s + SETTLE_S
                if settled and load.role is Role.PREFILL:
                    self._see_prefill(seen, load, token_s, slowness)
                elif settled and load.role is Role.DECODE:
                    self._see_decode(seen, load, mine[0], context_tokens)
            seen.take(load.role.value, load, firsts, lasts, view.at_s)
            self._judge(one.instance, seen, load.role, view.at_s)
        self._lengths.add(done.prompt_tokens, done.prompts, done.answer_tokens, done.answers, max(0.0, lived_s))
        self._prefill.refit()
        self._decode.refit()
        self._sum_up(view)

    def _look(self, one: InstanceView, mine: list[GpuView], at_s: float) -> _Seen:
        """Limits and roles, whether or not there is a load."""
        seen = self._seen.get(one.instance)
        if seen is None:
            seen = self._seen[one.instance] = _Seen()
        for name in one.gpus:
            self._owners[name] = seen
        limit = min([gpu.limit_mw / gpu.ceiling_mw for gpu in mine], default=0.0)
        changed = limit != seen.limit or one.phase is not Phase.SERVING or (seen.role and seen.role != one.role.value)
        if changed:
            seen.limit, seen.changed_s = limit, at_s
        return seen

    def _see_prefill(self, seen: _Seen, load: PhaseLoad, token_s: float, slowness: float) -> None:
        lived_s = load.at_s - seen.at_s
        certain = seen.running > 0 < seen.waiting and load.running_requests > 0 < load.waiting_requests
        certain = certain and max(seen.full, load.kv_used_fraction) < 0.9  # a full ring stops an engine in between
        busy_s = lived_s * ((seen.running > 0) + (load.running_requests > 0)) / 2
        work_s = token_s * (load.prompt_tokens - seen.prompt_tokens)
        self._prefill.add(seen.limit, busy_s, work_s, lived_s, certain)
        if busy_s or work_s:
            seen.worked(Role.PREFILL, busy_s, work_s * slowness / self._prefill.speed.at(seen.limit))

    def _see_decode(self, seen: _Seen, load: PhaseLoad, gpu: GpuView, context_tokens: float) -> None:
        made = load.output_tokens - seen.output_tokens
        if seen.running <= 0 or load.running_requests <= 0 or made <= 0:
            return
        lived_s = load.at_s - seen.at_s
        batch = (seen.running + load.running_requests) / 2
        steps = made / batch
        changed = (load.running_requests - seen.running) / batch
        error = (0.015**2 + (0.4 / steps) ** 2 + (0.3 * changed) ** 2 + 0.05 / batch) ** 0.5
        natural = self._decode.natural
        x = seen.limit / natural.at(batch)
        self._decode.add(x, batch, context_tokens, lived_s / steps, error)
        if gpu.draw_mw is not None:
            natural.add(batch, seen.limit, gpu.draw_mw / gpu.ceiling_mw)
        predicted_s = steps * self._decode.step_s(batch, context_tokens, self._decode.speed.at(x))
        seen.worked(Role.DECODE, lived_s, predicted_s)

    def _judge(self, instance: str, seen: _Seen, role: Role, at_s: float) -> None:
        if role is Role.MIXED or KAPPA_LEAST <= seen.kappa(role) <= KAPPA_GREATEST:
            seen.misfit_since_s = float("inf")
        else:
            seen.misfit_since_s = min(seen.misfit_since_s, at_s)

    def _sum_up(self, view: View) -> None:
        """One line for what has not fitted for long; and the memory is kept bounded."""
        self.misfit = ""
        for one in view.instances:
            seen = self._seen[one.instance]
            if seen.role and view.at_s - seen.misfit_since_s >= _MISFIT_AFTER_S:
                kappa = seen.kappa(Role(seen.role))
                bound = f"{KAPPA_LEAST:g} to {KAPPA_GREATEST:g}"
                self.misfit = f"{one.instance} takes {kappa:.2f} of the time predicted for {seen.role}, not {bound}"
                break
        if len(self._seen) > 2 * len(view.instances) + _SPARE:
            self._seen = {one.instance: self._seen[one.instance] for one in view.instances}

    # ---- memory ----

    def state(self) -> ModelsState:
        """All that from_state() needs besides the start profile: tuples of numbers and text, bounded in size."""
        seen = tuple((name, one.state()) for name, one in self._seen.items())
        return _VERSION, self._at_s, self._prefill.state(), self._decode.state(), self._lengths.state(), seen

    @classmethod
    def from_state(cls, state: ModelsState, start: Start | None = None) -> "Models":
        """The same models again: they answer and learn alike. factor() knows GPUs again from the next view on."""
        models = cls(start)
        version, models._at_s, prefill, decode, lengths, seen = state
        assert version == _VERSION, f"state of models has version {version}, not {_VERSION}"
        models._prefill.restore(prefill)
        models._decode.restore(decode)
        models._lengths.restore(lengths)
        for name, values in seen:
            one = models._seen[name] = _Seen()
            for field, value in zip(_Seen.__slots__, values, strict=True):
                setattr(one, field, value)
        return models


class _Done:
    """What all instances have done since they were last looked at."""

    def __init__(self) -> None:
        self.prompt_tokens = self.prompts = self.answer_tokens = self.answers = 0

    def count(self, seen: _Seen, load: PhaseLoad, firsts: int, lasts: int) -> None:
        if load.role is Role.PREFILL:
            self.prompt_tokens += load.prompt_tokens - seen.prompt_tokens
            self.prompts += firsts - seen.firsts
        elif load.role is Role.DECODE:
            self.answer_tokens += load.output_tokens - seen.output_tokens
            self.answers += lasts - seen.lasts


def _follows(seen: _Seen, load: PhaseLoad, firsts: int, lasts: int) -> bool:
    """The load continues the last one: same role, same life of the engine, not too long ago."""
    return (
        seen.role == load.role.value
        and 0.0 < load.at_s - seen.at_s <= LONGEST_S
        and load.prompt_tokens >= seen.prompt_tokens
        and load.output_tokens >= seen.output_tokens
        and firsts >= seen.firsts
        and lasts >= seen.lasts
    )


__all__ = ["Models", "ModelsState", "Start"]
