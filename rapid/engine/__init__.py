'''RAPID for authors of inference engines, and of adapters for them: attach, and change role when told to.

    import asyncio, time
    from rapid.engine import PhaseLoad, Role, attach

    class MyEngine:
        role, taking, requests = Role.PREFILL, True, set()

        async def close(self) -> None:
            """Take no new request."""
            self.taking = False

        async def drained(self) -> int:
            """How many are left."""
            return len(self.requests)

        async def switch(self, role: Role) -> None:
            """Become the other role."""
            await self.rebuild(role)
            self.role = role

        async def open(self, role: Role) -> None:
            """Take requests again."""
            self.taking = True

        def load(self) -> PhaseLoad:
            """How much there is to do."""
            return PhaseLoad("p0", self.role, time.monotonic(), running_requests=len(self.requests))

    async def main() -> None:
        engine = MyEngine()
        async with attach(
            engine,
            instance="p0",
            node="h1",
            gpus=("GPU-1b2c...",),
            role=Role.PREFILL,
            address="unix:/run/rapid/controller.sock",
        ):
            await engine.serve()

What each step promises, and what comes of one that fails, is said at `Engine`; `ReadsRole`, `SeesOthers`, `ServesOn`
and `Reconciles` are what an engine may be able to do beside that. A whole engine is examples/engine.py. One in another
language needs no more than proto/rapid/v1/engine.proto: examples/cpp.
'''

from rapid.core.cluster import Histogram, Phase, PhaseLoad, Role
from rapid.core.errors import RapidError
from rapid.core.latency_counter import LatencyCounter
from rapid.core.reconcile import Seen
from rapid.engine.attach import Attached, attach
from rapid.engine.author import Engine, NotSwitched, ReadsRole, Reconciles, SeesOthers, ServesOn, SwitchFailed
from rapid.tls import TlsConfig

__all__ = [
    "Attached",
    "Engine",
    "Histogram",
    "LatencyCounter",
    "NotSwitched",
    "Phase",
    "PhaseLoad",
    "RapidError",
    "ReadsRole",
    "Reconciles",
    "Role",
    "Seen",
    "SeesOthers",
    "ServesOn",
    "SwitchFailed",
    "TlsConfig",
    "attach",
]
