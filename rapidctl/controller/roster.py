"""The engines that the core has accepted, each with the hello that it would say now: a new life has to meet them."""

from collections.abc import Sequence
from dataclasses import replace

from rapid.core.cluster import EngineHello, Phase, RoleProgress
from rapid.core.commands import Command, OrderRole, RefuseEngine
from rapid.core.events import EngineCame, EngineGone, EngineMoved, Event


class Roster:
    """Follows the steps of the core: what it has not seen yet is not here either."""

    def __init__(self) -> None:
        self._present: dict[str, tuple[EngineHello, float]] = {}

    def follow(self, event: Event, commands: Sequence[Command]) -> None:
        """A step was taken."""
        match event:
            case EngineCame(at_s, hello):
                if not any(isinstance(command, RefuseEngine) for command in commands):
                    self._present[hello.instance] = (hello, at_s)
            case EngineMoved(_, progress):
                self._move(progress)
            case EngineGone(_, instance, incarnation):
                if instance in self._present and self._present[instance][0].incarnation == incarnation:
                    del self._present[instance]
        for command in commands:
            if isinstance(command, OrderRole) and command.instance in self._present:
                hello, at_s = self._present[command.instance]
                # It counts as draining as soon as it is told to: if it refuses, it says so.
                told = replace(
                    hello, phase=Phase.DRAINING, mark=command.mark, from_role=hello.role, to_role=command.role
                )
                self._present[command.instance] = (told, at_s)

    def hellos(self, at_s: float) -> list[EngineHello]:
        """What each of them would say at at_s."""
        return [
            replace(hello, engine_time_s=hello.engine_time_s + at_s - heard_s)
            for hello, heard_s in self._present.values()
        ]

    def _move(self, progress: RoleProgress) -> None:
        if progress.instance not in self._present:
            return
        hello, at_s = self._present[progress.instance]
        if hello.incarnation != progress.incarnation or progress.mark < hello.mark:
            return
        # Until it serves again, its role is the one to which a change would return.
        now = replace(hello, phase=progress.phase, mark=progress.mark)
        if progress.phase in (Phase.SERVING, Phase.PARKED):
            now = replace(now, role=progress.role, from_role=None, to_role=None)
        self._present[hello.instance] = (now, at_s)
