"""The story whose messages docs/facility.md shows; `python -m tests.facility.examples` runs it and prints them.

A cut with a ramp and an end, a cut below the floors, an order above the ceiling, and one that somebody forged.
"""

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from rapidctl.controller.facility.messages import PAYLOAD_MAX
from tests.facility.broker import Client, Signer
from tests.facility.plant import Plant

PAGE = Path(__file__).parents[2] / "docs" / "facility.md"
# What is another in every run; in the page, any value of its kind will do.
VOLATILE = {
    *("time", "issued", "expires", "in_force_at", "ends_at", "compliant_since", "jws", "controller"),
    *("draw_w", "draw_at_most_w", "held_w", "limit_w", "least_w", "watched_s", "over_s", "unmeasured_s", "number"),
    *("attainment", "predicted_attainment"),
}


def story(plant: Plant, client: Client) -> dict[str, dict[str, Any]]:
    """Every message that the page shows, by the name that stands over it there."""
    found: dict[str, dict[str, Any]] = {}
    found["status"] = client.wait_for(plant.topic("status"), {"state": "present"})
    client.wait_for(plant.topic("domain", "host"), {"compliant": True})
    plant.wait_for_limits(600)
    order = plant.order(1_000, id="dr-2027-01-12", ramp_down_s=1.0, ramp_up_s=1.0, expires=6.0)
    signed = plant.bms.sign(order)
    found["order"], found["signed"] = order, json.loads(signed)
    client.send(plant.set_topic, signed)
    for outcome in ("accepted", "in_force"):
        found[outcome] = plant.answered(client, order["id"], outcome)
    held = {"budget_w": 1000.0, "held_by": f"bms: {order['id']}", "ramping": 0, "compliant": True}
    found["domain"] = client.wait_for(plant.topic("domain", "host"), held)
    found["ended"] = plant.answered(client, order["id"], "ended")
    found["event"] = client.wait_for(plant.topic("event"), {"kind": "decision", "about": "host"})
    low = plant.send(client, plant.order(700, id="emergency-7"))
    found["shortfall"] = plant.answered(client, low, "accepted")
    plant.send(client, plant.order(None, id="all-clear-7"))
    high = plant.send(client, plant.order(2_000, id="too-high"))
    found["refused"] = plant.answered(client, high, "refused")
    client.send(plant.set_topic, Signer("bms-1").sign(plant.order(500)))
    found["forged"] = client.wait_for(plant.result_topic, {"why": "bad_signature"})
    found["node"] = client.wait_for(plant.topic("node", "node-1"), {"health": "reporting", "gpus": 2})
    return found


def on_the_page() -> dict[str, dict[str, Any]]:
    """The messages of docs/facility.md: each stands in a block of JSON under a line `<!-- example: name -->`."""
    blocks = re.findall(r"<!-- example: (\w+) -->\n```json\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return {name: json.loads(text) for name, text in blocks}


def steady(name: str, message: dict[str, Any]) -> dict[str, Any]:
    """A message without what is another in every run."""
    volatile = VOLATILE | ({"id"} if name == "event" else set())
    return {key: type(value).__name__ if key in volatile else value for key, value in message.items()}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, Plant(Path(folder)) as plant:
        plant.broker.start()
        plant.start()
        for name, message in story(plant, plant.client()).items():
            assert len(json.dumps(message)) < PAYLOAD_MAX
            sys.stdout.write(f"<!-- example: {name} -->\n```json\n{json.dumps(message, indent=2)}\n```\n\n")


if __name__ == "__main__":
    main()
