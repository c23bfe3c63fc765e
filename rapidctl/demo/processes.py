"""Programs that run beside the demo: started, watched, started again when they die, and stopped.

None outlives the demo. Each gets a session of its own, so that Ctrl-C reaches only the demo, which then stops them in
order. Should the demo itself be killed, the kernel kills them: see mortal.py.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path

from rapid.core.errors import RapidError, Unreachable

LOOK_S = 0.05  # how often to see who has died
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0  # before a program is started again; doubles
STEADY_S = 5.0  # a program that ran this long starts the pauses from the first again
MAX_STARTS = 100  # of one program; then something is wrong that starting does not heal
LOG_TAIL_BYTES = 4096
EXIT_CONFIG = 2  # as every program of RAPID ends when it cannot be run as it is configured
MORTAL = Path(__file__).with_name("mortal.py")


class ProgramFailed(RapidError):
    """A program that does not stay up; the message has its last words and where its log is."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to run. Its stdout and stderr are appended to `log`."""

    name: str
    argv: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)


class Running:
    """One program, in its present life or between two."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.starts = 0
        self.stopping = False
        self._process: subprocess.Popen[bytes] | None = None
        self._started_s = 0.0
        self._again_s = 0.0  # not to be started before
        self._pause_s = FIRST_PAUSE_S

    @property
    def pid(self) -> int | None:
        """None: it is between two lives."""
        return self._process.pid if self._process else None

    def start(self, now_s: float) -> None:
        """Raises ProgramFailed after MAX_STARTS."""
        if self.starts >= MAX_STARTS:
            raise ProgramFailed(f"{self.program.name} died {self.starts} times; {self.last_words()}")
        self.starts += 1
        self._started_s = now_s
        with self.program.log.open("ab") as log:
            self._process = subprocess.Popen(
                (sys.executable, "-IS", str(MORTAL), str(os.getpid()), *self.program.argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.program.environment},
                start_new_session=True,
            )

    def look(self, now_s: float) -> int | None:
        """The exit code with which it ended since the last look, negative: by that signal; None: nothing new."""
        if self._process is None or (code := self._process.poll()) is None:
            return None
        if now_s - self._started_s >= STEADY_S:
            self._pause_s = FIRST_PAUSE_S
        self._again_s = now_s + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        self._process = None
        return code

    def due(self, now_s: float) -> bool:
        """Whether it is time to start it again."""
        return self._process is None and not self.stopping and now_s >= self._again_s

    def tell(self, number: signal.Signals) -> None:
        """Send a signal to its whole session, if it lives."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def last_words(self) -> str:
        """The last line of its log, and where the rest is."""
        try:
            tail = self.program.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
        except OSError:
            tail = ""
        return f"its last words: {tail.splitlines()[-1] if tail else 'none'} (log: {self.program.log})"


class Keeper:
    """Keeps programs running. `notice` hears of each death.

    A program that is killed is started again at any time. One that ends by itself has a reason: until `proven`, when
    all have been up once, that ends the demo, and so does an exit code that says that its configuration is wrong.
    """

    def __init__(self, notice: Callable[[str], None]) -> None:
        self.proven = False
        self.restarts = 0
        self._notice = notice
        self._running: dict[str, Running] = {}

    def start(self, program: Program) -> Running:
        """Start it, and again whenever it dies."""
        assert program.name not in self._running, f"{program.name} is started twice"
        running = Running(program)
        running.start(time.monotonic())
        self._running[program.name] = running
        return running

    @property
    def pids(self) -> dict[str, int]:
        """The living, by name."""
        return {name: one.pid for name, one in self._running.items() if one.pid is not None and not one.ended()}

    async def watch(self) -> None:
        """Start again whoever dies, for ever. Raises ProgramFailed for one that starting again would not help."""
        while True:
            now_s = time.monotonic()
            for name, one in self._running.items():
                if not one.stopping and (code := one.look(now_s)) is not None:
                    self._take_death(name, one, code)
                if one.due(now_s):
                    one.start(now_s)
                    self.restarts += 1
            await asyncio.sleep(LOOK_S)

    def _take_death(self, name: str, one: Running, code: int) -> None:
        if code >= 0 and (code == EXIT_CONFIG or not self.proven):
            raise ProgramFailed(f"{name} did not stay up; {one.last_words()}")
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        self._notice(f"{name} {how}; starting it again")

    async def stop(self, names: Sequence[str], grace_s: float) -> None:
        """SIGTERM to these programs, SIGKILL to those that are still there after grace_s."""
        stopping = [self._running[name] for name in names if name in self._running]
        for one in stopping:
            one.stopping = True
            one.tell(signal.SIGTERM)
        for _ in range(ceil(grace_s / LOOK_S)):
            if all(one.ended() for one in stopping):
                return
            await asyncio.sleep(LOOK_S)
        self._kill(stopping)

    def kill_all(self) -> None:
        """The last resort: everything that lives ends now."""
        self._kill(list(self._running.values()))

    def _kill(self, running: Sequence[Running]) -> None:
        for one in running:
            one.stopping = True
            one.tell(signal.SIGKILL)
        for one in running:
            if one._process is not None:
                one._process.wait()


async def until(condition: Callable[[], bool], what: str, deadline_s: float) -> None:
    """Wait for a condition. Raises Unreachable, saying what did not come true."""
    for _ in range(ceil(deadline_s / LOOK_S)):
        if condition():
            return
        await asyncio.sleep(LOOK_S)
    raise Unreachable(f"{what}: not within {deadline_s:g} s")
