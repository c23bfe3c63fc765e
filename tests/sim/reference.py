"""A decode engine written the plain way, one step and one sequence at a time, to judge the fast one by."""

from dataclasses import dataclass, field

from rapid.sim.power import LimitCurve
from rapid.sim.profile import Profile
from rapid.sim.requests import PrefillDone


@dataclass
class Sequence:
    done: PrefillDone
    ready_s: float
    made: int = 1
    finished_s: float = 0.0


@dataclass
class PlainDecode:
    """Feed it in order of time; run() then works off everything and gives each request's last token."""

    profile: Profile
    max_sequences: int
    offers: list[tuple[float, PrefillDone]]
    limits: list[tuple[float, LimitCurve]]
    waiting: list[PrefillDone] = field(default_factory=list)
    pulling: list[Sequence] = field(default_factory=list)
    running: list[Sequence] = field(default_factory=list)

    def run(self) -> dict[int, float]:
        finished: dict[int, float] = {}
        now_s = 0.0
        while self.offers or self.waiting or self.pulling or self.running:
            self._take(now_s)
            if not self.running:
                now_s = min([sequence.ready_s for sequence in self.pulling] + [at_s for at_s, _ in self.offers[:1]])
                self._take(now_s)
                continue
            now_s = self._step(now_s, finished)
        return finished

    def _step(self, now_s: float, finished: dict[int, float]) -> float:
        """One step; what is offered while it runs starts its pull at once if there is room."""
        context = sum(sequence.done.request.input_tokens + sequence.made for sequence in self.running)
        curve = [curve for at_s, curve in self.limits if at_s <= now_s][-1]
        end_s = now_s + self.profile.decode_step_s(len(self.running), context, curve.at(now_s))
        while self.offers and self.offers[0][0] <= end_s:
            at_s, done = self.offers.pop(0)
            self.waiting.append(done)
            self._pull(at_s)
        for sequence in self.running:
            sequence.made += 1
            if sequence.made == sequence.done.request.output_tokens:
                finished[sequence.done.request.request_id] = end_s
        self.running = [item for item in self.running if item.made < item.done.request.output_tokens]
        self._pull(end_s)
        return end_s

    def _take(self, now_s: float) -> None:
        while self.offers and self.offers[0][0] <= now_s:
            at_s, done = self.offers.pop(0)
            self.waiting.append(done)
            self._pull(at_s)
        self._pull(now_s)
        self.running += [sequence for sequence in self.pulling if sequence.ready_s <= now_s]
        self.pulling = [sequence for sequence in self.pulling if sequence.ready_s > now_s]

    def _pull(self, at_s: float) -> None:
        while self.waiting and len(self.running) + len(self.pulling) < self.max_sequences:
            here = [item.done.request for item in self.running + self.pulling] + [self.waiting[0].request]
            if sum(item.input_tokens + item.output_tokens for item in here) > self.profile.kv_capacity_tokens:
                return
            done = self.waiting.pop(0)
            self.pulling.append(Sequence(done, at_s + self.profile.pull_s(done.request.input_tokens)))
