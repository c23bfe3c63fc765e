"""Which keys a running daemon takes, and that it names the others as they are written in the file."""

from pathlib import Path

import pytest

from rapid.config import NodeConfig, parse_node_config
from rapidd.reload import changed_keys

BASE = """
[node]
name = "h1"
[power]
fallback = "400W"
"""


def config(text: str = BASE) -> NodeConfig:
    return parse_node_config(text, path=Path("/etc/rapid/rapidd.toml"))


def test_the_same_file_has_no_changed_keys() -> None:
    assert changed_keys(config(), config()) == []


@pytest.mark.parametrize(
    ("more", "keys"),
    [
        ('hard_budget = "4.8kW"', ["power.hard_budget"]),
        ('[log]\nlevel = "debug"', ["log.level"]),
        ('[report]\nsample_interval = "200ms"', ["report.sample_interval"]),
        ('[listen]\nmetrics = ""\naddress = "127.0.0.1:1"', ["listen.address", "listen.metrics"]),
        ('[tls]\nca = "a"\ncert = "b"\nkey = "c"', ["tls"]),
    ],
)
def test_a_changed_key_is_named_as_the_operator_wrote_it(more: str, keys: list[str]) -> None:
    assert changed_keys(config(), config(BASE + more)) == keys
    assert changed_keys(config(BASE + more), config()) == keys
