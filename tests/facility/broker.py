"""A real mosquitto on loopback with TLS, passwords and an access list; and others on it, such as a BMS."""

import json
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jwt
import paho.mqtt.client as paho
import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from paho.mqtt.enums import CallbackAPIVersion

from tests.engines.ports import free_port
from tests.wait import wait_for

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
PASSWD = shutil.which("mosquitto_passwd")
needs_mosquitto = pytest.mark.skipif(
    MOSQUITTO is None or PASSWD is None, reason="mosquitto is not installed (Debian: mosquitto)"
)
DEADLINE_S = 20.0
PASSWORD = "secret"
ACL = """
user rapid-{site}
topic readwrite rapid/v1/{site}/#
topic read grid/v1/isv/+/loadtarget/set
topic write grid/v1/dsx-flex-agent/{site}/powerstate/status
"""
OTHERS = """
user bms
topic write rapid/v1/+/domain/+/budget/set
topic write grid/v1/isv/acme/loadtarget/set
topic read #
user eve
topic read #
"""


class Broker:
    """One mosquitto; it remembers sessions and retained messages over restarts."""

    def __init__(self, folder: Path, *, sites: tuple[str, ...] = ("s1",), tls: bool = True, more: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.tls = folder, tls
        self.ca, self.log = folder / "ca.pem", folder / "mosquitto.log"
        self.port = free_port()
        if tls:
            authority = trustme.CA()
            authority.cert_pem.write_to_path(self.ca)
            issued = authority.issue_cert("localhost", "127.0.0.1")
            issued.private_key_and_cert_chain_pem.write_to_path(folder / "broker.pem")
        self._passwords((*(f"rapid-{site}" for site in sites), "bms", "eve"))
        (folder / "acl").write_text("".join(ACL.format(site=site) for site in sites) + OTHERS)
        lines = [f"listener {self.port} 127.0.0.1", "allow_anonymous false", f"password_file {folder}/passwords"]
        lines += [f"acl_file {folder}/acl", "persistence true", f"persistence_location {folder}/", more]
        if tls:
            lines += [f"certfile {folder}/broker.pem", f"keyfile {folder}/broker.pem"]
        # As root, mosquitto would become another user, who cannot read a test's folder.
        lines += ["user root", "autosave_interval 1"]
        (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        assert MOSQUITTO is not None
        with self.log.open("ab") as out:
            command = [MOSQUITTO, "-c", str(self.folder / "mosquitto.conf"), "-v"]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        wait_for(self._listens, DEADLINE_S, "mosquitto listens")

    def stop(self) -> None:
        """In order, so that it writes down what it has."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def kill_once_saved(self) -> None:
        """When it has written down who is there; it would forget them otherwise."""
        before = self.log.read_text().count("Saving in-memory database")
        wait_for(lambda: self.log.read_text().count("Saving in-memory database") > before, DEADLINE_S, "it saves")
        self.kill()

    def hang(self) -> None:
        """It keeps its connections and does nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def password_of(self, user: str, password: str) -> None:
        """From its next start on."""
        assert PASSWD is not None
        subprocess.run([PASSWD, "-b", str(self.folder / "passwords"), user, password], check=True, capture_output=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._end(signal.SIGKILL)

    def _passwords(self, users: tuple[str, ...]) -> None:
        assert PASSWD is not None
        path = self.folder / "passwords"
        path.write_text("".join(f"{user}:{PASSWORD}\n" for user in users))
        subprocess.run([PASSWD, "-U", str(path)], check=True, capture_output=True)

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(DEADLINE_S)

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@dataclass(frozen=True)
class Heard:
    """One message as it came."""

    topic: str
    payload: bytes
    retained: bool

    @property
    def json(self) -> dict[str, Any]:
        found = json.loads(self.payload)
        assert isinstance(found, dict)
        return found


@dataclass
class Client:
    """Somebody else on the broker, in a thread of its own. All it hears is in `heard`."""

    broker: Broker
    user: str = "bms"
    topics: tuple[str, ...] = ("#",)
    heard: list[Heard] = field(default_factory=list)

    def __enter__(self) -> Self:
        # The broker keeps for it what comes while it is away: docs/facility.md asks that of all who wait for answers.
        self._paho = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=f"test-{self.user}", protocol=paho.MQTTv311, clean_session=False
        )
        self._paho.reconnect_delay_set(1, 1)
        self._paho.username_pw_set(self.user, PASSWORD)
        self._paho.max_queued_messages_set(0)
        if self.broker.tls:
            self._paho.tls_set_context(ssl.create_default_context(cafile=self.broker.ca))
        self._there = threading.Event()
        self._paho.on_connect = lambda client, *_: client.subscribe([(topic, 1) for topic in self.topics])
        self._paho.on_subscribe = lambda *_: self._there.set()
        self._paho.on_message = lambda _, __, it: self.heard.append(Heard(it.topic, bytes(it.payload), it.retain))
        self._paho.connect("127.0.0.1", self.broker.port)
        self._paho.loop_start()
        assert self._there.wait(DEADLINE_S), "not connected"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._paho.disconnect()
        self._paho.loop_stop()

    def send(self, topic: str, payload: bytes | str, *, retain: bool = False, wait: bool = True) -> None:
        """Until the broker has it, if need be after this client has come back to it."""
        info = self._paho.publish(topic, payload, qos=1, retain=retain)
        if wait:
            wait_for(lambda: _is_published(info), DEADLINE_S, "the broker has the message")

    def on(self, topic: str) -> list[dict[str, Any]]:
        """The messages on a topic, as JSON."""
        return [it.json for it in list(self.heard) if it.topic == topic]

    def wait_for(self, topic: str, what: Mapping[str, object], *, deadline_s: float = DEADLINE_S) -> dict[str, Any]:
        """The first message on a topic with these members."""

        def found() -> dict[str, Any] | None:
            return next((it for it in self.on(topic) if what.items() <= it.items()), None)

        return wait_for(found, deadline_s, f"{dict(what)} on {topic}") or {}


class Signer:
    """A private key of somebody who orders budgets."""

    def __init__(self, kid: str, *, rsa_bits: int = 0) -> None:
        self.kid, self.algorithm = kid, "RS256" if rsa_bits else "ES256"
        self.key: Any = (
            rsa.generate_private_key(65537, rsa_bits) if rsa_bits else ec.generate_private_key(ec.SECP256R1())
        )

    def publish(self, path: Path) -> Path:
        """The public key as a file."""
        path.write_bytes(self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        return path

    def private(self, path: Path) -> Path:
        path.write_bytes(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return path

    def jws(self, payload: bytes, **headers: object) -> str:
        made = {"kid": self.kid, **headers}
        return jwt.PyJWS().encode(payload, self.key, algorithm=self.algorithm, headers=made)

    def sign(self, order: Mapping[str, object]) -> bytes:
        """The message that carries an order."""
        return json.dumps({"jws": self.jws(json.dumps(order).encode())}).encode()


def _is_published(info: paho.MQTTMessageInfo) -> bool:
    try:
        return info.is_published()
    except RuntimeError:  # not connected when it was handed over: it waits
        return info._published
