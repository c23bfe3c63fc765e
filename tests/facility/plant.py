"""A whole small plant: mosquitto, a host with simulated GPUs and the real rapidd, the real controller, on one bus."""

import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.controller.process import Controller, Controllers
from tests.facility.broker import PASSWORD, Broker, Client, Signer
from tests.node.daemon import Host

SHORT = 'tick = "100ms"\nrpc_timeout = "500ms"\nmargin = "100ms"\nlease = "3s"\nsilent_after = "1s"'
DEADLINE_S = 20.0
MQTT = """
[report]
interval = "200ms"
[mqtt]
broker = "{broker}"
site = "{site}"
username = "rapid-{site}"
password_file = "password"
interval = "500ms"
ceilings = {{ host = "1.4kW" }}
{tls}
{more}
[[mqtt.key]]
kid = "bms-1"
source = "bms"
file = "bms.pem"
[[mqtt.key]]
kid = "grid-1"
source = "grid"
file = "grid.pem"
may_raise = true
{keys}
"""


class Plant:
    """Site s1: domain `host` of 1,200 W, two GPUs of 400..750 W that fall back to 500 W. The broker is not started."""

    def __init__(self, folder: Path, *, broker: Broker | None = None, site: str = "s1", gpus: int = 2) -> None:
        self.folder, self.site = folder, site
        self.stack = ExitStack()
        folder.mkdir(parents=True, exist_ok=True)
        self.broker = broker or self.stack.enter_context(Broker(folder / "broker"))
        (folder / "h").mkdir()
        self.host = self.stack.enter_context(Host(folder / "h", gpus=gpus))
        self.host.configure(address=f'"unix:{folder}/h/node.sock"')
        self.bms, self.grid = Signer("bms-1"), Signer("grid-1", rsa_bits=2048)
        self.dsx = Signer("s1-key")  # with which the controller signs what it says to DSX
        self.home = self.stack.enter_context(Controllers(folder / "c"))
        for key, name in ((self.bms, "bms.pem"), (self.grid, "grid.pem")):
            key.publish(self.home.folder / name)
        (self.home.folder / "password").write_text(PASSWORD)
        self._numbers = itertools.count(1)
        self.configure()

    def configure(self, *, more: str = "", keys: str = "", **values: str) -> None:
        """`more` goes into [mqtt], `keys` behind its tables, `values` into the rest."""
        tls = f'tls = {{ ca = "{self.broker.ca}" }}' if self.broker.tls else ""
        mqtt = MQTT.format(broker=self.broker.address, site=self.site, tls=tls, more=more, keys=keys)
        address = f"unix:{self.host.folder}/node.sock"
        self.home.configure(**{"node_address": address, "control": SHORT, "more": mqtt, **values})

    def start(self) -> Controller:
        """rapidd and the controller; the broker if it is ours to start is up already, or not."""
        self.host.start()
        return self.home.start()

    def client(self, user: str = "bms") -> Client:
        return self.stack.enter_context(Client(self.broker, user))

    # ---- topics and messages ----

    def topic(self, *levels: str) -> str:
        return "/".join(("rapid/v1", self.site, *levels))

    @property
    def set_topic(self) -> str:
        return self.topic("domain", "host", "budget", "set")

    @property
    def result_topic(self) -> str:
        return self.topic("domain", "host", "budget", "result")

    def order(self, budget_w: float | None, **more: Any) -> dict[str, Any]:
        """An order made now, with an id of its own; times in `more` are seconds from now."""
        made: dict[str, Any] = {
            "site": self.site,
            "domain": "host",
            "id": f"order-{next(self._numbers)}",
            "issued": stamp(),
            "budget_w": budget_w,
        }
        times = {name: stamp(more.pop(name)) for name in ("issued", "not_before", "expires") if name in more}
        return made | more | times

    def send(self, client: Client, order: dict[str, Any], *, by: Signer | None = None, retain: bool = False) -> str:
        """Sign and send it; its id."""
        client.send(self.set_topic, (by or self.bms).sign(order), retain=retain)
        return str(order["id"])

    def answered(self, client: Client, id: str, outcome: str, *, deadline_s: float = DEADLINE_S) -> dict[str, Any]:
        """The answer with this outcome to an order."""
        return client.wait_for(self.result_topic, {"id": id, "outcome": outcome}, deadline_s=deadline_s)

    def answers(self, client: Client, id: str) -> list[str]:
        """The outcomes of the answers to an order, each number once."""
        found = {it["number"]: it["outcome"] for it in client.on(self.result_topic) if it["id"] == id}
        return [found[number] for number in sorted(found)]

    def wait_for_limits(self, limit_w: float) -> None:
        self.host.wait_for_limits(round(limit_w * 1000))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.close()


def stamp(from_now_s: float = 0.0) -> str:
    """RFC 3339. Two are never the same: an order must be made after the one before it."""
    now = datetime.fromtimestamp(next(_ticks), UTC)
    return (now + timedelta(seconds=from_now_s)).isoformat()


def _later() -> Iterator[float]:
    last_s = 0.0
    while True:
        last_s = max(last_s + 1e-5, time.time_ns() / 1e9)
        yield last_s


_ticks = _later()
