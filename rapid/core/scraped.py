"""From what an engine's metrics say at one look to the phase load that the controller hears.

An engine counts from its own start, in all roles it has served. The load counts what was added while this follower
looked, so it never falls in the follower's life, whatever becomes of the engine; and TTFT and TPOT are taken only where
they belong, so that a request that passes from prefill to decode counts once.
"""

from collections import deque
from dataclasses import dataclass, replace
from itertools import pairwise

from rapid.core.cluster import Histogram, PhaseLoad, Role
from rapid.core.errors import ScrapeFailed

_EVIDENCE = 8  # finished requests that tell a role (assumed): one alone may show its first token and no more
_RECEIVED_TIMES = 8  # of decode: it received so many times the prompt tokens that it computed again itself (assumed)
_PROMPTS = 32.0  # requests over which the mean prompt is followed (assumed)
_TOKENS_MAX = 2**53  # as a counter of them may say at most
_MARKS = 1024  # looks back for the request that waits longest; at one a second, 17 minutes


@dataclass(frozen=True, slots=True)
class Scraped:
    """What an engine said at one look. Counters and histograms are its own, since its start. None: it does not tell.

    life             another text in another life of the engine; empty: it does not tell
    role             the role that it says it serves; None where what it does must tell
    computed_tokens  prompt tokens computed here. received_tokens: those whose KV cache came from another engine
    asked_tokens     prompt tokens of asked_requests requests, wherever they were computed
    ttft_role        which half of a disaggregated pair measures TTFT as users see it
    """

    waiting_requests: int
    running_requests: int
    finished: int
    life: str = ""
    role: Role | None = None
    kv_used_fraction: float = 0.0
    computed_tokens: int = 0
    received_tokens: int = 0
    asked_tokens: int = 0
    asked_requests: int = 0
    output_tokens: int = 0
    ttft: Histogram | None = None
    tpot: Histogram | None = None
    ttft_role: Role = Role.PREFILL

    def counters(self) -> tuple[tuple[str, int], ...]:
        """Everything that only grows in one life, by name."""
        named = [
            ("requests finished", self.finished),
            ("prompt tokens computed", self.computed_tokens),
            ("prompt tokens received", self.received_tokens),
            ("prompt tokens", self.asked_tokens),
            ("output tokens", self.output_tokens),
        ]
        for name, histogram in (("TTFT", self.ttft), ("TPOT", self.tpot)):
            for at, count in enumerate(histogram.counts if histogram else ()):
                named.append((f"{name} bucket {at + 1}", count))
        return tuple(named)


class Follower:
    """Follows one engine from look to look. `role` is the configured one; None: the engine, or what it does, tells."""

    def __init__(self, instance: str, role: Role | None = None) -> None:
        self.lives = 0  # of the engine that were seen to end
        self.problem = ""  # what is wrong with the last load that was made, in one line
        self._instance, self._configured = instance, role
        self._last: Scraped | None = None
        self._doubted = False
        self._seen_role: Role | None = None
        self._judged = Scraped(0, 0, 0)
        self._load = PhaseLoad(instance, role or Role.MIXED, 0.0)
        self._prompt_tokens, self._prompts = 0.0, 0.0
        self._marks: deque[tuple[float, int]] = deque(maxlen=_MARKS)  # when so many requests had been taken

    def take(self, now: Scraped, at_s: float) -> PhaseLoad:
        """The load at at_s. Raises ScrapeFailed once when a counter went back that cannot have; what it says the next
        time is where counting begins anew."""
        before = self._before(now)
        self._last, self._doubted = now, False
        self._see_role(now)
        role = self._configured or now.role or self._seen_role or Role.MIXED
        old = self._load
        counts_ttft = role in (Role.MIXED, now.ttft_role)
        counts_tpot = role is not Role.PREFILL
        finished = old.finished + now.finished - before.finished
        self._see_prompts(now, before)
        load = replace(
            old,
            role=role,
            at_s=at_s,
            waiting_requests=now.waiting_requests,
            waiting_tokens=min(_TOKENS_MAX, round(now.waiting_requests * self._mean_prompt())),
            running_requests=now.running_requests,
            kv_used_fraction=now.kv_used_fraction,
            arrived=max(old.arrived, finished + now.running_requests + now.waiting_requests),
            finished=finished,
            # A decode instance computes a prompt's last token again, for a prompt that prefill has counted.
            prompt_tokens=old.prompt_tokens
            + (0 if role is Role.DECODE else now.computed_tokens - before.computed_tokens),
            output_tokens=old.output_tokens + now.output_tokens - before.output_tokens,
            ttft=_grown(old.ttft, now.ttft, before.ttft, counts_ttft),
            tpot=_grown(old.tpot, now.tpot, before.tpot, counts_tpot),
        )
        self._load = replace(load, oldest_wait_s=self._oldest_wait_s(load))
        self.problem = self._what_is_wrong(now, role, counts_ttft, counts_tpot)
        return self._load

    # ---- lives of the engine ----

    def _before(self, now: Scraped) -> Scraped:
        """What the engine's counters are compared with."""
        last = self._last
        if last is None:
            return now  # Whatever it has served until now, nobody knows when.
        fell, rose = _moves(last, now)
        same_life = bool(last.life) and last.life == now.life
        if last.life and now.life and not same_life:
            return self._new_life()
        if fell is None:
            return last
        if not same_life and not rose:
            return self._new_life()
        if not self._doubted:
            self._doubted = True
            name, then, count = fell
            raise ScrapeFailed(
                f"{name} went back from {then} to {count}, and the engine did not restart; its load is left out once"
            )
        self._judged = now
        return now

    def _new_life(self) -> Scraped:
        self.lives += 1
        self._judged = Scraped(0, 0, 0)
        self._marks.clear()
        return Scraped(0, 0, 0)

    # ---- its role ----

    def _see_role(self, now: Scraped) -> None:
        """By what it did for the last requests: whether it computed prompts, and whether it wrote more than first
        tokens. Judged again after every few, as an engine may change its role."""
        since = self._judged
        finished = now.finished - since.finished
        if finished < _EVIDENCE:
            return
        computed = now.computed_tokens - since.computed_tokens
        received = now.received_tokens - since.received_tokens
        if now.output_tokens - since.output_tokens <= finished:
            self._seen_role = Role.PREFILL if computed else self._seen_role
        else:
            self._seen_role = Role.DECODE if computed * _RECEIVED_TIMES <= received else Role.MIXED
        self._judged = now

    def _what_is_wrong(self, now: Scraped, role: Role, counts_ttft: bool, counts_tpot: bool) -> str:
        told = now.role or self._seen_role
        if self._configured is not None and told is not None and told is not self._configured:
            return (
                f"configured as {self._configured.value}, its metrics say {told.value}; "
                f"correct engine.{self._instance}.role, or leave it out if the role may change"
            )
        for wanted, histogram, name in ((counts_ttft, now.ttft, "TTFT"), (counts_tpot, now.tpot, "TPOT")):
            if wanted and histogram is None and now.finished:
                return f"its metrics have no histogram of {name}, so as {role.value} its {name} is not measured"
        return ""

    # ---- what engines do not tell, followed ----

    def _see_prompts(self, now: Scraped, before: Scraped) -> None:
        """The mean prompt of the last requests; at first sight, of all that the engine has served."""
        since = Scraped(0, 0, 0) if before is now and not self._prompts else before
        requests = now.asked_requests - since.asked_requests
        if requests > 0:
            keep = min(1.0, _PROMPTS / (self._prompts + requests))
            self._prompt_tokens = (self._prompt_tokens + now.asked_tokens - since.asked_tokens) * keep
            self._prompts = (self._prompts + requests) * keep

    def _mean_prompt(self) -> float:
        return self._prompt_tokens / self._prompts if self._prompts else 0.0

    def _oldest_wait_s(self, load: PhaseLoad) -> float:
        """How long the request that waits longest has been seen to wait, first come, first served. It may have waited
        up to one interval longer, unseen."""
        begun = load.finished + load.running_requests
        while self._marks and self._marks[0][1] <= begun:
            self._marks.popleft()
        come = begun + load.waiting_requests
        if come > (self._marks[-1][1] if self._marks else begun):
            self._marks.append((load.at_s, come))
        return load.at_s - self._marks[0][0] if load.waiting_requests and self._marks else 0.0


def _moves(before: Scraped, now: Scraped) -> tuple[tuple[str, int, int] | None, bool]:
    """The first counter that fell, with what it was and is; and whether any rose. Other buckets are another life."""
    changed = [(old, new) for old, new in ((before.ttft, now.ttft), (before.tpot, now.tpot)) if old is not None]
    if any(new is None or old.bounds_s != new.bounds_s for old, new in changed):
        return ("a histogram", sum(sum(old.counts) for old, _ in changed), 0), False
    then, fell, rose = dict(before.counters()), None, False
    for name, count in now.counters():
        was = then.get(name, 0)
        rose = rose or count > was
        if count < was and fell is None:
            fell = (name, was, count)
    return fell, rose


def _grown(kept: Histogram, now: Histogram | None, before: Histogram | None, counts: bool) -> Histogram:
    """`kept`, with what was added since `before` if it counts; one with other bounds begins anew.

    The engine's own bounds are kept. To move counts into others could only lose: where a target is no bound of the
    engine, the controller spreads a bucket evenly, and no finer grid could tell it more.
    """
    if now is None:
        return kept
    if kept.bounds_s != now.bounds_s:
        kept = Histogram(now.bounds_s, (0,) * len(now.counts))
    if not counts:
        return kept
    base = before.counts if before is not None and before.bounds_s == now.bounds_s else (0,) * len(now.counts)
    added = [count - was for count, was in zip(now.counts, base, strict=True)]
    return Histogram(now.bounds_s, tuple(was + more for was, more in zip(kept.counts, added, strict=True)))


def histogram(cumulative: dict[float, int]) -> Histogram:
    """From Prometheus's buckets, each a count of everything at or below its bound, of which infinity is one.

    Raises ScrapeFailed for buckets without infinity, and for counts that fall.
    """
    bounds_s = sorted(cumulative)
    if not bounds_s or bounds_s[-1] != float("inf"):
        raise ScrapeFailed('has no bucket le="+Inf"')
    totals = [cumulative[bound_s] for bound_s in bounds_s]
    for (lower_s, below), (upper_s, count) in pairwise(zip(bounds_s, totals, strict=True)):
        if count < below:
            raise ScrapeFailed(f"its bucket le={upper_s:g} holds {count}, fewer than the {below} of le={lower_s:g}")
    counts = [totals[0], *(count - below for below, count in pairwise(totals))]
    return Histogram(tuple(bounds_s[:-1]), tuple(counts))
