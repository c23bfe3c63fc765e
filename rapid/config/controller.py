"""The configuration of rapid-controller; packaging/etc/controller.toml shows every key."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from rapid.config import parse
from rapid.config.mqtt import MqttTable, check_ceilings, check_mqtt, facility_settings
from rapid.config.shared import LogTable, check_shared
from rapid.config.units import Milliwatts, Seconds, parse_duration, parse_power
from rapid.core.cluster import Domain, NodeSpec, SloTargets
from rapid.core.errors import ConfigInvalid
from rapid.core.settings import POLICY_START, LedgerSettings, Settings
from rapid.tls import TlsConfig, check_dial

_CONTROL = Settings(domains=(), nodes=())
_LEDGER = LedgerSettings()
_SLO = SloTargets()


class ControlTable(Struct, frozen=True):
    """See rapid.core.settings.Settings."""

    tick_s: Seconds = field(name="tick", default=Seconds(_CONTROL.tick_s))
    lease_s: Seconds = field(name="lease", default=Seconds(_CONTROL.lease_s))
    rpc_timeout_s: Seconds = field(name="rpc_timeout", default=Seconds(_CONTROL.rpc_timeout_s))
    margin_s: Seconds = field(name="margin", default=Seconds(_CONTROL.margin_s))
    silent_after_s: Seconds = field(name="silent_after", default=Seconds(_CONTROL.silent_after_s))
    window_s: Seconds = field(name="window", default=Seconds(_CONTROL.window_s))
    quantile: float = _CONTROL.quantile
    drain_s: Seconds = field(name="drain", default=Seconds(_CONTROL.drain_s))
    switch_timeout_s: Seconds = field(name="switch_timeout", default=Seconds(_CONTROL.switch_timeout_s))
    quiet_s: Seconds = field(name="quiet", default=Seconds(_CONTROL.quiet_s))


class LedgerTable(Struct, frozen=True):
    """See rapid.core.settings.LedgerSettings."""

    settle_s: Seconds = field(name="settle", default=Seconds(_LEDGER.settle_s))
    draw_tolerance: float = _LEDGER.draw_tolerance
    strikes: int = _LEDGER.strikes
    amends: int = _LEDGER.amends


class SloTable(Struct, frozen=True):
    """What a request must meet to attain its SLO."""

    ttft_s: Seconds = field(name="ttft", default=Seconds(_SLO.ttft_s))
    tpot_s: Seconds = field(name="tpot", default=Seconds(_SLO.tpot_s))


class PolicyTable(Struct, frozen=True):
    """Which policy, its own settings, and what it may believe at the start; only the policy knows their names."""

    name: str = _CONTROL.policy
    settings: dict[str, Any] = field(default_factory=dict)
    start: dict[str, Any] = field(default_factory=dict)


class DomainTable(Struct, frozen=True):
    """A scope with a budget; an empty parent makes it a root."""

    name: str
    budget_mw: Milliwatts = field(name="budget")
    reserved_mw: Milliwatts = field(name="reserved", default=Milliwatts(0))
    parent: str = ""


class NodeTable(Struct, frozen=True):
    """A host and its GPUs, all alike as far as they are booked before it reports."""

    name: str
    address: str
    domain: str
    gpus: int
    floor_mw: Milliwatts = field(name="floor")
    ceiling_mw: Milliwatts = field(name="ceiling")
    fallback_mw: Milliwatts = field(name="fallback")


class JournalTable(Struct, frozen=True):
    """The journal, the entries after which a life is closed, and the closed lives that are kept."""

    path: Path = Path("/var/lib/rapid-controller/journal.sqlite3")
    keep_entries: int = 50_000
    keep_lives: int = 8


class ListenTable(Struct, frozen=True):
    """Where the controller is reached: by rapidctl and engines, and by Prometheus (empty: not at all)."""

    address: str = "127.0.0.1:7600"
    metrics: str = "127.0.0.1:9600"


class ReportTable(Struct, frozen=True):
    """How often a node is asked to report."""

    interval_s: Seconds = field(name="interval", default=Seconds(0.5))


class ControllerFile(Struct, frozen=True):
    """The file as it is written."""

    domain: tuple[DomainTable, ...] = ()
    node: tuple[NodeTable, ...] = ()
    control: ControlTable = ControlTable()
    ledger: LedgerTable = LedgerTable()
    slo: SloTable = SloTable()
    policy: PolicyTable = PolicyTable()
    journal: JournalTable = JournalTable()
    listen: ListenTable = ListenTable()
    report: ReportTable = ReportTable()
    tls: TlsConfig | None = None
    mqtt: MqttTable | None = None
    log: LogTable = LogTable()


@dataclass(frozen=True, slots=True)
class ControllerConfig:
    """The whole configuration of rapid-controller; `addresses` says for each node where its rapidd listens."""

    settings: Settings
    addresses: dict[str, str]
    journal: JournalTable
    listen: ListenTable
    report: ReportTable
    tls: TlsConfig | None
    mqtt: MqttTable | None
    log: LogTable


def load_controller_config(path: Path) -> ControllerConfig:
    """The configuration in the file, with its TLS files. Raises ConfigInvalid."""
    config = parse_controller_config(parse.read(path), path=path)
    if config.tls is not None:
        config.tls.check()
    return config


def parse_controller_config(text: str, *, path: Path) -> ControllerConfig:
    """The configuration in the text, of which `path` is the file. Looks at no other file. Raises ConfigInvalid."""
    file = parse.parse(text, ControllerFile, path=path)
    for kind, names in (("domain", file.domain), ("node", file.node)):
        for entry in names:
            parse.check_name(entry.name, f"{kind}.name")
    for node in file.node:
        check_dial(node.address, file.tls, f"node.{node.name}.address")
    _check_bounds(file)
    if file.mqtt is not None:
        budgets_mw = {domain.name: int(domain.budget_mw) for domain in file.domain}
        check_mqtt(file.mqtt, budgets_mw)
        check_ceilings(file.mqtt, budgets_mw)
    check_shared(file.log, file.tls, address=file.listen.address, metrics=file.listen.metrics)
    settings = _settings(file)
    settings.check()
    return ControllerConfig(
        settings=settings,
        addresses={node.name: node.address for node in file.node},
        journal=file.journal,
        listen=file.listen,
        report=file.report,
        tls=file.tls,
        mqtt=file.mqtt,
        log=file.log,
    )


def _check_bounds(file: ControllerFile) -> None:
    parse.check_within(file.ledger.draw_tolerance, 0, 1, "ledger.draw_tolerance")
    parse.check_within(file.ledger.strikes, 1, 10_000, "ledger.strikes")
    parse.check_within(file.ledger.amends, 1, 10_000, "ledger.amends")
    parse.check_within(file.journal.keep_entries, 100, 10_000_000, "journal.keep_entries")
    parse.check_within(file.journal.keep_lives, 1, 10_000, "journal.keep_lives")
    parse.check_within(file.report.interval_s, 0.1, 10, "report.interval", "s")
    for key, target_s in (("slo.ttft", file.slo.ttft_s), ("slo.tpot", file.slo.tpot_s)):
        if target_s <= 0:
            raise ConfigInvalid(key, "must be above 0s")
    silent_after_s = file.control.silent_after_s
    if silent_after_s < 2 * file.report.interval_s:
        raise ConfigInvalid(
            "control.silent_after",
            f"{silent_after_s:g}s is shorter than two reports; set it to {2 * file.report.interval_s:g}s or more, "
            "or lower report.interval",
        )


def _settings(file: ControllerFile) -> Settings:
    control, ledger = file.control, file.ledger
    return Settings(
        domains=tuple(
            Domain(domain.name, int(domain.budget_mw), int(domain.reserved_mw), domain.parent or None)
            for domain in file.domain
        ),
        nodes=tuple(
            NodeSpec(node.name, node.domain, node.gpus, int(node.floor_mw), int(node.ceiling_mw), int(node.fallback_mw))
            for node in file.node
        ),
        slo=SloTargets(ttft_s=float(file.slo.ttft_s), tpot_s=float(file.slo.tpot_s)),
        policy=file.policy.name,
        policy_settings=_policy_settings(file.policy),
        tick_s=float(control.tick_s),
        lease_s=float(control.lease_s),
        rpc_timeout_s=float(control.rpc_timeout_s),
        margin_s=float(control.margin_s),
        silent_after_s=float(control.silent_after_s),
        window_s=float(control.window_s),
        quantile=control.quantile,
        drain_s=float(control.drain_s),
        switch_timeout_s=float(control.switch_timeout_s),
        quiet_s=float(control.quiet_s),
        ledger=LedgerSettings(float(ledger.settle_s), ledger.draw_tolerance, ledger.strikes, ledger.amends),
        facility=facility_settings(file.mqtt),
    )


def _policy_settings(policy: PolicyTable) -> dict[str, float]:
    """Names as the core has them: a power under `<key>_mw`, a duration under `<key>_s`, a plain number as it is; and
    the start profile, plain numbers only, behind POLICY_START."""
    settings: dict[str, float] = {}
    for key, raw in policy.settings.items():
        name, value = _policy_setting(key, raw)
        if name in settings:
            raise ConfigInvalid(f"policy.settings.{key}", f"is given twice: {name} as well")
        settings[name] = value
    for key, raw in policy.start.items():
        if not _is_number(raw):
            raise ConfigInvalid(f"policy.start.{key}", f"{raw!r} is no number; its unit is in its name")
        if POLICY_START + key in settings:
            raise ConfigInvalid(f"policy.start.{key}", f"is given twice: policy.settings.{POLICY_START}{key} as well")
        settings[POLICY_START + key] = float(raw)
    return settings


def _is_number(raw: object) -> bool:
    return isinstance(raw, int | float) and not isinstance(raw, bool) and math.isfinite(raw)


def _policy_setting(key: str, raw: Any) -> tuple[str, float]:
    if _is_number(raw):
        return key, float(raw)
    try:
        return f"{key}_mw", float(parse_power(raw))
    except ValueError:
        pass
    try:
        return f"{key}_s", float(parse_duration(raw))
    except ValueError:
        problem = f"{raw!r} is no setting; write a number, a power as in '50W', or a duration as in '500ms'"
        raise ConfigInvalid(f"policy.settings.{key}", problem) from None
