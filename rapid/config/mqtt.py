"""The [mqtt] section of rapid-controller's configuration: which broker, whose orders, and how high they may go."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from msgspec import Struct, field

from rapid.config import parse
from rapid.config.units import Milliwatts, Seconds
from rapid.core.errors import ConfigInvalid, watts
from rapid.core.facility.nouns import SCHEDULE
from rapid.core.settings import FacilitySettings, SourceSettings
from rapid.tls import UNIX, check_address, is_local

SITE = re.compile(r"[A-Za-z0-9._-]{1,64}")  # what may stand in a topic as it is
UNSIGNED = "unsigned"  # the source of orders without a signature
_OPERATOR = "operator"
_FACILITY = FacilitySettings()


class MqttTlsTable(Struct, frozen=True):
    """The authority that signs the broker's certificate, and what we show it (both or neither)."""

    ca: Path
    cert: Path | None = None
    key: Path | None = None


class MqttKeyTable(Struct, frozen=True):
    """A public key (PEM, EC P-256 or RSA), and who signs with it: a source of orders."""

    kid: str
    source: str
    file: Path
    domains: tuple[str, ...] = ()
    may_raise: bool = False


class DsxTable(Struct, frozen=True):
    """DSX Flex: our identifier on the exchange, which domain each power feed is, and the key that signs what we say."""

    agent: str
    feeds: dict[str, str]
    kid: str = ""
    key: Path | None = None
    ramp_down_s: Seconds = field(name="ramp_down", default=Seconds(0.0))
    ramp_up_s: Seconds = field(name="ramp_up", default=Seconds(0.0))
    heartbeat_s: Seconds = field(name="heartbeat", default=Seconds(30.0))


class MqttTable(Struct, frozen=True):
    """See packaging/etc/controller.toml."""

    broker: str
    site: str
    client_id: str = ""
    username: str = ""
    password_file: Path | None = None
    tls: MqttTlsTable | None = None
    key: tuple[MqttKeyTable, ...] = ()
    unsigned: bool = False
    unsigned_may_raise: bool = False
    schedules_may_raise: bool = False
    ceilings_mw: dict[str, Milliwatts] = field(name="ceilings", default_factory=dict)
    replay_window_s: Seconds = field(name="replay_window", default=Seconds(_FACILITY.replay_window_s))
    interval_s: Seconds = field(name="interval", default=Seconds(10.0))
    dsx: DsxTable | None = None


@dataclass(frozen=True, slots=True)
class Broker:
    """Where it listens."""

    host: str
    port: int


def broker_of(mqtt: MqttTable) -> Broker:
    """The address of a table that was checked."""
    host, _, port = mqtt.broker.rpartition(":")
    return Broker(host.strip("[]"), int(port))


def check_mqtt(mqtt: MqttTable, domains: Iterable[str]) -> None:
    """Raise ConfigInvalid, naming the key, for what cannot be, or is not safe."""
    known = tuple(domains)
    _check_broker(mqtt)
    if not SITE.fullmatch(mqtt.site):
        raise ConfigInvalid("mqtt.site", f"{mqtt.site!r} is no name for a topic: 1 to 64 of A-Z a-z 0-9 . _ -")
    parse.check_within(mqtt.replay_window_s, 1, 3600, "mqtt.replay_window", "s")
    parse.check_within(mqtt.interval_s, 0.5, 3600, "mqtt.interval", "s")
    kids: set[str] = set()
    for key in mqtt.key:
        name = f"mqtt.key.{key.kid}"
        parse.check_name(key.kid, "mqtt.key.kid")
        parse.check_name(key.source, f"{name}.source")
        if key.source in (_OPERATOR, UNSIGNED) or key.source.startswith(SCHEDULE):
            raise ConfigInvalid(f"{name}.source", f"{key.source!r} is a name of our own; choose another")
        if key.kid in kids:
            raise ConfigInvalid(name, "is there twice")
        kids.add(key.kid)
        for domain in key.domains:
            parse.check_one_of(domain, known, f"{name}.domains")
    for domain in mqtt.ceilings_mw:
        parse.check_one_of(domain, known, "mqtt.ceilings")
    if mqtt.dsx is not None:
        _check_dsx(mqtt.dsx, known)


def _check_broker(mqtt: MqttTable) -> None:
    check_address(mqtt.broker, "mqtt.broker")
    if mqtt.broker.startswith(UNIX):
        raise ConfigInvalid("mqtt.broker", "must be 'host:port'")
    local = is_local(mqtt.broker)
    if mqtt.tls is None and not local:
        raise ConfigInvalid("mqtt.broker", f"{mqtt.broker} is another host, so it needs TLS: set mqtt.tls.ca")
    if mqtt.unsigned and not local:
        problem = f"orders without a signature are taken from a broker on loopback alone; {mqtt.broker} is not"
        raise ConfigInvalid("mqtt.unsigned", problem)
    if mqtt.unsigned_may_raise and not mqtt.unsigned:
        raise ConfigInvalid("mqtt.unsigned_may_raise", "means nothing without mqtt.unsigned")
    if mqtt.tls is not None and (mqtt.tls.cert is None) != (mqtt.tls.key is None):
        raise ConfigInvalid("mqtt.tls", "needs both of cert and key, or neither")
    if mqtt.password_file is not None and not mqtt.username:
        raise ConfigInvalid("mqtt.username", "is missing: there is a password_file")


def _check_dsx(dsx: DsxTable, domains: tuple[str, ...]) -> None:
    if not SITE.fullmatch(dsx.agent):
        raise ConfigInvalid("mqtt.dsx.agent", f"{dsx.agent!r} is no name for a topic: 1 to 64 of A-Z a-z 0-9 . _ -")
    if not dsx.feeds:
        raise ConfigInvalid("mqtt.dsx.feeds", "names no feed")
    for feed, domain in dsx.feeds.items():
        parse.check_name(feed, "mqtt.dsx.feeds")
        parse.check_one_of(domain, domains, f"mqtt.dsx.feeds.{feed}")
    if (dsx.key is None) != (not dsx.kid):
        raise ConfigInvalid("mqtt.dsx.key", "needs kid, and kid needs key")
    parse.check_within(dsx.heartbeat_s, 1, 3600, "mqtt.dsx.heartbeat", "s")


def facility_settings(mqtt: MqttTable | None) -> FacilitySettings:
    """What the core is told of it."""
    if mqtt is None:
        return _FACILITY
    sources: dict[str, SourceSettings] = {}
    for key in mqtt.key:
        mine = SourceSettings(key.source, key.domains, key.may_raise)
        other = sources.setdefault(key.source, mine)
        if other != mine:
            problem = f"source {key.source!r} has another key with other domains or another may_raise"
            raise ConfigInvalid(f"mqtt.key.{key.kid}", problem)
    if mqtt.unsigned:
        sources[UNSIGNED] = SourceSettings(UNSIGNED, (), mqtt.unsigned_may_raise)
    return FacilitySettings(
        publishes=True,
        sources=tuple(sources.values()),
        ceilings_mw=tuple((domain, int(ceiling_mw)) for domain, ceiling_mw in mqtt.ceilings_mw.items()),
        schedules_raise=mqtt.schedules_may_raise,
        replay_window_s=float(mqtt.replay_window_s),
    )


def check_ceilings(mqtt: MqttTable, budgets_mw: dict[str, int]) -> None:
    """Raise ConfigInvalid for a ceiling below the configured budget: the domain stands above it already."""
    for domain, ceiling_mw in mqtt.ceilings_mw.items():
        if ceiling_mw < budgets_mw[domain]:
            problem = f"{watts(ceiling_mw)} is below the domain's budget, {watts(budgets_mw[domain])}"
            raise ConfigInvalid(f"mqtt.ceilings.{domain}", problem)
