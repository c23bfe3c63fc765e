"""What Prometheus gets to see: the picture of the cluster, drawn when it asks, and how long the loop's work takes."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from rapid import __version__
from rapid.core.cluster import NodeHealth, Phase
from rapid.core.events import Event, NodeHeard, Ticked
from rapid.core.status import GpuStatus, Status

PREFIX = "rapid_controller"
_STEP_BOUNDS_S = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


@dataclass(frozen=True, slots=True)
class Shown:
    """One moment of the controller, frozen, so that any thread may read it."""

    status: Status
    queued: int
    replaced_reports: int
    journal_entries: int
    journal_bytes: int
    nodes_reporting: int
    engines_attached: int


class Metrics(Collector):
    """Counts durations as the loop works, and tells everything else from what `look` shows (called by the scraper)."""

    def __init__(self, look: Callable[[], Shown]) -> None:
        self._look = look
        self.registry = CollectorRegistry(auto_describe=False)
        self._steps = Histogram(
            f"{PREFIX}_step_seconds",
            "Time to decide on one event",
            ("event",),
            buckets=_STEP_BOUNDS_S,
            registry=self.registry,
        )
        self._tick, self._report, self._other = (
            self._steps.labels(each) for each in (Ticked.__name__, NodeHeard.__name__, "other")
        )
        self._commits = Histogram(
            f"{PREFIX}_journal_commit_seconds",
            "Time until a batch of events is on disk",
            buckets=_STEP_BOUNDS_S,
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        self.registry.register(self)

    def stepped(self, event: Event, took_s: float) -> None:
        kind = (
            self._tick if isinstance(event, Ticked) else self._report if isinstance(event, NodeHeard) else self._other
        )
        kind.observe(took_s)

    def committed(self, took_s: float) -> None:
        self._commits.observe(took_s)

    def collect(self) -> Iterator[Metric]:
        shown = self._look()
        yield from _of_the_controller(shown)
        yield from _of_domains(shown.status)
        yield from _of_nodes(shown.status)
        yield from _of_gpus(shown.status)
        yield from _of_instances(shown.status)
        yield from _of_slo(shown.status)


def _of_the_controller(shown: Shown) -> Iterator[Metric]:
    status = shown.status
    about = {"version": __version__, "controller_id": status.controller_id, "policy": status.policy}
    yield InfoMetricFamily(PREFIX, "This life of the controller", value=about)
    yield _gauge("epoch", "Epoch of this life", status.epoch)
    yield _gauge("paused", "1 while the policy is paused", status.paused)
    yield _gauge("queue_length", "Events that wait to be taken", shown.queued)
    yield _gauge("journal_life_entries", "Entries in the present life of the journal", shown.journal_entries)
    yield _gauge("journal_life_bytes", "Size of the present life of the journal", shown.journal_bytes)
    yield _gauge("node_streams", "Nodes that report over a stream", shown.nodes_reporting)
    yield _gauge("engine_streams", "Engines that are attached", shown.engines_attached)
    yield _counter("replaced_reports", "Reports replaced by a newer one while they waited", shown.replaced_reports)
    yield _counter("role_moves", "Role changes committed in this life", status.role_moves)
    yield _counter("moved_watts", "Watts of raises decided in this life", status.watts_moved_mw / 1000)
    yield _counter("scored_predictions", "Predictions held against what was measured", status.scored)
    error = (((), status.prediction_error),)
    yield _family("prediction_error", "Mean absolute error of predicted SLO attainment, 0 to 1", (), error)


def _of_domains(status: Status) -> Iterator[Metric]:
    rows = [((domain.domain,), domain) for domain in status.domains]
    labels = ("domain",)
    yield _family("domain_budget_watts", "Budget", labels, ((at, it.budget_mw / 1000) for at, it in rows))
    yield _family("domain_reserved_watts", "Reserved", labels, ((at, it.reserved_mw / 1000) for at, it in rows))
    yield _family("domain_held_watts", "Most that GPUs may draw", labels, ((at, it.held_mw / 1000) for at, it in rows))
    yield _family("domain_draw_watts", "Power drawn", labels, ((at, _watts(it.draw_mw)) for at, it in rows))
    yield _family("domain_over_budget", "1 while over budget", labels, ((at, it.over_budget) for at, it in rows))


def _of_nodes(status: Status) -> Iterator[Metric]:
    yield _family(
        "node_health",
        "1 for the health that the node is in",
        ("node", "health"),
        (((node.node, health.value), node.health is health) for node in status.nodes for health in NodeHealth),
    )
    ages = (((node.node,), node.age_s) for node in status.nodes)
    yield _family("node_report_age_seconds", "Since its last report; +Inf: never heard", ("node",), ages)


def _of_gpus(status: Status) -> Iterator[Metric]:
    gpus = [((node.node, gpu.gpu, str(gpu.index)), gpu) for node in status.nodes for gpu in node.gpus]
    powers: tuple[tuple[str, str, Callable[[GpuStatus], int | None]], ...] = (
        ("limit", "Greatest limit that may be in force", lambda gpu: gpu.limit_mw),
        ("target", "Limit decided last", lambda gpu: gpu.target_mw),
        ("held", "Booked", lambda gpu: gpu.held_mw),
        ("draw", "Power drawn", lambda gpu: gpu.draw_mw),
    )
    labels = ("node", "gpu", "index")
    for name, text, value in powers:
        yield _family(f"gpu_{name}_watts", text, labels, ((at, _watts(value(gpu))) for at, gpu in gpus))
    yield _family("gpu_managed", "0 while booked at its ceiling", labels, ((at, gpu.managed) for at, gpu in gpus))


def _of_instances(status: Status) -> Iterator[Metric]:
    serving = [one for one in status.instances if one.phase is not Phase.GONE]
    yield _family(
        "instance",
        "1 for each instance that is attached",
        ("instance", "role", "phase"),
        (((one.instance, one.role.value, one.phase.value), 1) for one in serving),
    )
    loaded = [((one.instance,), one.load) for one in serving if one.load is not None]
    waiting = ((at, load.waiting_requests) for at, load in loaded)
    yield _family("instance_waiting_requests", "Requests that wait", ("instance",), waiting)
    running = ((at, load.running_requests) for at, load in loaded)
    yield _family("instance_running_requests", "Requests that run", ("instance",), running)


def _of_slo(status: Status) -> Iterator[Metric]:
    slo = status.slo
    kinds = (
        ("ttft", slo.ttft_attainment, slo.ttft_window_s, slo.targets.ttft_s),
        ("tpot", slo.tpot_attainment, slo.tpot_window_s, slo.targets.tpot_s),
    )
    labels = ("kind",)
    yield _family("slo_attainment", "Share that met the target", labels, (((it[0],), it[1]) for it in kinds))
    yield _family("slo_window_seconds", "Quantile over the window", labels, (((it[0],), it[2]) for it in kinds))
    yield _family("slo_target_seconds", "Target", labels, (((it[0],), it[3]) for it in kinds))
    yield _counter("finished_requests", "Requests finished in this life", slo.finished)


Point = tuple[tuple[str, ...], float | None]


def _family(name: str, text: str, labels: tuple[str, ...], points: Iterable[Point]) -> GaugeMetricFamily:
    """A gauge with labels. What is not known is left out, never shown as zero."""
    family = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=labels)
    for at, value in points:
        if value is not None:
            family.add_metric(at, value)
    return family


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"{PREFIX}_{name}", text, value=value)


def _watts(power_mw: int | None) -> float | None:
    return None if power_mw is None else power_mw / 1000
