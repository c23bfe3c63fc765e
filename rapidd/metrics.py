"""/metrics on loopback, for Prometheus: one page per scrape, made from one snapshot of the node."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from rapid import __version__, scrape
from rapid.core.cluster import GpuHealth, GpuReport, NodeReport
from rapid.core.errors import ScrapeFault
from rapid.core.watched import Mover, NodeWatch
from rapidd.agent import GpuCounts, Snapshot
from rapidd.load.push import Looks

Family = type[GaugeMetricFamily] | type[CounterMetricFamily]
Labelled = tuple[tuple[str, ...], float | None]  # the values of a sample's labels, and its own; None: it is not told
GAUGE, COUNTER = GaugeMetricFamily, CounterMetricFamily


class NodeCollector(Collector):
    """Every metric of the node. A value that the device did not tell is left out, never shown as zero."""

    def __init__(self, look: Callable[[], Snapshot]) -> None:
        self._look = look

    def collect(self) -> Iterator[Metric]:
        snapshot = self._look()
        report = snapshot.report
        about = {"version": __version__, "node": report.node, "incarnation": report.incarnation}
        yield InfoMetricFamily("rapidd", "This life of the daemon", value=about)
        yield GAUGE("rapidd_ready", "1 when every GPU has been at its fallback since start", snapshot.ready)
        yield GAUGE("rapidd_streams", "Controllers that are connected", snapshot.streams)
        yield COUNTER("rapidd_reports", "Reports sent", snapshot.reports_sent)
        yield from _of_node(report)
        yield from _of_watch(report.watch)
        yield from _of_gpus(report.gpus, snapshot.counts)
        yield from _of_engines(snapshot.looks, report.node_time_s)


def _of_node(report: NodeReport) -> Iterator[Metric]:
    yield GAUGE("rapidd_instances", "Engine instances with fresh load", len(report.loads))
    yield GAUGE("rapidd_lease_left_seconds", "Until grants end; 0: none", report.lease_left_s)
    yield GAUGE("rapidd_mark_epoch", "Epoch of the last order taken", report.mark.epoch)
    yield GAUGE("rapidd_mark_seq", "Number of the last order taken", report.mark.seq)


def _of_watch(watch: NodeWatch) -> Iterator[Metric]:
    yield COUNTER("rapidd_watched_seconds", "Seconds whose energy was judged", watch.watched_s)
    over = "Seconds of them with more energy than the node had leave for"
    yield COUNTER("rapidd_over_budget_seconds", over, watch.over_s)
    unmeasured = "Seconds of them with an energy counter that was stale or missing"
    yield COUNTER("rapidd_unmeasured_seconds", unmeasured, watch.unmeasured_s)
    yield COUNTER("rapidd_excursions", "Times that the node cut limits by itself", watch.excursions)
    yield GAUGE("rapidd_excursion", "1 while limits are cut", bool(watch.excursion))


# Every metric that has one value for each GPU: the end of its name, what it is, and its value.
_PER_GPU: tuple[tuple[Family, str, str, Callable[[GpuReport, GpuCounts], float | None]], ...] = (
    (GAUGE, "limit_watts", "Greatest limit that may be in force", lambda gpu, _: gpu.limit_mw / 1000),
    (GAUGE, "grant_watts", "Limit of the grant, given up or not", lambda gpu, _: gpu.grant_mw / 1000),
    (GAUGE, "draw_watts", "Power drawn", lambda gpu, _: _per_1000(gpu.draw_mw)),
    (GAUGE, "floor_watts", "Least limit that the device accepts", lambda gpu, _: gpu.floor_mw / 1000),
    (GAUGE, "ceiling_watts", "Greatest limit that the device accepts", lambda gpu, _: gpu.ceiling_mw / 1000),
    (GAUGE, "fallback_watts", "Limit without a controller", lambda gpu, _: gpu.fallback_mw / 1000),
    (COUNTER, "energy_joules", "The device's own counter", lambda gpu, _: _per_1000(gpu.energy_mj)),
    (GAUGE, "grant_void", "1 when the grant was given up", lambda gpu, _: gpu.void),
    (GAUGE, "managed", "1 if its limit is set here", lambda gpu, _: not gpu.watch.unmanaged),
    (COUNTER, "writes", "Limits written", lambda _, count: count.writes),
    (COUNTER, "write_failures", "Limits written that did not come into force", lambda _, count: count.failures),
    (COUNTER, "readback_mismatches", "Limits read back higher than they were set", lambda _, count: count.mismatches),
    (COUNTER, "repairs", "Limits written over those of others", lambda gpu, _: gpu.watch.repairs),
    (COUNTER, "xids", "Error reports of the driver", lambda gpu, _: gpu.watch.xids),
    (COUNTER, "losses", "Times that it stopped answering", lambda gpu, _: gpu.watch.losses),
    (COUNTER, "over_budget_seconds", "Seconds over what it had leave for", lambda gpu, _: gpu.watch.over_s),
    (COUNTER, "unmeasured_seconds", "Seconds without a usable energy counter", lambda gpu, _: gpu.watch.unmeasured_s),
    (GAUGE, "cap_bound_ratio", "Share of 10 s in which its limit slowed it", lambda gpu, _: gpu.watch.cap_bound),
)


def _of_gpus(gpus: tuple[GpuReport, ...], counts: Mapping[str, GpuCounts]) -> Iterator[Metric]:
    labels = ("gpu", "index")
    named = [((gpu.gpu, str(gpu.index)), gpu, counts[gpu.gpu]) for gpu in gpus]
    for family, name, help_text, value_of in _PER_GPU:
        samples = [(about, value_of(gpu, count)) for about, gpu, count in named]
        yield _family(family, f"rapidd_gpu_{name}", help_text, labels, samples)
    healths = [((*about, kind.value), kind is gpu.health) for about, gpu, _ in named for kind in GpuHealth]
    yield _family(GAUGE, "rapidd_gpu_health", "1 for the health it is in", (*labels, "health"), healths)
    moves = [
        ((*about, mover.name.lower()), dict(gpu.watch.moves).get(mover, 0))
        for about, gpu, _ in named
        for mover in Mover
    ]
    yield _family(COUNTER, "rapidd_gpu_limit_moves", "Limits that somebody else moved", (*labels, "mover"), moves)


def _of_engines(engines: Mapping[str, Looks], at_s: float) -> Iterator[Metric]:
    """How it goes to read the metrics of the engines of this host, [[engine]] in the configuration."""
    named, labels = [((instance,), looks) for instance, looks in engines.items()], ("instance",)
    counts = [(about, looks.count) for about, looks in named]
    yield _family(COUNTER, "rapidd_engine_scrapes", "Looks at its metrics", labels, counts)
    failures = [
        ((*about, fault.value), looks.failures.get(fault, 0)) for about, looks in named for fault in ScrapeFault
    ]
    failed = "Looks that brought no load"
    yield _family(COUNTER, "rapidd_engine_scrape_failures", failed, (*labels, "fault"), failures)
    sizes = [(about, looks.read_bytes) for about, looks in named]
    yield _family(COUNTER, "rapidd_engine_scrape_bytes", "Bytes of its pages that were read", labels, sizes)
    ages = [(about, None if looks.good_at_s is None else max(0.0, at_s - looks.good_at_s)) for about, looks in named]
    yield _family(GAUGE, "rapidd_engine_reading_age_seconds", "Since the last look that brought load", labels, ages)


def _family(
    family: Family, name: str, help_text: str, labels: tuple[str, ...], samples: Iterable[Labelled]
) -> GaugeMetricFamily | CounterMetricFamily:
    """One metric, with a sample for each value that is told."""
    metric = family(name, help_text, labels=labels)
    for values, value in samples:
        if value is not None:
            metric.add_metric(values, value)
    return metric


def _per_1000(amount: int | None) -> float | None:
    return None if amount is None else amount / 1000


def serving_metrics(address: str, look: Callable[[], Snapshot], key: str) -> AbstractContextManager[str]:
    """Serve http://address/metrics on a thread while this lasts; yields the address with the port that was bound.

    `look` is called on that thread. Raises ConfigInvalid, naming the key, for an address that cannot be used.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(NodeCollector(look))
    return scrape.serving(address, registry, key)
