"""The payloads of the bus as structs; docs/facility/schemas is made of them. Watts end in _w, seconds in _s, times are
UTC as RFC 3339 has them.
"""

from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

PAYLOAD_MAX = 16 * 1024  # bytes of a message that is looked at

Time = Annotated[datetime, Meta(tz=True, description="RFC 3339, with its zone; ours are in UTC")]
Name = Annotated[str, Meta(min_length=1, max_length=128)]
Watts = Annotated[float, Meta(ge=0, le=1e10)]
Seconds = Annotated[float, Meta(ge=0)]
Ramp = Annotated[float, Meta(ge=0, le=86_400)]
Share = Annotated[float, Meta(ge=0, le=1)]


class SetBudget(Struct, frozen=True, forbid_unknown_fields=True):
    """What is signed: an order of a domain's budget. budget_w null takes back what its source asked before."""

    site: Name
    domain: Name
    id: Annotated[Name, Meta(description="the correlation id; another for every order")]
    issued: Annotated[Time, Meta(description="when it was made; of two orders of a source, the later counts")]
    budget_w: Watts | None
    not_before: Annotated[Time | None, Meta(description="null or left out: now")] = None
    expires: Annotated[Time | None, Meta(description="null or left out: until the source says otherwise")] = None
    ramp_down_s: Annotated[Ramp, Meta(description="from a higher budget to this one, in a straight line")] = 0.0
    ramp_up_s: Annotated[Ramp, Meta(description="from a lower one to this one, and back up when it expires")] = 0.0


class SignedSet(Struct, frozen=True, forbid_unknown_fields=True):
    """What is sent: a SetBudget as the payload of a compact JWS, by ES256 or RS256, whose header names the kid."""

    jws: Annotated[str, Meta(min_length=1, max_length=PAYLOAD_MAX)]


class Result(Struct, frozen=True):
    """An answer to an order. Without an id, what came could not be believed to be anybody's."""

    site: Name
    domain: str
    outcome: str
    time: Time
    id: str | None
    source: str | None
    number: Annotated[int, Meta(ge=0, description="grows by one; the same again is the same answer; 0: a refusal")]
    why: str | None
    text: str
    budget_w: Watts | None
    budget_in_force_w: Watts | None
    in_force_at: Annotated[Time | None, Meta(description="accepted: expected; in_force: since")]
    ends_at: Time | None
    held_by: Annotated[str | None, Meta(description="whose word keeps the budget below what was ordered")]
    shortfall_w: Annotated[Watts, Meta(description="above the budget with every GPU at its floor")]
    predicted_attainment: Share | None
    repeated: bool


class SiteStatus(Struct, frozen=True):
    """Retained. Whether a controller is there: present, stopped in order, or lost (its last will)."""

    site: Name
    state: str
    time: Annotated[Time, Meta(description="of a lost one: when it connected")]
    controller: str
    epoch: int
    version: str


class DomainState(Struct, frozen=True):
    """Retained. What is true of one domain."""

    site: Name
    domain: Name
    parent: str | None
    time: Time
    budget_w: Annotated[Watts, Meta(description="in force")]
    standing_w: Annotated[Watts, Meta(description="the operator's, without orders")]
    ceiling_w: Annotated[Watts, Meta(description="an order above it is refused")]
    least_w: Annotated[Watts, Meta(description="what it can be brought down to now")]
    held_by: Annotated[str | None, Meta(description="whose order makes the budget what it is")]
    ramping: Annotated[int, Meta(ge=-1, le=1)]
    reserved_w: Annotated[Watts, Meta(description="not GPUs; it is not measured, and counts in full")]
    held_w: Annotated[Watts, Meta(description="the most that its GPUs may be drawing, by any limit in force")]
    draw_w: Annotated[Watts, Meta(description="of the GPUs that could be measured, by their energy counters")]
    draw_at_most_w: Annotated[Watts, Meta(description="with all that is booked for the others")]
    unknown_gpus: Annotated[int, Meta(ge=0, description="could not be measured")]
    compliant: Annotated[bool, Meta(description="all measured, and with reserved_w within the budget")]
    compliant_since: Time | None
    watched_s: Annotated[Seconds, Meta(description="since the journal began")]
    over_s: Annotated[Seconds, Meta(description="of them over the budget")]
    unmeasured_s: Annotated[Seconds, Meta(description="of them, those that some GPU was not measured")]
    over_budget: Annotated[bool, Meta(description="more is booked than the budget; advice says what would help")]
    advice: str
    attainment: Annotated[Share | None, Meta(description="SLO attainment of the last minute, of the whole controller")]


class NodeState(Struct, frozen=True):
    """Retained. One host."""

    site: Name
    node: Name
    domain: Name
    time: Time
    health: str
    gpus: Annotated[int, Meta(ge=0)]
    unmanaged_gpus: Annotated[int, Meta(ge=0)]
    limit_w: Watts
    held_w: Watts
    draw_w: Annotated[Watts | None, Meta(description="of the sensors' last samples; null: some GPU has none")]
    excursion: Annotated[str, Meta(description="it cut its limits by itself")]
    problem: str


class Event(Struct, frozen=True):
    """Not retained. A decision, or something that an operator should know; about: ids, as far as there are any."""

    site: Name
    time: Time
    kind: str
    level: str
    about: str
    text: str
    id: str | None
    dropped: Annotated[int, Meta(ge=0, description="events before this one that nobody could be told")]


OUT = (Result, SiteStatus, DomainState, NodeState, Event)
IN = (SetBudget, SignedSet)

_encode = msgspec.json.Encoder().encode
set_decoder = msgspec.json.Decoder(SetBudget)
signed_decoder = msgspec.json.Decoder(SignedSet)


def encode(message: Struct) -> bytes:
    return _encode(message)


def utc(wall_s: float) -> datetime:
    """The time of a message, to the millisecond."""
    return datetime.fromtimestamp(round(wall_s, 3), UTC)


def schema_of(kind: type[Struct]) -> dict[str, object]:
    """JSON Schema, draft 2020-12."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(kind)}
