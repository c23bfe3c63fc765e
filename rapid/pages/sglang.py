"""What SGLang's metrics mean (0.5.23, started with --enable-metrics).

A series is there from its first value on, so a server that has served nothing shows none. With
--enable-metrics-for-all-schedulers every rank of a tensor-parallel group shows the same queue: one of them counts.
"""

from collections.abc import Iterable

from rapid.core.cluster import Role
from rapid.core.errors import ScrapeFailed
from rapid.core.scraped import Scraped
from rapid.pages.page import GAUGE_MAX, Page, Picker, Series, total

WAITING, RUNNING, KV_USED = "sglang:num_queue_reqs", "sglang:num_running_reqs", "sglang:token_usage"
BOOTSTRAP, INFLIGHT = "sglang:num_prefill_bootstrap_queue_reqs", "sglang:num_prefill_inflight_queue_reqs"
PREALLOC, TRANSFER = "sglang:num_decode_prealloc_queue_reqs", "sglang:num_decode_transfer_queue_reqs"
TTFT, TPOT = "sglang:time_to_first_token_seconds", "sglang:request_time_per_output_token_seconds"
FINISHED = "sglang:num_requests_total"
PROMPT, OUTPUT, REALTIME = (
    "sglang:prompt_tokens_total",
    "sglang:generation_tokens_total",
    "sglang:realtime_tokens_total",
)

NAMES = (
    *(WAITING, RUNNING, KV_USED, BOOTSTRAP, INFLIGHT, PREALLOC, TRANSFER, TTFT, TPOT, FINISHED, PROMPT, OUTPUT),
    REALTIME,
)
PICKER = Picker(NAMES)
_ROLES = {"prefill": Role.PREFILL, "decode": Role.DECODE, "unified": Role.MIXED}


def read(page: Page) -> Scraped:
    """Data-parallel ranks of one server are summed. Raises ScrapeFailed."""
    if not page.has(WAITING) or not page.has(RUNNING):
        missing = RUNNING if page.has(WAITING) else WAITING
        raise ScrapeFailed(f"its page has no {missing}; it shows none before its first request")
    return Scraped(
        # A request waits for its peer before it is in the queue, or after: for a handshake, for room, for its KV cache.
        waiting_requests=sum(_requests(page, name) for name in (WAITING, BOOTSTRAP, PREALLOC, TRANSFER)),
        # What a prefill instance still sends holds KV cache there, like a request that runs.
        running_requests=_requests(page, RUNNING) + _requests(page, INFLIGHT),
        finished=page.count(FINISHED),
        role=_role(page),
        kv_used_fraction=page.fraction(KV_USED),
        # In these, each token counts when it is made; in the others, when its request is finished.
        computed_tokens=_tokens(page, "prefill_compute") if page.has(REALTIME) else page.count(PROMPT),
        output_tokens=_tokens(page, "decode") if page.has(REALTIME) else page.count(OUTPUT),
        asked_tokens=page.count(PROMPT),
        asked_requests=page.count(FINISHED),
        ttft=page.histogram(TTFT),
        tpot=page.histogram(TPOT),
        # A router sends a request to both halves of a pair at once, and only decode measures until the first token.
        ttft_role=Role.DECODE,
    )


def _role(page: Page) -> Role | None:
    """None with --enable-pd-role-switch, where the label is "dynamic": what it does must tell."""
    types = page.label(RUNNING, "engine_type")
    return _ROLES.get(types.pop()) if len(types) == 1 else None


def _requests(page: Page, name: str) -> int:
    return total(name, _one_of_each_rank(page.of(name)), GAUGE_MAX)


def _tokens(page: Page, mode: str) -> int:
    return total(REALTIME, _one_of_each_rank(page.of(REALTIME, mode=mode)))


def _one_of_each_rank(series: Iterable[Series]) -> list[Series]:
    """One series for each data-parallel rank, the greatest; and not what is only a part of it, by priority."""
    kept: dict[str, Series] = {}
    for labels, value in series:
        rank = labels.get("dp_rank", "")
        if labels.get("priority", "") == "" and (rank not in kept or value > kept[rank][1]):
            kept[rank] = (labels, value)
    return list(kept.values())
