"""What the metrics of a Dynamo worker mean (1.6.1): of its system port (DYN_SYSTEM_PORT), not of the frontend.

A worker passes on the metrics of the engine inside it, which then say most. The frontend's speak of all workers at
once, and of each only its last request.
"""

from dataclasses import replace

from rapid.core.cluster import Role
from rapid.core.errors import ScrapeFailed
from rapid.core.scraped import Scraped
from rapid.pages import sglang, vllm
from rapid.pages.page import Page, Picker

INFLIGHT, DURATION = "dynamo_component_inflight_requests", "dynamo_component_request_duration_seconds"
QUEUED = "dynamo_work_handler_queue_depth"  # of the whole worker; it has no labels

PICKER = Picker((INFLIGHT, DURATION, QUEUED, *vllm.NAMES, *sglang.NAMES))
_PREFILL = "prefill"  # the component of a prefill worker; that of all others is "backend", or a name of their own
_GENERATE = {"dynamo_endpoint": "generate"}  # the others are the workers' own talk


def read(page: Page) -> Scraped:
    """Raises ScrapeFailed."""
    if not page.of(INFLIGHT, **_GENERATE):
        raise ScrapeFailed(f"its page has no {INFLIGHT} of an endpoint generate")
    lives, components = (page.label(INFLIGHT, label, **_GENERATE) for label in ("worker_id", "dynamo_component"))
    said = replace(
        _engine(page) or _worker(page),
        life=" ".join(sorted(lives)),
        ttft_role=Role.PREFILL,
    )
    if components != {_PREFILL}:
        return said
    # A prefill worker's request ends with its first token. Its engine's own TTFT says the same, where there is one.
    return replace(said, role=Role.PREFILL, ttft=said.ttft or page.histogram(DURATION, **_GENERATE))


def _engine(page: Page) -> Scraped | None:
    """What the engine inside says; None: it is one whose metrics are not passed on."""
    if page.has(vllm.RUNNING):
        said = vllm.read(page)
    elif page.has(sglang.RUNNING):
        said = sglang.read(page)
    else:
        return None
    told = page.has(vllm.FINISHED) or page.has(sglang.FINISHED)
    return said if told else replace(said, finished=_finished(page))


def _worker(page: Page) -> Scraped:
    """A worker tells what is in it, but not what of that runs: all but one counts as waiting, so that nothing waits
    unseen."""
    inside, queued = page.requests(INFLIGHT, **_GENERATE), page.requests(QUEUED)
    return Scraped(
        waiting_requests=queued + max(0, inside - 1), running_requests=min(1, inside), finished=_finished(page)
    )


def _finished(page: Page) -> int:
    durations = page.histogram(DURATION, **_GENERATE)
    return sum(durations.counts) if durations else 0
