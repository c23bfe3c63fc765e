"""All hosts together: started in order, followed while they run, stopped in order."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import psutil

from rapid.core.cluster import NodeHealth, Phase
from rapidctl.demo.follow import Follower, Readiness
from rapidctl.demo.host import Host
from rapidctl.demo.processes import Keeper, Program, until
from rapidctl.demo.scene import HostScene, host_scene

DAEMONS_WITHIN_S, ENGINES_WITHIN_S = 20.0, 30.0
STOP_WITHIN_S = 4.0  # rapidd takes up to 3 s to see its GPUs land
MAX_NOTICES = 1000


@dataclass(frozen=True, slots=True)
class Actor:
    """One host and what is heard of it."""

    host: Host
    readiness: Readiness
    follower: Follower

    def serves(self) -> bool:
        """Whether the whole loop stands: the node reports, every engine is attached, every load and limit is known."""
        status = self.follower.status
        if status is None or not all(node.health is NodeHealth.REPORTING for node in status.nodes):
            return False
        gpus = [gpu for node in status.nodes for gpu in node.gpus]
        engines = [one for one in status.instances if one.phase is Phase.SERVING and one.load is not None]
        return (
            len(engines) == self.host.front.engines == len(self.host.instances)
            and len(gpus) == len(self.host.gpu_files)
            and all(gpu.managed and gpu.limit_mw for gpu in gpus)
        )


class Stage:
    """Runs the programs of all hosts. `say` hears progress, notices keep what died and came back."""

    def __init__(self, hosts: Sequence[Host], say: Callable[[str], None]) -> None:
        self.notices: deque[str] = deque(maxlen=MAX_NOTICES)
        self.keeper = Keeper(self._notice)
        self.actors: tuple[Actor, ...] = ()
        self._hosts, self._say = hosts, say
        self._programs: list[tuple[str, ...]] = []  # names, in the order of start
        self._follow: list[asyncio.Task[None]] = []

    async def open(self, tasks: asyncio.TaskGroup, stack: AsyncExitStack) -> None:
        """Start everything and wait until it stands. When the stack closes, everything is stopped.

        Raises ProgramFailed and Unreachable.
        """
        began_s = time.monotonic()
        self._say(f"starting {len(self._hosts)} hosts: rapidd, rapid-controller and {self._engines()} engines each")
        stack.callback(self._unfollow)
        actors = []
        for host in self._hosts:
            host.make(time.monotonic())
            await host.front.serve(host.data_socket, stack)
            actors.append(Actor(host, Readiness(host.plan.folder / "rapidd.ntf", stack), Follower(host.address)))
        self.actors = tuple(actors)
        stack.push_async_callback(self._stop)
        self._follow.append(tasks.create_task(self.keeper.watch()))
        self._start([host.daemon() for host in self._hosts])
        ready = "rapidd of every host is ready"
        await until(lambda: all(each.readiness.first_s is not None for each in actors), ready, DAEMONS_WITHIN_S)
        self._start([host.controller() for host in self._hosts])
        self._start([engine for host in self._hosts for engine in host.engines()])
        self._follow += [tasks.create_task(actor.follower.run()) for actor in actors]
        attached = "every engine is attached and reports its load"
        await until(lambda: all(actor.serves() for actor in actors), attached, ENGINES_WITHIN_S)
        self.keeper.proven = True
        self._say(f"ready in {time.monotonic() - began_s:.1f} s")

    def scenes(self, now_s: float) -> tuple[HostScene, ...]:
        """Every host now."""
        return tuple(
            host_scene(actor.host, actor.follower.status, actor.follower.heard_s, now_s) for actor in self.actors
        )

    def cpu_s(self) -> float:
        """Processor time that the living, and the demo itself, have used so far."""
        total_s = 0.0
        for pid in (None, *self.keeper.pids.values()):
            try:
                times = psutil.Process(pid).cpu_times()
            except psutil.NoSuchProcess:
                continue
            total_s += times.user + times.system
        return total_s

    def _engines(self) -> int:
        return len(self._hosts[0].instances)

    def _start(self, programs: Sequence[Program]) -> None:
        self._programs.append(tuple(program.name for program in programs))
        for program in programs:
            self.keeper.start(program)

    def _unfollow(self) -> None:
        for task in self._follow:
            task.cancel()

    async def _stop(self) -> None:
        """The last to start are the first to stop: no engine works without limits on its GPU."""
        try:
            for names in reversed(self._programs):
                await self.keeper.stop(names, STOP_WITHIN_S)
        finally:
            self.keeper.kill_all()

    def _notice(self, text: str) -> None:
        self.notices.append(text)
        self._say(text)
