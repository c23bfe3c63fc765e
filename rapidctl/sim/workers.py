"""Tasks side by side in processes of their own, one per core; results come back in the order of the tasks.

A worker is told one task at a time over its pipe and answers with how far it is, then with the result. Whoever leaves
the pool, by Ctrl-C too, leaves no process behind; and a worker whose parent is gone ends at its next word.
"""

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.resource_tracker import ensure_running
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from rapid.core.errors import RapidError

Task = TypeVar("Task")
Result = TypeVar("Result")
Tell = Callable[[float], None]  # what a task calls with the share of it that is done, as often as it likes

WORD_S = 0.2  # between two words of a worker about one task
END_S = 2.0  # that a worker has to end before it is killed


class RunFailed(RapidError):
    """A run that ended in a mistake of ours, or whose process died; the message names the run."""


@dataclass(frozen=True, slots=True)
class _Far:
    """How far the task is, 0 to 1."""

    share: float


@dataclass(frozen=True, slots=True)
class _Done:
    result: Any


@dataclass(frozen=True, slots=True)
class _Refused:
    """A RapidError, in parts: most cannot be pickled, since their arguments are not their message."""

    kind: type[RapidError]
    text: str


@dataclass(frozen=True, slots=True)
class _Broken:
    trace: str


@dataclass(slots=True)
class _Worker:
    process: SpawnProcess
    pipe: Connection
    index: int | None = None  # of the task it works on


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


class Workers(Generic[Task, Result]):
    """A pool of at most `count` processes that each import `work`'s module anew and call it with one task at a time.

    `work` is a function of a module; tasks and results can be pickled.
    """

    def __init__(self, work: Callable[[Task, Tell], Result], count: int) -> None:
        self._work = work
        self._count = count
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.pipe.close()
            worker.process.terminate()
        deadline_s = time.monotonic() + END_S
        for worker in self._workers:
            worker.process.join(max(0.0, deadline_s - time.monotonic()))
            worker.process.kill()
            worker.process.join()

    def map(
        self,
        tasks: Sequence[Task],
        name: Callable[[Task], str],
        heard: Callable[[int, float], None] = lambda index, share: None,
    ) -> list[Result]:
        """The result of every task. `heard` is told which task is how far.

        Raises what a task raises if that is a RapidError, else RunFailed with the task's name.
        """
        results: dict[int, Result] = {}
        waiting = iter(range(len(tasks)))
        while len(self._workers) < min(self._count, len(tasks)):
            self._workers.append(self._started())
        for worker in self._workers:
            _give(worker, waiting, tasks)
        while busy := {worker.pipe: worker for worker in self._workers if worker.index is not None}:
            for pipe in wait(list(busy)):
                worker = busy[pipe]  # type: ignore[index]
                assert worker.index is not None
                match self._heard(worker, name(tasks[worker.index])):
                    case _Far(share):
                        heard(worker.index, share)
                    case _Done(result):
                        results[worker.index] = result
                        heard(worker.index, 1.0)
                        _give(worker, waiting, tasks)
        return [results[index] for index in range(len(tasks))]

    def _heard(self, worker: _Worker, name: str) -> _Far | _Done:
        try:
            word = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join(END_S)
            raise RunFailed(f"{name}: its process died ({_how(worker.process.exitcode)})") from None
        if isinstance(word, _Refused):
            error = word.kind.__new__(word.kind)
            RapidError.__init__(error, f"{name}: {word.text}")
            raise error
        if isinstance(word, _Broken):
            raise RunFailed(f"{name} failed; this is a mistake in the simulator:\n{word.trace}")
        assert isinstance(word, _Far | _Done)
        return word

    def _started(self) -> _Worker:
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=_serve, args=(theirs, self._work), daemon=True, name="rapidctl-sim"
        )
        with _deaf_to_interrupts():
            process.start()
        theirs.close()  # so that our end sees when the worker's is gone
        return _Worker(process, ours)


def _give(worker: _Worker, waiting: Iterator[int], tasks: Sequence[Any]) -> None:
    worker.index = next(waiting, None)
    if worker.index is not None:
        with suppress(BrokenPipeError, ConnectionResetError):  # it is dead; its pipe will say so
            worker.pipe.send(tasks[worker.index])


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """A process started in here never sees Ctrl-C, which the terminal sends to all: its parent ends it, in order."""
    ensure_running()  # first, since starting the tracker of resources would unblock the signal again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _how(code: int | None) -> str:
    if code is None:
        return "it does not answer any more"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}" + ("; out of memory?" if code == -signal.SIGKILL else "")
    return f"exit code {code}"


# ---- in the worker ----


def _serve(pipe: Connection, work: Callable[[Any, Tell], Any]) -> None:
    try:
        while True:
            pipe.send(_answer(pipe, work, pipe.recv()))
    except (EOFError, OSError):
        return  # the parent is gone, or wants no more


def _answer(pipe: Connection, work: Callable[[Any, Tell], Any], task: Any) -> _Done | _Refused | _Broken:
    said_s = time.monotonic()

    def tell(share: float) -> None:
        nonlocal said_s
        if time.monotonic() - said_s >= WORD_S:
            said_s = time.monotonic()
            pipe.send(_Far(share))

    try:
        return _Done(work(task, tell))
    except RapidError as error:
        return _Refused(type(error), str(error))
    except (BrokenPipeError, ConnectionResetError):
        raise
    except Exception:
        return _Broken(traceback.format_exc().rstrip())
