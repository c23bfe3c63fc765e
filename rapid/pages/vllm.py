"""What vLLM's metrics mean: the names of 0.32, and one of before where they have changed.

They do not say which role an instance serves, so what it does must tell. Requests of one token count as a TPOT of zero
there, so on a mixed instance that serves many of them the TPOT looks better than it is.
"""

from rapid.core.cluster import Role
from rapid.core.errors import ScrapeFailed
from rapid.core.scraped import Scraped
from rapid.pages.page import Page, Picker

WAITING, RUNNING = "vllm:num_requests_waiting", "vllm:num_requests_running"
KV_USED, KV_USED_BEFORE = "vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"
TTFT, TPOT = "vllm:time_to_first_token_seconds", "vllm:request_time_per_output_token_seconds"
FINISHED = "vllm:request_success_total"
BY_SOURCE, PROMPT, OUTPUT = (
    "vllm:prompt_tokens_by_source_total",
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
)
STARTED = "process_start_time_seconds"  # of the process; not there with several API servers

NAMES = (WAITING, RUNNING, KV_USED, KV_USED_BEFORE, TTFT, TPOT, FINISHED, BY_SOURCE, PROMPT, OUTPUT, STARTED)
PICKER = Picker(NAMES)


def read(page: Page) -> Scraped:
    """Data-parallel ranks of one server are summed. Raises ScrapeFailed."""
    for name in (WAITING, RUNNING):
        if not page.has(name):
            raise ScrapeFailed(f"its page has no {name}")
    ttft = page.histogram(TTFT)
    prompts = page.count(PROMPT)
    return Scraped(
        waiting_requests=page.requests(WAITING),
        running_requests=page.requests(RUNNING),
        finished=page.count(FINISHED),
        life=" ".join(f"{value:.2f}" for _, value in page.of(STARTED)),
        kv_used_fraction=page.fraction(KV_USED if page.has(KV_USED) else KV_USED_BEFORE),
        computed_tokens=page.count(BY_SOURCE, source="local_compute") if page.has(BY_SOURCE) else prompts,
        received_tokens=page.count(BY_SOURCE, source="external_kv_transfer"),
        asked_tokens=prompts,
        asked_requests=sum(ttft.counts) if ttft else 0,
        output_tokens=page.count(OUTPUT),
        ttft=ttft,
        tpot=page.histogram(TPOT),
        # In a pair each half measures from when it got the request; only prefill's time is one that users wait for.
        ttft_role=Role.PREFILL,
    )
