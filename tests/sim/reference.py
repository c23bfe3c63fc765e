"""Engines written the plain way, one step and one sequence at a time, to judge the fast ones by."""

from dataclasses import dataclass, field
from math import inf

from rapid.sim.model.power import LimitCurve
from rapid.sim.model.profile import Profile
from rapid.sim.model.requests import EngineSettings, PrefillDone, Request


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


@dataclass
class PlainPrefill:
    """A prefill engine with a bounded ring. Each KV cache is released hold_s[request] after its prompt is processed."""

    profile: Profile
    settings: EngineSettings
    curve: LimitCurve
    offers: list[tuple[float, Request]]
    hold_s: dict[int, float]

    def run(self) -> dict[int, float]:
        """When each prompt has been processed."""
        done_s: dict[int, float] = {}
        queue: list[Request] = []
        batch: list[Request] = []
        ends_s, now_s, arrivals = inf, 0.0, list(self.offers)
        while arrivals or queue or batch:
            releases = [at_s + self.hold_s[number] for number, at_s in done_s.items() if number in self.hold_s]
            times_s = [at_s for at_s, _ in arrivals[:1]] + [at_s for at_s in releases if at_s > now_s]
            now_s = min([ends_s, *times_s])
            if now_s == ends_s:
                done_s |= {request.request_id: now_s for request in batch}
                batch, ends_s = [], inf
            while arrivals and arrivals[0][0] <= now_s:
                queue.append(arrivals.pop(0)[1])
            if not batch:
                batch = self._batch(queue, done_s, now_s)
                queue = queue[len(batch) :]
                if batch:
                    lengths = [request.input_tokens for request in batch]
                    squares = sum(length**2 for length in lengths)
                    ends_s = now_s + self.profile.prefill_s(sum(lengths), squares, self.curve.at(now_s))
        return done_s

    def _batch(self, queue: list[Request], done_s: dict[int, float], now_s: float) -> list[Request]:
        """The longest head of the queue that is within all bounds."""
        held = [
            request
            for _, request in self.offers
            if request.request_id in done_s and now_s < done_s[request.request_id] + self._hold_s(request)
        ]
        batch: list[Request] = []
        for request in queue[: self.settings.max_batch_requests]:
            if batch and sum(item.input_tokens for item in [*batch, request]) > self.settings.max_batch_tokens:
                break
            if sum(self._share(item) for item in [*held, *batch, request]) > self.settings.ring_tokens:
                break
            batch.append(request)
        return batch

    def _hold_s(self, request: Request) -> float:
        return self.hold_s.get(request.request_id, 0.0)

    def _share(self, request: Request) -> int:
        return 0 if request.output_tokens == 1 else min(request.input_tokens, self.settings.ring_tokens)


@dataclass
class Prompt:
    request: Request
    processed: int = 0
    first_s: float = 0.0
    made: int = 0


@dataclass
class PlainMixed:
    """A mixed engine, step by step and sequence by sequence; its steps are those of a nominal die."""

    profile: Profile
    settings: EngineSettings
    offers: list[tuple[float, Request]]
    limits: list[tuple[float, LimitCurve]]
    inside: list[Prompt] = field(default_factory=list)  # in the order of admission

    def run(self) -> dict[int, tuple[float, float]]:
        """When each request had its first token, and its last."""
        served: dict[int, tuple[float, float]] = {}
        now_s, queue = 0.0, list[Request]()
        while self.offers or queue or self.inside:
            while self.offers and self.offers[0][0] <= now_s:
                queue.append(self.offers.pop(0)[1])
            if not queue and not self.inside:
                now_s = self.offers[0][0]
                continue
            now_s = self._step(now_s, queue)
            for item in self.inside:
                if item.made == item.request.output_tokens:
                    served[item.request.request_id] = (item.first_s, now_s)
            self.inside = [item for item in self.inside if item.made < item.request.output_tokens]
        return served

    def _step(self, now_s: float, queue: list[Request]) -> float:
        decoding = [item for item in self.inside if item.made]
        chunks = self._chunks(len(decoding), queue)
        end_s = now_s + self._step_s(now_s, decoding, chunks)
        for item in decoding:
            item.made += 1
        for item, tokens in chunks:
            item.processed += tokens
            if item.processed == item.request.input_tokens:
                item.made, item.first_s = 1, end_s
        return end_s

    def _chunks(self, decoding: int, queue: list[Request]) -> list[tuple[Prompt, int]]:
        room, chunks = self.settings.chunk_tokens - decoding, []
        begun = [item for item in self.inside if not item.made]
        while room:
            if not begun:
                if not queue or not self._has_room_for(queue[0]):
                    break
                begun = [Prompt(queue.pop(0))]
                self.inside += begun
            item = begun.pop(0)
            tokens = min(room, item.request.input_tokens - item.processed)
            chunks.append((item, tokens))
            room -= tokens
        return chunks

    def _has_room_for(self, request: Request) -> bool:
        requests = [item.request for item in self.inside] + [request]
        tokens = sum(item.input_tokens + item.output_tokens for item in requests)
        return len(requests) <= self.settings.max_sequences and tokens <= self.profile.kv_capacity_tokens

    def _step_s(self, now_s: float, decoding: list[Prompt], chunks: list[tuple[Prompt, int]]) -> float:
        profile, batch = self.profile, len(decoding)
        limit_mw = [curve for at_s, curve in self.limits if at_s <= now_s][-1].at(now_s)
        context = sum(item.request.input_tokens + item.made for item in decoding)
        if not chunks:
            return profile.decode_step_s(batch, context, limit_mw)
        tokens = sum(tokens for _, tokens in chunks) + batch
        squares = sum((item.processed + tokens) ** 2 - item.processed**2 for item, tokens in chunks)
        weights_s = profile.decode_step_s(batch, 0, limit_mw) - profile.host_s(batch)  # bound by memory
        context_s = profile.decode_step_s(batch, context, limit_mw) - profile.decode_step_s(batch, 0, limit_mw)
        products_s = profile.prefill_s(tokens, 0, limit_mw)  # bound by arithmetic
        attention_s = profile.prefill_s(tokens, squares, limit_mw) - products_s
        return max(weights_s, products_s) + context_s + attention_s + profile.host_s(batch)
