"""A journal is replayed into the snapshot of its last life; what a replay cannot vouch for is booked at its ceiling."""

import asyncio
import gzip
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from rapid.core.books import LedgerSnapshot
from rapid.core.cluster import Decision, Mark
from rapid.core.commands import Announce, Command, Notice, Scored
from rapid.core.control import Control
from rapid.core.errors import JournalCorrupt
from rapid.core.events import BudgetAsked, Event, NodeHeard, Started, Ticked
from rapid.core.settings import Settings
from rapidctl.controller import codec
from rapidctl.controller.journal import row
from rapidctl.controller.recover import Recovered, recover
from rapidctl.controller.store import JournalFile, Life, Row
from tests.controller.fakes import SETTINGS, FakeBrain, HandClock, report
from tests.controller.world import Host, live, story

ROLES_LIFE = Path(__file__).parent / "data" / "roles.life.gz"
LIFE = Life(4, "c1", 0.0, "0.9", codec.encode(SETTINGS).decode())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite3"


def written(path: Path, rows: list[Row], life: Life = LIFE) -> None:
    with closing(JournalFile(path, keep_lives=2)) as file:
        file.begin(life, rows)


def read(path: Path, make: Callable[[Settings], FakeBrain | Control] = Control) -> Recovered | None:
    with closing(JournalFile(path, keep_lives=2)) as file:
        return recover(file, make)


def lived(events: list[Event]) -> list[Row]:
    control = Control(SETTINGS)
    return [row(event, control.step(event)) for event in events]


EVENTS: list[Event] = [
    Started(0.0, 0.0, 4, "c1"),
    NodeHeard(1.0, report(gpus=4)),
    BudgetAsked(2.0, "r1", "host", 2_000_000, False, "me"),
    Ticked(3.0),
]


def test_without_a_life_there_is_nothing(path: Path) -> None:
    assert read(path) is None


def test_the_snapshot_is_that_of_the_core_after_the_last_event(path: Path) -> None:
    written(path, lived(EVENTS))
    control = Control(SETTINGS)
    for event in EVENTS:
        control.step(event)
    before = read(path)
    assert before is not None
    assert (before.snapshot, before.entries, before.differs) == (control.snapshot(), 4, 0)
    assert (before.life, before.number) == (LIFE, 1)


def earlier_life() -> tuple[Life, list[Row]]:
    """Role changes of every kind, as version 0.9 wrote them: settings in the first line, then event and commands."""
    settings, *lines = gzip.decompress(ROLES_LIFE.read_bytes()).decode().splitlines()
    steps = [line.split("\t") for line in lines]
    rows = [Row(codec.decode_event(kind, event.encode()).at_s, kind, event, told) for kind, event, told in steps]
    return Life(1, "c", 0.0, "0.9", settings), rows


def test_what_an_earlier_version_did_with_roles_comes_out_the_same(path: Path) -> None:
    life, rows = earlier_life()
    assert sum("OrderRole" in row.commands for row in rows) == 6

    written(path, rows, life)

    recovered = read(path)
    assert recovered is not None
    assert (recovered.entries, recovered.differs) == (len(rows), 0)
    assert recovered.snapshot.totals.role_moves == 2


def test_an_order_that_is_not_the_one_of_then_is_noticed(path: Path) -> None:
    life, rows = earlier_life()
    at = next(at for at, row in enumerate(rows) if "OrderRole" in row.commands)
    rows[at] = replace(rows[at], commands=rows[at].commands.replace('"drain_s":4.0', '"drain_s":5.0'))

    written(path, rows, life)

    recovered = read(path)
    assert recovered is not None
    assert recovered.differs == at + 1


def test_a_replay_runs_under_the_settings_of_then(path: Path) -> None:
    """A configuration that has changed since must not change what was done."""
    written(path, lived(EVENTS))
    seen: list[Settings] = []

    def make(settings: Settings) -> Control:
        seen.append(settings)
        return Control(settings)

    read(path, make)
    assert seen == [SETTINGS]


def test_other_commands_than_then_empty_the_books_but_keep_the_operators_word(path: Path) -> None:
    rows = lived(EVENTS)
    rows[1] = Row(rows[1].at_s, rows[1].kind, rows[1].event, '[["Notice",{"level":"info","about":"x","text":"y"}]]')
    written(path, rows)
    before = read(path)
    assert before is not None
    assert before.differs == 2
    assert before.snapshot.ledger == LedgerSnapshot(Mark(), (), ())
    assert before.snapshot.budgets_mw == (("host", 2_000_000),)
    control = Control(SETTINGS)
    control.step(Started(0.0, 0.0, 5, "c1", before.snapshot))
    assert control.ledger.domain_held_mw("host") == 4 * 750_000, "every GPU at its ceiling"


def test_decisions_are_handed_on_in_the_words_of_then(path: Path) -> None:
    decision = Decision("d7", 1.0, 2.0, "rapid", "why", (("since_power_s", float("inf")),), (("g1", "1 W", "2 W"),))

    def script(event: Event) -> list[Command]:
        return [Notice("info", "x", "y"), Announce(decision)] if isinstance(event, Ticked) else []

    brain = FakeBrain(script)
    written(path, [row(event, brain.step(event)) for event in (Started(0.0, 0.0, 4, "c1"), Ticked(1.0))])
    before = read(path, lambda _: FakeBrain(script))
    assert before is not None
    assert before.decisions == (decision,)


def test_a_decision_is_handed_on_with_its_score(path: Path) -> None:
    decision = Decision("d7", 1.0, 2.0, "predictive", "why", predicted=0.9, horizon_s=8.0)
    says: dict[float, list[Command]] = {1.0: [Announce(decision)], 9.0: [Scored("d7", 0.9, 0.75)]}

    def script(event: Event) -> list[Command]:
        return says.get(event.at_s, [])

    brain = FakeBrain(script)
    written(path, [row(event, brain.step(event)) for event in (Started(0.0, 0.0, 4, "c1"), Ticked(1.0), Ticked(9.0))])
    before = read(path, lambda _: FakeBrain(script))
    assert before is not None
    assert before.decisions == (replace(decision, measured=0.75),)


@pytest.mark.parametrize(
    ("rows", "life", "problem"),
    [
        ([Row(0.0, "Exploded", "{}", "[]")], LIFE, r"event 1 .*\(Exploded\) cannot be replayed \(ValueError: no event"),
        ([Row(0.0, "Ticked", "{}", "[]")], LIFE, r"event 1 .*\(Ticked\) cannot be replayed .*at_s"),
        (lived(EVENTS)[1:], LIFE, r"event 1 of the last life \(NodeHeard\) cannot be replayed \(AssertionError"),
        (lived(EVENTS), Life(4, "c1", 0.0, "0.9", '{"other":1}'), r"event 1 .*\(Started\) cannot be replayed"),
    ],
    ids=["unknown event", "event without a field", "first event is not Started", "settings of another version"],
)
def test_what_cannot_be_replayed_is_refused_naming_the_version_that_can(
    path: Path, rows: list[Row], life: Life, problem: str
) -> None:
    written(path, rows, life)
    with pytest.raises(JournalCorrupt, match=problem) as caught:
        read(path)
    assert "it was written by version 0.9, which can" in str(caught.value)
    assert "--fresh --epoch-at-least 5" in str(caught.value)


def test_three_processes_in_a_row_lead_in_three_epochs(path: Path) -> None:
    clock = HandClock()
    host = Host(clock)
    moments = story(host)
    epochs = []
    for kill_at in (20, 20, None):
        shell = asyncio.run(live(path, host, clock, moments, kill_at))
        epochs.append(shell.loop.greeting.epoch)
    assert epochs == [1, 2, 3]
