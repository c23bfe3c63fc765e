"""One engine instance at token level: a pure state machine that knows no clock.

The caller says what time it is. Everything inside happens at its exact model time, however rarely the caller looks, so
a real-time process and a discrete-event simulation see the same instance:

    outputs = instance.advance(now_s)     everything up to now_s, in order
    instance.submit(request, now_s)       or receive_kv, release_kv, set_limit, close, reopen, switch
    wake at instance.next_event_s()       nothing comes out before that unless the caller does something

A role change is close -> Drained -> switch -> Switched. The one role at a time is served by PrefillPhase, DecodePhase
or MixedPhase.
"""

from collections.abc import Iterable
from math import inf

from rapid.core.cluster import Phase, PhaseLoad, Role
from rapid.sim.model.decode import DecodePhase
from rapid.sim.model.mixed import MixedPhase
from rapid.sim.model.power import LimitCurve, PowerMeter, pace_of
from rapid.sim.model.prefill import PrefillPhase
from rapid.sim.model.profile import Profile
from rapid.sim.model.requests import (
    NOMINAL_DIE,
    Activity,
    Backlog,
    Die,
    Drained,
    EngineSettings,
    Output,
    PrefillDone,
    Request,
    Switched,
)
from rapid.sim.model.tally import Tally

_DEFAULTS = EngineSettings()
_Engine = PrefillPhase | DecodePhase | MixedPhase
_ENGINES: dict[Role, type[_Engine]] = {Role.PREFILL: PrefillPhase, Role.DECODE: DecodePhase, Role.MIXED: MixedPhase}


class Instance:
    """One engine on profile.gpus GPUs. Calls must not go back in time; it takes work only while it is serving.

    Every GPU follows a curve of its own; a single curve stands for all of them. The engine is as fast as the least of
    the limits in effect allows (tensor parallel: each layer waits for every GPU).
    """

    def __init__(
        self,
        name: str,
        role: Role,
        profile: Profile,
        curves: LimitCurve | tuple[LimitCurve, ...],
        *,
        start_s: float = 0.0,
        settings: EngineSettings = _DEFAULTS,
        die: Die = NOMINAL_DIE,
    ) -> None:
        self.name = name
        self.phase = Phase.SERVING
        self._profile, self._settings, self._die = profile, settings, die
        self._now_s = start_s
        self._tally = Tally()
        if isinstance(curves, LimitCurve):
            curves = (curves,) * profile.gpus
        assert len(curves) == profile.gpus, f"{name} has {profile.gpus} GPUs and {len(curves)} curves"
        self._pace = pace_of(curves)
        self._meters = tuple([PowerMeter(curve, start_s) for curve in curves])
        self._spent_s = start_s  # up to here the energy and the busy time are counted
        self._busy_s = 0.0
        self._outputs: list[Output] = []
        self._switched_s = inf
        self._work = self._engine_for(role)

    def copy(self) -> "Instance":
        """An independent copy: what happens to the one does not happen to the other."""
        other = Instance.__new__(Instance)
        other.__dict__.update(self.__dict__)
        other._tally = self._tally.copy()
        other._meters = tuple([meter.copy() for meter in self._meters])
        other._outputs = self._outputs.copy()
        other._work = self._work.copy(other._tally)
        return other

    # ---- time ----

    def advance(self, now_s: float) -> list[Output]:
        """Lives until now_s and returns what came out since the last call, in the order in which it happened."""
        self._run_until(now_s)
        outputs, self._outputs = self._outputs, []
        return outputs

    def next_event_s(self) -> float:
        """No output comes before this time, unless the caller does something; infinite: none will."""
        return self._now_s if self._outputs else min(self._work.output_s, self._switched_s)

    # ---- work ----

    @property
    def role(self) -> Role:
        """The role it serves, or is changing to."""
        return self._work.role

    def submit(self, request: Request, now_s: float) -> None:
        """Queues a prompt."""
        self._run_until(now_s)
        work = self._work
        assert self.phase is Phase.SERVING, f"{self.name} is {self.phase.value}"
        assert not isinstance(work, DecodePhase), f"{self.name} takes no prompts"
        assert self.fits(request), f"request {request.request_id} can never fit the KV capacity"
        natural_mw = work.natural_mw
        work.submit(request, now_s, self._pace)
        if work.natural_mw != natural_mw:  # an idle engine begins at once
            self._spend(natural_mw, now_s)

    def receive_kv(self, done: PrefillDone, now_s: float, *, remote: bool = False) -> None:
        """Offers a KV cache, which is pulled as soon as there is room for all its tokens. remote: from another node."""
        self._run_until(now_s)
        assert self.phase is Phase.SERVING, f"{self.name} is {self.phase.value}"
        assert isinstance(self._work, DecodePhase), f"{self.name} takes no KV caches"
        assert self.fits(done.request), f"request {done.request.request_id} can never fit the KV capacity"
        self._work.receive(done, now_s, self._profile.pull_s(done.request.input_tokens, remote=remote))

    def release_kv(self, done: PrefillDone, now_s: float) -> None:
        """A KV cache that came out of here has been pulled, or nobody will pull it: its room in the ring is free."""
        self._run_until(now_s)
        work = self._work
        assert self.holds(done), f"{self.name} does not hold the KV cache of request {done.request.request_id}"
        assert isinstance(work, PrefillPhase)
        natural_mw = work.natural_mw
        work.release(done, now_s, self._pace)
        if work.natural_mw != natural_mw:
            self._spend(natural_mw, now_s)
        self._note_drained()

    @property
    def unpulled(self) -> tuple[PrefillDone, ...]:
        """The KV caches in its ring, which only release_kv takes out."""
        return self._work.unpulled if isinstance(self._work, PrefillPhase) else ()

    def holds(self, done: PrefillDone) -> bool:
        """Whether this KV cache is in its ring."""
        return isinstance(self._work, PrefillPhase) and self._work.holds(done)

    def fits(self, request: Request) -> bool:
        """Whether the KV capacity holds the whole request."""
        return request.input_tokens + request.output_tokens <= self._profile.kv_capacity_tokens

    @property
    def requests_left(self) -> int:
        """How many requests it has, begun or not, with those whose KV cache is in its ring."""
        return self._work.left

    def prompts(self) -> Iterable[Request]:
        """The prompts it has that are still to be processed in full."""
        return self._work.prompts if isinstance(self._work, PrefillPhase) else ()

    def under_way(self, now_s: float) -> Iterable[tuple[PrefillDone, int]]:
        """The requests that decode here, with how many tokens each has made here."""
        self._run_until(now_s)
        return self._work.under_way(now_s) if isinstance(self._work, DecodePhase) else ()

    # ---- role change ----

    def close(self, now_s: float) -> Backlog:
        """Takes no more work and hands back what it has not begun. Drained comes out once the rest has finished."""
        self._run_until(now_s)
        assert self.phase is Phase.SERVING, f"{self.name} is {self.phase.value}"
        self.phase = Phase.DRAINING
        backlog = self._work.hand_back()
        self._note_drained()
        return backlog

    def reopen(self, now_s: float) -> None:
        """Takes work again in the role it has; only while it is draining or drained."""
        self._run_until(now_s)
        assert self.phase is Phase.DRAINING, f"{self.name} is {self.phase.value}"
        self.phase = Phase.SERVING

    def switch(self, role: Role, now_s: float) -> None:
        """Begins to change role; Switched comes out switch_s later, and it serves. Only when drained."""
        self._run_until(now_s)
        assert self.phase is Phase.DRAINING, f"{self.name} is {self.phase.value}"
        assert self.requests_left == 0, f"{self.name} still has {self.requests_left} requests"
        self.phase = Phase.SWITCHING
        self._switched_s = now_s + self._profile.switch_s
        self._work = self._engine_for(role)

    # ---- power ----

    def set_limit(self, curve: LimitCurve, now_s: float, gpu: int = 0) -> None:
        """From now_s on this curve is the limit in effect. Batches and steps that run keep their pace to their end."""
        self._run_until(now_s)
        self._spend(self._work.natural_mw, now_s)
        self._meters[gpu].follow(curve)
        self._pace = pace_of(tuple([meter.curve for meter in self._meters]))
        self._work.pace_changed(now_s, self._pace)

    def set_noise(self, factor: float, now_s: float, gpu: int = 0) -> None:
        """From now_s on this GPU draws so many times what limit and natural draw make of it; the dice lie outside."""
        self._run_until(now_s)
        self._spend(self._work.natural_mw, now_s)
        self._meters[gpu].make_noise(factor)

    def activity(self) -> Activity | None:
        """What it does now; None: idle. It goes on at least until next_event_s() unless the caller does something.

        Its draw is that of one GPU, and all of them do the same.
        """
        return self._work.activity

    def energy_mj(self, now_s: float, gpu: int | None = None) -> float:
        """The energy that one of its GPUs, or (None) all, have drawn since start_s."""
        self._run_until(now_s)
        meters = self._meters if gpu is None else (self._meters[gpu],)
        return sum([meter.energy_mj(self._work.natural_mw, now_s) for meter in meters])

    def busy_s(self, now_s: float) -> float:
        """How long it has been computing since start_s; waiting for room in its ring is no work."""
        self._run_until(now_s)
        work = self._work
        return self._busy_s + (now_s - self._spent_s if work.natural_mw != work.idle_mw else 0.0)

    # ---- load ----

    def load(self, now_s: float) -> PhaseLoad:
        """The load at now_s, in the words of the control plane."""
        self._run_until(now_s)
        work, tally = self._work, self._tally
        return PhaseLoad(
            instance=self.name,
            role=self.role,
            at_s=now_s,
            waiting_requests=work.waiting,
            waiting_tokens=work.waiting_tokens,
            oldest_wait_s=max(0.0, now_s - work.oldest_arrival_s),
            running_requests=work.running,
            kv_used_fraction=work.kv_used_fraction,
            arrived=tally.arrived,
            finished=tally.finished,
            prompt_tokens=tally.prompt_tokens,
            output_tokens=work.output_tokens(now_s),
            ttft=tally.ttft.histogram(),
            tpot=tally.tpot.histogram(),
        )

    # ---- inside ----

    def _engine_for(self, role: Role) -> _Engine:
        return _ENGINES[role](self.name, self._profile, self._settings, self._die, self._tally)

    def _run_until(self, now_s: float) -> None:
        assert now_s >= self._now_s, f"{self.name}: time goes from {self._now_s} back to {now_s}"
        work = self._work
        while work.next_s <= now_s:
            self._now_s, natural_mw = work.next_s, work.natural_mw
            self._outputs += work.complete(self._pace)
            if work.natural_mw != natural_mw:
                self._spend(natural_mw, self._now_s)
            self._note_drained()
        self._now_s = now_s
        if self._switched_s <= now_s:
            self.phase = Phase.SERVING
            self._outputs.append(Switched(self._switched_s, self.role))
            self._switched_s = inf

    def _note_drained(self) -> None:
        if self.phase is Phase.DRAINING and self._work.left == 0:
            self._outputs.append(Drained(self._now_s))

    def _spend(self, natural_mw: float, until_s: float) -> None:
        """Counts energy and busy time up to until_s; natural_mw has been the natural draw since the last count."""
        for meter in self._meters:
            meter.spend(natural_mw, until_s)
        if natural_mw != self._work.idle_mw:  # no work draws as little as none
            self._busy_s += until_s - self._spent_s
        self._spent_s = until_s
