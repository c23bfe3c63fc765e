"""The frozen nouns that move between router and instances.

A front end stands before the engine and delays every token alike, so it adds to TTFT and cancels out of TPOT. All
`at_s` are times at the engine.
"""

from dataclasses import dataclass

from rapid.core.cluster import Role


@dataclass(frozen=True, slots=True)
class Request:
    """One request. It may be dispatched later than it arrived, even twice, but its latency counts from arrival_s."""

    request_id: int
    arrival_s: float
    input_tokens: int
    output_tokens: int  # at least 1; no router may look at it, since no real one could


@dataclass(frozen=True, slots=True)
class PrefillDone:
    """The prompt is processed, the first token exists, and the KV cache waits to be pulled by a decode instance."""

    request: Request
    at_s: float
    ttft_s: float
    source: str  # the prefill instance whose ring holds the cache until it has been pulled


@dataclass(frozen=True, slots=True)
class Pulled:
    """A decode instance has the KV cache: its source may release it. Who hears this calls Instance.release_kv there."""

    done: PrefillDone
    at_s: float


@dataclass(frozen=True, slots=True)
class Finished:
    """The last token of a request exists. tpot_s is None for a request of one token: there is no later one."""

    request: Request
    at_s: float
    ttft_s: float
    tpot_s: float | None


@dataclass(frozen=True, slots=True)
class Drained:
    """A closed instance has finished everything it had."""

    at_s: float


@dataclass(frozen=True, slots=True)
class Switched:
    """The instance serves in its new role."""

    at_s: float
    role: Role


Output = PrefillDone | Pulled | Finished | Drained | Switched


@dataclass(frozen=True, slots=True)
class Backlog:
    """Work that an instance took and has not begun. It goes back to the router."""

    requests: tuple[Request, ...] = ()
    kvs: tuple[PrefillDone, ...] = ()


@dataclass(frozen=True, slots=True)
class Activity:
    """What a GPU does from from_s to until_s if nothing else happens, and what it would draw without a limit."""

    role: Role
    batch: int
    natural_mw: int
    from_s: float
    until_s: float


@dataclass(frozen=True, slots=True)
class Die:
    """How one GPU differs from its data sheet."""

    speed: float = 1.0
    idle: float = 1.0


NOMINAL_DIE = Die()


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """The bounds of an engine's batches; the defaults are common ones of serving engines (assumed)."""

    max_batch_tokens: int = 8192  # of a prefill batch; a longer prompt runs alone
    max_batch_requests: int = 256  # of a prefill batch
    max_sequences: int = 256  # of a decode step, with those whose KV cache is on its way
    ring_tokens: int = 131_072  # prompts whose KV cache a prefill instance can hold: 16 GiB at 128 KiB a token
    chunk_tokens: int = 2048  # of a mixed step, its decode tokens included; above max_sequences
