"""/metrics on loopback, for Prometheus: one page per scrape, made from one snapshot of the node."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from rapid import __version__, scrape
from rapid.core.cluster import GpuHealth, GpuReport
from rapid.core.watched import GpuWatch, Mover, NodeWatch
from rapidd.agent import GpuCounts, Snapshot


class NodeCollector(Collector):
    """Every metric of the node. A value that the device did not tell is left out, never shown as zero."""

    def __init__(self, look: Callable[[], Snapshot]) -> None:
        self._look = look

    def collect(self) -> Iterator[Metric]:
        snapshot = self._look()
        report = snapshot.report
        about = {"version": __version__, "node": report.node, "incarnation": report.incarnation}
        yield InfoMetricFamily("rapidd", "This life of the daemon", value=about)
        yield GaugeMetricFamily("rapidd_ready", "1 when every GPU has been at its fallback since start", snapshot.ready)
        yield GaugeMetricFamily("rapidd_streams", "Controllers that are connected", snapshot.streams)
        yield GaugeMetricFamily("rapidd_instances", "Engine instances with fresh load", len(report.loads))
        yield GaugeMetricFamily("rapidd_lease_left_seconds", "Until grants end; 0: none", report.lease_left_s)
        yield GaugeMetricFamily("rapidd_mark_epoch", "Epoch of the last order taken", report.mark.epoch)
        yield GaugeMetricFamily("rapidd_mark_seq", "Number of the last order taken", report.mark.seq)
        yield CounterMetricFamily("rapidd_reports", "Reports sent", snapshot.reports_sent)
        yield from _of_watch(report.watch)
        yield from _of_gpus(report.gpus)
        yield from _of_counts(report.gpus, snapshot.counts)
        yield from _of_gpu_watches(report.gpus)


def _of_gpus(gpus: tuple[GpuReport, ...]) -> Iterator[Metric]:
    watts: tuple[tuple[str, str, Callable[[GpuReport], int | None]], ...] = (
        ("limit", "Greatest limit that may be in force", lambda gpu: gpu.limit_mw),
        ("grant", "Limit of the grant, given up or not", lambda gpu: gpu.grant_mw),
        ("draw", "Power drawn", lambda gpu: gpu.draw_mw),
        ("floor", "Least limit that the device accepts", lambda gpu: gpu.floor_mw),
        ("ceiling", "Greatest limit that the device accepts", lambda gpu: gpu.ceiling_mw),
        ("fallback", "Limit without a controller", lambda gpu: gpu.fallback_mw),
    )
    for name, help_text, value_of in watts:
        family = GaugeMetricFamily(f"rapidd_gpu_{name}_watts", help_text, labels=("gpu", "index"))
        for gpu in gpus:
            if (power_mw := value_of(gpu)) is not None:
                family.add_metric(_labels(gpu), power_mw / 1000)
        yield family
    energy = CounterMetricFamily("rapidd_gpu_energy_joules", "The device's own counter", labels=("gpu", "index"))
    void = GaugeMetricFamily("rapidd_gpu_grant_void", "1 when the grant was given up", labels=("gpu", "index"))
    health = GaugeMetricFamily("rapidd_gpu_health", "1 for the health it is in", labels=("gpu", "index", "health"))
    for gpu in gpus:
        if gpu.energy_mj is not None:
            energy.add_metric(_labels(gpu), gpu.energy_mj / 1000)
        void.add_metric(_labels(gpu), gpu.void)
        for kind in GpuHealth:
            health.add_metric((*_labels(gpu), kind.value), kind is gpu.health)
    yield from (energy, void, health)


def _of_counts(gpus: tuple[GpuReport, ...], counts: Mapping[str, GpuCounts]) -> Iterator[Metric]:
    kinds: tuple[tuple[str, str, Callable[[GpuCounts], int]], ...] = (
        ("writes", "Limits written", lambda count: count.writes),
        ("write_failures", "Limits written that did not come into force", lambda count: count.failures),
        ("readback_mismatches", "Limits read back higher than they were set", lambda count: count.mismatches),
    )
    for name, help_text, value_of in kinds:
        family = CounterMetricFamily(f"rapidd_gpu_{name}", help_text, labels=("gpu", "index"))
        for gpu in gpus:
            family.add_metric(_labels(gpu), value_of(counts[gpu.gpu]))
        yield family


def _of_watch(watch: NodeWatch) -> Iterator[Metric]:
    judged = "Seconds whose energy was judged"
    yield CounterMetricFamily("rapidd_watched_seconds", judged, watch.watched_s)
    over = "Seconds of them with more energy than the node had leave for"
    yield CounterMetricFamily("rapidd_over_budget_seconds", over, watch.over_s)
    unmeasured = "Seconds of them with an energy counter that was stale or missing"
    yield CounterMetricFamily("rapidd_unmeasured_seconds", unmeasured, watch.unmeasured_s)
    yield CounterMetricFamily("rapidd_excursions", "Times that the node cut limits by itself", watch.excursions)
    yield GaugeMetricFamily("rapidd_excursion", "1 while limits are cut", bool(watch.excursion))


def _of_gpu_watches(gpus: tuple[GpuReport, ...]) -> Iterator[Metric]:
    counts: tuple[tuple[str, str, Callable[[GpuWatch], float]], ...] = (
        ("repairs", "Limits written over those of others", lambda watch: watch.repairs),
        ("xids", "Error reports of the driver", lambda watch: watch.xids),
        ("losses", "Times that it stopped answering", lambda watch: watch.losses),
        ("over_budget_seconds", "Seconds with more energy than it had leave for", lambda watch: watch.over_s),
        ("unmeasured_seconds", "Seconds without a usable energy counter", lambda watch: watch.unmeasured_s),
    )
    for name, help_text, value_of in counts:
        family = CounterMetricFamily(f"rapidd_gpu_{name}", help_text, labels=("gpu", "index"))
        for gpu in gpus:
            family.add_metric(_labels(gpu), value_of(gpu.watch))
        yield family
    moves = CounterMetricFamily(
        "rapidd_gpu_limit_moves", "Limits that somebody else moved", labels=("gpu", "index", "mover")
    )
    managed = GaugeMetricFamily("rapidd_gpu_managed", "1 if its limit is set here", labels=("gpu", "index"))
    bound_text = "Share of the last ten seconds in which its limit slowed it"
    bound = GaugeMetricFamily("rapidd_gpu_cap_bound_ratio", bound_text, labels=("gpu", "index"))
    for gpu in gpus:
        counted = dict(gpu.watch.moves)
        for mover in Mover:
            moves.add_metric((*_labels(gpu), mover.name.lower()), counted.get(mover, 0))
        managed.add_metric(_labels(gpu), not gpu.watch.unmanaged)
        if gpu.watch.cap_bound is not None:
            bound.add_metric(_labels(gpu), gpu.watch.cap_bound)
    yield from (moves, managed, bound)


def _labels(gpu: GpuReport) -> tuple[str, str]:
    return gpu.gpu, str(gpu.index)


def serving_metrics(address: str, look: Callable[[], Snapshot], key: str) -> AbstractContextManager[str]:
    """Serve http://address/metrics on a thread while this lasts; yields the address with the port that was bound.

    `look` is called on that thread. Raises ConfigInvalid, naming the key, for an address that cannot be used.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(NodeCollector(look))
    return scrape.serving(address, registry, key)
