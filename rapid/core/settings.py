"""What the control loop is told once, at load, and the checks that a setting must pass before anything runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from rapid.core.cluster import Domain, NodeSpec, SloTargets
from rapid.core.errors import ConfigInvalid, watts

QUIET_S = 0.05  # assumed; a router may still have sent what it chose just before it heard of the drain
POLICY_START = "start_"  # before the name of each value of a policy's start profile


@dataclass(frozen=True, slots=True)
class LedgerSettings:
    """How the ledger judges reports.

    settle_s        after a cut, the time from which a draw within the tolerance counts as obeyed (assumed; the RAPID
                    paper says that a limit change settles in hundreds of milliseconds)
    draw_tolerance  share by which a power reading may be off (assumed 5 %; H100 boards read up to 5 % off)
    strikes         reports in a row in which a GPU fails or draws above its limit before it goes unmanaged
    amends          reports in a row in which it obeys before it is managed again
    """

    settle_s: float = 0.5
    draw_tolerance: float = 0.05
    strikes: int = 6
    amends: int = 10


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """Somebody who may order budgets over the bus: of which domains (none named: of all), and whether its orders may
    stand above the budget that the operator set."""

    name: str
    domains: tuple[str, ...] = ()
    may_raise: bool = False


@dataclass(frozen=True, slots=True)
class FacilitySettings:
    """Which budget orders are taken.

    publishes        somebody takes the answers: they are kept until they are delivered
    ceilings_mw      what no order may pass, for domains where it is not the budget in the configuration
    schedules_raise  schedules may stand above the budget that the operator set
    replay_window_s  how far from now an order may have been made
    """

    publishes: bool = False
    sources: tuple[SourceSettings, ...] = ()
    ceilings_mw: tuple[tuple[str, int], ...] = ()
    schedules_raise: bool = False
    replay_window_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration of a Control.

    tick_s, lease_s, rpc_timeout_s, margin_s obey tick + 2 * rpc_timeout + margin <= lease.
    silent_after_s  a node whose last report is older is silent; an engine load that old is stale
    window_s, quantile  over which TTFT and TPOT are judged (assumed 5 s at p90; the RAPID paper does not say)
    drain_s, switch_timeout_s  how long an engine may drain, and then switch and warm up, before its role is uncertain
    quiet_s         how long an engine must hold no request until its drain is over
    policy_settings  the named settings of the policy, and, behind POLICY_START, the values of its start profile: what
                     it is to believe of the engines before it has seen them; an unknown name is refused
    """

    domains: tuple[Domain, ...]
    nodes: tuple[NodeSpec, ...]
    slo: SloTargets = field(default_factory=SloTargets)
    policy: str = "predictive"
    policy_settings: Mapping[str, float] = field(default_factory=dict)
    tick_s: float = 0.5
    lease_s: float = 5.0
    rpc_timeout_s: float = 1.0
    margin_s: float = 0.5
    silent_after_s: float = 2.0
    window_s: float = 5.0
    quantile: float = 0.9
    drain_s: float = 30.0
    switch_timeout_s: float = 30.0
    quiet_s: float = QUIET_S
    ledger: LedgerSettings = field(default_factory=LedgerSettings)
    facility: FacilitySettings = field(default_factory=FacilitySettings)

    def check(self) -> None:
        """Raise ConfigInvalid, naming the key, for a setting that cannot be kept."""
        _check_timing(self)
        chains = _check_tree(self.domains)
        _check_nodes(self.nodes, chains)
        _check_fallbacks(self, chains)


def chains_of(domains: tuple[Domain, ...]) -> dict[str, tuple[str, ...]]:
    """Each domain's names from itself to the root. Raises ConfigInvalid for an unknown parent or a circle."""
    parents = {domain.name: domain.parent for domain in domains}
    chains: dict[str, tuple[str, ...]] = {}
    for name in parents:
        chain = [name]
        while (parent := parents[chain[-1]]) is not None:
            if parent not in parents:
                raise ConfigInvalid(f"domain.{chain[-1]}.parent", f"no domain named {parent!r}")
            if parent in chain:
                circle = " -> ".join([*chain, parent])
                raise ConfigInvalid(f"domain.{parent}.parent", f"domains form a circle: {circle}")
            chain.append(parent)
        chains[name] = tuple(chain)
    return chains


def _check_timing(settings: Settings) -> None:
    for key in ("tick_s", "lease_s", "rpc_timeout_s", "silent_after_s", "window_s", "drain_s", "switch_timeout_s"):
        value_s = getattr(settings, key)
        if not value_s > 0:
            raise ConfigInvalid(f"control.{key.removesuffix('_s')}", f"must be above 0 s, is {value_s:g} s")
    if not 0 <= settings.quiet_s < settings.drain_s:
        raise ConfigInvalid("control.quiet", f"must be below drain = {settings.drain_s:g} s, is {settings.quiet_s:g} s")
    if not settings.margin_s >= 0:
        raise ConfigInvalid("control.margin", f"must not be below 0 s, is {settings.margin_s:g} s")
    if not 0 < settings.quantile < 1:
        raise ConfigInvalid("control.quantile", f"must lie between 0 and 1, is {settings.quantile}")
    least_s = settings.tick_s + 2 * settings.rpc_timeout_s + settings.margin_s
    if settings.lease_s < least_s:
        raise ConfigInvalid(
            "control.lease",
            f"{settings.lease_s:g} s is shorter than tick + 2 * rpc_timeout + margin = {least_s:g} s; "
            f"set it to {least_s:g} s or more",
        )


def _check_tree(domains: tuple[Domain, ...]) -> dict[str, tuple[str, ...]]:
    if not domains:
        raise ConfigInvalid("domain", "at least one domain is needed")
    seen: set[str] = set()
    for domain in domains:
        if domain.name in seen:
            raise ConfigInvalid(f"domain.{domain.name}", "is named twice")
        seen.add(domain.name)
        if domain.budget_mw <= 0:
            raise ConfigInvalid(f"domain.{domain.name}.budget", f"must be above 0 W, is {watts(domain.budget_mw)}")
        if domain.reserved_mw < 0:
            raise ConfigInvalid(f"domain.{domain.name}.reserved", f"is below 0 W: {watts(domain.reserved_mw)}")
    return chains_of(domains)


def _check_nodes(nodes: tuple[NodeSpec, ...], chains: Mapping[str, tuple[str, ...]]) -> None:
    seen: set[str] = set()
    for node in nodes:
        if node.name in seen:
            raise ConfigInvalid(f"node.{node.name}", "is named twice")
        seen.add(node.name)
        if node.domain not in chains:
            raise ConfigInvalid(f"node.{node.name}.domain", f"no domain named {node.domain!r}")
        if not 0 < node.gpus <= 1024:
            raise ConfigInvalid(f"node.{node.name}.gpus", f"must be 1 to 1024, is {node.gpus}")
        if not 0 < node.floor_mw <= node.fallback_mw <= node.ceiling_mw:
            raise ConfigInvalid(
                f"node.{node.name}.fallback",
                f"{watts(node.fallback_mw)} is outside floor..ceiling = "
                f"{watts(node.floor_mw)}..{watts(node.ceiling_mw)}",
            )


def _check_fallbacks(settings: Settings, chains: Mapping[str, tuple[str, ...]]) -> None:
    """Nodes that lose their controller go to their fallbacks; those must fit, or losing it would break the budget."""
    need_mw = dict.fromkeys(chains, 0)
    for domain in settings.domains:
        for name in chains[domain.name]:
            need_mw[name] += domain.reserved_mw
    for node in settings.nodes:
        for name in chains[node.domain]:
            need_mw[name] += node.gpus * node.fallback_mw
    for domain in settings.domains:
        if need_mw[domain.name] > domain.budget_mw:
            raise ConfigInvalid(
                f"domain.{domain.name}.budget",
                f"{watts(domain.budget_mw)} does not cover the fallbacks and reserved power below it, "
                f"{watts(need_mw[domain.name])}; lower the fallbacks or raise the budget",
            )
