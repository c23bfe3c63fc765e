"""A fleet of engines as fluids: work flows through prefill into decode at speeds that limits buy. It obeys at once what
a policy wants, and says what it does in views. For tests of what a policy does over time, and to time it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from rapid.core.cluster import (
    GpuView,
    Histogram,
    InstanceView,
    Latencies,
    Phase,
    PhaseLoad,
    Role,
    SloTargets,
    Targets,
    View,
)
from tests.core.engines import BOTH
from tests.core.hosts import W

FLOOR_MW, CEILING_MW = 400 * W, 750 * W
TICK_S = 0.5
TOKEN_S = 6e-5  # per prompt token at the ceiling
BASE_S, SEQUENCE_S = 0.010, 0.0002  # of a decode step, at the ceiling
BOUNDS_S = (1.0,)


@dataclass(frozen=True, slots=True)
class Asked:
    """What comes in. Rates are over the whole fleet."""

    rps: float
    prompt_tokens: float = 2_000.0
    answer_tokens: float = 150.0


@dataclass(slots=True)
class Engine:
    """One instance. Counters as in PhaseLoad; `kappa`: the time it takes by what the formulas say."""

    name: str
    node: str
    gpus: tuple[str, ...]
    role: Role
    kappa: float = 1.0
    switching: int = 0  # ticks until it serves again
    busy: float = 0.0  # share of the last tick that it prefilled
    queue: float = 0.0  # prompt tokens
    resident: float = 0.0
    prompt_tokens: float = 0.0
    firsts: float = 0.0
    output_tokens: float = 0.0
    lasts: float = 0.0
    heard: bool = True

    def prefill(self, mean_tokens: float, speed: float) -> float:
        """Works off its queue for a tick. Returns the requests that come out."""
        most = TICK_S * speed / (TOKEN_S * self.kappa)
        done = min(self.queue, most)
        self.busy = done / most
        self.queue -= done
        self.prompt_tokens += done
        self.firsts += done / mean_tokens
        return done / mean_tokens

    def decode(self, answer_tokens: float, speed: float) -> float:
        """Lives for a tick. Returns the seconds of a step."""
        step_s = (BASE_S + SEQUENCE_S * self.resident) * self.kappa / speed
        ended = min(self.resident, self.resident * TICK_S / (answer_tokens * step_s))
        self.output_tokens += self.resident * TICK_S / step_s
        self.lasts += ended
        self.resident -= ended
        return step_s

    def load(self, at_s: float, mean_tokens: float, luck: float) -> PhaseLoad:
        """luck: 0 to 1, decides whether it is seen at work."""
        prefill = self.role is Role.PREFILL
        running = int(luck < self.busy) if prefill else round(self.resident)
        return PhaseLoad(
            self.name,
            self.role,
            at_s,
            waiting_requests=round(self.queue / mean_tokens),
            waiting_tokens=round(self.queue),
            running_requests=running,
            kv_used_fraction=min(1.0, self.resident / 400),
            prompt_tokens=int(self.prompt_tokens),
            output_tokens=int(self.output_tokens),
            ttft=Histogram(BOUNDS_S, (int(self.firsts), 0)),
            tpot=Histogram(BOUNDS_S, (int(self.lasts), 0)),
        )


@dataclass(slots=True)
class Fluid:
    """The fleet: half of each node's instances begin in prefill. Arrivals are a little uneven, by `seed`.

    each_w   the budget, by GPU; limits begin there
    wide     GPUs of an instance
    """

    nodes: int = 1
    gpus: int = 8
    wide: int = 1
    each_w: float = 600.0
    seed: int = 0
    switch_ticks: int = 3
    at_s: float = 1_000.0
    engines: list[Engine] = field(init=False)
    limits_mw: dict[str, int] = field(init=False)
    limit_changes: int = 0
    role_changes: int = 0
    step_s: float = 0.0  # the longest of the last tick
    _dice: Random = field(init=False)

    def __post_init__(self) -> None:
        self._dice = Random(f"fluid {self.seed}")
        count = self.gpus // self.wide
        self.engines = []
        for number in range(self.nodes):
            for index in range(count):
                role = Role.PREFILL if index < count // 2 else Role.DECODE
                name, node = f"e{number:03}.{index}", f"n{number:03}"
                gpus = tuple(f"{name}.g{part}" for part in range(self.wide))
                self.engines.append(Engine(name, node, gpus, role))
        self.limits_mw = {gpu: round(self.each_w * W) for one in self.engines for gpu in one.gpus}

    # ---- the world goes on ----

    def turn(self, asked: Asked) -> View:
        """Half a second goes by. The view of its end."""
        self.at_s += TICK_S
        for one in self.engines:
            one.switching = max(0, one.switching - 1)
        prefill, decode = list(self._serving(Role.PREFILL)), list(self._serving(Role.DECODE))
        come = asked.rps * TICK_S * self._dice.uniform(0.8, 1.2)
        for one in prefill:
            one.queue += come * asked.prompt_tokens / len(prefill)
        made = sum(one.prefill(asked.prompt_tokens, self._prefill_speed(one)) for one in prefill)
        for one in decode:
            one.resident += made / len(decode)
        self.step_s = max(one.decode(asked.answer_tokens, self._decode_speed(one)) for one in decode)
        return self.view(asked)

    def obey(self, targets: Targets) -> None:
        """Limits are in force at once; roles take a while, and the work is handed on."""
        self.limit_changes += len(targets.limits_mw)
        self.role_changes += len(targets.roles)
        self.limits_mw |= targets.limits_mw
        for one in self.engines:
            if one.name in targets.roles:
                one.role, one.switching = targets.roles[one.name], self.switch_ticks
                heirs = list(self._serving(Role.DECODE if one.role is Role.PREFILL else Role.PREFILL))
                for heir in heirs:
                    heir.queue += one.queue / len(heirs)
                    heir.resident += one.resident / len(heirs)
                one.queue = one.resident = 0.0

    @property
    def waiting_s(self) -> float:
        """How long the longest queue takes at full speed."""
        return max(one.queue for one in self.engines) * TOKEN_S

    def count(self, role: Role) -> int:
        return sum(one.role is role for one in self.engines)

    def _serving(self, role: Role) -> Iterator[Engine]:
        return (one for one in self.engines if one.role is role and not one.switching)

    def _least(self, one: Engine) -> float:
        return min(self.limits_mw[gpu] for gpu in one.gpus) / CEILING_MW

    def _prefill_speed(self, one: Engine) -> float:
        return float(self._least(one) ** 0.7)

    def _decode_speed(self, one: Engine) -> float:
        return float(min(1.0, self._least(one) / 0.7) ** 0.8)

    # ---- what is seen of it ----

    def view(self, asked: Asked) -> View:
        gpus = tuple(
            GpuView(gpu, one.node, FLOOR_MW, CEILING_MW, self.limits_mw[gpu], None, one.name)
            for one in self.engines
            for gpu in one.gpus
        )
        instances = tuple(
            InstanceView(
                one.name,
                one.gpus,
                one.role,
                Phase.SWITCHING if one.switching else Phase.SERVING,
                BOTH,
                one.load(self.at_s, asked.prompt_tokens, self._dice.random())
                if one.heard and not one.switching
                else None,
                1.0,
                False,
            )
            for one in self.engines
        )
        return View(
            at_s=self.at_s,
            slo=SloTargets(),
            latencies=Latencies(self.waiting_s + asked.prompt_tokens * TOKEN_S, self.step_s or None, self.waiting_s),
            gpus=gpus,
            instances=instances,
            rooms_mw={"site": round(self.each_w * W) * len(gpus)},
            chains=dict.fromkeys(sorted({one.node for one in self.engines}), ("site",)),
            settled=True,
            since_power_s=float("inf"),
            since_role_s=float("inf"),
        )
