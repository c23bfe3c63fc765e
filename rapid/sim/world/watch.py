"""A window into a run, for plots and explanations. Looking changes nothing of the outcome."""

from dataclasses import dataclass
from typing import Protocol

from rapid.core.cluster import Decision, Phase, Role
from rapid.sim.model.requests import Finished


@dataclass(frozen=True, slots=True)
class Queues:
    """Requests in the site, by where they are. What a mixed instance decodes counts as prefilling."""

    waiting: int  # for prefill, at the router or at an instance
    prefilling: int  # in a prefill batch
    decoding: int  # at a decode instance, with those whose KV cache is on its way
    oldest_wait_s: float  # of those that wait at an instance


class Watch(Protocol):
    """Told what happens as it happens; at_s is the trace's time, below 0 while the site is coming up."""

    def decided(self, at_s: float, decision: Decision) -> None:
        """The controller made a decision; decision.at_s is its own clock."""

    def limited(self, at_s: float, gpu: str, instance: str, limit_mw: int) -> None:
        """The device enforces another limit; also called for every GPU at the start."""

    def moved(self, at_s: float, instance: str, phase: Phase, role: Role) -> None:
        """The instance has got further with a role change; also called for every instance at the start."""

    def finished(self, finished: Finished) -> None:
        """A request has finished."""

    def queues(self, at_s: float, queues: Queues) -> None:
        """Once a second from time 0 on."""
