"""rapid-controller as a process: what it says when it starts, when it cannot, and when it stops."""

import asyncio
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import trustme

from rapid.rpc import open_channel
from rapid.tls import TlsConfig
from rapid.v1 import controller_pb2 as v1
from rapid.wire.status import decode_status
from tests.certificates import issue
from tests.controller.process import DEADLINE_S, Controllers
from tests.controller.stack import operator_stub
from tests.wait import wait_for

pytestmark = pytest.mark.e2e


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Controllers]:
    with Controllers(tmp_path / "c") as controllers:
        yield controllers


def test_it_starts_says_where_it_listens_and_stops_in_order(home: Controllers) -> None:
    one = home.start()
    assert (one.epoch, set(one.endpoints)) == (1, {"pid", "epoch", "controller_id", "address", "metrics"})
    assert home.logged("no journal yet, every GPU is booked at its ceiling until heard")
    assert one.stop() == 0
    assert not (home.folder / "endpoints.json").exists()
    assert "STOPPING=1" in home.heard()
    assert home.logged("stops")[0]["reason"] == "asked to"


def test_it_goes_on_from_its_journal_in_the_next_epoch(home: Controllers) -> None:
    first = home.start()
    first.kill()
    second = home.start()
    assert second.endpoints["controller_id"] == first.endpoints["controller_id"]
    assert second.epoch == 2
    (replayed,) = home.logged("replayed")
    assert (replayed["life"], replayed["epoch"], replayed["commands"]) == (1, 1, "identical")
    assert replayed["events"] >= 1


def test_it_pets_the_watchdog_from_its_loop(home: Controllers) -> None:
    home.start()
    wait_for(lambda: "WATCHDOG=1" in home.heard(), DEADLINE_S, "WATCHDOG=1")


def test_metrics_are_there_for_prometheus_and_nothing_else_is(home: Controllers) -> None:
    at = f"http://{home.start().endpoints['metrics']}"

    def page() -> str:
        with urllib.request.urlopen(f"{at}/metrics", timeout=DEADLINE_S) as answer:
            return str(answer.read().decode())

    for line in (
        'rapid_controller_domain_budget_watts{domain="host"} 1200.0',
        'rapid_controller_domain_held_watts{domain="host"} 1500.0',
        'rapid_controller_domain_over_budget{domain="host"} 1.0',
        'rapid_controller_node_health{health="never heard",node="node-1"} 1.0',
        'rapid_controller_node_report_age_seconds{node="node-1"} +Inf',
        "rapid_controller_epoch 1.0",
        "rapid_controller_queue_length 0.0",
    ):
        assert line in page().splitlines()
    ticked = 'rapid_controller_step_seconds_count{event="Ticked"} 0.0'
    wait_for(lambda: ticked not in page().splitlines(), DEADLINE_S, "a tick that was counted")
    assert "rapid_controller_journal_commit_seconds_count" in page()
    assert "domain_draw_watts{" not in page(), "what is not known is left out"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{at}/", timeout=DEADLINE_S)


def test_without_its_assertions_it_does_not_start(home: Controllers) -> None:
    code, line = home.refused(flags=["-O"])
    assert code == 2
    assert "will not run under python -O: its assertions guard the budget" in line


def test_an_address_in_use_is_exit_2(home: Controllers, tmp_path: Path) -> None:
    address = home.start().address
    with Controllers(tmp_path / "d", address=address) as other:
        code, line = other.refused()
    assert code == 2
    assert line.startswith(f"rapid-controller: config key listen.address: cannot listen on {address}: ")


def test_two_controllers_do_not_share_a_journal(home: Controllers) -> None:
    one = home.start()
    code, line = home.refused()
    assert code == 1
    assert f"is in use by another controller, process {one.process.pid}; two may never share one" in line
    assert one.process.poll() is None


def test_a_corrupt_journal_is_kept_and_the_advice_gives_a_fresh_start(home: Controllers) -> None:
    home.start("--epoch-at-least", "7").stop()
    with home.journal.open("r+b") as file:
        file.write(b"x" * 40)
    code, line = home.refused()
    assert code == 1
    assert line.startswith(f"rapid-controller: journal {home.journal}: is damaged (file is not a database)")
    assert f"mv {home.journal}* {home.folder}/aside-1/" in line
    assert "--fresh --epoch-at-least N (N is one more than the highest epoch that a node has seen" in line
    aside = home.folder / "aside-1"
    aside.mkdir()
    for file_ in home.folder.glob("journal.sqlite3*"):
        file_.rename(aside / file_.name)
    assert home.start("--fresh", "--epoch-at-least", "8").epoch == 8


def test_fresh_forgets_no_journal(home: Controllers) -> None:
    home.start("--epoch-at-least", "3").stop()
    code, line = home.refused("--fresh")
    assert code == 1
    assert "--fresh, but there is a journal" in line
    assert "--epoch-at-least 4" in line
    assert home.start().epoch == 4


def test_a_full_disk_ends_it_with_one_clear_line(home: Controllers) -> None:
    """No file may pass 64 blocks of 512 bytes, which its write-ahead log does after a handful of ticks."""
    home.configure(control='tick = "50ms"')
    process = home.launch(before="ulimit -f 64")
    assert process.wait(DEADLINE_S) == 1
    last = home.log.read_text().strip().splitlines()[-1]
    assert last.startswith(f"rapid-controller: journal {home.journal}: ")
    assert last.endswith("free space, or fix the rights of its folder")
    assert not (home.folder / "endpoints.json").exists()
    home.start()


def test_with_tls_it_answers_those_who_have_a_certificate_and_nobody_else(tmp_path: Path) -> None:
    authority = trustme.CA()
    theirs = issue(authority, tmp_path / "server", "127.0.0.1")
    ours = issue(authority, tmp_path / "client", "operator")
    table = f'[tls]\nca = "{theirs.ca}"\ncert = "{theirs.cert}"\nkey = "{theirs.key}"'
    with Controllers(tmp_path / "c", more=table) as home:
        address = home.start().address
        assert asyncio.run(epoch(address, ours)) == 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            asyncio.run(epoch(address, None))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def epoch(address: str, tls: TlsConfig | None) -> int:
    async with open_channel(address, tls) as channel:
        response = await operator_stub(channel).GetStatus(v1.GetStatusRequest(), timeout=DEADLINE_S)
        return decode_status(response).epoch
