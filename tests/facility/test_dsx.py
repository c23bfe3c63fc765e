"""NVIDIA DSX Flex: load targets in, power states out."""

import itertools
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rapid.config.mqtt import DsxTable, MqttKeyTable
from rapid.core.facility.nouns import AT_ONCE_S, INF, BudgetOrder
from rapidctl.controller.facility.dsx import Flex
from rapidctl.controller.facility.keys import BadSignature, KeyRing
from rapidctl.controller.facility.messages import PAYLOAD_MAX
from rapidctl.controller.facility.words import Malformed
from tests.facility.broker import Client, Signer, needs_mosquitto
from tests.facility.plant import Plant, stamp
from tests.facility.town import Town, settled

TOPIC = "grid/v1/isv/acme/loadtarget/set"
STATUS = "grid/v1/dsx-flex-agent/s1/powerstate/status"
CONFIG = DsxTable("s1", {"main-a": "room", "main-b": "attic"})


def target(megawatts: float | None, *, unit: str = "megawatt", **more: object) -> dict[str, object]:
    constraint = None if megawatts is None else {"value": megawatts, "unit": unit}
    return {"interval": {}, "load_constraint": constraint, **more}


def event(signer: Signer, *targets: dict[str, object], **more: object) -> bytes:
    """A CloudEvent as the contract has it."""
    return wrapped(signer.jws(json.dumps({"targets": targets}).encode()), **more)


def wrapped(data: object, **more: object) -> bytes:
    made: dict[str, object] = {
        "specversion": "1.0.2",
        "id": str(uuid.uuid4()),
        "source": "//grid/v1/isv/acme",
        "type": "grid.loadtarget.set.v1",
        "time": stamp(),
        "datacontenttype": "application/json",
        "subject": "loadtarget",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "data": data,
    }
    return json.dumps(made | more).encode()


@pytest.fixture
def signer() -> Signer:
    return Signer("acme-1")


@pytest.fixture
def flex(signer: Signer, tmp_path: Path) -> Flex:
    return flex_of(signer, tmp_path)


def flex_of(signer: Signer, folder: Path) -> Flex:
    """A site that takes the word of this signer."""
    signer.publish(folder / "acme.pem")
    return Flex(CONFIG, KeyRing([MqttKeyTable("acme-1", "acme", folder / "acme.pem")]), "")


def test_a_load_target_becomes_an_order(flex: Flex, signer: Signer) -> None:
    interval = {"start_time": "2027-01-12T17:00:00Z", "end_time": "2027-01-12T19:00:00+00:00"}
    payload = event(
        signer,
        target(1.5, feed_tags=["main-a"], interval=interval, strategy={"best_effort": True}),
        target(900, unit="kilowatt", feed_tags=["main-b"]),
        target(None),
        correlationid="5f0c9c5e-0000-4000-8000-000000000000",
    )
    first, second, *both = flex.orders(TOPIC, payload)
    assert (first.source, first.domain, first.budget_mw) == ("acme", "room", 1_500_000_000)
    assert (first.not_before_wall_s, first.expires_wall_s) == (1_799_773_200.0, 1_799_780_400.0)
    assert first.ref == "5f0c9c5e-0000-4000-8000-000000000000"
    assert (second.domain, second.budget_mw) == ("attic", 900_000_000)
    assert (second.not_before_wall_s, second.expires_wall_s) == (AT_ONCE_S, INF)
    assert [(it.domain, it.budget_mw) for it in both] == [("room", None), ("attic", None)], "without feeds, all"
    assert len({(it.id, it.domain) for it in (first, second, *both)}) == 4


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"type": "grid.powerbreach.alert.v1"}, "does not belong on its topic"),
        ({"source": "//grid/v1/isv/other"}, "does not belong on its topic"),
        ({"specversion": "2.0"}, "is no CloudEvent"),
        ({"time": "2027-01-12T17:00:00"}, "is no CloudEvent"),
        ({"correlationid": "a\nb"}, "correlation id"),
    ],
)
def test_an_envelope_that_breaks_the_contract_is_refused(
    flex: Flex, signer: Signer, more: dict[str, object], words: str
) -> None:
    with pytest.raises(Malformed, match=words):
        flex.orders(TOPIC, event(signer, target(1.0), **more))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (target(1.0, feed_tags=["main-c"]), "names feed 'main-c'; known are main-a, main-b"),
        (target(-1.0), "has no load targets"),
        (target(1.0, unit="horsepower"), "has no load targets"),
        ({"interval": {}}, "has no load targets"),
        ({"load_constraint": None, "interval": {"start_time": "now"}}, "has no load targets"),
    ],
)
def test_data_that_breaks_the_contract_is_refused(
    flex: Flex, signer: Signer, said: dict[str, object], words: str
) -> None:
    with pytest.raises(Malformed, match=words):
        flex.orders(TOPIC, event(signer, said))


def test_what_nobody_signed_is_refused(flex: Flex, signer: Signer) -> None:
    with pytest.raises(BadSignature, match="plain data"):
        flex.orders(TOPIC, wrapped({"targets": [target(1.0)]}))
    with pytest.raises(BadSignature, match="not of its key"):
        flex.orders(TOPIC, event(Signer("acme-1"), target(1.0)))
    with pytest.raises(Malformed, match="at most"):
        flex.orders(TOPIC, event(signer, target(1.0)) + b" " * PAYLOAD_MAX)
    with pytest.raises(Malformed, match="no CloudEvent"):
        flex.orders(TOPIC, b"\xff")


def test_plain_data_is_taken_where_orders_need_no_signature(tmp_path: Path) -> None:
    flex = Flex(CONFIG, KeyRing(), "unsigned")
    (order,) = flex.orders(TOPIC, wrapped({"targets": [target(1.0, feed_tags=["main-a"])]}))
    assert (order.source, order.budget_mw) == ("unsigned", 1_000_000_000)


def test_a_replay_in_a_new_envelope_is_known_by_what_was_signed(flex: Flex, signer: Signer) -> None:
    """The contract signs the data alone: whoever may publish could send it again under a new time and id."""
    data = signer.jws(json.dumps({"targets": [target(1.0, feed_tags=["main-a"])]}).encode())
    (first,), (again,) = (flex.orders(TOPIC, wrapped(data)) for _ in range(2))
    assert first.id == again.id
    (anew,) = flex.orders(TOPIC, event(signer, target(1.0, feed_tags=["main-a"])))
    assert anew.id != first.id, "the same target, signed anew, is another order"
    assert flex.orders(TOPIC, wrapped(mirrored(data)))[0].id == first.id


@pytest.mark.parametrize("rsa_bits", [0, 2048], ids=["ES256", "RS256"])
def test_a_signature_that_is_spelt_otherwise_is_the_same(tmp_path: Path, rsa_bits: int) -> None:
    """Else whoever may publish could repeat a load target by padding its signature."""
    signer = Signer("acme-1", rsa_bits=rsa_bits)
    flex = flex_of(signer, tmp_path)
    data = signer.jws(json.dumps({"targets": [target(1.0, feed_tags=["main-a"])]}).encode())
    (first,), (padded,) = flex.orders(TOPIC, wrapped(data)), flex.orders(TOPIC, wrapped(data + "=="))
    assert padded.id == first.id
    (other,) = flex.orders(TOPIC, event(signer, target(2.0, feed_tags=["main-a"])))
    assert other.id != first.id


def mirrored(token: str) -> str:
    """The other signature that an ECDSA signature lets anybody make: (r, n - s)."""
    import base64

    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    signed, _, signature = token.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    other = order - int.from_bytes(raw[32:], "big")
    made = base64.urlsafe_b64encode(raw[:32] + other.to_bytes(32, "big")).rstrip(b"=").decode()
    assert made != signature
    return f"{signed}.{made}"


# ---- what is told ----


def said(flex: Flex, town: Town) -> list[str]:
    """The events of main-a that are due now."""
    payloads = flex.due(town.control.status(town.now), town.wall_s, town.now)
    return [json.loads(payload)["data"]["feeds"]["main-a"]["event"] for payload in payloads]


_heartbeats = itertools.count(10_000, 1_000)


def feed(flex: Flex, town: Town) -> dict[str, Any]:
    payload = flex.due(town.control.status(town.now), town.wall_s, next(_heartbeats))[-1]
    found = json.loads(payload)["data"]["feeds"]["main-a"]
    assert isinstance(found, dict)
    return found


def test_every_transition_is_told_in_its_order() -> None:
    town, flex = settled(), Flex(DsxTable("s1", {"main-a": "room"}), KeyRing(), "bms")
    assert said(flex, town) == ["periodic"]
    order = BudgetOrder("x/0", "bms", "room", 1_400_000, town.wall_s, AT_ONCE_S, INF, 2.0, 2.0, "corr")
    town.send(order)
    assert said(flex, town) == ["target_set"]
    town.run(0.5)
    assert said(flex, town) == ["start_ramp_down"]
    state = feed(flex, town)
    assert (state["in_flight"], state["targets"][0]["correlation_id"]) == (True, "corr")
    assert state["targets"][0]["load_constraint"] == {"value": 1400.0, "unit": "watt"}
    seen = []
    for _ in range(10):
        town.run(0.5)
        seen += said(flex, town)
    assert seen == ["end_ramp_down"]
    town.run(5.0)
    state = feed(flex, town)
    assert (state["in_flight"], state["compliant"], state["power_event_start_time"]) == (False, True, None)
    assert state["calculated_load"]["value"] == pytest.approx(1_400, rel=0.01)
    town.send(BudgetOrder("y/0", "bms", "room", None, town.wall_s, AT_ONCE_S, INF, 2.0, 2.0, "back"))
    seen = said(flex, town)
    for _ in range(10):
        town.run(0.5)
        seen += said(flex, town)
    assert seen == ["target_set", "start_ramp_up", "end_ramp_up"]
    assert feed(flex, town)["targets"] == []
    assert said(flex, town) == [], "a heartbeat is not due yet"


def test_a_feed_that_is_not_measured_is_not_compliant() -> None:
    """Promise 6."""
    town, flex = settled(), Flex(DsxTable("s1", {"main-a": "room"}), KeyRing(), "bms")
    assert feed(flex, town)["compliant"]
    town.cut_off.add("n2")
    town.run(4.0)
    state = feed(flex, town)
    assert not state["compliant"]
    assert state["calculated_load"]["value"] == pytest.approx(2_200, rel=0.01), "at most: what is booked for the silent"


# ---- with a broker ----


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    with Plant(tmp_path) as plant:
        plant.dsx.private(plant.home.folder / "dsx.key")
        dsx = '[mqtt.dsx]\nagent = "s1"\nfeeds = { main-a = "host" }\nramp_down = "500ms"\nramp_up = "500ms"\n'
        plant.configure(keys=dsx + 'kid = "s1-key"\nkey = "dsx.key"\nheartbeat = "1s"')
        plant.broker.start()
        plant.start()
        yield plant


def opened(plant: Plant, payload: dict[str, Any]) -> dict[str, Any]:
    """A power state, its signature checked."""
    import jwt

    key = plant.dsx.key.public_key()
    data = json.loads(jwt.PyJWS().decode(payload["data"], key, algorithms=["ES256"]))["feeds"]["main-a"]
    assert isinstance(data, dict)
    return data


def events(plant: Plant, client: Client) -> list[str]:
    return [found for it in client.on(STATUS) if (found := opened(plant, it)["event"]) != "periodic"]


@pytest.mark.e2e
@needs_mosquitto
def test_load_targets_over_a_real_broker(plant: Plant) -> None:
    from tests.wait import wait_for

    client = plant.client()
    wait_for(lambda: client.on(STATUS) and opened(plant, client.on(STATUS)[-1])["compliant"], 20.0, "compliant")
    plant.wait_for_limits(600)
    client.send(TOPIC, event(plant.bms, target(0.001, feed_tags=["main-a"]), correlationid="c-1"))
    plant.wait_for_limits(500)
    wait_for(lambda: "end_ramp_down" in events(plant, client), 20.0, "the end of the ramp")
    assert events(plant, client) == ["target_set", "start_ramp_down", "end_ramp_down"]
    first = next(it for it in client.on(STATUS) if opened(plant, it)["event"] == "target_set")
    assert (first["correlationid"], first["specversion"], first["type"]) == (
        "c-1",
        "1.0.2",
        "grid.powerstate.status.v1",
    )
    wait_for(lambda: opened(plant, client.on(STATUS)[-1])["compliant"], 20.0, "compliant again")
    client.send(TOPIC, event(plant.bms, target(None)))
    plant.wait_for_limits(600)
    wait_for(lambda: "end_ramp_up" in events(plant, client), 20.0, "the end of the ramp up")
    client.send(TOPIC, event(Signer("bms-1"), target(0.0008)))
    client.wait_for(plant.topic("event"), {"kind": "notice", "about": TOPIC, "level": "warning"})
    assert plant.host.limits_mw() == (600_000, 600_000)
