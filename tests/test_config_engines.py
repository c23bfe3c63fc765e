"""[[engine]] in rapidd.toml: whose metrics are read, and what is wrong with a table that cannot be used."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rapid.config import NodeConfig, parse_node_config
from rapid.config.node import EngineTable
from rapid.core.cluster import Role
from rapid.core.errors import ConfigInvalid

NODE = '[node]\nname = "h1"\n[power]\nfallback = "400W"\n'
URL = "http://127.0.0.1:8000/metrics"


def table(instance: str = "vllm-0", kind: str = "vllm", url: str = URL, more: str = "") -> str:
    return f'[[engine]]\ninstance = "{instance}"\nkind = "{kind}"\nurl = "{url}"\n{more}\n'


def parsed(text: str) -> NodeConfig:
    return parse_node_config(NODE + text, path=Path("/etc/rapid/rapidd.toml"))


def test_an_engine_needs_a_name_a_kind_and_a_url() -> None:
    (engine,) = parsed(table()).engine
    assert engine == EngineTable("vllm-0", "vllm", URL)
    assert (engine.gpus, engine.served_role, engine.interval_s) == ((), None, 1.0)


def test_everything_else_may_be_said_too() -> None:
    (engine,) = parsed(table(more='role = "decode"\ngpus = ["GPU-1", "GPU-2"]\ninterval = "500ms"')).engine
    assert (engine.gpus, engine.served_role, engine.interval_s) == (("GPU-1", "GPU-2"), Role.DECODE, 0.5)


@pytest.mark.parametrize("url", ["http://localhost:1/", "http://[::1]:8000/metrics?name=a", "http://10.0.0.7:8000"])
def test_a_url_is_an_address_of_the_host(url: str) -> None:
    assert parsed(table(url=url)).engine[0].url == url


def errors() -> Iterator[tuple[str, str]]:
    yield '[[engine]]\nkind = "vllm"', "engine.1.instance: is missing"
    yield '[[engine]]\ninstance = "a"\nurl = "x"', "engine.a.kind: is missing"
    yield table("") + table("b"), "engine.1.instance: '' is no name: 1 to 128 printable characters"
    yield table(kind="vlm"), "engine.vllm-0.kind: 'vlm' is not known; did you mean 'vllm'?"
    yield table(kind="tgi"), "engine.vllm-0.kind: 'tgi' is not known; known are vllm, sglang, dynamo"
    yield table() + table(), "engine.vllm-0.instance: is there twice; an instance has one [[engine]]"
    yield table(more='role = "prefil"'), "engine.vllm-0.role: 'prefil' is not known; did you mean 'prefill'?"
    yield table(more='interval = "50ms"'), "engine.vllm-0.interval: 0.05s is outside 0.2s..5s"
    yield table(more='interval = "10s"'), "engine.vllm-0.interval: 10s is outside 0.2s..5s"
    yield table(more="interval = 1"), "engine.vllm-0.interval: 1 is not a duration; write it as '1ms' or '1s'"
    yield table(more='gpus = ["GPU-1", "GPU-1"]'), "engine.vllm-0.gpus: names a GPU twice"
    yield table(more='gpu = "GPU-1"'), "engine.vllm-0.gpu: is unknown; did you mean 'gpus'?"
    for url in (
        *("127.0.0.1:8000", "https://127.0.0.1:8000/metrics", "http://127.0.0.1/metrics", "http://h1:8000/metrics"),
        *("http://user@127.0.0.1:8000/", "http://127.0.0.1:8000/#a", "http://127.0.0.1:99999/", "http://[::1/", ""),
        "http://127.0.0.1:0/",
    ):
        shown = f"engine.vllm-0.url: {url!r} is no address of metrics on this host; "
        yield table(url=url), f"{shown}write it as 'http://127.0.0.1:8000/metrics'"
    yield (
        table(url="http://127.0.0.1:8000/me trics"),
        "engine.vllm-0.url: 'http://127.0.0.1:8000/me trics' holds a character that no URL has",
    )
    yield (
        "[load]\nmax_instances = 1\n" + table("a") + table("b"),
        "engine: 2 engines, above load.max_instances, 1; raise it",
    )


@pytest.mark.parametrize(("text", "message"), list(errors()), ids=[message for _, message in errors()])
def test_what_is_wrong_is_named_by_key_with_what_to_do(text: str, message: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        parsed(text)
    assert str(caught.value) == f"config key {message}"
