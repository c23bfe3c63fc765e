"""One engine instance at token level: a pure state machine that knows no clock.

The caller says what time it is. Everything inside happens at its exact model time, however rarely the caller looks, so
a real-time process and a discrete-event simulation see the same instance:

    outputs = instance.advance(now_s)     everything up to now_s, in order
    instance.submit(request, now_s)       or receive_kv, set_limit, close, reopen, switch
    wake at instance.next_event_s()       nothing comes out before that unless the caller does something

A role change is close -> Drained -> switch -> Switched. The one role at a time is served by PrefillPhase or
DecodePhase.
"""

from math import inf

from rapid.core.cluster import Phase, PhaseLoad, Role
from rapid.sim.decode import DecodePhase
from rapid.sim.power import LimitCurve, PowerMeter
from rapid.sim.prefill import PrefillPhase
from rapid.sim.profile import Profile
from rapid.sim.requests import (
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
from rapid.sim.tally import Tally

_DEFAULTS = EngineSettings()


class Instance:
    """One engine on one GPU. Calls must not go back in time; work may be given to it only while it is serving."""

    def __init__(
        self,
        name: str,
        role: Role,
        profile: Profile,
        curve: LimitCurve,
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
        self._meter = PowerMeter(curve, start_s)
        self._outputs: list[Output] = []
        self._switched_s = inf
        self._work = self._engine_for(role)

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
        assert self.phase is Phase.SERVING, f"{self.name} is {self.phase.value}"
        assert isinstance(self._work, PrefillPhase), f"{self.name} takes no prompts"
        self._spend(now_s)  # an idle engine begins at once
        self._work.submit(request, now_s, self._meter.curve)

    def receive_kv(self, done: PrefillDone, now_s: float) -> None:
        """Offers the KV cache of a processed prompt. It is pulled as soon as there is room for all its tokens."""
        self._run_until(now_s)
        assert self.phase is Phase.SERVING, f"{self.name} is {self.phase.value}"
        assert isinstance(self._work, DecodePhase), f"{self.name} takes no KV caches"
        assert self.fits(done.request), f"request {done.request.request_id} can never fit the KV capacity"
        self._work.receive(done, now_s, self._meter.curve)

    def fits(self, request: Request) -> bool:
        """Whether the KV capacity holds the whole request."""
        return request.input_tokens + request.output_tokens <= self._profile.kv_capacity_tokens

    @property
    def requests_left(self) -> int:
        """How many requests it has, begun or not."""
        return self._work.waiting + self._work.running

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

    def set_limit(self, curve: LimitCurve, now_s: float) -> None:
        """From now_s on this curve is the limit in effect. Batches and steps that run keep their pace to their end."""
        self._run_until(now_s)
        self._spend(now_s)
        self._meter.curve = curve
        self._work.limit_changed(now_s, curve)

    def activity(self) -> Activity | None:
        """What it does now; None: idle. It goes on at least until next_event_s() unless the caller does something."""
        return self._work.activity

    def energy_mj(self, now_s: float) -> float:
        """The energy drawn since start_s."""
        self._run_until(now_s)
        self._spend(now_s)
        return self._meter.energy_mj

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

    def _engine_for(self, role: Role) -> PrefillPhase | DecodePhase:
        assert role in (Role.PREFILL, Role.DECODE), f"no engine model for role {role.value}"
        engine = PrefillPhase if role is Role.PREFILL else DecodePhase
        return engine(self._profile, self._settings, self._die, self._tally)

    def _run_until(self, now_s: float) -> None:
        assert now_s >= self._now_s, f"{self.name}: time goes from {self._now_s} back to {now_s}"
        while self._work.next_s <= now_s:
            self._now_s, natural_mw = self._work.next_s, self._work.natural_mw
            self._outputs += self._work.complete(self._meter.curve)
            if self._work.natural_mw != natural_mw:
                self._meter.spend(natural_mw, self._now_s)
            self._note_drained()
        self._now_s = now_s
        if self._switched_s <= now_s:
            self.phase = Phase.SERVING
            self._outputs.append(Switched(self._switched_s, self.role))
            self._switched_s = inf

    def _note_drained(self) -> None:
        if self.phase is Phase.DRAINING and self.requests_left == 0:
            self._outputs.append(Drained(self._now_s))

    def _spend(self, until_s: float) -> None:
        """Counts the energy up to until_s; the natural draw has not changed since the last count."""
        self._meter.spend(self._work.natural_mw, until_s)
