"""What a picture of a run needs, taken down while it runs: changes of limits and roles, and counts per second."""

from dataclasses import dataclass, field

from rapid.core.cluster import Decision, Phase, Role, SloTargets
from rapid.sim.model.requests import Finished, Request
from rapid.sim.world.watch import Queues


@dataclass(slots=True)
class Second:
    """Of the requests that arrived in one second of the trace."""

    requests: int = 0
    attained: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(slots=True)
class Film:
    """A Watch. Memory follows the length of the run and the number of changes, not the number of requests."""

    slo: SloTargets
    limits_mw: dict[str, list[tuple[float, int]]] = field(default_factory=dict)  # by GPU, with times
    instance_of: dict[str, str] = field(default_factory=dict)  # by GPU
    roles: dict[str, list[tuple[float, Role | None]]] = field(default_factory=dict)  # by instance; None: it serves none
    seconds: dict[int, Second] = field(default_factory=dict)  # by the second of arrival
    queue: list[tuple[float, Queues]] = field(default_factory=list)

    def offered(self, request: Request) -> None:
        """A request arrives."""
        second = self.seconds.setdefault(int(request.arrival_s), Second())
        second.requests += 1
        second.input_tokens += request.input_tokens
        second.output_tokens += request.output_tokens

    def decided(self, at_s: float, decision: Decision) -> None:
        """Nothing is drawn of it."""

    def limited(self, at_s: float, gpu: str, instance: str, limit_mw: int) -> None:
        self.instance_of[gpu] = instance
        self.limits_mw.setdefault(gpu, []).append((at_s, limit_mw))

    def moved(self, at_s: float, instance: str, phase: Phase, role: Role) -> None:
        self.roles.setdefault(instance, []).append((at_s, role if phase is Phase.SERVING else None))

    def finished(self, finished: Finished) -> None:
        steady = finished.tpot_s is None or finished.tpot_s <= self.slo.tpot_s
        if steady and finished.ttft_s <= self.slo.ttft_s:
            self.seconds[int(finished.request.arrival_s)].attained += 1

    def queues(self, at_s: float, queues: Queues) -> None:
        self.queue.append((at_s, queues))
