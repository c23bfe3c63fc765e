"""Configurations are read whole, or refused in one line that names the key and says what to do."""

import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect

from rapid.config import (
    NodeConfig,
    format_duration,
    format_power,
    load_controller_config,
    load_node_config,
    parse_controller_config,
    parse_duration,
    parse_node_config,
    parse_power,
    units,
)
from rapid.config.controller import ControllerFile
from rapid.core.cluster import Domain, NodeSpec
from rapid.core.errors import ConfigInvalid, ConfigUnreadable
from rapid.core.settings import Settings

ETC = Path(__file__).parent.parent / "packaging" / "etc"
HERE = Path("/etc/rapid/x.toml")

NODE = """
[node]
name = "h1"
[power]
fallback = "400W"
"""
CONTROLLER = """
[[domain]]
name = "site"
budget = "10kW"
[[domain]]
name = "row"
budget = "4.8kW"
reserved = "500W"
parent = "site"
[[node]]
name = "h1"
address = "127.0.0.1:7601"
domain = "row"
gpus = 8
floor = "400W"
ceiling = "750W"
fallback = "500W"
"""


def node_error(text: str) -> str:
    with pytest.raises(ConfigInvalid) as caught:
        parse_node_config(text, path=HERE)
    return str(caught.value)


def controller_error(text: str) -> str:
    with pytest.raises(ConfigInvalid) as caught:
        parse_controller_config(text, path=HERE)
    return str(caught.value)


# ---- the examples ----


def switched_on(example: str, *, without_default: bool) -> str:
    """The example with every optional key; those without a default only if asked for."""
    lines = [line for line in example.splitlines() if without_default or "no default:" not in line]
    return "\n".join(re.sub(r"^# (?=\[|[a-z_]+ = )", "", line) for line in lines)


def keys_of(kind: inspect.Type, prefix: str = "") -> set[str]:
    """Every key of a table and of the tables in it."""
    if isinstance(kind, inspect.UnionType):
        return set.union(*(keys_of(each, prefix) for each in kind.types))
    if isinstance(kind, inspect.VarTupleType):
        return keys_of(kind.item_type, prefix)
    if isinstance(kind, inspect.NoneType):
        return set()
    if not isinstance(kind, inspect.StructType | inspect.DataclassType):
        return {prefix}
    return set.union(*(keys_of(field.type, f"{prefix}.{field.encode_name}".strip(".")) for field in kind.fields))


FREE = ("policy.settings", "policy.start", "mqtt.ceilings", "mqtt.dsx.feeds")  # whose keys are names of others


def keys_in(raw: object, prefix: str = "") -> set[str]:
    if isinstance(raw, list):
        return keys_in(raw[0], prefix)
    if not isinstance(raw, dict) or prefix in FREE:
        return {prefix}
    return set.union(*(keys_in(value, f"{prefix}.{key}".strip(".")) for key, value in raw.items()))


@pytest.mark.parametrize(("name", "shape"), [("rapidd.toml", NodeConfig), ("controller.toml", ControllerFile)])
def test_an_example_shows_every_key(name: str, shape: type[object]) -> None:
    example = tomllib.loads(switched_on((ETC / name).read_text(), without_default=True))
    assert keys_in(example) == keys_of(inspect.type_info(shape))


def test_the_example_for_nodes_shows_the_defaults() -> None:
    file = ETC / "rapidd.toml"
    shipped = load_node_config(file)
    assert shipped == parse_node_config(NODE, path=file)
    full = parse_node_config(switched_on(file.read_text(), without_default=False), path=file)
    assert full.tls is not None
    assert full == NodeConfig(node=shipped.node, power=shipped.power, tls=full.tls, engine=full.engine)


def test_the_example_for_controllers_shows_the_defaults() -> None:
    file = ETC / "controller.toml"
    shipped = load_controller_config(file)
    assert shipped.settings == Settings(domains=shipped.settings.domains, nodes=shipped.settings.nodes)
    full = parse_controller_config(switched_on(file.read_text(), without_default=True), path=file)
    assert replace(full.settings, facility=shipped.settings.facility) == shipped.settings
    for part in ("addresses", "journal", "listen", "report", "log"):
        assert getattr(full, part) == getattr(shipped, part)


# ---- what comes out ----


def test_a_node_is_told_all_that_its_file_says() -> None:
    config = parse_node_config(
        """
        [node]
        name = "h1"
        state_dir = "state"
        [device]
        backend = "sim"
        path = "/run/sim"
        gpus = ["GPU-1", "GPU-2"]
        [power]
        fallback = { default = "400W", "GPU-2" = "0.5kW" }
        hard_budget = "900W"
        lease_max = "30s"
        [report]
        sample_interval = "50ms"
        """,
        path=HERE,
    )
    assert config.node.state_dir == Path("/etc/rapid/state")
    assert config.device.path == Path("/run/sim")
    assert config.device.gpus == ("GPU-1", "GPU-2")
    assert config.fallbacks_mw(config.device.gpus) == {"GPU-1": 400_000, "GPU-2": 500_000}
    assert (config.power.hard_budget_mw, config.power.lease_max_s) == (900_000, 30.0)
    assert config.report.sample_interval_s == 0.05
    assert config.tls is None


def test_a_controller_is_told_all_that_its_file_says() -> None:
    config = parse_controller_config(
        CONTROLLER
        + """
        [control]
        tick = "250ms"
        quantile = 0.99
        [slo]
        ttft = "2s"
        [policy]
        name = "power"
        [policy.settings]
        step = "25W"
        power_cooldown = "1.5s"
        share = 0.5
        """,
        path=HERE,
    )
    settings = config.settings
    assert settings.domains == (Domain("site", 10_000_000), Domain("row", 4_800_000, 500_000, "site"))
    assert settings.nodes == (NodeSpec("h1", "row", 8, 400_000, 750_000, 500_000),)
    assert (settings.tick_s, settings.quantile, settings.slo.ttft_s) == (0.25, 0.99, 2.0)
    assert (settings.policy, settings.policy_settings) == (
        "power",
        {"step_mw": 25_000.0, "power_cooldown_s": 1.5, "share": 0.5},
    )
    assert config.addresses == {"h1": "127.0.0.1:7601"}
    # The core gets plain numbers: a journal must not depend on the classes of a configuration.
    assert {type(settings.domains[0].budget_mw), type(settings.nodes[0].floor_mw)} == {int}
    assert {type(settings.tick_s), type(settings.slo.tpot_s), type(settings.ledger.settle_s)} == {float}


# ---- what is refused ----

NODE_ERRORS = [
    ('[power]\nfallback = "1W"', "node: is missing"),
    ('[node]\n[power]\nfallback = "1W"', "node.name: is missing"),
    ('[node]\nname = "h1"\n[power]', "power.fallback: is missing"),
    ('[node]\nname = "h1"\n[power]\nfalback = "1W"', "power.falback: is unknown; did you mean 'fallback'?"),
    ('[nodes]\nname = "h1"', "nodes: is unknown; did you mean 'node'?"),
    (
        NODE + "[qq]\nx = 1",
        "qq: is unknown; known are node, power, device, fence, excursion, report, listen, tls, load, engine, log",
    ),
    (NODE.replace("400W", "600V"), "power.fallback: '600V' is not a power; write it as '600W' or '0.6kW'"),
    (NODE.replace('"400W"', "600"), "power.fallback: 600 is not a power; write it as '600W' or '0.6kW'"),
    (NODE.replace('"400W"', "true"), "power.fallback: True is not a power; write it as '600W' or '0.6kW'"),
    (NODE.replace("400W", "-400W"), "power.fallback: '-400W' is not a power; write it as '600W' or '0.6kW'"),
    (NODE.replace("400W", "0W"), "power.fallback: must be above 0W"),
    (NODE.replace('"400W"', '{ "GPU-1" = "4A" }'), "power.fallback.GPU-1: '4A' is not a power; write it as '4W'"),
    (NODE.replace('"400W"', '{ "GPU-1" = "0W" }'), "power.fallback.GPU-1: must be above 0W"),
    (
        NODE.replace('"400W"', '{ "GPU-1" = "4W" }') + '[device]\ngpus = ["GPU-1", "GPU-2"]',
        "power.fallback: gpu GPU-2 has none; give it one, or set default",
    ),
    (
        NODE + 'hard_budget = "700W"\n[device]\ngpus = ["GPU-1", "GPU-2"]',
        "power.fallback: 2 GPUs at their fallbacks may draw 800 W, above power.hard_budget, 700 W; lower the fallb",
    ),
    (NODE + 'lease_max = "500W"', "power.lease_max: '500W' is not a duration; write it as '500ms' or '500s'"),
    (NODE + "lease_max = 5", "power.lease_max: 5 is not a duration; write it as '5ms' or '5s'"),
    (NODE + 'lease_max = "0s"', "power.lease_max: must be above 0s"),
    (NODE + '[report]\nsample_interval = "1ms"', "report.sample_interval: 0.001s is outside 0.01s..1s"),
    (NODE + '[device]\nbackend = "nvlm"', "device.backend: 'nvlm' is not known; did you mean 'nvml'?"),
    (NODE + '[device]\nbackend = "sim"', "device.path: is missing: the folder with the simulated GPUs"),
    (NODE + '[device]\ngpus = "some"', "device.gpus: 'some' is not known; known are all"),
    (NODE + "[device]\ngpus = []", "device.gpus: is empty; name the UUIDs, or write 'all'"),
    (NODE + '[device]\ngpus = ["a", "a"]', "device.gpus: names a GPU twice"),
    (NODE + "[device]\ngpus = 8", "device.gpus: must be a string or a list, is a whole number"),
    (NODE + "[load]\nmax_instances = 0", "load.max_instances: 0 is outside 1..1024"),
    (NODE + '[load]\nmax_instances = "8"', "load.max_instances: must be a whole number, is a string"),
    (NODE + '[log]\nlevel = "warn"', "log.level: 'warn' is not known; did you mean 'warning'?"),
    (NODE + "log = 3", "log: must be a table, is a whole number"),
    (NODE.replace('"h1"', '"a\\nb"'), "node.name: 'a\\nb' is no name: 1 to 128 printable characters"),
    (NODE + '[listen]\nload_socket = "x.sock"', "listen.load_socket: 'unix:x.sock' is no address: write the socket's"),
    (
        NODE + '[listen]\naddress = "0.0.0.0:7601"',
        "listen.address: other hosts can reach 0.0.0.0:7601, so it needs TLS: set tls.ca, tls.cert and tls.key, or",
    ),
    (NODE + '[listen]\naddress = "h1"', "listen.address: 'h1' is no address: write it as 'host:port' or 'unix:/path'"),
    (NODE + '[listen]\nmetrics = "0.0.0.0:1"', "listen.metrics: metrics are plain HTTP and only for this host"),
    (NODE + '[tls]\nca = "ca.pem"\ncert = "c.pem"', "tls.key: is missing"),
    (NODE + '[tls]\nca = "ca.pem"\ncert = "c.pem"\nkye = "k.pem"', "tls.kye: is unknown; did you mean 'key'?"),
]


@pytest.mark.parametrize(("text", "message"), NODE_ERRORS, ids=[message for _, message in NODE_ERRORS])
def test_a_wrong_node_configuration_is_refused_by_key(text: str, message: str) -> None:
    # `lease_max = ...` after NODE belongs to [power], but a `log = ...` must stand before the first table.
    said = node_error(f"log = 3\n{NODE}" if text.endswith("log = 3") else text)
    assert said.startswith(f"config key {message}")
    assert "\n" not in said


NODE_2 = CONTROLLER[CONTROLLER.index("[[node]]") :]
CONTROLLER_ERRORS = [
    ("", "domain: at least one domain is needed"),
    (CONTROLLER.replace('"500W"\n', '"600V"\n', 2), "domain.row.reserved: '600V' is not a power; write it as '600W'"),
    (CONTROLLER.replace('fallback = "500W"', 'fallback = "600V"'), "node.h1.fallback: '600V' is not a power; write it"),
    (CONTROLLER.replace("gpus = 8", 'gpus = "8"'), "node.h1.gpus: must be a whole number, is a string"),
    (CONTROLLER.replace("gpus = 8", "gpsu = 8"), "node.h1.gpsu: is unknown; did you mean 'gpus'?"),
    (CONTROLLER.replace("gpus = 8\n", ""), "node.h1.gpus: is missing"),
    (CONTROLLER.replace('name = "h1"\n', ""), "node.1.name: is missing"),
    (CONTROLLER.replace('name = "h1"', 'name = ""'), "node.name: '' is no name: 1 to 128 printable characters"),
    (CONTROLLER + NODE_2, "node.h1: is named twice"),
    (CONTROLLER.replace('domain = "row"', 'domain = "low"'), "node.h1.domain: no domain named 'low'"),
    (
        CONTROLLER.replace("127.0.0.1", "10.0.0.7"),
        "node.h1.address: 10.0.0.7:7601 is another host, so it needs TLS: set",
    ),
    (
        CONTROLLER.replace('fallback = "500W"', 'fallback = "600W"'),
        "domain.row.budget: 4800 W does not cover the fallbacks and reserved power below it, 5300 W; lower the fall",
    ),
    (
        CONTROLLER + '[control]\nlease = "2s"',
        "control.lease: 2 s is shorter than tick + 2 * rpc_timeout + margin = 3 s; set it to 3 s or more",
    ),
    (CONTROLLER + "[control]\nlease = 5", "control.lease: 5 is not a duration; write it as '5ms' or '5s'"),
    (CONTROLLER + '[control]\nlaese = "5s"', "control.laese: is unknown; did you mean 'lease'?"),
    (CONTROLLER + "[control]\nquantile = 1", "control.quantile: must lie between 0 and 1, is 1.0"),
    (CONTROLLER + "[control]\nquantile = nan", "control.quantile: must lie between 0 and 1, is nan"),
    (CONTROLLER + '[slo]\nttft = "0s"', "slo.ttft: must be above 0s"),
    (CONTROLLER + "[ledger]\nstrikes = 0", "ledger.strikes: 0 is outside 1..10000"),
    (CONTROLLER + "[ledger]\ndraw_tolerance = nan", "ledger.draw_tolerance: nan is outside 0..1"),
    (CONTROLLER + "[journal]\nkeep_lives = 0", "journal.keep_lives: 0 is outside 1..10000"),
    (CONTROLLER + '[report]\ninterval = "20s"', "report.interval: 20s is outside 0.1s..10s"),
    (
        CONTROLLER + '[report]\ninterval = "1.5s"',
        "control.silent_after: 2s is shorter than two reports; set it to 3s or more, or lower report.interval",
    ),
]


@pytest.mark.parametrize(("text", "message"), CONTROLLER_ERRORS, ids=[message for _, message in CONTROLLER_ERRORS])
def test_a_wrong_controller_configuration_is_refused_by_key(text: str, message: str) -> None:
    said = controller_error(text)
    assert said.startswith(f"config key {message}")
    assert "\n" not in said


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    for data, problem in [
        (None, "there is no such file"),
        (b"[node]\nname 'h1'", "Expected '=' after a key in a key/value pair (at line 2, column 6)"),
        (b"[node]\nname = '\xff'", "line 2 is not UTF-8 text"),
        (b"# " + b"x" * (16 * 2**20), "is larger than 16 MiB"),
    ]:
        if data is not None:
            file.write_bytes(data)
        with pytest.raises(ConfigUnreadable) as caught:
            load_node_config(file)
        assert str(caught.value) == f"config file {file}: {problem}"
    with pytest.raises(ConfigUnreadable, match=f"^config file {tmp_path}: is a directory$"):
        load_controller_config(tmp_path)


def test_tls_files_are_checked_when_a_file_is_loaded(tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    identity = authority.issue_cert("h1.example")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    identity.cert_chain_pems[0].write_to_path(tmp_path / "h1.pem")
    identity.private_key_pem.write_to_path(tmp_path / "h1.key")
    stranger.issue_cert("h1.example").private_key_pem.write_to_path(tmp_path / "other.key")
    file = tmp_path / "x.toml"
    text = NODE + '[listen]\naddress = "0.0.0.0:7601"\n[tls]\nca = "ca.pem"\ncert = "h1.pem"\nkey = "h1.key"\n'
    file.write_text(text)
    assert load_node_config(file).tls is not None
    for change, problem in [
        (("h1.key", "none.key"), f"tls.key: there is no file {tmp_path}/none.key"),
        (("h1.key", "other.key"), f"tls.key: {tmp_path}/other.key is not the key of the certificate in "),
        (("h1.pem", "x.toml"), f"tls.cert: {tmp_path}/x.toml holds no certificate in PEM form"),
    ]:
        file.write_text(text.replace(*change))
        with pytest.raises(ConfigInvalid, match=f"^config key {problem}"):
            load_node_config(file)


# ---- units ----


@pytest.mark.parametrize(
    ("text", "power_mw"),
    [("600W", 600_000), ("4.8kW", 4_800_000), ("1.2MW", 1_200_000_000), ("0.001W", 1), ("600 W", 600_000), ("0W", 0)],
)
def test_powers(text: str, power_mw: int) -> None:
    assert parse_power(text) == power_mw


@pytest.mark.parametrize(
    ("text", "duration_s"), [("500ms", 0.5), ("2s", 2.0), ("1min", 60.0), ("0.5h", 1800.0), ("0s", 0.0)]
)
def test_durations(text: str, duration_s: float) -> None:
    assert parse_duration(text) == duration_s


@pytest.mark.parametrize(
    "text", ["600w", "600mW", "600", "W", "", " 600W", "6e2W", "1_000W", "0.0001W", "11000MW", None]
)
def test_what_is_no_power_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"is not a power; write it as|finer than a milliwatt|the most there can be"):
        parse_power(text)


@pytest.mark.parametrize("text", ["5", "5m", "5us", "-5s", "5 s ", "25h", "nan", 5.0])
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"is not a duration; write it as|the most there can be"):
        parse_duration(text)


@given(st.integers(0, units.POWER_MAX_MW))
def test_a_power_is_read_as_it_was_written(power_mw: int) -> None:
    assert parse_power(format_power(power_mw)) == power_mw


@given(st.integers(0, 86_400_000_000).map(lambda us: us / 1e6))
def test_a_duration_is_read_as_it_was_written(duration_s: float) -> None:
    assert parse_duration(format_duration(duration_s)) == duration_s


@given(st.text(max_size=30) | st.integers() | st.floats() | st.none() | st.booleans() | st.lists(st.integers()))
def test_whatever_is_written_is_a_power_or_refused_in_one_short_line(raw: object) -> None:
    problem = ""
    try:
        parse_power(raw)
    except ValueError as error:
        problem = str(error)
    assert "\n" not in problem
    assert len(problem) < 120


def test_reading_a_configuration_loads_no_grpc() -> None:
    code = "import rapid.config, rapid.log, rapid.tls, sys; sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
