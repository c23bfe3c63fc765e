"""The list of workers that sglang-router and smg serve, as far as one worker is concerned.

Both answer 202 before anything has happened, and sglang-router also to what it will not do. So no answer counts here
but the list itself, asked again until it says so. It lives in the router's memory: a restart forgets what was added.
"""

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

from msgspec import Struct, field

from rapid.core.cluster import Role
from rapid.core.errors import RapidError
from rapidctl.engines.http import CallFailed, Peer, shown

POLL_S = 0.01  # between two looks at the list; one costs the router 0.2 ms
GONE_WITHIN_S = 10.0  # after a removal; smg keeps a worker for 5 s by default
THERE_WITHIN_S = 30.0  # after an addition: the router asks the worker first, again and again
TYPES = {Role.PREFILL: "prefill", Role.DECODE: "decode", Role.MIXED: "regular"}
_ROLES = {name: role for role, name in TYPES.items()}
_LOCAL = ("localhost", "::1", "0.0.0.0")
_NO_LIST = "no list of workers is there: is it the URL of sglang-router 0.3.2 or smg 1.13.0, or later?"


class RouterDisagrees(RapidError):
    """The router has taken an order and not carried it out in time, or lists what cannot be."""


class Worker(Struct, frozen=True):
    """One entry of the list."""

    id: str
    url: str
    worker_type: str = "regular"
    is_healthy: bool = False
    status: str = ""
    connection_mode: str = ""
    runtime_type: str = ""
    bootstrap_port: int | None = None
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def role(self) -> Role | None:
        """The pool it is in; None: one that we do not know."""
        return _ROLES.get(self.worker_type)

    @property
    def taken_out(self) -> bool:
        """It is on its way out, and gets no new request (smg)."""
        return self.status == "draining"


class _List(Struct, frozen=True):
    workers: list[Worker]


class _Job(Struct, frozen=True):
    message: str = ""
    status: str = ""


class _One(Struct, frozen=True):
    job_status: _Job | None = None


class Workers:
    """`url` is that of our worker, as the router is to reach it. `within_s` is how long a removal, and an addition, may
    take to show in the list."""

    def __init__(
        self, router: Peer, url: str, *, within_s: tuple[float, float] = (GONE_WITHIN_S, THERE_WITHIN_S)
    ) -> None:
        self.router, self.url = router, url
        self._gone_within_s, self._there_within_s = within_s
        self._key = _key(url)

    async def all(self, step: str) -> list[Worker]:
        """Everybody's workers. Raises CallFailed."""
        return (await self.router.get(step, "/workers", missing=_NO_LIST)).read(_List).workers

    async def mine(self, step: str) -> list[Worker]:
        """The entries of our worker, however its URL is written; more than one is a mistake. Raises CallFailed."""
        return [worker for worker in await self.all(step) if _key(worker.url) == self._key]

    async def others(self, step: str, role: Role) -> int:
        """How many workers but ours get requests in this role (for mixed, the rarer of the two). Raises CallFailed."""
        others = [one for one in await self.all(step) if _key(one.url) != self._key and one.is_healthy]
        serving = [one.role for one in others if not one.taken_out]
        if role is not Role.MIXED:
            return sum(each in (role, Role.MIXED) for each in serving)
        return min(sum(each in (phase, Role.MIXED) for each in serving) for phase in (Role.PREFILL, Role.DECODE))

    async def remove(self, step: str) -> None:
        """Take our worker out, wherever it stands; no request is sent to it on return. Raises CallFailed, and
        RouterDisagrees."""
        for worker in await self.mine(step):
            if not worker.taken_out:
                await self._delete(step, worker)
        await self._until(
            step,
            lambda mine: all(worker.taken_out for worker in mine),
            self._gone_within_s,
            "was told to take {url} out, and still lists it",
        )

    async def add(self, step: str, role: Role, spec: dict[str, Any]) -> None:
        """Have our worker get requests in this role, and on return it does. Raises CallFailed, and RouterDisagrees."""
        mine = await self.mine(step)
        if _is_there(mine, role):
            return
        if any(not worker.taken_out for worker in mine):
            await self.remove(step)
        await self._until(step, lambda mine: not mine, self._gone_within_s, "has not let go of {url} yet")
        answer = await self.router.call(step, "POST", "/workers", spec, good=(200, 201, 202), missing=_NO_LIST)
        await self._there(step, role, answer.body)

    async def replace(self, step: str, worker: Worker, role: Role, spec: dict[str, Any]) -> None:
        """Move our worker within the list, in one step (smg). Raises CallFailed, and RouterDisagrees."""
        path = f"/workers/{quote(worker.id, safe='')}"
        answer = await self.router.call(step, "PUT", path, spec, good=(200, 202))
        await self._there(step, role, answer.body)

    # ---- inside ----

    async def _delete(self, step: str, worker: Worker) -> None:
        # Not found: somebody was faster, and it is gone either way.
        await self.router.call(step, "DELETE", f"/workers/{quote(worker.id, safe='')}", good=(200, 202, 204, 404))

    async def _there(self, step: str, role: Role, said: bytes) -> None:
        try:
            await self._until(
                step,
                lambda mine: _is_there(mine, role),
                self._there_within_s,
                f"has not taken {{url}} in as {TYPES[role]}",
            )
        except RouterDisagrees as late:
            raise RouterDisagrees(f"{late}: {await self._why(step, said)}") from late

    async def _until(self, step: str, done: Callable[[list[Worker]], bool], within_s: float, trouble: str) -> None:
        """Look at the list until it is as it should be. Raises RouterDisagrees after within_s."""
        mine: list[Worker] = []
        try:
            async with asyncio.timeout(within_s):
                while True:
                    if done(mine := await self.mine(step)):
                        return
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            seen = ", ".join(f"{one.worker_type} {'healthy' if one.is_healthy else 'not healthy'}" for one in mine)
            text = f"{self.router.instance}: {step}: router {self.router.endpoint.url} {trouble.format(url=self.url)}"
            raise RouterDisagrees(f"{text} after {within_s:g} s (listed: {seen or 'nowhere'})") from None

    async def _why(self, step: str, said: bytes) -> str:
        """What the router itself says of an addition that does not come; its answer at the time if it says nothing."""
        try:
            mine = await self.mine(step)
            if mine and (job := (await self.router.get(step, f"/workers/{mine[0].id}")).read(_One).job_status):
                return f"it says: {job.status} {shown(job.message)}"
        except CallFailed:
            pass
        return f"it had said: {shown(said)}; see that it reaches the engine there, and look into its log"


def _is_there(mine: list[Worker], role: Role) -> bool:
    return len(mine) == 1 and mine[0].role is role and mine[0].is_healthy and not mine[0].taken_out


def _key(url: str) -> tuple[str, int | None]:
    """Two URLs with the same one lead to the same worker; the scheme says only how it is talked to."""
    try:
        parts = urlsplit(url if "//" in url else f"//{url}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return url, None
    return "127.0.0.1" if host in _LOCAL else host, port
