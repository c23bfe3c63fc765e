"""What a policy is: View -> Targets. It never sends anything; the ledger orders what it asks for."""

from typing import Protocol, runtime_checkable

from rapid.core.cluster import PolicyState, Targets, View

NO_CHANGE = Targets({}, {})


class Policy(Protocol):
    """A policy. All it rests on is the view, unless it is a StatefulPolicy."""

    @property
    def name(self) -> str: ...

    def decide(self, view: View) -> Targets:
        """What should change now, and why. Only limits and roles that differ from the view."""


@runtime_checkable
class StatefulPolicy(Policy, Protocol):
    """A policy that remembers the views it has decided on, and nothing else: the same views give the same targets.

    Its memory changes only in decide() and restore(), and is bounded. Every Control has one of its own.
    """

    def state(self) -> PolicyState:
        """All it remembers. A policy that was restored from it wants the same from then on."""

    def restore(self, state: PolicyState) -> None:
        """Go on, before the first view, from the state of an earlier life; its version is that of a fresh state().

        How long ago that life ended is not known: the counts in the next loads may have moved on by any amount. Before
        they come, which may take a report or two, no instance has a load.
        """
