"""Real controllers, a real rapidd, simulated GPUs: whoever is killed, the devices' own records stay within budget."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rapid.rpc import open_channel
from rapid.sim.world.checkers import LimitHistory, check_budget
from rapid.simgpu import records
from rapid.v1 import controller_pb2 as v1
from rapid.wire.status import decode_status
from tests.controller.process import DEADLINE_S, Controllers
from tests.controller.stack import operator_stub
from tests.node.daemon import CEILING_MW, Daemon, Host
from tests.wait import wait_for

pytestmark = pytest.mark.e2e

BUDGET_MW, SHARE_MW, FALLBACK_MW = 1_200_000, 600_000, 500_000
SHORT = 'tick = "100ms"\nrpc_timeout = "200ms"\nmargin = "100ms"\nlease = "600ms"\nsilent_after = "500ms"'
REPORTS = '[report]\ninterval = "200ms"'


@dataclass
class Site:
    """A host with two simulated GPUs, and the daemon on it."""

    folder: Path
    host: Host
    daemon: Daemon

    def limits_become(self, limit_mw: int) -> None:
        self.host.wait_for_limits(limit_mw)

    def histories(self) -> list[LimitHistory]:
        """What the devices themselves wrote down."""
        return [
            LimitHistory(
                gpu.spec.gpu,
                CEILING_MW,
                tuple((one.at_s, one.limit_mw) for one in records(self.host.folder / "gpus" / f"{index}.gpu")),
            )
            for index, gpu in enumerate(self.host.gpus)
        ]

    def changes(self) -> int:
        return sum(len(history.changes) for history in self.histories())

    def controllers(self, name: str, control: str = "") -> Controllers:
        """Of this site, with a journal of their own."""
        address = f"unix:{self.host.folder}/node.sock"
        return Controllers(self.folder / name, node_address=address, control=control, more=REPORTS)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """At the end the budget is checked from now on until then."""
    (tmp_path / "h").mkdir()
    with Host(tmp_path / "h") as host:
        host.configure(address=f'"unix:{tmp_path}/h/node.sock"')
        site = Site(tmp_path, host, host.start())
        began_s = time.monotonic()
        yield site
        verdict = check_budget(site.histories(), [(0.0, BUDGET_MW)], start_s=began_s, end_s=time.monotonic())
        assert verdict.kept, verdict


@pytest.fixture
def home(site: Site) -> Iterator[Controllers]:
    with site.controllers("c") as home:
        yield home


def test_a_controller_brings_the_node_from_its_fallback_to_its_share(home: Controllers, site: Site) -> None:
    assert site.host.limits_mw() == (FALLBACK_MW, FALLBACK_MW)
    home.start()
    site.limits_become(SHARE_MW)


def test_a_controller_that_is_killed_is_succeeded_before_its_leases_end(home: Controllers, site: Site) -> None:
    """With usual leases a restart moves no limit at all, because the next life goes on from the journal."""
    home.start().kill()
    first = home.start()
    site.limits_become(SHARE_MW)
    before = site.changes()
    first.kill()
    second = home.start()
    assert (first.epoch, second.epoch) == (2, 3)
    wait_for(
        lambda: [line["epoch"] for line in site.host.logged("controller greeted")][-1] == 3,
        DEADLINE_S,
        "the greeting of the second",
    )
    wait_for(lambda: len(home.logged("node reports")) >= 2, DEADLINE_S, "the node's report to the second")
    assert [line["commands"] for line in home.logged("replayed")] == ["identical"] * 2
    assert (site.changes(), site.host.limits_mw()) == (before, (SHARE_MW, SHARE_MW))


def test_a_controller_that_stays_away_leaves_the_node_at_its_fallback_and_is_taken_back(site: Site) -> None:
    with site.controllers("c", SHORT) as home:
        one = home.start()
        site.limits_become(SHARE_MW)
        one.kill()
        site.limits_become(FALLBACK_MW)
        home.start()
        site.limits_become(SHARE_MW)


def test_a_controller_that_stops_in_order_raises_nothing(site: Site) -> None:
    with site.controllers("c", SHORT) as home:
        one = home.start()
        site.limits_become(SHARE_MW)
        before = site.changes()
        assert one.stop() == 0
        site.limits_become(FALLBACK_MW)
        assert site.changes() == before + 2, "one cut for each GPU, by the node itself"


def test_a_node_that_is_killed_lands_when_it_is_back_and_is_granted_again(home: Controllers, site: Site) -> None:
    home.start()
    site.limits_become(SHARE_MW)
    site.daemon.kill()
    site.daemon = site.host.start()
    wait_for(lambda: len(home.logged("node reports")) >= 2, DEADLINE_S, "its report")
    site.limits_become(SHARE_MW)
    lows = [history.changes[-2][1] for history in site.histories()]
    assert lows == [FALLBACK_MW, FALLBACK_MW], "it landed before it rose again"


def test_the_older_of_two_controllers_steps_down(home: Controllers, site: Site) -> None:
    old = home.start()
    site.limits_become(SHARE_MW)
    with site.controllers("d") as other:
        new = other.start("--epoch-at-least", "10")
        assert old.process.wait(DEADLINE_S) == 4
        last = home.log.read_text().strip().splitlines()[-1]
        assert last.startswith("rapid-controller: node node-1: epoch 1 is lower than epoch 10, which it has seen")
        assert "another controller leads" in last
        wait_for(lambda: other.logged("node reports"), DEADLINE_S, "the node's report to the newer")
        site.limits_become(SHARE_MW)
        assert new.process.poll() is None


def test_a_controller_that_lost_its_journal_is_told_how_to_lead_again(home: Controllers, site: Site) -> None:
    first = home.start("--epoch-at-least", "5")
    site.limits_become(SHARE_MW)
    assert first.stop() == 0
    home.journal.unlink()
    code, line = home.refused("--fresh")
    assert code == 4
    assert "epoch 1 is lower than epoch 5, which it has seen" in line
    assert "--epoch-at-least N, N above the epoch that the node has seen" in line
    assert home.start("--epoch-at-least", "6").epoch == 6
    wait_for(
        lambda: [line["epoch"] for line in site.host.logged("controller greeted")][-1] == 6, DEADLINE_S, "its greeting"
    )
    site.limits_become(SHARE_MW)


def test_a_budget_cut_that_was_answered_survives_whoever_answered_it(home: Controllers, site: Site) -> None:
    """The answer comes when the journal holds the cut, so a successor knows it however soon the first one dies."""
    one = home.start()
    site.limits_become(SHARE_MW)
    asyncio.run(set_budget(one.address, 900_000))
    one.kill()
    second = home.start()
    wait_for(lambda: len(home.logged("node reports")) >= 2, DEADLINE_S, "the node's report to the second")
    site.limits_become(450_000)
    assert asyncio.run(budget_mw(second.address)) == 900_000
    assert home.logged("keeps the budget 900 W set earlier; the configuration says 1200 W")


async def set_budget(address: str, budget_mw: int) -> None:
    async with open_channel(address) as channel:
        request = v1.SetBudgetRequest(domain="host", budget_mw=budget_mw, by="test")
        await operator_stub(channel).SetBudget(request, timeout=DEADLINE_S)


async def budget_mw(address: str) -> int:
    async with open_channel(address) as channel:
        response = await operator_stub(channel).GetStatus(v1.GetStatusRequest(), timeout=DEADLINE_S)
        return decode_status(response).domains[0].budget_mw
