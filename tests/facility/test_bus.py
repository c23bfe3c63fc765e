"""The bus against a real mosquitto with TLS and an access list: round trips, and what is refused."""

import json
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
from msgspec import Struct

from rapidctl.controller.facility import messages
from rapidctl.controller.facility.messages import schema_of
from tests.facility.broker import Client, Signer, needs_mosquitto
from tests.facility.plant import Plant, stamp
from tests.wait import wait_for

pytestmark = [pytest.mark.e2e, needs_mosquitto]


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    with Plant(tmp_path) as plant:
        plant.broker.start()
        plant.start()
        yield plant


@pytest.fixture
def bms(plant: Plant) -> Client:
    client = plant.client()
    client.wait_for(plant.topic("status"), {"state": "present"})
    client.wait_for(plant.topic("domain", "host"), {"compliant": True})
    return client


def test_round_trip_of_a_signed_order_and_of_all_that_is_told(plant: Plant, bms: Client) -> None:
    plant.wait_for_limits(600)

    id = plant.send(bms, plant.order(1_000, expires=6.0, ramp_down_s=0.5))

    accepted = plant.answered(bms, id, "accepted")
    assert (accepted["source"], accepted["budget_w"], accepted["shortfall_w"]) == ("bms", 1000.0, 0.0)
    assert accepted["in_force_at"] > accepted["time"]
    in_force = plant.answered(bms, id, "in_force")
    assert plant.host.limits_mw() == (500_000, 500_000), "said after the devices had it"
    assert in_force["budget_in_force_w"] == 1000.0
    state = bms.wait_for(plant.topic("domain", "host"), {"budget_w": 1000.0, "held_by": f"bms: {id}", "ramping": 0})
    assert (state["standing_w"], state["ceiling_w"], state["unknown_gpus"]) == (1200.0, 1400.0, 0)
    ended = plant.answered(bms, id, "ended")
    assert (ended["why"], ended["budget_in_force_w"]) == ("expired", 1200.0)
    plant.wait_for_limits(600)
    numbers = [it["number"] for it in bms.on(plant.result_topic)]
    assert numbers == sorted(set(numbers)) == [1, 2, 3]

    node = bms.wait_for(plant.topic("node", "node-1"), {"health": "reporting", "gpus": 2})
    assert (node["unmanaged_gpus"], node["problem"]) == (0, "")
    assert any(it["kind"] == "decision" and id in it["text"] for it in bms.on(plant.topic("event")))
    assert retained_topics(plant) == {"status", "domain/host", "node/node-1"}
    every_payload_obeys_its_schema(plant, bms)


def retained_topics(plant: Plant) -> set[str]:
    with Client(plant.broker, "eve") as late:
        wait_for(lambda: len(late.heard) >= 3, 10.0, "retained messages")
        return {it.topic.removeprefix(plant.topic("")) for it in late.heard if it.retained}


def every_payload_obeys_its_schema(plant: Plant, client: Client) -> None:
    kinds: dict[str, type[Struct]] = {"status": messages.SiteStatus, "event": messages.Event, "result": messages.Result}
    states: dict[str, type[Struct]] = {"domain": messages.DomainState, "node": messages.NodeState}
    seen = set()
    for heard in client.heard:
        parts = heard.topic.split("/")
        kind = kinds.get(parts[-1]) or states.get(parts[-2])
        if parts[-1] == "set":
            kind = messages.SignedSet
        assert kind is not None, heard.topic
        jsonschema.validate(heard.json, schema_of(kind), format_checker=jsonschema.FormatChecker())
        seen.add(kind)
    assert seen >= {messages.SiteStatus, messages.Event, messages.Result, messages.DomainState, messages.NodeState}


def test_a_cut_that_nobody_likes_is_made_and_its_shortfall_named(plant: Plant, bms: Client) -> None:
    id = plant.send(bms, plant.order(100))
    accepted = plant.answered(bms, id, "accepted")
    assert accepted["shortfall_w"] == 700.0
    assert "its floors need 800 W" in accepted["text"]
    assert plant.answered(bms, id, "in_force")["shortfall_w"] == 700.0
    assert plant.host.limits_mw() == (400_000, 400_000)
    state = bms.wait_for(plant.topic("domain", "host"), {"over_budget": True})
    assert "its floors need 800 W" in state["advice"]
    bms.wait_for(plant.topic("event"), {"kind": "notice", "level": "error", "about": "host"})


def test_who_may_raise_does_so_up_to_the_ceiling(plant: Plant, bms: Client) -> None:
    low = plant.send(bms, plant.order(1_400))
    assert plant.answered(bms, low, "accepted")["held_by"] == "operator"
    id = plant.send(bms, plant.order(1_400, expires=60.0), by=plant.grid)
    assert plant.answered(bms, id, "in_force")["budget_in_force_w"] == 1400.0
    plant.wait_for_limits(700)
    high = plant.send(bms, plant.order(1_401), by=plant.grid)
    assert plant.answered(bms, high, "refused")["why"] == "above_ceiling"


def test_what_is_refused_is_refused_by_name_and_changes_nothing(plant: Plant, bms: Client) -> None:
    eve = Signer("bms-1")  # her own key, under a kid that is known
    topic, bad = plant.set_topic, "bad_signature"
    fine = plant.order(900)
    wrong: list[tuple[bytes, str, bool]] = [
        (eve.sign(fine), bad, False),
        (Signer("who").sign(fine), bad, False),
        (json.dumps(fine).encode(), bad, False),
        (b"budget: 900", bad, False),
        (b"", bad, False),
        (b"\xff\xfe" * 20, bad, False),
        (json.dumps({"jws": unsigned_jws(fine)}).encode(), bad, False),
        (json.dumps({"jws": tampered(plant.bms.sign(fine))}).encode(), bad, False),
        (json.dumps({"jws": plant.bms.jws(json.dumps(fine).encode(), crit=["b64"], b64=False)}).encode(), bad, False),
        (json.dumps({"jws": hmac_jws(plant, fine)}).encode(), bad, False),
        (plant.bms.sign(fine) + b" " * messages.PAYLOAD_MAX, "oversized", False),
        (plant.bms.sign({**fine, "budget_w": "900"}), "malformed", False),
        (plant.bms.sign({**fine, "budget_w": -1}), "malformed", False),
        (plant.bms.sign({**fine, "surprise": 1}), "malformed", False),
        (plant.bms.sign({**fine, "issued": "yesterday"}), "malformed", False),
        (plant.bms.sign({**fine, "issued": "2026-01-01T00:00:00"}), "malformed", False),
        (plant.bms.sign({key: fine[key] for key in ("site", "domain", "id", "issued")}), "malformed", False),
        (plant.bms.sign({**fine, "site": "s2"}), "wrong_address", True),
        (plant.bms.sign({**fine, "domain": "attic"}), "wrong_address", True),
        (plant.bms.sign(plant.order(900, issued=-400.0)), "stale", True),
        (plant.bms.sign(plant.order(900, issued=400.0)), "future", True),
        (plant.bms.sign(plant.order(900, not_before=9.0, expires=8.0)), "invalid", True),
        (plant.bms.sign(plant.order(900, not_before=-9.0, expires=-1.0)), "expired", True),
    ]
    for payload, why, believed in wrong:
        count = len(bms.on(plant.result_topic))
        bms.send(topic, payload)
        wait_for(lambda: len(bms.on(plant.result_topic)) > count, 10.0, f"an answer to {payload[:60]!r}")  # noqa: B023
        answer = bms.on(plant.result_topic)[-1]
        assert (answer["outcome"], answer["why"]) == ("refused", why), answer
        assert (answer["id"] is not None, answer["number"]) == (believed, 0), "no name is put to what nobody signed"
    assert plant.host.limits_mw() == (600_000, 600_000)
    assert bms.on(plant.topic("domain", "host"))[-1]["budget_w"] == 1200.0
    # And the one that was good all the time is taken, once.
    bms.send(topic, plant.bms.sign(fine))
    plant.answered(bms, fine["id"], "in_force")
    bms.send(topic, plant.bms.sign(fine))
    bms.wait_for(plant.result_topic, {"id": fine["id"], "repeated": True, "number": 0})
    release = plant.order(None)
    plant.send(bms, release)
    plant.answered(bms, release["id"], "in_force")
    bms.send(topic, plant.bms.sign(fine))
    bms.wait_for(plant.result_topic, {"id": fine["id"], "outcome": "refused", "why": "replayed"})


def test_of_orders_that_conflict_the_least_watts_win(plant: Plant, bms: Client) -> None:
    first = plant.send(bms, plant.order(1_100))
    second = plant.send(bms, plant.order(900), by=plant.grid)
    third = plant.send(bms, plant.order(1_000))
    assert plant.answered(bms, third, "accepted")["held_by"] == f"grid: {second}"
    assert plant.answered(bms, first, "ended")["why"] == "superseded"
    plant.wait_for_limits(450)


def test_retained_nonsense_and_names_with_wildcards_harm_nobody(plant: Plant, bms: Client) -> None:
    old = plant.order(850)
    bms.send(plant.set_topic, plant.bms.sign(old), retain=True)
    plant.answered(bms, old["id"], "in_force")
    plant.send(bms, plant.order(None))
    bms.send(plant.topic("domain", "%2B", "budget", "set"), b"nonsense", retain=True)
    bms.send(plant.topic("domain", "no such", "budget", "set"), plant.bms.sign(plant.order(850, domain="no such")))
    for name in ("#", "+", "../host", "host/budget/set", "a\x01b"):
        bms.send(plant.set_topic, plant.bms.sign(plant.order(850, domain=name)))
    plant.broker.stop()
    bms.heard.clear()
    plant.broker.start()
    bms.wait_for(plant.topic("status"), {"state": "present"})
    id = plant.send(bms, plant.order(1_000))
    plant.answered(bms, id, "in_force")
    assert plant.host.limits_mw() == (500_000, 500_000), "what hung there was not taken again"
    topics = {it.topic for it in bms.heard}
    assert all("#" not in topic and "+" not in topic for topic in topics)


def test_an_unsigned_order_is_taken_from_loopback_where_the_configuration_says_so(tmp_path: Path) -> None:
    with Plant(tmp_path) as plant:
        plant.configure(more="unsigned = true")
        plant.broker.start()
        plant.start()
        client = plant.client()
        order = plant.order(1_000)
        client.wait_for(plant.topic("status"), {"state": "present"})
        client.send(plant.set_topic, json.dumps(order))
        assert plant.answered(client, order["id"], "in_force")["source"] == "unsigned"
        forged = plant.order(900)
        client.send(plant.set_topic, Signer("bms-1").sign(forged))
        client.wait_for(plant.result_topic, {"outcome": "refused", "why": "bad_signature"})
        assert stamp() > order["issued"]


def unsigned_jws(order: dict[str, object]) -> str:
    import jwt

    return jwt.PyJWS().encode(json.dumps(order).encode(), "", algorithm="none", headers={"kid": "bms-1"})


def hmac_jws(plant: Plant, order: dict[str, object]) -> str:
    """Signed with the public key as if it were a shared secret, as some verifiers would believe."""
    import base64
    import hashlib
    import hmac

    def part(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    secret = (plant.home.folder / "bms.pem").read_bytes()
    signed = part(json.dumps({"alg": "HS256", "kid": "bms-1"}).encode()) + b"." + part(json.dumps(order).encode())
    return (signed + b"." + part(hmac.new(secret, signed, hashlib.sha256).digest())).decode()


def tampered(message: bytes) -> str:
    header, payload, signature = json.loads(message)["jws"].split(".")
    return ".".join((header, payload[:-4] + ("AAAA" if payload[-4:] != "AAAA" else "BBBB"), signature))
