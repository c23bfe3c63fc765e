"""The configuration of rapidd; packaging/etc/rapidd.toml shows every key."""

from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct, field

from rapid.config import parse
from rapid.config.shared import LogTable, check_shared
from rapid.config.units import Milliwatts, Seconds, parse_power
from rapid.core.cluster import Role
from rapid.core.errors import ConfigInvalid, watts
from rapid.tls import UNIX, TlsConfig, check_address

BACKENDS = ("nvml", "amdsmi", "sim")
ENGINES = ("vllm", "sglang", "dynamo")
INTERVAL_S = (0.2, 5.0)  # between two looks at an engine: a load that is 10 s old is no longer reported
SAMPLE_INTERVAL_S = (0.01, 1.0)  # a limit that somebody else moves is to be noticed within a second
REPAIRS_MAX = 1000
INSTANCES_MAX = 1024  # what one report may carry
DEFAULT = "default"  # in [power.fallback]: what holds for every GPU that is not named there


class Fallbacks(dict[str, int]):
    """The fallback in milliwatts of each GPU named, and under DEFAULT that of all others."""

    def of(self, gpu: str) -> int | None:
        """The GPU's own, or the common one; None: it has none."""
        return self.get(gpu, self.get(DEFAULT))


class NodeTable(Struct, frozen=True):
    """Who this host is; state_dir keeps what must survive a restart."""

    name: str
    state_dir: Path = Path("/var/lib/rapidd")


class DeviceTable(Struct, frozen=True):
    """Which GPUs, through which library; `path` is the folder of the simulated ones."""

    backend: str = "nvml"
    path: Path | None = None
    gpus: str | tuple[str, ...] = "all"


class PowerTable(Struct, frozen=True):
    """What this host holds to by itself, whatever it is granted. hard_budget_mw None: no bound of its own."""

    fallback: Fallbacks
    hard_budget_mw: Milliwatts | None = field(name="hard_budget", default=None)
    lease_max_s: Seconds = field(name="lease_max", default=Seconds(60))


class FenceTable(Struct, frozen=True):
    """Who moves a limit again after so many repairs within the window is given the GPU, which then goes unmanaged."""

    repairs: int = 5
    window_s: Seconds = field(name="window", default=Seconds(60))


class ExcursionTable(Struct, frozen=True):
    """Whether rapidd cuts limits by itself when the GPUs draw more than they may, and how far sensors may be off."""

    enabled: bool = True
    draw_tolerance: float = 0.05


class ReportTable(Struct, frozen=True):
    """How often the devices are read."""

    sample_interval_s: Seconds = field(name="sample_interval", default=Seconds(0.1))


class ListenTable(Struct, frozen=True):
    """Where rapidd is reached: by the controller, by engines of this host (a path), by Prometheus. Empty: off."""

    address: str = "127.0.0.1:7601"
    load_socket: str = "/run/rapidd/load.sock"
    metrics: str = "127.0.0.1:9601"


class LoadTable(Struct, frozen=True):
    """How many engine instances may report their load here."""

    max_instances: int = 64


class EngineTable(Struct, frozen=True):
    """An engine of this host whose metrics are read. No gpus, no role: rapidd finds out."""

    instance: str
    kind: str
    url: str
    gpus: tuple[str, ...] = ()
    role: str = ""
    interval_s: Seconds = field(name="interval", default=Seconds(1))

    @property
    def served_role(self) -> Role | None:
        """None: it may change, and what the engine says or does tells."""
        return Role(self.role) if self.role else None


class NodeConfig(Struct, frozen=True):
    """The whole configuration of rapidd."""

    node: NodeTable
    power: PowerTable
    device: DeviceTable = DeviceTable()
    fence: FenceTable = FenceTable()
    excursion: ExcursionTable = ExcursionTable()
    report: ReportTable = ReportTable()
    listen: ListenTable = ListenTable()
    tls: TlsConfig | None = None
    load: LoadTable = LoadTable()
    engine: tuple[EngineTable, ...] = ()
    log: LogTable = LogTable()

    def fallbacks_mw(self, gpus: Sequence[str]) -> dict[str, int]:
        """The fallback of each of these GPUs; ConfigInvalid if one has none, or all together pass the hard budget."""
        found = {gpu: self.power.fallback.of(gpu) for gpu in gpus}
        known = {gpu: fallback_mw for gpu, fallback_mw in found.items() if fallback_mw is not None}
        if unknown := sorted(found.keys() - known.keys()):
            problem = f"gpu {unknown[0]} has none; give it one, or set {DEFAULT}"
            raise ConfigInvalid("power.fallback", problem)
        hard_budget_mw = self.power.hard_budget_mw
        if hard_budget_mw is not None and sum(known.values()) > hard_budget_mw:
            raise ConfigInvalid(
                "power.fallback",
                f"{len(known)} GPUs at their fallbacks may draw {watts(sum(known.values()))}, above power.hard_budget, "
                f"{watts(hard_budget_mw)}; lower the fallbacks or raise the budget",
            )
        return known


def load_node_config(path: Path) -> NodeConfig:
    """The configuration in the file, with its TLS files. Raises ConfigInvalid."""
    config = parse_node_config(parse.read(path), path=path)
    if config.tls is not None:
        config.tls.check()
    return config


def parse_node_config(text: str, *, path: Path) -> NodeConfig:
    """The configuration in the text, of which `path` is the file. Looks at no other file. Raises ConfigInvalid."""
    config = parse.parse(text, NodeConfig, path=path, hook=_custom)
    parse.check_name(config.node.name, "node.name")
    _check_device(config.device)
    _check_power(config)
    parse.check_within(config.fence.repairs, 1, REPAIRS_MAX, "fence.repairs")
    parse.check_within(config.fence.window_s, 1, 3600, "fence.window", "s")
    parse.check_within(config.excursion.draw_tolerance, 0, 1, "excursion.draw_tolerance")
    parse.check_within(config.report.sample_interval_s, *SAMPLE_INTERVAL_S, "report.sample_interval", "s")
    parse.check_within(config.load.max_instances, 1, INSTANCES_MAX, "load.max_instances")
    _check_engines(config)
    check_shared(config.log, config.tls, address=config.listen.address, metrics=config.listen.metrics)
    if config.listen.load_socket:
        check_address(UNIX + config.listen.load_socket, "listen.load_socket")
    return config


def _custom(kind: Any, raw: object) -> Fallbacks:
    assert kind is Fallbacks, kind
    if not isinstance(raw, dict):
        return Fallbacks({DEFAULT: _above_zero(raw)})
    fallbacks = Fallbacks()
    for gpu, value in raw.items():
        try:
            fallbacks[gpu] = _above_zero(value)
        except ValueError as error:
            raise ConfigInvalid(f"power.fallback.{gpu}", str(error)) from error
    return fallbacks


def _above_zero(raw: object) -> int:
    if (power_mw := parse_power(raw)) == 0:
        raise ValueError("must be above 0W")
    return int(power_mw)


def _check_device(device: DeviceTable) -> None:
    parse.check_one_of(device.backend, BACKENDS, "device.backend")
    if device.backend == "sim" and device.path is None:
        raise ConfigInvalid("device.path", "is missing: the folder with the simulated GPUs")
    if isinstance(device.gpus, str):
        parse.check_one_of(device.gpus, ("all",), "device.gpus")
    elif not device.gpus:
        raise ConfigInvalid("device.gpus", "is empty; name the UUIDs, or write 'all'")
    elif len(set(device.gpus)) < len(device.gpus):
        raise ConfigInvalid("device.gpus", "names a GPU twice")


def _check_engines(config: NodeConfig) -> None:
    for at, engine in enumerate(config.engine):
        parse.check_name(engine.instance, f"engine.{at + 1}.instance")
        key = f"engine.{engine.instance}"
        if any(engine.instance == other.instance for other in config.engine[:at]):
            raise ConfigInvalid(f"{key}.instance", "is there twice; an instance has one [[engine]]")
        parse.check_one_of(engine.kind, ENGINES, f"{key}.kind")
        if engine.role:
            parse.check_one_of(engine.role, tuple(role.value for role in Role), f"{key}.role")
        parse.check_within(engine.interval_s, *INTERVAL_S, f"{key}.interval", "s")
        _check_url(engine.url, f"{key}.url")
        if len(set(engine.gpus)) < len(engine.gpus):
            raise ConfigInvalid(f"{key}.gpus", "names a GPU twice")
    if len(config.engine) > config.load.max_instances:
        problem = f"{len(config.engine)} engines, above load.max_instances, {config.load.max_instances}; raise it"
        raise ConfigInvalid("engine", problem)


def _check_url(url: str, key: str) -> None:
    """An address, not a name that a name server would have to know: the engine is on this host."""
    try:
        parts = urlsplit(url)
        port = parts.port
        known = parts.hostname == "localhost" or bool(ip_address(parts.hostname or ""))
    except ValueError:
        known, port = False, None
    if not known or not port or parts.scheme != "http" or parts.username is not None or parts.fragment:
        shown = f"{url[:80]!r} is no address of metrics on this host"
        raise ConfigInvalid(key, f"{shown}; write it as 'http://127.0.0.1:8000/metrics'")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigInvalid(key, f"{url[:80]!r} holds a character that no URL has")


def _check_power(config: NodeConfig) -> None:
    if config.power.lease_max_s <= 0:
        raise ConfigInvalid("power.lease_max", "must be above 0s")
    # Of `all` it is not known yet how many there are; the daemon asks again when it has seen them.
    named = tuple(config.power.fallback.keys() - {DEFAULT})
    config.fallbacks_mw(named if isinstance(config.device.gpus, str) else config.device.gpus)
