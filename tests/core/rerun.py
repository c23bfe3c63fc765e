"""Steps a journal of events through a fresh Control, and prints what it commands, a line for each event.

    python -m tests.core.rerun JOURNAL [--planted]

JOURNAL is a pickle of (settings, events). Planted: the order of commands depends on the hashes of this process.
"""

import pickle
import sys
from collections.abc import Iterable
from pathlib import Path

from rapid.core.commands import Command
from rapid.core.control import Control
from rapid.core.events import Event
from rapid.core.settings import Settings


class Hashed(Control):
    """Bug: what is commanded comes in the order of a set."""

    def step(self, event: Event) -> list[Command]:
        return list({repr(command): command for command in sorted(super().step(event), key=_hash)}.values())


def _hash(command: Command) -> int:
    return hash(repr(command))


def lines(control: Control, events: Iterable[Event]) -> list[str]:
    return [repr(control.step(event)) for event in events]


def main(journal: str, *options: str) -> None:
    settings: Settings
    settings, events = pickle.loads(Path(journal).read_bytes())
    control = Hashed(settings) if "--planted" in options else Control(settings)
    sys.stdout.write("\n".join(lines(control, events)))


if __name__ == "__main__":
    main(*sys.argv[1:])
