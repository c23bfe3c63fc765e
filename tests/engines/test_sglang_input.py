"""Bad input to an adapter, and `--check`: each message names the instance, the step, and what to do."""

import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from rapid.core.errors import ConfigInvalid, RapidError
from rapid.core.findings.base import Finding, Grade
from rapid.engine import NotSwitched
from rapidctl.engines.http import CallFailed
from tests.certificates import issue
from tests.engines.bench import DECODE, PREFILL, Bench, benched, serving

NOBODY = "http://127.0.0.1:1"


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with benched() as made:
        yield made


async def failure(bench: Bench, **options: Any) -> str:
    """How an adapter with these options fails to begin."""
    async with bench.adapter(**options) as adapter:
        with pytest.raises(RapidError) as failed:
            await adapter.begin()
    return str(failed.value)


async def test_a_wrong_url_of_the_engine(bench: Bench) -> None:
    assert await failure(bench, engine_url=NOBODY) == (
        f"p0: begin: GET {NOBODY}/server_info: connection refused; "
        "see that the engine runs, and that --engine-url is right"
    )


async def test_a_wrong_url_of_the_router(bench: Bench) -> None:
    assert await failure(bench, router_url=NOBODY) == (
        f"p0: open: GET {NOBODY}/workers: connection refused; see that the router runs, and that --router-url is right"
    )


async def test_urls_that_are_swapped(bench: Bench) -> None:
    assert await failure(bench, engine_url=bench.router_url, router_url=bench.engine_url) == (
        f"p0: begin: GET {bench.router_url}/server_info: 404 Not Found (404: Not Found); "
        "it has no such route: live roles need SGLang 0.5.23 or later, and its HTTP server"
    )
    assert await failure(bench, router_url=bench.engine_url) == (
        f"p0: open: GET {bench.engine_url}/workers: 404 Not Found (404: Not Found); "
        "no list of workers is there: is it the URL of sglang-router 0.3.2 or smg 1.13.0, or later?"
    )


async def test_a_host_that_nobody_knows(bench: Bench) -> None:
    text = await failure(bench, engine_url="http://no-such-host.invalid:1")
    assert text.startswith("p0: begin: GET http://no-such-host.invalid:1/server_info: ")
    assert text.endswith("see that the engine runs, and that --engine-url is right")


async def test_a_key_that_is_missing_and_one_that_is_wrong(bench: Bench, tmp_path: Path) -> None:
    bench.engine.key = "right"
    assert await failure(bench) == (
        f'p0: begin: GET {bench.engine_url}/server_info: 401 Unauthorized ({{"error": "Unauthorized"}}); '
        "it wants a key: give the right one with --engine-token-file"
    )
    token = tmp_path / "key"
    token.write_text("wrong\n")
    assert (await failure(bench, engine_token_file=token)).endswith(
        f"it does not accept the key in {token}: give the right one with --engine-token-file"
    )
    token.write_text("right\n")
    bench.router.key = "other"
    assert "p0: open: GET" in await failure(bench, engine_token_file=token)
    async with bench.adapter(engine_token_file=token, router_token_file=_key(tmp_path, "other")) as adapter:
        assert await adapter.begin() is PREFILL


async def test_a_key_may_be_renewed_while_it_runs(bench: Bench, tmp_path: Path) -> None:
    bench.engine.key = "old"
    token = _key(tmp_path, "old")
    async with bench.adapter(engine_token_file=token) as adapter:
        await adapter.begin()
        bench.engine.key = "new"
        with pytest.raises(CallFailed, match="401"):
            await adapter.live_role()
        token.write_text("new")
        assert await adapter.live_role() is PREFILL


async def test_an_engines_key_goes_to_the_engine_alone(bench: Bench, tmp_path: Path) -> None:
    """Who can put a worker on the router's list must not be given it."""
    heard = []

    async def listen(request: web.Request) -> web.Response:
        heard.append(request.headers.get("Authorization"))
        return web.Response(status=503)

    trap = web.Application()
    trap.router.add_get("/server_info", listen)
    bench.engine.key, bench.engine.graph_gb = "secret", None
    async with bench.adapter(engine_token_file=_key(tmp_path, "secret")) as adapter, serving(trap) as url:
        await adapter.begin()
        bench.router.workers.clear()
        bench.router.put(url, "decode")
        with pytest.raises(NotSwitched):
            await adapter.switch(DECODE)
    assert heard == [None]


async def test_a_certificate_that_is_not_trusted_and_one_that_names_another_host(bench: Bench, tmp_path: Path) -> None:
    authority = trustme.CA()
    for name, text in (
        ("127.0.0.1", "name the PEM file of its authority with --engine-ca"),
        ("other.example", "have --engine-url name the host that its certificate names"),
    ):
        tls = issue(authority, tmp_path / name, name)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.cert, tls.key)
        async with serving(bench.engine.app(), context) as url:
            options: dict[str, Any] = {"engine_url": url}
            if name == "127.0.0.1":
                async with bench.adapter(**options, engine_ca=tls.ca) as adapter:
                    assert await adapter.live_role() is PREFILL
            else:
                options["engine_ca"] = tls.ca
            said = await failure(bench, **options)
            assert said.startswith(f"p0: begin: GET {url}/server_info: TLS: its certificate is not accepted: ")
            assert said.endswith(text)


async def test_https_where_http_is_served_and_the_other_way_round(bench: Bench, tmp_path: Path) -> None:
    said = await failure(bench, engine_url=bench.engine_url.replace("http:", "https:"))
    assert "TLS: " in said
    assert said.endswith("if it serves plain HTTP, write --engine-url with http://")
    tls = issue(trustme.CA(), tmp_path / "t", "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.cert, tls.key)
    async with serving(bench.engine.app(), context) as url:
        said = await failure(bench, engine_url=url.replace("https:", "http:"))
        assert said.endswith("see that the engine runs, and that --engine-url is right (http or https?)")


@pytest.mark.parametrize(
    ("options", "key", "problem"),
    [
        ({"engine_url": "127.0.0.1:30000"}, "engine_url", "is no URL of a host; write it as 'http://127.0.0.1:30000'"),
        ({"router_url": "ftp://r"}, "router_url", "is no URL of a host"),
        ({"engine_url": "http://u:p@h"}, "engine_url", "is no URL of a host"),
        ({"engine_ca": Path("ca.pem")}, "engine_ca", "is of no use with http://"),
        ({"router_token_file": Path("/nowhere/key")}, "router_token_file", "cannot read /nowhere/key: no such file"),
    ],
)
async def test_options_that_can_never_work_are_refused_before_anything_is_asked(
    bench: Bench, options: dict[str, Any], key: str, problem: str
) -> None:
    with pytest.raises(ConfigInvalid, match=problem) as invalid:
        async with bench.adapter(**options):
            pass
    assert invalid.value.key == key


async def test_an_engine_without_a_role_is_told_how_it_must_be_started(bench: Bench) -> None:
    bench.engine.faults["say role"] = "null"
    assert await failure(bench) == (
        f"p0: begin: the engine at {bench.engine_url} has no role; "
        "start it with --disaggregation-mode prefill or decode"
    )


async def test_a_page_that_is_something_else(bench: Bench) -> None:
    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<html>a login page</html>")

    app = web.Application()
    app.router.add_get("/server_info", page)
    async with serving(app) as url:
        said = await failure(bench, engine_url=url)
    assert said.startswith(f"p0: begin: GET {url}/server_info: the answer is not what it should be: ")
    assert said.endswith("it says '<html>a login page</html>'; is this the right URL?")


async def test_an_answer_without_end_is_not_read_without_end(bench: Bench) -> None:
    async def flood(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await answer.write(bytes(2**20))
        return answer

    app = web.Application()
    app.router.add_get("/server_info", flood)
    async with serving(app) as url:
        assert "answered more than 8 MiB, the most that is read" in await failure(bench, engine_url=url)


async def test_a_redirect_is_not_followed(bench: Bench) -> None:
    async def elsewhere(_: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": f"{bench.engine_url}/server_info"})

    app = web.Application()
    app.router.add_get("/server_info", elsewhere)
    async with serving(app) as url:
        assert "307 Temporary Redirect; write --engine-url as the address" in await failure(bench, engine_url=url)


async def test_two_adapters_that_claim_one_engine(bench: Bench) -> None:
    async with bench.adapter() as first:
        await first.begin()
        await first.begin()
        assert await failure(bench) == (
            f"p0: begin: another adapter on this host drives the engine at {bench.engine_url}; "
            "stop that one, or name another engine"
        )
    async with bench.adapter() as later:
        assert await later.begin() is PREFILL


# ---- --check ----


async def found(bench: Bench, **options: Any) -> dict[str, Finding]:
    async with bench.adapter(**options) as adapter:
        return {finding.topic: finding for finding in await adapter.findings()}


async def test_a_check_looks_and_changes_nothing(bench: Bench) -> None:
    bench.router.put(bench.engine_url, "prefill")
    looked = await found(bench)
    assert {topic: finding.grade for topic, finding in looked.items()} == dict.fromkeys(
        ("engine", "router", "worker", "metrics"), Grade.GREEN
    )
    assert looked["engine"].what == "SGLang 0.5.23 answers, its live role is prefill"
    assert looked["worker"].what == f"{bench.engine_url} is listed once, as prefill"
    assert (bench.router.calls, bench.engine.switched) == ([], [])


@pytest.mark.parametrize(
    ("listed", "grade", "text"),
    [
        ((), Grade.YELLOW, "is not listed"),
        (("decode",), Grade.RED, "is listed as decode, and the engine is prefill"),
        (("prefill", "decode"), Grade.RED, "is listed 2 times: prefill, decode"),
    ],
)
async def test_a_check_says_how_the_worker_is_listed(
    bench: Bench, listed: tuple[str, ...], grade: Grade, text: str
) -> None:
    for role in listed:
        bench.router.put(bench.engine_url, role)
    worker = (await found(bench))["worker"]
    assert (worker.grade, text in worker.what) == (grade, True), worker


async def test_a_check_is_red_where_engine_or_router_are_not_reached(bench: Bench) -> None:
    looked = await found(bench, engine_url=NOBODY, router_url=NOBODY)
    assert {topic for topic, finding in looked.items() if finding.grade is Grade.RED} == {"engine", "router"}
    assert looked["metrics"].grade is Grade.YELLOW


async def test_a_check_says_that_an_engine_cannot_switch(bench: Bench) -> None:
    bench.engine.switches = False
    assert (await found(bench))["role"].todo.startswith("start it with --enable-pd-role-switch")


def _key(folder: Path, key: str) -> Path:
    path = folder / f"key-{key}"
    path.write_text(key)
    return path
