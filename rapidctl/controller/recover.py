"""What the last life left behind: replay its events through a fresh mind and take its snapshot."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from rapid.core.books import LedgerSnapshot
from rapid.core.cluster import Decision, Mark
from rapid.core.commands import Announce, Command, Scored
from rapid.core.events import ControlSnapshot
from rapid.core.settings import Settings
from rapidctl.controller import codec
from rapidctl.controller.damage import corrupt
from rapidctl.controller.decided import Decided
from rapidctl.controller.loop import Brain
from rapidctl.controller.store import JournalFile, Life

_NOTHING_BOOKED = LedgerSnapshot(Mark(), (), ())


@dataclass(frozen=True, slots=True)
class Recovered:
    """The last life, which was number `number`, and what it hands on.

    entries    how many events were replayed
    differs    the first entry that now gives other commands than it did then (0: none). The books of the snapshot are
               empty then, so that every GPU is booked at its ceiling until it has been heard: what was really sent is
               not what a replay says. The operator's budgets, pins and pause are handed on all the same.
    """

    number: int
    life: Life
    snapshot: ControlSnapshot
    decisions: tuple[Decision, ...]
    entries: int
    differs: int


def recover(file: JournalFile, make: Callable[[Settings], Brain]) -> Recovered | None:
    """Replay the last life under the settings that it had; None if there is none. Raises JournalCorrupt."""
    life = file.last
    if life is None:
        return None
    brain: Brain | None = None
    decided = Decided()
    entries = differs = 0
    for entries, row in enumerate(file.rows(), 1):
        # An older version may have written what this one can no longer read or take; whatever it stumbles over, the
        # answer is the same, so anything is caught here.
        try:
            brain = brain or make(codec.decode_settings(life.settings.encode()))
            commands = brain.step(codec.decode_event(row.kind, row.event.encode()))
        except Exception as error:
            raise corrupt(
                file.path,
                f"event {entries} of the last life ({row.kind}) cannot be replayed ({type(error).__name__}: {error}); "
                f"it was written by version {life.version}, which can",
            ) from error
        if not differs and not _same(commands, row.commands):
            differs = entries
        if any(f'["{kind.__name__}",' in row.commands for kind in (Announce, Scored)):
            decided.follow(codec.decode_commands(row.commands.encode()))  # in the words of then
    assert brain is not None, "a life without rows is refused while reading"
    snapshot = brain.snapshot()
    if differs:
        snapshot = replace(snapshot, ledger=_NOTHING_BOOKED)
    return Recovered(file.number, life, snapshot, decided.all(), entries, differs)


def _same(commands: list[Command], written: str) -> bool:
    """Whether they are the commands that were written, maybe by a version whose commands had fewer fields."""
    if codec.encode_commands(commands).decode() == written:
        return True
    try:
        return codec.decode_commands(written.encode()) == commands
    except ValueError:
        return False
