"""The [mqtt] section: what cannot be, or is not safe, is refused at load by its key."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from rapid.config.controller import parse_controller_config
from rapid.config.mqtt import DsxTable, MqttTable
from rapid.core.errors import ConfigInvalid
from rapid.core.settings import SourceSettings
from rapidctl.controller.facility.keys import KeyRing
from rapidctl.controller.mqtt import check
from tests.controller.process import CONFIG, USUAL
from tests.facility.broker import Signer
from tests.test_config import ETC, switched_on

HERE = Path("/etc/rapid/controller.toml")
KEY = '[[mqtt.key]]\nkid = "a"\nsource = "bms"\nfile = "bms.pem"\n'


def section(mqtt: str = "", *, broker: str = "127.0.0.1:1883", site: str = "s1") -> str:
    more = f'[mqtt]\nbroker = "{broker}"\nsite = "{site}"\n{mqtt}'
    return CONFIG.format(**USUAL | {"more": more})


def problem(mqtt: str = "", **address: str) -> str:
    with pytest.raises(ConfigInvalid) as caught:
        parse_controller_config(section(mqtt, **address), path=HERE)
    return str(caught.value)


def test_the_example_shows_the_defaults() -> None:
    file = ETC / "controller.toml"
    assert parse_controller_config(file.read_text(), path=file).mqtt is None
    full = parse_controller_config(switched_on(file.read_text(), without_default=True), path=file).mqtt
    assert full is not None
    assert full.dsx is not None
    bare = MqttTable(full.broker, full.site, ceilings_mw=full.ceilings_mw, dsx=DsxTable(full.dsx.agent, full.dsx.feeds))
    given = {name: getattr(full, name) for name in ("client_id", "username", "password_file", "tls", "key")}
    assert bare.dsx is not None
    dsx = msgspec.structs.replace(bare.dsx, kid=full.dsx.kid, key=full.dsx.key)
    assert full == msgspec.structs.replace(bare, dsx=dsx, **given)


@pytest.mark.parametrize(
    ("mqtt", "words"),
    [
        ("unsigned_may_raise = true", "config key mqtt.unsigned_may_raise: means nothing without mqtt.unsigned"),
        ('password_file = "p"', "config key mqtt.username: is missing"),
        ('ceilings = { attic = "1kW" }', "config key mqtt.ceilings: 'attic' is not known"),
        ('ceilings = { host = "1kW" }', "config key mqtt.ceilings.host: 1000 W is below the domain's budget, 1200 W"),
        ('replay_window = "2h"', "config key mqtt.replay_window: 7200s is outside 1s..3600s"),
        ('tls = { ca = "ca.pem", cert = "c.pem" }', "config key mqtt.tls: needs both of cert and key"),
        (KEY.replace('bms"', 'operator"'), "config key mqtt.key.a.source: 'operator' is a name of our own"),
        (KEY.replace('bms"', 'schedule x"'), "config key mqtt.key.a.source: 'schedule x' is a name of our own"),
        (KEY.replace('bms"', 'unsigned"'), "config key mqtt.key.a.source: 'unsigned' is a name of our own"),
        (KEY + KEY, "config key mqtt.key.a: is there twice"),
        (KEY + 'domains = ["attic"]', "config key mqtt.key.a.domains: 'attic' is not known"),
        (
            KEY + KEY.replace('kid = "a"', 'kid = "b"') + "may_raise = true",
            "config key mqtt.key.b: source 'bms' has another key with other domains or another may_raise",
        ),
        (
            '[mqtt.dsx]\nagent = "a b"\nfeeds = { f = "host" }',
            "config key mqtt.dsx.agent: 'a b' is no name for a topic",
        ),
        ('[mqtt.dsx]\nagent = "a"\nfeeds = {}', "config key mqtt.dsx.feeds: names no feed"),
        ('[mqtt.dsx]\nagent = "a"\nfeeds = { f = "attic" }', "config key mqtt.dsx.feeds.f: 'attic' is not known"),
        ('[mqtt.dsx]\nagent = "a"\nfeeds = { f = "host" }\nkid = "k"', "config key mqtt.dsx.key: needs kid"),
    ],
)
def test_what_cannot_be_is_refused_by_its_key(mqtt: str, words: str) -> None:
    assert problem(mqtt).startswith(words)


@pytest.mark.parametrize("site", ["a/b", "#", "+", "", "a b", "x" * 65, "$SYS/x"])
def test_a_site_is_one_level_of_a_topic(site: str) -> None:
    assert problem(site=site).startswith("config key mqtt.site:")


def test_nothing_leaves_the_host_without_tls() -> None:
    assert "is another host, so it needs TLS" in problem(broker="bus.example:1883")
    assert "'host:port'" in problem(broker="unix:/run/bus.sock")
    assert "no address" in problem(broker="bus.example")


def test_orders_without_a_signature_are_for_loopback_alone() -> None:
    tls = 'unsigned = true\ntls = { ca = "ca.pem" }'
    assert problem(tls, broker="bus.example:8883").startswith("config key mqtt.unsigned: orders without a signature")
    config = parse_controller_config(section("unsigned = true"), path=HERE)
    assert config.settings.facility.sources == (SourceSettings("unsigned"),)


def test_what_the_core_is_told() -> None:
    mqtt = (
        'ceilings = { host = "1.5kW" }\nschedules_may_raise = true\n' + KEY + 'domains = ["host"]\nmay_raise = true\n'
    )
    facility = parse_controller_config(section(mqtt), path=HERE).settings.facility
    assert facility.publishes
    assert facility.schedules_raise
    assert facility.ceilings_mw == (("host", 1_500_000),)
    assert facility.sources == (SourceSettings("bms", ("host",), may_raise=True),)
    assert not parse_controller_config(CONFIG.format(**USUAL), path=HERE).settings.facility.publishes


def weak(path: Path) -> None:
    Signer("a", rsa_bits=1024).publish(path)


def private(path: Path) -> None:
    Signer("a").private(path)


def other_curve(path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    signer = Signer("a")
    signer.key = ec.generate_private_key(ec.SECP384R1())
    signer.publish(path)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: None, "cannot read"),
        (lambda path: path.write_text("key"), "holds no public key in PEM form"),
        (private, "holds no public key in PEM form"),
        (weak, "has 1024 bits; RS256 wants 2048 or more"),
        (other_curve, "is a key on secp384r1; ES256 wants secp256r1"),
    ],
)
def test_a_key_that_cannot_be_used_is_named(tmp_path: Path, write: Callable[[Path], object], words: str) -> None:
    write(tmp_path / "bms.pem")
    config = parse_controller_config(section(KEY), path=tmp_path / "c.toml")
    assert config.mqtt is not None
    with pytest.raises(ConfigInvalid, match=r"mqtt\.key\.a\.file.*" + words):
        check(config.mqtt)


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    for mqtt, key in (
        ('tls = { ca = "none.pem" }', "mqtt.tls.ca"),
        ('username = "u"\npassword_file = "none"', "mqtt.password_file"),
    ):
        config = parse_controller_config(section(mqtt), path=tmp_path / "c.toml")
        assert config.mqtt is not None
        with pytest.raises(ConfigInvalid, match=key):
            check(config.mqtt)


def test_copies_that_systemd_has_handed_over_stand_in_for_files_of_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under its unit the controller cannot read /etc/rapid/controller-tls: it is given copies of what lies there."""
    copies = tmp_path / "credentials"
    copies.mkdir()
    Signer("a").publish(copies / "controller-tls_bms.pem")
    (copies / "controller-tls_password").write_text("secret")
    named = KEY.replace("bms.pem", "controller-tls/bms.pem")
    mqtt = 'username = "u"\npassword_file = "controller-tls/password"\n' + named
    config = parse_controller_config(section(mqtt), path=tmp_path / "c.toml")
    assert config.mqtt is not None
    with pytest.raises(ConfigInvalid, match="cannot read"):
        check(config.mqtt)

    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(copies))

    check(config.mqtt)


def test_a_key_ring_of_nobody_believes_nobody() -> None:
    from rapidctl.controller.facility.keys import BadSignature

    with pytest.raises(BadSignature, match="not configured"):
        KeyRing().read(Signer("a").jws(b"{}"))
