"""What the metrics of a Dynamo worker mean (1.6.1): of its system port (DYN_SYSTEM_PORT), not of the frontend.

A worker passes on the metrics of the engine inside it, which then say most. The frontend's speak of all workers at
once, and of each only its last request. A worker of rapidctl.engines.dynamo_worker also shows what the forward passes
of its engine add up to (rapid_fpm_*): what runs and what waits in either role, and every token, which an engine whose
metrics are not passed on tells nowhere else.
"""

from dataclasses import replace

from rapid.core.cluster import Role
from rapid.core.errors import ScrapeFailed
from rapid.core.scraped import Scraped
from rapid.pages import sglang, vllm
from rapid.pages.page import Page, Picker

INFLIGHT, DURATION = "dynamo_component_inflight_requests", "dynamo_component_request_duration_seconds"
QUEUED = "dynamo_work_handler_queue_depth"  # of the whole worker; it has no labels
STEP_RUNNING, STEP_WAITING = "rapid_fpm_running_requests", "rapid_fpm_waiting_requests"
STEP_PROMPT, STEP_OUTPUT = "rapid_fpm_prompt_tokens_total", "rapid_fpm_output_tokens_total"
STEP_TPOT = "rapid_fpm_tpot_seconds"
STEPS = (STEP_RUNNING, STEP_WAITING, STEP_PROMPT, STEP_OUTPUT, STEP_TPOT)

PICKER = Picker((INFLIGHT, DURATION, QUEUED, *STEPS, *vllm.NAMES, *sglang.NAMES))
_PREFILL = "prefill"  # the component of a prefill worker; that of all others is "backend", or a name of their own
_GENERATE = {"dynamo_endpoint": "generate"}  # the others are the workers' own talk


def read(page: Page) -> Scraped:
    """Raises ScrapeFailed."""
    if not page.of(INFLIGHT, **_GENERATE):
        raise ScrapeFailed(f"its page has no {INFLIGHT} of an endpoint generate")
    lives, components = (page.label(INFLIGHT, label, **_GENERATE) for label in ("worker_id", "dynamo_component"))
    said = replace(
        _engine(page) or _steps(page, prefills=components == {_PREFILL}) or _worker(page),
        life=" ".join(sorted(lives)),
        ttft_role=Role.PREFILL,
    )
    if components != {_PREFILL}:
        return said
    # A prefill worker's request ends with its first token. Its engine's own TTFT says the same, where there is one.
    return replace(said, role=Role.PREFILL, ttft=said.ttft or page.histogram(DURATION, **_GENERATE))


def _engine(page: Page) -> Scraped | None:
    """What the engine inside says; None: it is one whose metrics are not passed on, or (Dynamo's mocker) only some."""
    if page.has(STEP_PROMPT) and not page.has(vllm.OUTPUT):
        return None
    if page.has(vllm.RUNNING):
        said = vllm.read(page)
    elif page.has(sglang.RUNNING):
        said = sglang.read(page)
    else:
        return None
    told = page.has(vllm.FINISHED) or page.has(sglang.FINISHED)
    return said if told else replace(said, finished=_finished(page))


def _steps(page: Page, *, prefills: bool) -> Scraped | None:
    """What its forward passes say; None: it shows none.

    A pass is reported when it is over, so the worker's own count of what is in it corrects what the last one said. In a
    prefill worker what has come since then waits; a decode worker is given a request when its prefill begins, so that
    what is in it and not in its engine waits elsewhere. When nothing has been reported for long, who knows what runs.
    """
    if not page.has(STEP_PROMPT):
        return None
    said, prompts = _worker(page), page.count(STEP_PROMPT)
    if page.has(STEP_RUNNING):
        inside, queued = page.requests(INFLIGHT, **_GENERATE), page.requests(QUEUED)
        running = min(inside, page.requests(STEP_RUNNING))
        waiting = inside - running if prefills else min(inside - running, page.requests(STEP_WAITING))
        said = replace(said, running_requests=running, waiting_requests=queued + waiting)
    return replace(
        said,
        kv_used_fraction=page.fraction(vllm.KV_USED),
        computed_tokens=prompts,
        asked_tokens=prompts,
        asked_requests=said.finished,
        output_tokens=page.count(STEP_OUTPUT),
        tpot=page.histogram(STEP_TPOT),
    )


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
