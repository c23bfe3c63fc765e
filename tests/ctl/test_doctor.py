"""`rapidctl doctor`: every red finding is planted and seen, each with what to do; and looking changes nothing."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import trustme

from rapid.core.findings.base import Finding, Grade
from rapid.tls import TlsConfig, server_credentials
from rapidctl.controller.peek import Peek, peek
from rapidctl.controller.store import JournalFile, Life, Row
from rapidctl.doctor import Wanted, examine
from tests.certificates import issue
from tests.ctl.cluster import NOON_S, broken
from tests.ctl.conftest import Ctl
from tests.ctl.fake_controller import FakeController
from tests.ctl.fake_node import FakeNode
from tests.ctl.terminal import Terminal

LIFE = Life(epoch=3, controller_id="c-5f0e", started_wall_s=NOON_S, version="0.1", settings="{}")
NOBODY = "127.0.0.1:1"


class HandClock:
    """A clock that stands still: every answer comes at once."""

    def __init__(self, wall_s: float = NOON_S) -> None:
        self._wall_s = wall_s

    def monotonic_s(self) -> float:
        return 1000.0

    def wall_s(self) -> float:
        return self._wall_s


class Site:
    """A controller's files in a folder: a configuration with one node, and a journal."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.config, self.journal = folder, folder / "controller.toml", folder / "journal.sqlite3"
        self.write(NOBODY)
        with closing(JournalFile(self.journal, keep_lives=8)) as file:
            file.begin(LIFE, [Row(0.0, "Started", "{}", "[]")])

    def write(self, node_address: str, *, more: str = "", budget: str = "4.8kW") -> None:
        self.config.write_text(
            f"""
            [[domain]]
            name = "rack1"
            budget = "{budget}"
            [[node]]
            name = "h1"
            address = "{node_address}"
            domain = "rack1"
            gpus = 2
            floor = "400W"
            ceiling = "750W"
            fallback = "500W"
            [journal]
            path = "{self.journal}"
            {more}
            """
        )

    async def findings(
        self, controller: str, *, wall_s: float = NOON_S, tls: TlsConfig | None = None, node: str = ""
    ) -> list[Finding]:
        wanted = Wanted(controller, tls, 5.0, self.config, node)
        return list((await examine(wanted, HandClock(wall_s))).findings)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def only(findings: list[Finding], grade: Grade, topic: str) -> Finding:
    (one,) = [f for f in findings if (f.grade, f.topic) == (grade, topic)]
    return one


# ---- in order ----


async def test_a_site_in_order_has_nothing_red_and_every_part_was_looked_at(
    site: Site, controller: FakeController
) -> None:
    with FakeNode() as node:
        site.write(node.address)
        found = await site.findings(controller.address)
    assert [f for f in found if f.grade is not Grade.GREEN and f.topic != "clock"] == []
    topics = {f.topic for f in found}
    assert topics >= {"config", "journal", "disk", "tls", "controller", "node", "reach", "version", "gpu", "on loss"}
    assert "epoch 3" in only(found, Grade.GREEN, "journal").what


async def test_looking_changes_nothing(site: Site, controller: FakeController) -> None:
    def everything() -> list[tuple[Path, bytes]]:
        return sorted((path, path.read_bytes()) for path in site.folder.rglob("*"))

    before = everything()
    await site.findings(controller.address)
    assert everything() == before
    assert controller.asked == []


# ---- the controller's own files ----


async def test_a_configuration_that_cannot_be_used_is_red(site: Site, controller: FakeController) -> None:
    site.write(NOBODY, budget="900W")
    one = only(await site.findings(controller.address), Grade.RED, "config")
    assert "the fallbacks" in one.what
    assert one.todo == f"put it right in {site.config}; until then the controller will not start"


async def test_a_configuration_that_everybody_can_write_is_red(site: Site, controller: FakeController) -> None:
    site.config.chmod(0o666)
    assert "mode 0666" in only(await site.findings(controller.address), Grade.RED, "config").what


async def test_a_journal_that_is_damaged_is_red_and_says_the_way_out(site: Site, controller: FakeController) -> None:
    with site.journal.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)
    one = only(await site.findings(controller.address), Grade.RED, "journal")
    assert "is damaged" in one.what
    assert "--fresh --epoch-at-least 4" in one.what or "--fresh --epoch-at-least N" in one.what


async def test_a_journal_of_something_else_is_red(site: Site, controller: FakeController) -> None:
    site.journal.unlink()
    with closing(sqlite3.connect(site.journal)) as other:
        other.execute("CREATE TABLE t (x)")
    assert (
        "is not the journal of a controller" in only(await site.findings(controller.address), Grade.RED, "journal").what
    )


async def test_no_journal_is_yellow(site: Site, controller: FakeController) -> None:
    site.journal.unlink()
    one = only(await site.findings(controller.address), Grade.YELLOW, "journal")
    assert "books every GPU at its ceiling" in one.what


def test_a_peek_sees_the_last_life_while_another_writes(site: Site) -> None:
    with closing(JournalFile(site.journal, keep_lives=8)) as file:
        file.begin(Life(4, "c-5f0e", NOON_S, "0.2", "{}"), [Row(0.0, "Started", "{}", "[]")])
        seen = peek(site.journal)
    assert seen == Peek(4, "c-5f0e", "0.2", site.journal.stat().st_size)
    assert sorted(path.name for path in site.folder.glob("journal*")) == ["journal.sqlite3", "journal.sqlite3.lock"]


async def test_no_configuration_here_is_said(tmp_path: Path, controller: FakeController) -> None:
    wanted = Wanted(controller.address, None, 5.0, tmp_path / "none.toml", "")
    found = list((await examine(wanted, HandClock())).findings)
    one = only(found, Grade.YELLOW, "config")
    assert "were not looked at" in one.what
    assert "--config" in one.todo


# ---- the controller ----


async def test_a_controller_that_is_not_there_is_red_and_the_rest_is_looked_at(site: Site) -> None:
    with FakeNode() as node:
        site.write(node.address)
        found = await site.findings(NOBODY)
    assert "nobody listens there" in only(found, Grade.RED, "controller").what
    assert "every node goes to its fallbacks" in only(found, Grade.RED, "controller").todo
    assert only(found, Grade.GREEN, "reach").about == ("h1",)


async def test_a_controller_on_another_host_without_tls_is_red_and_says_which_options(site: Site) -> None:
    one = only(await site.findings("c1.example:7600"), Grade.RED, "controller")
    assert "is another host, so it needs TLS" in one.what
    assert "--tls-ca" in one.todo


async def test_on_the_controllers_host_its_own_certificate_will_do(site: Site) -> None:
    with secured(site) as (controller, _):
        found = await site.findings(controller.address)
    assert controller.address in only(found, Grade.GREEN, "controller").what
    assert only(found, Grade.GREEN, "reach").about == ("h1",)


async def test_versions_and_clocks_are_compared(site: Site, controller: FakeController) -> None:
    controller.wall_s = NOON_S + 5.0
    with FakeNode(version="0.0.1", wall_s=NOON_S - 60.0) as node:
        site.write(node.address)
        found = await site.findings(controller.address)
    assert only(found, Grade.RED, "clock").what.startswith("its clock is 65.0 s behind the controller's")
    assert "rapidd is 0.0.1, the controller " in only(found, Grade.YELLOW, "version").what


async def test_a_node_that_is_another_one_is_said(site: Site, controller: FakeController) -> None:
    with FakeNode(node="h7") as node:
        site.write(node.address)
        found = await site.findings(controller.address)
    assert only(found, Grade.YELLOW, "reach").what.endswith("is node 'h7'")


async def test_everything_red_in_a_status_is_red(site: Site, controller: FakeController) -> None:
    controller.status = broken()
    reds = [(f.topic, f.about) for f in await site.findings(controller.address) if f.grade is Grade.RED]
    assert reds == [
        ("node", ("h2",)),
        ("node", ("h3",)),
        ("gpu", ("h1/1",)),
        ("budget", ("rack1",)),
        ("engine", ("p0",)),
    ]


# ---- TLS ----


@contextmanager
def secured(site: Site) -> Iterator[tuple[FakeController, TlsConfig]]:
    """Controller and node with mutual TLS, and the files that the controller's configuration names."""
    authority = trustme.CA()
    theirs = issue(authority, site.folder / "theirs", "127.0.0.1")
    ours = issue(authority, site.folder / "ours", "127.0.0.1")
    ours.key.chmod(0o600)
    controller = FakeController()
    controller.start(credentials=server_credentials(theirs))
    with FakeNode(credentials=server_credentials(theirs)) as node:
        site.write(node.address, more=f'[tls]\nca = "{ours.ca}"\ncert = "{ours.cert}"\nkey = "{ours.key}"')
        yield controller, ours
    controller.stop()


async def test_certificates_on_disk_and_on_the_wire_are_looked_at(site: Site) -> None:
    with secured(site) as (controller, ours):
        found = await site.findings(controller.address, tls=ours)
        later = await site.findings(controller.address, tls=ours, wall_s=40_000_000_000.0)
    fine = [f.what.split()[0] for f in found if f.topic == "certificate" and f.grade is Grade.GREEN]
    assert fine[:3] == [str(ours.cert), str(ours.ca), controller.address]
    assert len(fine) == 4  # and the node's
    ended = [f for f in later if f.topic == "certificate" and f.grade is Grade.RED]
    assert len(ended) == 4
    assert all("days ago, on 3000-01-01" in f.what for f in ended)
    assert [f.todo.rpartition("restart ")[2] for f in ended[2:]] == ["the controller", "rapidd on h1"]


async def test_a_key_that_others_can_read_is_red(site: Site) -> None:
    with secured(site) as (controller, ours):
        ours.key.chmod(0o644)
        found = await site.findings(controller.address, tls=ours)
    assert "mode 0644" in only(found, Grade.RED, "key").what


# ---- the command ----


def test_red_is_exit_1_and_in_order_is_0(ctl: Ctl, controller: FakeController, site: Site) -> None:
    with FakeNode() as node:
        site.write(node.address)
        calm = ctl("doctor", "--config", str(site.config))
        controller.status = broken()
        red = ctl("doctor", "--config", str(site.config))
    assert (calm.exit_code, calm.stderr) == (0, "")
    assert " green" in calm.stdout.splitlines()[-1]
    assert (red.exit_code, red.stderr) == (1, "")
    assert red.stdout.splitlines()[-1].startswith("5 red, ")
    assert "red     node        h2: has been silent for 63 s" in red.stdout


def test_one_node_alone_gpu_by_gpu(ctl: Ctl, controller: FakeController, site: Site) -> None:
    controller.status = broken()
    result = ctl("doctor", "--node", "h1", "--config", str(site.config))
    assert "h2" not in result.stdout
    lines = result.stdout.splitlines()
    at = lines.index("when the controller is lost:")
    assert lines[at + 1 : at + 4] == [
        "GPU   NOW W  ON LOSS W  FLOOR W  CEILING W  UUID",
        "h1/0    650        500      400        750  GPU-aa00",
        "h1/1    600        750      400        750  GPU-aa01",
    ]


def test_a_node_that_nobody_knows_is_refused(ctl: Ctl, site: Site) -> None:
    result = ctl("doctor", "--node", "h9", "--config", str(site.config))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "rapidctl: no node named 'h9' (known: h1, h2)\n"


def test_json_has_every_finding_and_what_each_gpu_may_draw(ctl: Ctl, controller: FakeController, site: Site) -> None:
    controller.status = broken()
    result = ctl("doctor", "--config", str(site.config), "--json")
    document = json.loads(result.stdout)
    assert (document["ok"], result.exit_code) == (False, 1)
    assert {f["grade"] for f in document["findings"]} == {"green", "yellow", "red"}
    assert all(bool(f["do"]) is (f["grade"] != "green") for f in document["findings"])
    assert [gpu["on_loss_w"] for gpu in document["on_loss"]] == [500.0, 750.0, 550.0, 600.0]


def test_the_page_fits_80_columns(site: Site, controller: FakeController) -> None:
    controller.status = broken()
    with Terminal("doctor", "--config", str(site.config), address=controller.address, columns=80) as terminal:
        assert terminal.end() == 1
        rows = terminal.text.splitlines()
    assert [row for row in rows if len(row) > 80 and str(site.folder) not in row] == []
