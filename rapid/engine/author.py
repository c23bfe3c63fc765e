"""What an engine must be able to do for RAPID, and how it says that something did not work."""

from typing import Protocol, runtime_checkable

from rapid.core.cluster import PhaseLoad, Role
from rapid.core.errors import RapidError
from rapid.core.reconcile import Seen


class NotSwitched(RapidError):
    """Raised by `switch`: it was refused, and the engine is as it was, fit to serve in its old role."""


class SwitchFailed(RapidError):
    """Raised by `switch`, `live_role` or `open`: the engine can serve neither role until it is started anew."""


class Engine(Protocol):
    """One instance: an engine itself, or an adapter that drives it and its router.

    The four steps of a role change are called one at a time, in this order, on the event loop that called `attach`;
    none may block it. What a step raises is said to the controller and shown to operators: let it be one line that
    names what went wrong, where, and what to do.

        close    raises: the engine is opened again in its old role
        drained  raises: it counts as not drained; when the drain has taken too long, it is opened again
        switch   raises NotSwitched: it is opened again. SwitchFailed: it is out of service. Anything else, or too slow:
                 nobody knows. It is not called again; the role is read with `live_role`, where there is one
        open     raises SwitchFailed: it is out of service. Anything else: it is called again, with growing pauses

    A cancel, or a drain that takes too long, leads from `close` or `drained` straight to `open` in the old role.
    """

    async def close(self) -> None:
        """Take no new request from now on, for as long as `open` is not called. What has begun goes on.

        With a router before the engine this takes it out there, and returns when the router has confirmed that.
        """

    async def drained(self) -> int:
        """How many requests keep it from being drained; 0: it is. Called many times a second while it drains. What it
        raises is said to the operator if the drain does not end in time.

        Count those that wait, those that run, and those whose KV cache a peer has yet to pull.
        """

    async def switch(self, role: Role) -> None:
        """Become `role`, and return when that is done. It holds no request, and gets none before `open`."""

    async def open(self, role: Role) -> None:
        """Take requests in `role`, the one that it has; return when a request would be served. Idempotent."""

    def load(self) -> PhaseLoad:
        """Its load now; counters and histograms are cumulative. `at_s` is of time.monotonic(). It must not block.

        Called a few times a second if the controller or rapidd is to hear it from here; otherwise never.
        """


@runtime_checkable
class ReadsRole(Protocol):
    """An engine that can also find out which role it really has. A switch then counts when that has been read back."""

    async def live_role(self) -> Role | None:
        """The role that the engine itself says it has; None, or an error: it cannot be told now, ask again."""


@runtime_checkable
class ServesOn(Protocol):
    """An engine that may take requests of its new role while those of the old one are still running. A change of its
    role then needs neither `close` nor a drain; to park it does."""

    def serves_on(self) -> bool:
        """Whether it can now."""


@runtime_checkable
class SeesOthers(Protocol):
    """An engine that can also see who else serves, at its router. The last of a role then refuses to leave it."""

    async def others(self) -> int | None:
        """How many other instances serve the role that this one serves (for a mixed one, the rarer of the two); None,
        or an error: it cannot be told."""


@runtime_checkable
class Reconciles(Protocol):
    """An engine, or its adapter, that can look whether all is as it should be. It is then asked every few seconds, and
    what differs is put right with the steps that it has: rapid.core.reconcile says what, and when not."""

    async def look_around(self) -> Seen:
        """One look at engine and router; what cannot be seen is None there. An error: nothing could be seen at all."""
