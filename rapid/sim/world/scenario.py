"""What is simulated: a site under one budget, who decides there, and the world around it. All is checked first."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from rapid.core.cluster import Domain, NodeSpec, Role, SloTargets
from rapid.core.errors import ConfigInvalid, watts
from rapid.core.policy import NAMES, make
from rapid.core.settings import LedgerSettings, Settings
from rapid.sim.model.profile import Profile
from rapid.sim.model.requests import EngineSettings

COLOCATED = "colocated"  # every instance is mixed, limits as policy uniform sets them
ORACLE = "oracle"  # a policy that is handed in and may look at the site
SITE = "site"  # the one domain


@dataclass(frozen=True, slots=True)
class Silence:
    """From from_s to until_s of the trace's time nothing gets through between the controller and a node's rapidd."""

    node: str
    from_s: float
    until_s: float


@dataclass(frozen=True, slots=True)
class WorldSettings:
    """The world around the controller; (low, high) is a uniform throw of the dice. Times in seconds.

    report_interval_s, tick_s, window_s, quantile, drain_s   the defaults of rapidd and controller
    report_gap_s    the least time between two reports of a node (assumed)
    load_interval_s how often an engine pushes its load to rapidd, as the simulated engines of the demo do
    network_s       one way between controller and node or engine (assumed: a data centre with a busy controller)
    write_s         to set a limit and read it back (assumed: a call to a driver)
    limit_delay_s   from a new limit to its first effect, per change; the lag behind it is the profile's (assumed)
    draw_tolerance  ledger.draw_tolerance as an operator sets it whose meters differ by 3 % from board to board (one
                    sigma): at the default of 5 %, one board in twenty counts as one that does not obey (assumed)
    lead_in_s       before the trace's time 0: nodes boot and land, are heard, engines attach, first limits settle
    """

    report_interval_s: float = 0.5
    report_gap_s: float = 0.01
    load_interval_s: float = 0.25
    network_s: tuple[float, float] = (0.001, 0.005)
    write_s: tuple[float, float] = (0.002, 0.010)
    limit_delay_s: tuple[float, float] = (0.05, 0.15)
    lead_in_s: float = 10.0
    tick_s: float = 0.5
    window_s: float = 5.0
    quantile: float = 0.9
    drain_s: float = 30.0
    draw_tolerance: float = 0.12
    silences: tuple[Silence, ...] = ()

    def check(self) -> None:
        """Raise ConfigInvalid for a time that cannot be."""
        for key in ("report_interval_s", "load_interval_s", "lead_in_s"):
            value_s = getattr(self, key)
            if not 0 < value_s < inf:
                raise ConfigInvalid(f"world.{key}", f"must be above 0 s and finite, is {value_s:g} s")
        if not 0 <= self.report_gap_s <= self.report_interval_s:
            bound_s = self.report_interval_s
            raise ConfigInvalid("world.report_gap_s", f"must lie within 0..{bound_s:g} s, is {self.report_gap_s:g} s")
        if not 0 <= self.draw_tolerance <= 1:
            raise ConfigInvalid("world.draw_tolerance", f"must lie within 0..1, is {self.draw_tolerance:g}")
        for key in ("network_s", "write_s", "limit_delay_s"):
            low_s, high_s = getattr(self, key)
            if not 0 <= low_s <= high_s < inf:
                raise ConfigInvalid(
                    f"world.{key}", f"must be low, high with 0 <= low <= high, is {low_s:g}, {high_s:g}"
                )


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run but for its requests. The same scenario and requests give the same bytes.

    policy, policy_settings   one of core's policies with its named settings, or "colocated", or "oracle"
    nodes, gpus   so many nodes with so many GPUs each; profile.gpus of them make an instance
    budget_mw     what the GPUs of all nodes may draw together
    prefill       instances of each node that start in prefill; the rest decode. Nobody asks for it when colocated
    """

    profile: Profile
    budget_mw: int
    prefill: int
    policy: str = "rapid"
    policy_settings: Mapping[str, float] = field(default_factory=dict)
    nodes: int = 1
    gpus: int = 8
    slo: SloTargets = field(default_factory=SloTargets)
    seed: int = 0
    engine: EngineSettings = field(default_factory=EngineSettings)
    world: WorldSettings = field(default_factory=WorldSettings)

    @property
    def instances(self) -> int:
        """Of each node."""
        return self.gpus // self.profile.gpus

    @property
    def fallback_mw(self) -> int:
        """What a GPU goes down to without a controller: its share of the budget."""
        return min(self.profile.ceiling_mw, self.budget_mw // (self.nodes * self.gpus))

    @property
    def node_names(self) -> tuple[str, ...]:
        digits = len(str(self.nodes - 1))
        return tuple(f"node{number:0{digits}}" for number in range(self.nodes))

    @property
    def roles(self) -> tuple[Role, ...]:
        """What the instances of a node serve at the start."""
        if self.policy == COLOCATED:
            return (Role.MIXED,) * self.instances
        return (Role.PREFILL,) * self.prefill + (Role.DECODE,) * (self.instances - self.prefill)

    def settings(self) -> Settings:
        """The controller's configuration: one domain with the whole budget."""
        profile, world = self.profile, self.world
        limits_mw = (profile.floor_mw, profile.ceiling_mw, self.fallback_mw)
        own = self.policy not in (COLOCATED, ORACLE)
        return Settings(
            domains=(Domain(SITE, self.budget_mw),),
            nodes=tuple(NodeSpec(name, SITE, self.gpus, *limits_mw) for name in self.node_names),
            slo=self.slo,
            policy=self.policy if own else "uniform",
            policy_settings=self.policy_settings if own else {},
            tick_s=world.tick_s,
            window_s=world.window_s,
            quantile=world.quantile,
            drain_s=world.drain_s,
            quiet_s=0.0,  # this router sends nothing to an engine that has closed
            ledger=LedgerSettings(draw_tolerance=world.draw_tolerance),
        )

    def check(self) -> None:
        """Raise ConfigInvalid, naming the key, its value and the bound, for a scenario that cannot be run."""
        self._check_counts()
        self._check_policy()
        floors_mw = self.nodes * self.gpus * self.profile.floor_mw
        if self.budget_mw < floors_mw:
            raise ConfigInvalid(
                "budget",
                f"{watts(self.budget_mw)} is below the floors of {self.nodes * self.gpus} GPUs of {self.profile.name}, "
                f"{watts(floors_mw)}; raise it to that or more",
            )
        for key in ("ttft_s", "tpot_s"):
            target_s = getattr(self.slo, key)
            if not 0 < target_s < inf:
                raise ConfigInvalid(f"slo.{key}", f"must be above 0 s and finite, is {target_s:g} s")
        self.world.check()
        for silence in self.world.silences:
            if silence.node not in self.node_names:
                known = f"{self.node_names[0]} to {self.node_names[-1]}"
                raise ConfigInvalid("world.silences", f"no node named {silence.node!r} (known: {known})")
        self.settings().check()

    def _check_counts(self) -> None:
        if self.nodes < 1:
            raise ConfigInvalid("nodes", f"must be 1 or more, is {self.nodes}")
        each = self.profile.gpus
        if self.gpus < 1 or self.gpus % each:
            raise ConfigInvalid(
                "gpus", f"{self.gpus} cannot be shared out among instances of {each} ({self.profile.name})"
            )
        if self.policy == COLOCATED:
            return
        if self.instances < 2:
            raise ConfigInvalid(
                "gpus",
                f"{self.gpus} GPUs make {self.instances} instance; {2 * each} or more make a prefill and a decode",
            )
        if not 1 <= self.prefill <= self.instances - 1:
            raise ConfigInvalid(
                "prefill",
                f"must lie within 1..{self.instances - 1} of {self.instances} instances, is {self.prefill}; "
                "neither role may be left empty",
            )

    def _check_policy(self) -> None:
        if self.policy not in (*NAMES, COLOCATED, ORACLE):
            known = ", ".join((*NAMES, COLOCATED, ORACLE))
            raise ConfigInvalid("policy", f"no policy named {self.policy!r} (known: {known})")
        if self.policy in NAMES:
            make(self.policy, self.policy_settings)
        elif self.policy == COLOCATED and self.policy_settings:
            raise ConfigInvalid(
                "policy.settings", f"policy {COLOCATED} has none, got {', '.join(self.policy_settings)}"
            )
