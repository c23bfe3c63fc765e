"""How long a restart takes: reading, checking and replaying the last life of a journal, as the controller does first.

The life is that of control_tick.py: reports of nodes with 8 GPUs and 8 loads, and ticks, until it has as many entries
as a life may have by default.
"""

import argparse
import platform
import tempfile
import time
from contextlib import closing
from pathlib import Path

from bench.control_tick import INTERVAL_S, Bench
from rapid.core.control import Control
from rapid.core.events import Event, NodeHeard, Started, Ticked
from rapidctl.controller import codec
from rapidctl.controller.journal import row
from rapidctl.controller.recover import recover
from rapidctl.controller.store import JournalFile, Life, Row


def write(file: JournalFile, nodes: int, entries: int) -> None:
    """A life of so many entries, in commits of one round each."""
    bench = Bench(nodes, "rapid")
    life = Life(1, "bench", 0.0, "bench", codec.encode(bench.control.settings).decode())
    first = Control(bench.control.settings)
    bench.control = first
    start = Started(0.0, 0.0, 1, "bench")
    file.begin(life, [row(start, first.step(start))])
    written, at_s = 1, 0.0
    while written < entries:
        at_s += INTERVAL_S
        rows: list[Row] = []
        events: list[Event] = [NodeHeard(at_s, node.report(at_s, bench.roles)) for node in bench.nodes]
        for event in [*events, Ticked(at_s)]:
            commands = first.step(event)
            bench.obey(commands)
            rows.append(row(event, commands))
        file.append(rows)
        written += len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--entries", type=int, default=20_000)
    options = parser.parse_args()
    where = tempfile.gettempdir()
    print(f"recover(), CPython {platform.python_version()}, {platform.machine()}, one core, file in {where}")
    print("nodes  entries |  file MB | replay s | ms per entry | identical")
    for nodes in options.nodes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "journal.sqlite3"
            with closing(JournalFile(path, keep_lives=1)) as file:
                write(file, nodes, options.entries)
            size = path.stat().st_size
            began_s = time.perf_counter()
            with closing(JournalFile(path, keep_lives=1)) as file:
                before = recover(file, Control)
            took_s = time.perf_counter() - began_s
            assert before is not None
            print(
                f"{nodes:5d} {before.entries:8d} | {size / 1e6:8.1f} | {took_s:8.2f} | "
                f"{took_s / before.entries * 1e3:12.3f} | {'yes' if not before.differs else 'no'}",
                flush=True,
            )


if __name__ == "__main__":
    main()
