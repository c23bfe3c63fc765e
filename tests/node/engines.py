"""Engines as far as their metrics go: the names, labels and buckets of vLLM 0.32 and SGLang 0.5.23, from their sources,
rendered by the library that both use."""

from collections.abc import Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from rapid.pages.page import Page, Picker

PAGES = Path(__file__).parent / "pages"  # of engines that ran
VLLM_TTFT_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
    *(160.0, 640.0, 2560.0),
)
VLLM_TPOT_S = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
SGLANG_TTFT_S = (0.1, 0.2, 0.4, 0.6, 0.8, 1, 2, 4, 6, 8, 10, 20, 40, 60, 80, 100, 200, 400)
SGLANG_TPOT_S = (
    *(0.002, 0.004, 0.006, 0.008, 0.010, 0.015, 0.020, 0.025, 0.030, 0.035, 0.040, 0.060, 0.080, 0.100, 0.200, 0.400),
    *(0.600, 0.800, 1.000, 2.000, 4.000, 6.000, 8.000),
)


class Vllm:
    """One life of a server with some data-parallel ranks; what it counts starts at zero."""

    def __init__(self, ranks: int = 1, started_s: float | None = None) -> None:
        self.registry = CollectorRegistry()
        self._ranks = [{"model_name": "m", "engine": str(rank)} for rank in range(ranks)]
        self.running = self._gauge("num_requests_running")
        self.waiting = self._gauge("num_requests_waiting")
        self.kv_used = self._gauge("kv_cache_usage_perc")
        labels = ("model_name", "engine")
        self._prompt = Counter("vllm:prompt_tokens", "", labels, registry=self.registry)
        self._source = Counter("vllm:prompt_tokens_by_source", "", (*labels, "source"), registry=self.registry)
        self._output = Counter("vllm:generation_tokens", "", labels, registry=self.registry)
        self._success = Counter("vllm:request_success", "", (*labels, "finished_reason"), registry=self.registry)
        self._ttft = Histogram(
            "vllm:time_to_first_token_seconds", "", labels, buckets=VLLM_TTFT_S, registry=self.registry
        )
        self._tpot = Histogram(
            "vllm:request_time_per_output_token_seconds", "", labels, buckets=VLLM_TPOT_S, registry=self.registry
        )
        for labelled in self._ranks:
            self._ttft.labels(**labelled)
            self._tpot.labels(**labelled)
        if started_s is not None:
            Gauge("process_start_time_seconds", "", registry=self.registry).set(started_s)

    def _gauge(self, name: str) -> list[Gauge]:
        gauge = Gauge(f"vllm:{name}", "", ("model_name", "engine"), registry=self.registry)
        return [gauge.labels(**labelled) for labelled in self._ranks]

    def serve(
        self,
        requests: int,
        *,
        rank: int = 0,
        prompt: int = 500,
        output: int = 90,
        received: int = 0,
        ttft_s: float = 0.07,
        tpot_s: float = 0.03,
    ) -> None:
        """So many requests from their arrival to their end; of each prompt, `received` tokens come from a peer."""
        labelled = self._ranks[rank]
        for _ in range(requests):
            self._prompt.labels(**labelled).inc(prompt)
            self._source.labels(**labelled, source="local_compute").inc(prompt - received)
            self._source.labels(**labelled, source="external_kv_transfer").inc(received)
            self._output.labels(**labelled).inc(output)
            self._success.labels(**labelled, finished_reason="length").inc()
            self._ttft.labels(**labelled).observe(ttft_s)
            self._tpot.labels(**labelled).observe(tpot_s if output > 1 else 0.0)

    def page(self) -> bytes:
        return generate_latest(self.registry)


class Sglang:
    """One life of a server. A gauge is there from its first value on; `ranks` are labels of the schedulers."""

    def __init__(self, engine_type: str = "unified", ranks: Sequence[dict[str, str]] = ({"tp_rank": "0"},)) -> None:
        self.registry = CollectorRegistry()
        self._scheduler = [
            {"model_name": "m", "engine_type": engine_type, "dp_rank": "", "priority": "", **rank} for rank in ranks
        ]
        names = tuple(self._scheduler[0])
        self._gauges = {
            name: Gauge(f"sglang:{name}", "", names, registry=self.registry)
            for name in (
                *("num_running_reqs", "num_queue_reqs", "token_usage", "num_prefill_bootstrap_queue_reqs"),
                *("num_prefill_inflight_queue_reqs", "num_decode_prealloc_queue_reqs"),
                "num_decode_transfer_queue_reqs",
            )
        }
        self._realtime = Counter("sglang:realtime_tokens", "", (*names, "mode"), registry=self.registry)
        self._tokenizer = {"model_name": "m", "engine_type": engine_type, "is_streaming": "true"}
        labels = tuple(self._tokenizer)
        self._prompt = Counter("sglang:prompt_tokens", "", labels, registry=self.registry)
        self._output = Counter("sglang:generation_tokens", "", labels, registry=self.registry)
        self._requests = Counter("sglang:num_requests", "", labels, registry=self.registry)
        self._ttft = Histogram(
            "sglang:time_to_first_token_seconds", "", labels, buckets=SGLANG_TTFT_S, registry=self.registry
        )
        self._tpot = Histogram(
            "sglang:request_time_per_output_token_seconds", "", labels, buckets=SGLANG_TPOT_S, registry=self.registry
        )

    def show(self, name: str, value: float, rank: int = 0) -> None:
        self._gauges[name].labels(**self._scheduler[rank]).set(value)

    def serve(self, requests: int, *, prefills: bool = True, decodes: bool = True) -> None:
        """Requests of 500 prompt tokens and 90 output tokens, as far as this half of a pair does them."""
        for _ in range(requests):
            for labelled in self._scheduler:
                self._realtime.labels(**labelled, mode="prefill_compute").inc(500 if prefills else 0)
                self._realtime.labels(**labelled, mode="decode").inc(89 if decodes else 0)
            self._prompt.labels(**self._tokenizer).inc(500)
            self._output.labels(**self._tokenizer).inc(90 if decodes else 1)
            self._requests.labels(**self._tokenizer).inc()
            if decodes:  # a prefill worker never observes a first token
                self._ttft.labels(**self._tokenizer).observe(0.3)
                self._tpot.labels(**self._tokenizer).observe(0.03)

    def page(self) -> bytes:
        return generate_latest(self.registry)


def paged(picker: Picker, text: bytes) -> Page:
    """The text as a page that has come in whole."""
    page = Page(picker)
    page.feed(text)
    page.end()
    return page
