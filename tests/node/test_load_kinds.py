"""What the metrics of each kind of engine mean: three tables against pages as the engines show them."""

import pytest

from rapid.core.cluster import Histogram, Role
from rapid.core.errors import ScrapeFailed
from rapid.core.scraped import Scraped
from rapid.pages.kinds import KINDS, read
from tests.node.engines import PAGES, VLLM_TPOT_S, VLLM_TTFT_S, Sglang, Vllm, paged


def said(kind: str, text: bytes) -> Scraped:
    return read(kind, paged(KINDS[kind].picker, text))


def filled(bounds_s: tuple[float, ...], bound_s: float, count: int) -> Histogram:
    """All of the count in the bucket that ends at bound_s."""
    counts = [0] * (len(bounds_s) + 1)
    counts[bounds_s.index(bound_s)] = count
    return Histogram(bounds_s, tuple(counts))


# ---- vLLM ----


def test_vllm_says_everything_but_its_role() -> None:
    engine = Vllm(started_s=1_795_000_000.25)
    engine.waiting[0].set(7)
    engine.running[0].set(3)
    engine.kv_used[0].set(0.25)
    engine.serve(10, received=484)
    assert said("vllm", engine.page()) == Scraped(
        waiting_requests=7,
        running_requests=3,
        finished=10,
        life="1795000000.25",
        kv_used_fraction=0.25,
        computed_tokens=160,
        received_tokens=4_840,
        asked_tokens=5_000,
        asked_requests=10,
        output_tokens=900,
        ttft=filled(VLLM_TTFT_S, 0.08, 10),
        tpot=filled(VLLM_TPOT_S, 0.05, 10),
    )


def test_the_data_parallel_ranks_of_vllm_are_one_instance_and_as_full_as_its_fullest() -> None:
    engine = Vllm(ranks=2)
    for rank in range(2):
        engine.waiting[rank].set(1 + rank)
        engine.kv_used[rank].set(0.5 + rank / 4)
        engine.serve(5, rank=rank)
    found = said("vllm", engine.page())
    assert (found.waiting_requests, found.kv_used_fraction, found.finished) == (3, 0.75, 10)
    assert found.ttft == filled(VLLM_TTFT_S, 0.08, 10)


def test_a_vllm_of_before_counts_its_prompts_and_its_cache_under_other_names() -> None:
    engine = Vllm()
    engine.serve(2)
    engine.kv_used[0].set(0.5)
    text = engine.page().replace(b"vllm:prompt_tokens_by_source", b"vllm:other")
    found = said("vllm", text.replace(b"vllm:kv_cache_usage_perc", b"vllm:gpu_cache_usage_perc"))
    assert (found.computed_tokens, found.received_tokens, found.kv_used_fraction) == (1_000, 0, 0.5)


# ---- SGLang ----


def test_sglang_says_its_role_and_what_waits_for_a_peer_waits() -> None:
    engine = Sglang("prefill")
    engine.show("num_running_reqs", 1)
    engine.show("num_queue_reqs", 4)
    engine.show("num_prefill_bootstrap_queue_reqs", 2)
    engine.show("num_prefill_inflight_queue_reqs", 3)
    engine.show("token_usage", 0.5)
    engine.serve(10, decodes=False)
    found = said("sglang", engine.page())
    assert (found.role, found.waiting_requests, found.running_requests) == (Role.PREFILL, 6, 4)
    assert (found.kv_used_fraction, found.finished) == (0.5, 10)
    assert (found.computed_tokens, found.output_tokens, found.ttft, found.tpot) == (5_000, 0, None, None)


def test_the_decode_half_of_an_sglang_pair_measures_the_first_token() -> None:
    engine = Sglang("decode")
    engine.show("num_running_reqs", 9)
    engine.show("num_queue_reqs", 0)
    engine.show("num_decode_prealloc_queue_reqs", 2)
    engine.show("num_decode_transfer_queue_reqs", 1)
    engine.serve(10, prefills=False)
    found = said("sglang", engine.page())
    assert (found.role, found.ttft_role, found.waiting_requests) == (Role.DECODE, Role.DECODE, 3)
    assert (found.computed_tokens, found.output_tokens, found.asked_tokens) == (0, 890, 5_000)
    assert found.ttft is not None
    assert sum(found.ttft.counts) == 10


@pytest.mark.parametrize(("label", "role"), [("unified", Role.MIXED), ("dynamic", None), ("new", None)])
def test_an_sglang_that_may_switch_tells_no_role(label: str, role: Role | None) -> None:
    engine = Sglang(label)
    engine.show("num_running_reqs", 0)
    engine.show("num_queue_reqs", 0)
    assert said("sglang", engine.page()).role is role


def test_of_the_ranks_of_sglang_that_show_the_same_queue_one_counts() -> None:
    ranks = [{"tp_rank": str(tp), "dp_rank": str(dp)} for dp in range(2) for tp in range(2)]
    engine = Sglang(ranks=[*ranks, {"tp_rank": "0", "dp_rank": "0", "priority": "5"}])
    for rank, waiting in enumerate((4, 4, 1, 1, 3)):
        engine.show("num_queue_reqs", waiting, rank)
        engine.show("num_running_reqs", 2, rank)
    engine.serve(1)
    found = said("sglang", engine.page())
    assert (found.waiting_requests, found.running_requests, found.computed_tokens) == (5, 4, 1_000)


# ---- Dynamo, as it ran ----


def test_a_dynamo_prefill_worker_tells_its_role_and_its_requests_end_with_their_first_token() -> None:
    found = said("dynamo", (PAGES / "dynamo_prefill.txt").read_bytes())
    assert found.role is Role.PREFILL
    assert (found.waiting_requests, found.running_requests, found.finished) == (18, 1, 23)
    assert found.life == "d13727abc59e9d27"
    assert found.ttft is not None
    assert sum(found.ttft.counts) == 23
    assert found.ttft.bounds_s[:6] == (0.005, 0.01, 0.025, 0.05, 0.1, 0.25)
    assert found.ttft.counts[:6] == (0, 0, 0, 0, 12, 1)
    assert found.tpot is None


def test_a_dynamo_worker_passes_on_what_the_engine_inside_says() -> None:
    found = said("dynamo", (PAGES / "dynamo_decode.txt").read_bytes())
    assert (found.role, found.waiting_requests, found.running_requests) == (None, 0, 7)
    assert (found.finished, found.life) == (20, "73328c4e5e29748b")
    assert found.kv_used_fraction == 0.01556396484375
    assert found.ttft is not None
    assert sum(found.ttft.counts) == 27


def test_a_dynamo_worker_with_a_whole_vllm_inside_says_as_much_as_vllm() -> None:
    engine = Vllm()
    engine.serve(10)
    inside = said("vllm", engine.page())
    found = said("dynamo", (PAGES / "dynamo_prefill.txt").read_bytes() + engine.page())
    assert (found.finished, found.output_tokens, found.ttft, found.tpot) == (10, 900, inside.ttft, inside.tpot)
    assert found.role is Role.PREFILL


# ---- what is not what it should be ----


def test_a_missing_series_is_named() -> None:
    text = Vllm().page().replace(b"vllm:num_requests_waiting", b"vllm:other")
    with pytest.raises(ScrapeFailed) as caught:
        said("vllm", text)
    assert str(caught.value) == "its page has no vllm:num_requests_waiting"


def test_an_sglang_that_has_served_nothing_is_explained() -> None:
    with pytest.raises(ScrapeFailed) as caught:
        said("sglang", Sglang().page())
    assert str(caught.value) == "its page has no sglang:num_queue_reqs; it shows none before its first request"


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("vllm", b'sglang:num_queue_reqs{engine_type="unified"} 1\n', "these are metrics of SGLang, kind is vllm"),
        ("sglang", Vllm().page(), "these are metrics of vLLM, kind is sglang"),
        ("dynamo", Vllm().page(), "these are metrics of vLLM, kind is dynamo"),
        (
            "dynamo",
            (PAGES / "dynamo_frontend.txt").read_bytes(),
            "these are metrics of a Dynamo frontend; a worker's are on its system port, kind is dynamo",
        ),
        (
            "sglang",
            b'smg_worker_health{worker="http://127.0.0.1:1"} 1\n',
            "these are metrics of an SGLang router, which has no GPU, kind is sglang",
        ),
        ("vllm", (PAGES / "dynamo_prefill.txt").read_bytes(), "these are metrics of a Dynamo worker, kind is vllm"),
    ],
)
def test_another_engines_metrics_are_recognised(kind: str, text: bytes, words: str) -> None:
    with pytest.raises(ScrapeFailed) as caught:
        said(kind, text)
    assert str(caught.value).startswith("its page has no ")
    assert str(caught.value).endswith(f"; {words}")


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_of_nobody_we_know_is_only_missing_its_series(kind: str) -> None:
    with pytest.raises(ScrapeFailed) as caught:
        said(kind, b"node_cpu_seconds_total 1\n")
    assert "kind is" not in str(caught.value)
