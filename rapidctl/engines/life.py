"""One life of an engine's process: started with its number on record, watched, and ended with all that it started.

The record is what the next adapter finds after this one was killed. It is written by the process itself, before it
becomes the engine, so there is no engine without a record. The kernel is not asked to kill the engine together with its
adapter: that would lose the requests of an engine that is well, and leave its children running.
"""

import asyncio
import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rapid.core.cluster import Role

LAUNCH = 'echo "$1 $(cat /proc/$$/stat)" >"$2.new" && mv -f "$2.new" "$2" && shift 2 && exec "$@"'
REST_WITHIN_S = 5.0  # for what SIGKILL has hit to be gone; longer is only waited for by the kernel (assumed)
LOOK_S = 0.02  # how often to look whether it is
TAIL_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Record:
    """Which process is the engine, and in which role. `started`: in ticks since boot, as a number is used again."""

    role: Role
    pid: int
    started: int

    def lives(self) -> bool:
        """Whether it is the same process still."""
        try:
            return _started(Path(f"/proc/{self.pid}/stat").read_text()) == self.started
        except (OSError, ValueError, IndexError):
            return False


def read_record(path: Path) -> Record | None:
    """None: there is none that can be read."""
    try:
        role, _, stat = path.read_text().partition(" ")
        return Record(Role(role), int(stat.split(None, 1)[0]), _started(stat))
    except (OSError, ValueError, IndexError):
        return None


def _started(stat: str) -> int:
    """Of /proc/PID/stat, whose second field is a name in brackets that may hold anything. Raises ValueError."""
    return int(stat.rpartition(")")[2].split()[19])


class Life:
    """A process that leads a session and group of its own, from `start` or `find` to `stop`."""

    def __init__(self, role: Role, pid: int, pidfd: int, process: "subprocess.Popen[bytes] | None") -> None:
        self.role, self.pid = role, pid
        self.ending = False  # we have told it to end
        self._pidfd, self._process = pidfd, process
        self._over = asyncio.Event()
        asyncio.get_running_loop().add_reader(pidfd, self._end)

    @classmethod
    def start(
        cls, command: Sequence[str], role: Role, *, record: Path, log: Path | None, environment: Mapping[str, str]
    ) -> "Life":
        """Raises OSError. Without a log it writes where we do."""
        record.unlink(missing_ok=True)  # or the life before this one could be taken for it
        with contextlib.ExitStack() as files:
            out = files.enter_context(log.open("ab")) if log else None
            process = subprocess.Popen(
                ["/bin/sh", "-c", LAUNCH, "rapid-engine", role.value, str(record), *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        return cls(role, process.pid, os.pidfd_open(process.pid), process)

    @classmethod
    def find(cls, path: Path) -> "Life | None":
        """The one on record, if it lives; an earlier adapter has started it."""
        if (record := read_record(path)) is None:
            return None
        try:
            pidfd = os.pidfd_open(record.pid)
        except OSError:
            return None
        # From here on the number cannot pass to another process unnoticed.
        if record.lives() and not _readable(pidfd):
            return cls(record.role, record.pid, pidfd, None)
        os.close(pidfd)
        return None

    @property
    def alive(self) -> bool:
        return not self._over.is_set()

    async def ended(self) -> None:
        """Wait for its end, by itself or by us."""
        await self._over.wait()

    def how(self) -> str:
        """In which way it ended."""
        if self._process is None:
            return "ended"
        code = self._process.returncode
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"

    def tell_to_end(self) -> None:
        """SIGTERM to the engine, which finishes what it has begun; not to what it started, that is the engine's."""
        self.ending = True
        if self.alive:
            signal.pidfd_send_signal(self._pidfd, signal.SIGTERM)

    async def stop(self, within_s: float) -> bool:
        """Return when it and all that it started is gone; False: it had to be killed."""
        self.tell_to_end()
        try:
            async with asyncio.timeout(within_s):
                await self.ended()
        except TimeoutError:
            self.kill()
            await self.ended()
            return False
        finally:
            await self._gone()
        return True

    def kill(self) -> None:
        """SIGKILL to it and to all that it started."""
        self.ending = True
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    # ---- inside ----

    def _end(self) -> None:
        """It has ended and is not buried yet, so its number is still its own: what it left behind goes too."""
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        self._over.set()

    async def _gone(self) -> None:
        """Until nothing is left of its group, which may still hold the GPU."""
        for _ in range(round(REST_WITHIN_S / LOOK_S)):
            if not _group_lives(self.pid):
                return
            await asyncio.sleep(LOOK_S)


def last_line(log: Path | None) -> str:
    """Of a log, for a message: what an engine says when it ends is mostly why."""
    if log is None:
        return ""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            tail = file.read().decode(errors="replace").strip()
    except OSError:
        return ""
    return tail.splitlines()[-1][:200] if tail else ""


def _readable(pidfd: int) -> bool:
    """Whether its process has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _group_lives(pid: int) -> bool:
    """Whether any process of its group is left. Zombies are none: a container may have nobody to bury them."""
    try:
        os.killpg(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False  # nobody is left, or its number serves somebody else now
    return any(_is_of(each, pid) for each in Path("/proc").glob("[0-9]*/stat"))


def _is_of(stat: Path, group: int) -> bool:
    try:
        state, _, its_group, *_ = stat.read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return False  # gone meanwhile
    return int(its_group) == group and state != "Z"
