"""/metrics: every number of the snapshot, nothing made up, and no way to hold the page up."""

import http.client
import socket
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rapid.core.cluster import GpuHealth, GpuReport, Mark, NodeReport, PhaseLoad, Role
from rapid.core.errors import ConfigInvalid, ScrapeFault
from rapid.core.watched import GpuWatch, Mover, NodeWatch
from rapidd.agent import GpuCounts, Snapshot
from rapidd.load.push import Looks
from rapidd.metrics import serving_metrics
from tests.node.caller import DEADLINE_S

KEY = "listen.metrics"
GPU = GpuReport(
    gpu="GPU-a",
    index=0,
    floor_mw=100_000,
    ceiling_mw=700_000,
    fallback_mw=400_000,
    limit_mw=612_500,
    limit_since_s=1.0,
    grant_mw=600_000,
    void=False,
    draw_mw=550_250,
    energy_mj=1_234_567,
    watch=GpuWatch(
        moves=((Mover.PROCESS, 3),), repairs=2, xids=4, losses=1, over_s=2.0, unmeasured_s=6.0, cap_bound=0.25
    ),
)
LOST = replace(
    GPU,
    gpu="GPU-b",
    index=1,
    void=True,
    draw_mw=None,
    energy_mj=None,
    health=GpuHealth.LOST,
    watch=GpuWatch(unmanaged="MIG is on"),
)
WATCH = NodeWatch(watched_s=60.0, over_s=2.0, unmeasured_s=4.0, excursions=3, excursion="draws 1100 W")
LOADS = (PhaseLoad("i0", Role.PREFILL, 1.0),)
REPORT = NodeReport("h1", "3-cafe", 9, 100.0, Mark(4, 17), 2.5, (GPU, LOST), LOADS, watch=WATCH)
SNAPSHOT = Snapshot(
    report=REPORT,
    counts={"GPU-a": GpuCounts(writes=5, failures=2, mismatches=1), "GPU-b": GpuCounts()},
    looks={"i0": Looks(50, 12_345, 98.5, {ScrapeFault.SILENT: 3}), "i1": Looks(2, 0, None, {ScrapeFault.KIND: 2})},
    reports_sent=42,
    streams=1,
    ready=True,
)


def get(address: str, path: str = "/metrics", method: str = "GET") -> tuple[int, str]:
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=DEADLINE_S)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def values(text: str) -> dict[tuple[str, ...], float]:
    """Every sample by its name and label values, sorted by label name; the index of a GPU left out."""
    return {
        (sample.name, *(value for label, value in sorted(sample.labels.items()) if label != "index")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_page_shows_the_snapshot() -> None:
    with serving_metrics("127.0.0.1:0", lambda: SNAPSHOT, KEY) as address:
        status, text = get(address)
    assert status == 200
    shown = values(text)
    for name, value in {
        ("rapidd_gpu_limit_watts", "GPU-a"): 612.5,
        ("rapidd_gpu_grant_watts", "GPU-a"): 600.0,
        ("rapidd_gpu_draw_watts", "GPU-a"): 550.25,
        ("rapidd_gpu_fallback_watts", "GPU-b"): 400.0,
        ("rapidd_gpu_energy_joules_total", "GPU-a"): 1234.567,
        ("rapidd_gpu_grant_void", "GPU-a"): 0.0,
        ("rapidd_gpu_grant_void", "GPU-b"): 1.0,
        ("rapidd_gpu_health", "GPU-a", "ok"): 1.0,
        ("rapidd_gpu_health", "GPU-b", "ok"): 0.0,
        ("rapidd_gpu_health", "GPU-b", "lost"): 1.0,
        ("rapidd_gpu_writes_total", "GPU-a"): 5.0,
        ("rapidd_gpu_write_failures_total", "GPU-a"): 2.0,
        ("rapidd_gpu_readback_mismatches_total", "GPU-a"): 1.0,
        ("rapidd_gpu_limit_moves_total", "GPU-a", "process"): 3.0,
        ("rapidd_gpu_limit_moves_total", "GPU-a", "outside"): 0.0,
        ("rapidd_gpu_repairs_total", "GPU-a"): 2.0,
        ("rapidd_gpu_xids_total", "GPU-a"): 4.0,
        ("rapidd_gpu_losses_total", "GPU-a"): 1.0,
        ("rapidd_gpu_over_budget_seconds_total", "GPU-a"): 2.0,
        ("rapidd_gpu_unmeasured_seconds_total", "GPU-a"): 6.0,
        ("rapidd_gpu_cap_bound_ratio", "GPU-a"): 0.25,
        ("rapidd_gpu_managed", "GPU-a"): 1.0,
        ("rapidd_gpu_managed", "GPU-b"): 0.0,
        ("rapidd_watched_seconds_total",): 60.0,
        ("rapidd_over_budget_seconds_total",): 2.0,
        ("rapidd_unmeasured_seconds_total",): 4.0,
        ("rapidd_excursions_total",): 3.0,
        ("rapidd_excursion",): 1.0,
        ("rapidd_reports_total",): 42.0,
        ("rapidd_streams",): 1.0,
        ("rapidd_instances",): 1.0,
        ("rapidd_lease_left_seconds",): 2.5,
        ("rapidd_mark_epoch",): 4.0,
        ("rapidd_mark_seq",): 17.0,
        ("rapidd_ready",): 1.0,
        ("rapidd_engine_scrapes_total", "i0"): 50.0,
        ("rapidd_engine_scrape_bytes_total", "i0"): 12_345.0,
        ("rapidd_engine_scrape_failures_total", "silent", "i0"): 3.0,
        ("rapidd_engine_scrape_failures_total", "kind", "i0"): 0.0,
        ("rapidd_engine_scrape_failures_total", "kind", "i1"): 2.0,
        ("rapidd_engine_reading_age_seconds", "i0"): 1.5,
    }.items():
        assert shown[name] == value, name


def test_what_the_device_does_not_tell_is_left_out() -> None:
    with serving_metrics("127.0.0.1:0", lambda: SNAPSHOT, KEY) as address:
        shown = values(get(address)[1])
    assert ("rapidd_gpu_draw_watts", "GPU-b") not in shown
    assert ("rapidd_gpu_energy_joules_total", "GPU-b") not in shown
    assert ("rapidd_gpu_cap_bound_ratio", "GPU-b") not in shown
    assert ("rapidd_gpu_limit_watts", "GPU-b") in shown
    assert ("rapidd_engine_reading_age_seconds", "i1") not in shown


def test_each_scrape_looks_anew() -> None:
    seen = iter([SNAPSHOT, replace(SNAPSHOT, streams=0)])
    with serving_metrics("127.0.0.1:0", lambda: next(seen), KEY) as address:
        assert [values(get(address)[1])["rapidd_streams",] for _ in range(2)] == [1.0, 0.0]


def test_nothing_else_is_served() -> None:
    with serving_metrics("127.0.0.1:0", lambda: SNAPSHOT, KEY) as address:
        assert get(address, "/")[0] == 404
        assert get(address, "/metrics/../etc")[0] == 404
        assert get(address, method="POST")[0] == 405


def test_a_caller_that_says_nothing_holds_nobody_up_for_long() -> None:
    with serving_metrics("127.0.0.1:0", lambda: SNAPSHOT, KEY) as address:
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), DEADLINE_S):
            assert get(address)[0] == 200


def test_a_port_that_is_taken_names_the_key() -> None:
    with (
        serving_metrics("127.0.0.1:0", lambda: SNAPSHOT, KEY) as address,
        pytest.raises(ConfigInvalid) as caught,
        serving_metrics(address, lambda: SNAPSHOT, KEY),
    ):
        pass
    assert str(caught.value) == f"config key {KEY}: cannot listen on {address}: address already in use"
