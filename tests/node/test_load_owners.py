"""Which GPUs an engine computes on: by the processes behind its port, and never by those of another engine."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from rapid.config.node import EngineTable
from rapid.core.errors import ConfigInvalid
from rapidd.load.owners import Host, Owned, Owners, check_gpus, find, list_pids, look_at_host
from tests.node.at_work import AtWork
from tests.node.caller import DEADLINE_S
from tests.node.live import MemoryDevice
from tests.wait import wait_for, wait_until


def engine(instance: str, port: int, gpus: tuple[str, ...] = ()) -> EngineTable:
    return EngineTable(instance, "vllm", f"http://127.0.0.1:{port}/metrics", gpus)


A, B = engine("a", 8000), engine("b", 8001)
# 1 init, 10 a supervisor; 100 listens for a, its child 110 starts 111; 200 listens for b beside 201, below 199.
PARENTS = {1: 0, 10: 1, 100: 10, 110: 100, 111: 110, 199: 10, 200: 199, 201: 199, 300: 1}
HOST = Host({8000: frozenset({100}), 8001: frozenset({200})}, PARENTS)


def gpus_of(pids: dict[str, tuple[int, ...]], host: Host = HOST) -> tuple[tuple[str, ...], tuple[str, ...]]:
    owned = find([A, B], pids, host)
    return owned["a"].gpus, owned["b"].gpus


def test_who_listens_may_compute_itself() -> None:
    assert gpus_of({"GPU-0": (100,), "GPU-1": (200,)}) == (("GPU-0",), ("GPU-1",))


def test_whom_the_listener_started_computes_for_it() -> None:
    assert gpus_of({"GPU-0": (111,), "GPU-1": (110,), "GPU-2": (300,)}) == (("GPU-0", "GPU-1"), ())


def test_whom_its_parent_started_beside_it_computes_for_it() -> None:
    assert gpus_of({"GPU-0": (201,)}) == ((), ("GPU-0",))


def test_the_search_does_not_climb_to_a_supervisor_of_other_engines() -> None:
    alone = Host(HOST.listeners, {**PARENTS, 250: 10})
    assert gpus_of({"GPU-0": (250,)}, alone) == ((), ())


def test_the_search_does_not_climb_to_init() -> None:
    far = Host({8000: frozenset({100})}, {100: 1, 300: 1})
    assert gpus_of({"GPU-0": (300,)}, far) == ((), ())


def test_several_that_listen_on_one_port_are_one_engine() -> None:
    shared = Host({8000: frozenset({200, 201})}, PARENTS)
    assert gpus_of({"GPU-0": (200,), "GPU-1": (201,)}, shared)[0] == ("GPU-0", "GPU-1")


def test_a_loop_of_parents_ends() -> None:
    loop = Host({8000: frozenset({100})}, {100: 101, 101: 100})
    assert gpus_of({"GPU-0": (300,)}, loop) == ((), ())


@pytest.mark.parametrize(
    ("pids", "host", "why"),
    [
        ({"GPU-0": ()}, HOST, "the driver lists no process on any GPU"),
        ({"GPU-0": (5,)}, Host({}, PARENTS), "no process that rapidd can see listens on port 8000"),
        ({"GPU-0": (300,)}, HOST, "the driver lists nothing of process 100, which listens on port 8000"),
    ],
)
def test_why_they_are_not_known_is_said_with_what_to_do(pids: dict[str, tuple[int, ...]], host: Host, why: str) -> None:
    assert find([A], pids, host)["a"] == Owned(problem=f"its GPUs are not known: {why}; set engine.a.gpus")


# ---- the host as it is ----

LISTENER = """
import socket, subprocess, sys
server = socket.create_server(("127.0.0.1", 0))
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
print(server.getsockname()[1], child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def listener() -> Iterator[tuple[int, int, int]]:
    """A process that listens, and one that it has started: (port, pid, child's pid)."""
    with subprocess.Popen(
        [sys.executable, "-c", LISTENER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        port, child = map(int, process.stdout.readline().split())
        yield port, process.pid, child


def test_real_processes_are_found_behind_their_port(listener: tuple[int, int, int]) -> None:
    port, pid, child = listener
    host = look_at_host()
    assert host.listeners[port] == {pid}
    assert (host.parents[child], host.parents[pid]) == (pid, os.getpid())
    assert find([engine("a", port)], {"GPU-0": (), "GPU-1": (child,)}, host)["a"] == Owned(("GPU-1",))


async def test_they_are_looked_for_when_an_engine_comes(listener: tuple[int, int, int]) -> None:
    port, _, child = listener

    async def ask() -> dict[str, tuple[int, ...]]:
        return {"GPU-0": (child,)}

    owners = Owners([engine("a", port), engine("b", 1, gpus=("GPU-7",))], ask)
    assert (owners.of("a"), owners.of("b")) == (Owned(), Owned(("GPU-7",)))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(owners.run())
        owners.look_soon()
        await wait_until(lambda: owners.of("a") != Owned(), DEADLINE_S, "the GPUs of a")
        running.cancel()
    assert (owners.of("a"), owners.of("b")) == (Owned(("GPU-0",)), Owned(("GPU-7",)))


async def test_what_is_configured_needs_no_look() -> None:
    async def ask() -> dict[str, tuple[int, ...]]:
        raise AssertionError("nobody needs to know")

    owners = Owners([engine("b", 1, gpus=("GPU-7",))], ask)
    owners.look_soon()
    async with asyncio.timeout(DEADLINE_S):
        await owners.run()


# ---- the driver ----


@dataclass
class Driver:
    """Lists its processes on a thread of its own, or never."""

    gpu: str
    pids: tuple[int, ...] | None

    def submit_list(self, done: Callable[[tuple[int, ...]], None]) -> None:
        if self.pids is not None:
            threading.Thread(target=done, args=(self.pids,)).start()


async def test_every_gpu_is_asked_for_its_processes() -> None:
    assert await list_pids([Driver("GPU-0", (1, 2)), Driver("GPU-1", ())]) == {"GPU-0": (1, 2), "GPU-1": ()}


async def test_a_driver_that_hangs_costs_only_its_own_gpu() -> None:
    assert await list_pids([Driver("GPU-0", (1, 2)), Driver("GPU-1", None)], 0.1) == {"GPU-0": (1, 2)}


def test_an_answer_that_comes_after_all_is_over_harms_nobody() -> None:
    late: list[Callable[[tuple[int, ...]], None]] = []

    class Late(Driver):
        def submit_list(self, done: Callable[[tuple[int, ...]], None]) -> None:
            late.append(done)

    assert asyncio.run(list_pids([Late("GPU-0", None)], 0.01)) == {}
    late[0]((1,))


def test_a_gpu_that_is_not_here_is_refused_with_those_that_are() -> None:
    check_gpus([engine("a", 1, ("GPU-0",))], ["GPU-0", "GPU-1"])
    with pytest.raises(ConfigInvalid) as caught:
        check_gpus([engine("a", 1, ("GPU-0", "GPU-9"))], ["GPU-0", "GPU-1"])
    assert str(caught.value) == "config key engine.a.gpus: this host has no gpu GPU-9 (it has: GPU-0, GPU-1)"


def test_a_worker_lists_processes_when_there_is_nothing_else_to_do() -> None:
    class Listing(MemoryDevice):
        def processes(self) -> tuple[int, ...]:
            self._answer()
            return (7, 8)

    device = Listing(0)
    work = AtWork(device, lambda: 0.0)
    heard: list[tuple[int, ...]] = []
    work.worker.submit_list(heard.append)
    wait_for(lambda: heard, DEADLINE_S, "the processes")
    work.stop()
    assert heard == [(7, 8)]
