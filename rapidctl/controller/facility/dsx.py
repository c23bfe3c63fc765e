"""NVIDIA DSX Flex on the same broker: load targets in, power states out, as CloudEvents whose data is a JWS.

Written from the public contract, version 1.7; docs/facility.md says what was assumed where that is silent.
"""

import hashlib
import secrets
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from rapid.config.mqtt import DsxTable
from rapid.core.facility.nouns import AT_ONCE_S, INF, BudgetOrder, OrderStatus
from rapid.core.status import DomainStatus, Status
from rapidctl.controller.facility.keys import BadSignature, KeyRing, Signer
from rapidctl.controller.facility.messages import PAYLOAD_MAX, Time, utc
from rapidctl.controller.facility.words import Malformed

SPEC_VERSION = "1.0.2"
SET_TYPE, STATUS_TYPE = "grid.loadtarget.set.v1", "grid.powerstate.status.v1"
SET_FILTER = "grid/v1/isv/+/loadtarget/set"
TARGETS_MAX = 64  # load targets in one message
_MW = {"watt": 1_000, "kilowatt": 1_000_000, "megawatt": 1_000_000_000}

Text = Annotated[str, Meta(max_length=256)]


class CloudEvent(Struct, frozen=True):
    """What is looked at of the envelope, which is not signed. `data` is a JWS, or plain where that is allowed."""

    specversion: Annotated[str, Meta(pattern=r"^1\.0(\.\d+)?$")]
    id: Annotated[Text, Meta(min_length=1)]
    source: Text
    type: Text
    time: Time
    data: msgspec.Raw
    correlationid: Text = ""


class Power(Struct, frozen=True):
    value: Annotated[float, Meta(ge=0, le=1e10)]
    unit: Annotated[str, Meta(pattern="^(watt|kilowatt|megawatt)$")]

    @property
    def mw(self) -> int:
        return round(self.value * _MW[self.unit])


class Interval(Struct, frozen=True, omit_defaults=True):
    start_time: Time | None = None
    end_time: Time | None = None


class Strategy(Struct, frozen=True):
    best_effort: bool = True


class LoadTarget(Struct, frozen=True):
    """One load target; a null constraint takes back what was asked before. Without feeds it is for all."""

    load_constraint: Power | None
    interval: Interval = Interval()
    feed_tags: Annotated[tuple[str, ...], Meta(max_length=TARGETS_MAX)] = ()
    strategy: Strategy | None = None


class SetLoadTarget(Struct, frozen=True):
    targets: Annotated[tuple[LoadTarget, ...], Meta(max_length=TARGETS_MAX)]


class FeedTarget(Struct, frozen=True):
    active: bool
    load_constraint: Power
    interval: Interval
    strategy: Strategy
    correlation_id: str


class FeedMetadata(Struct, frozen=True):
    power_minimum: Power
    power_maximum: Power
    default_constraint: Power


class FeedState(Struct, frozen=True):
    metadata: FeedMetadata
    targets: tuple[FeedTarget, ...]
    calculated_load: Power
    in_flight: bool
    event: str
    power_event_start_time: datetime | None
    compliant: bool


class PowerState(Struct, frozen=True):
    snapshot_time: datetime
    feeds: dict[str, FeedState]


_event = msgspec.json.Decoder(CloudEvent)
_jws = msgspec.json.Decoder(str)
_targets = msgspec.json.Decoder(SetLoadTarget)
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Feed:
    """What was last said of one feed, and the ramp that is under way."""

    domain: str
    targets: frozenset[tuple[str, str]] = frozenset()
    budget_mw: int | None = None
    direction: int = 0
    since_s: float | None = None


class Flex:
    """One site on the exchange. Raises ConfigInvalid for a signing key that cannot be used."""

    def __init__(self, config: DsxTable, keys: KeyRing, unsigned: str) -> None:
        self._config, self._keys, self._unsigned = config, keys, unsigned
        self._signer = Signer(config.key, config.kid) if config.key else None
        self._sources = keys.sources | ({unsigned} if unsigned else set())
        self._feeds = {tag: Feed(domain) for tag, domain in config.feeds.items()}
        self._said_s = float("-inf")
        self.topic = f"grid/v1/dsx-flex-agent/{config.agent}/powerstate/status"

    # ---- in ----

    def orders(self, topic: str, payload: bytes) -> tuple[BudgetOrder, ...]:
        """The orders that a message carries. Raises BadSignature and Malformed."""
        if len(payload) > PAYLOAD_MAX:
            raise Malformed(f"the message has {len(payload)} bytes, at most {PAYLOAD_MAX} are looked at")
        try:
            event = _event.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Malformed(f"is no CloudEvent: {error}") from error
        if event.type != SET_TYPE or event.source != f"//grid/v1/isv/{topic.split('/')[3]}":
            raise Malformed(f"is {event.type[:40]!r} of {event.source[:80]!r}, which does not belong on its topic")
        data, source, digest = self._read(bytes(event.data))
        try:
            said = _targets.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Malformed(f"has no load targets: {error}") from error
        ref = event.correlationid or event.id
        if not ref.isprintable():
            raise Malformed("has a correlation id that cannot be printed")
        issued_wall_s = event.time.timestamp()
        return tuple(
            self._order(target, domain, f"{digest}/{index}", source, issued_wall_s, ref)
            for index, target in enumerate(said.targets)
            for domain in self._domains(target.feed_tags)
        )

    def _read(self, data: bytes) -> tuple[bytes, str, str]:
        """What was said, by whom, and what tells it from all that was said before."""
        try:
            token = _jws.decode(data)
        except msgspec.DecodeError as error:
            if self._unsigned:
                return data, self._unsigned, hashlib.sha256(data).hexdigest()[:32]
            raise BadSignature("has plain data, and load targets must be signed") from error
        payload, source = self._keys.read(token)
        return payload, source, self._keys.fingerprint(token)

    def _domains(self, tags: Iterable[str]) -> list[str]:
        unknown = [tag for tag in tags if tag not in self._feeds]
        if unknown:
            raise Malformed(f"names feed {unknown[0][:40]!r}; known are {', '.join(self._feeds)}")
        return list(dict.fromkeys(self._feeds[tag].domain for tag in (list(tags) or self._feeds)))

    def _order(
        self, target: LoadTarget, domain: str, id: str, source: str, issued_wall_s: float, ref: str
    ) -> BudgetOrder:
        begin, end = target.interval.start_time, target.interval.end_time
        return BudgetOrder(
            id=id,
            source=source,
            domain=domain,
            budget_mw=None if target.load_constraint is None else target.load_constraint.mw,
            issued_wall_s=issued_wall_s,
            not_before_wall_s=AT_ONCE_S if begin is None else begin.timestamp(),
            expires_wall_s=INF if end is None else end.timestamp(),
            ramp_down_s=float(self._config.ramp_down_s),
            ramp_up_s=float(self._config.ramp_up_s),
            ref=ref,
        )

    # ---- out ----

    def due(self, status: Status, wall_s: float, now_s: float) -> list[bytes]:
        """The power states to publish now: one for every transition, or a heartbeat."""
        domains = {it.domain: it for it in status.domains}
        orders = {tag: self._orders_of(status, feed.domain) for tag, feed in self._feeds.items()}
        events = {
            tag: _transitions(feed, domains[feed.domain], orders[tag], wall_s) for tag, feed in self._feeds.items()
        }
        steps = max(map(len, events.values()), default=0)
        if steps == 0 and now_s - self._said_s < self._config.heartbeat_s:
            return []
        self._said_s = now_s
        told: list[bytes] = []
        for step in range(max(1, steps)):
            now = {tag: these[step] if step < len(these) else "periodic" for tag, these in events.items()}
            told.append(self._state(now, orders, domains, wall_s))
        return told

    def _state(
        self,
        events: Mapping[str, str],
        orders: Mapping[str, list[OrderStatus]],
        domains: Mapping[str, DomainStatus],
        wall_s: float,
    ) -> bytes:
        """The power state of every feed at one step, by its tag."""
        refs = [orders[tag][-1].order.ref for tag, event in events.items() if event != "periodic" and orders[tag]]
        feeds = {
            tag: _feed_state(feed, events[tag], domains[feed.domain], orders[tag]) for tag, feed in self._feeds.items()
        }
        data = _encode(PowerState(utc(wall_s), feeds))
        return _encode(self._envelope(data, refs[-1] if refs else "", wall_s))

    def _envelope(self, data: bytes, ref: str, wall_s: float) -> dict[str, object]:
        made: dict[str, object] = {
            "specversion": SPEC_VERSION,
            "id": str(uuid.uuid4()),
            "source": f"//grid/v1/dsx-flex-agent/{self._config.agent}",
            "type": STATUS_TYPE,
            "time": utc(wall_s),
            "datacontenttype": "application/json",
            "subject": "powerstate",
            "traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01",
            "data": self._signer.sign(data) if self._signer else msgspec.Raw(data),
        }
        return made | ({"correlationid": ref} if ref else {})

    def _orders_of(self, status: Status, domain: str) -> list[OrderStatus]:
        """The load targets for a domain, oldest first."""
        mine = (it for it in status.orders if it.order.domain == domain and it.order.ref)
        return [it for it in mine if it.order.source in self._sources]


def _transitions(feed: Feed, domain: DomainStatus, orders: list[OrderStatus], wall_s: float) -> list[str]:
    """What has happened to a feed since the last look, in the order in which it is told."""
    events: list[str] = []
    targets = frozenset((it.order.id, it.order.source) for it in orders)
    if targets - feed.targets:
        events.append("target_set")
    before_mw = domain.budget_mw if feed.budget_mw is None else feed.budget_mw
    moving = domain.truth.ramping or (domain.budget_mw > before_mw) - (domain.budget_mw < before_mw)
    if moving and moving != feed.direction:
        if feed.direction:
            events.append(_word("end", feed.direction))
        events.append(_word("start", moving))
        feed.direction, feed.since_s = moving, wall_s
    if feed.direction and not _in_flight(domain):
        events.append(_word("end", feed.direction))
        feed.direction, feed.since_s = 0, None
    feed.targets, feed.budget_mw = targets, domain.budget_mw
    return events


def _word(what: str, direction: int) -> str:
    return f"{what}_ramp_{'down' if direction < 0 else 'up'}"


def _in_flight(domain: DomainStatus) -> bool:
    """The budget ramps, or limits that it asks for are not all read back."""
    booked_mw = domain.held_mw + domain.reserved_mw
    return domain.truth.ramping != 0 or booked_mw > max(domain.budget_mw, domain.truth.least_mw)


def _feed_state(feed: Feed, event: str, domain: DomainStatus, orders: list[OrderStatus]) -> FeedState:
    truth = domain.truth
    since = datetime.fromtimestamp(feed.since_s, UTC) if feed.since_s is not None else None
    return FeedState(
        metadata=FeedMetadata(_watt(truth.least_mw), _watt(truth.ceiling_mw), _watt(truth.standing_mw)),
        targets=tuple(_feed_target(it) for it in orders if it.order.budget_mw is not None),
        calculated_load=_watt(truth.at_most_mw + domain.reserved_mw),
        in_flight=_in_flight(domain),
        event=event,
        power_event_start_time=since,
        compliant=truth.compliant_since_wall_s is not None,
    )


def _feed_target(it: OrderStatus) -> FeedTarget:
    order = it.order
    assert order.budget_mw is not None
    begin = None if order.not_before_wall_s == AT_ONCE_S else utc(order.not_before_wall_s)
    end = None if order.expires_wall_s == INF else utc(order.expires_wall_s)
    return FeedTarget(it.active, _watt(order.budget_mw), Interval(begin, end), Strategy(), order.ref)


def _watt(power_mw: int) -> Power:
    return Power(power_mw / 1000, "watt")
