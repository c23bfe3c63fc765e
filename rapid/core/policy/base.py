"""What a policy is: View -> Targets. It never sends anything; the ledger orders what it asks for."""

from typing import Protocol

from rapid.core.cluster import Targets, View

NO_CHANGE = Targets({}, {})


class Policy(Protocol):
    """A policy. All it remembers is in the view."""

    @property
    def name(self) -> str: ...

    def decide(self, view: View) -> Targets:
        """What should change now, and why. Only limits and roles that differ from the view."""
