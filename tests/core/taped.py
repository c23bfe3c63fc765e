"""Engines that run exactly as a formula says, seen once a tick: what the models must find out is known."""

from dataclasses import dataclass, field

from rapid.core.cluster import GpuView, Histogram, InstanceView, Latencies, Phase, PhaseLoad, Role, SloTargets, View
from rapid.core.policy.predictive.models import Models
from tests.core.engines import BOTH
from tests.core.hosts import W

TICK_S = 0.5
CEILING_MW = 700 * W
FLOOR_MW = 200 * W
GPU = GpuView("any", "n", FLOOR_MW, CEILING_MW, CEILING_MW, None, None)


@dataclass(slots=True)
class Tape:
    """One engine on one GPU. Always busy in prefill; in decode it runs `batch` sequences."""

    name: str
    role: Role
    token_s: float = 0.00004  # per prompt token at full speed
    exponent: float = 0.6  # of prefill speed by limit / ceiling
    prompt_tokens: int = 1000
    batch: int = 32
    answer_tokens: int = 200
    step_s: float = 0.012  # of decode, whatever the limit
    limit_mw: int = CEILING_MW
    draw_mw: int | None = None
    phase: Phase = Phase.SERVING
    running: bool = True
    full: float = 0.0  # of its KV
    heard: bool = True
    report_s: float = TICK_S  # between two loads
    histograms: bool = True
    at_s: float = 0.0
    tokens: float = 0.0
    outputs: float = 0.0
    gpu: str = field(init=False)
    last: PhaseLoad = field(init=False)

    def __post_init__(self) -> None:
        self.gpu = f"{self.name}-gpu"
        self.last = self._load()

    @property
    def speed(self) -> float:
        return float((self.limit_mw / CEILING_MW) ** self.exponent)

    def live(self, lived_s: float) -> None:
        self.at_s += lived_s
        if not self.running:
            return
        if self.role is Role.PREFILL:
            self.tokens += lived_s * self.speed / self.token_s
        else:
            self.outputs += lived_s / self.step_s * self.batch

    def restart(self) -> None:
        """A new life of the engine: counters from nothing."""
        self.tokens = self.outputs = 0.0

    def load(self) -> PhaseLoad:
        """The load as last reported."""
        if self.at_s - self.last.at_s >= self.report_s or self.last.role is not self.role:
            self.last = self._load()
        return self.last

    def _load(self) -> PhaseLoad:
        prefill = self.role is Role.PREFILL
        return PhaseLoad(
            self.name,
            self.role,
            self.at_s,
            waiting_requests=3 if prefill and self.running else 0,
            kv_used_fraction=self.full,
            running_requests=(1 if prefill else self.batch) if self.running else 0,
            prompt_tokens=int(self.tokens),
            output_tokens=int(self.outputs),
            ttft=self._histogram(self.tokens / self.prompt_tokens),
            tpot=self._histogram(self.outputs / self.answer_tokens),
        )

    def _histogram(self, count: float) -> Histogram:
        return Histogram((1.0,), (int(count), 0)) if self.histograms else Histogram()


class Deck:
    """Several tapes under one controller's clock."""

    def __init__(self, *tapes: Tape) -> None:
        self.tapes = list(tapes)
        self.at_s = 100.0

    def turn(self, lived_s: float = TICK_S) -> View:
        """Lets all live, and looks."""
        self.at_s += lived_s
        for tape in self.tapes:
            tape.live(lived_s)
        return self.view()

    def view(self) -> View:
        gpus = tuple(
            GpuView(tape.gpu, "n", FLOOR_MW, CEILING_MW, tape.limit_mw, tape.draw_mw, tape.name) for tape in self.tapes
        )
        instances = tuple(
            InstanceView(
                tape.name, (tape.gpu,), tape.role, tape.phase, BOTH, tape.load() if tape.heard else None, 1.0, False
            )
            for tape in self.tapes
        )
        return View(
            at_s=self.at_s,
            slo=SloTargets(),
            latencies=Latencies(None, None, 0.0),
            gpus=gpus,
            instances=instances,
            rooms_mw={"room": 10**9},
            chains={"n": ("room",)},
            settled=True,
            since_power_s=float("inf"),
            since_role_s=float("inf"),
        )


def prefill(name: str = "p") -> Tape:
    return Tape(name, Role.PREFILL)


def decode(name: str = "d") -> Tape:
    return Tape(name, Role.DECODE)


def run(models: Models, deck: Deck, lived_s: float) -> None:
    """Lets models watch."""
    for _ in range(round(lived_s / TICK_S)):
        models.observe(deck.turn())
