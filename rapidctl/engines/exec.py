"""Any engine that must be started anew to change its role: `rapidctl attach exec` is its parent.

The operator words what only he can know: how it is started, when it is ready, how many requests keep it, and what has
the router leave it alone. Without a question for what is left, SIGTERM is the drain: the engine takes no new request,
finishes those that it has, and exits.

It serves on when its adapter is killed; the next adapter finds it by its record (life.py) and goes on with it. One that
dies by itself is said to be gone, started again in the role that it had, with growing pauses, and given up in the end.
"""

import asyncio
import contextlib
import fcntl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import IO

import aiohttp
from msgspec import Struct

from rapid.core.cluster import PhaseLoad, Role
from rapid.core.errors import EngineTaken, RapidError
from rapid.core.findings.base import Finding, green, red, yellow
from rapid.core.restarts import Restarts
from rapid.engine import NotSwitched, SwitchFailed
from rapidctl.engines.ask import CommandFailed, Question, run
from rapidctl.engines.base import Kind, Place, Say
from rapidctl.engines.life import Life, last_line, read_record
from rapidctl.engines.wording import Options, worded

LOOK_S = 0.1  # from one question to the next
QUESTION_WITHIN_S = 5.0  # for one answer
STEP_WITHIN_S = 20.0  # for a step of the router's
SETTLE_S = 0.1  # from the router's close to SIGTERM: what it has sent last is still on its way (assumed)
MARGIN_S = 10.0  # of a switch, beside ending one engine and starting another


class NotStarted(RapidError):
    """The engine was started and is not ready: it exited, or took too long."""


class ExecAdapter:
    """One engine, whichever process it is just now."""

    product = "exec"

    def __init__(self, place: Place, options: Options, session: aiohttp.ClientSession, say: Say) -> None:
        self._place, self._options, self._say = place, options, say
        self._said = worded(options, place, session)
        self._role = place.role or next(iter(self._said.run))
        self._lock: IO[str] | None = None  # keeps other adapters of this instance away
        self._life: Life | None = None
        self._ready_s = 0.0  # since when it has been ready; 0: it is not
        self._restarts = Restarts(options.restarts)
        self._asked_s, self._last_left = 0.0, 1  # when it was last asked what is left, and what it said

    # ---- what `attach` knows beside the steps ----

    @property
    def roles(self) -> Sequence[Role]:
        return tuple(self._said.run)

    @property
    def switch_s(self) -> float:
        return float(self._options.restart_s)

    @property
    def switch_within_s(self) -> float:
        return float(self._options.stop_within_s + self._options.ready_within_s + MARGIN_S)

    async def begin(self) -> Role:
        """Go on with the engine of an earlier adapter, start one, or start it again. Raises SwitchFailed when it is
        given up, EngineTaken while this host has another adapter of the instance."""
        self._stay_alone()
        if self._life is None and (found := Life.find(self._said.record)) is not None:
            self._say(f"found process {found.pid}, {found.role.value}, which an earlier adapter has started")
            self._life, self._role = found, found.role if found.role in self._said.run else self._role
        if self._life is not None and not self._life.alive:
            await self._mourn(self._life)
        try:
            await self._serve(self._role)
        except NotStarted as error:
            await asyncio.sleep(await self._give_up_on_it(error))
            raise
        return self._role

    async def ended(self) -> str:
        """Wait until the engine has ended by itself while it served, and say how."""
        while True:
            if (life := self._life) is not None:
                await life.ended()
                if life is self._life and self._ready_s and not life.ending:
                    return self._end_of(life)
            await asyncio.sleep(LOOK_S)  # it is being switched, and there will be another

    async def end(self) -> None:
        """The router lets it go, it finishes what it has and exits; killed in the end."""
        if self._life is not None and self._life.alive:
            with contextlib.suppress(CommandFailed):
                await self._at_router(self._said.close)
            await self._stop()
        if self._lock is not None:
            self._lock.close()

    async def findings(self) -> list[Finding]:
        found: list[Finding] = []
        record = read_record(self._said.record)
        if record is None or not record.lives():
            found.append(yellow("engine", "no process of it is on record", "nothing: attach starts it"))
        else:
            found.append(green("engine", f"process {record.pid} serves {record.role.value}"))
            try:
                await self._asked(self._said.ready, record.role)
                found.append(green("ready", "it says that it would serve a request"))
            except RapidError as error:
                found.append(red("ready", str(error), "see that it runs, and that the question is the right one"))
        return found

    # ---- what rapid.engine asks for ----

    async def close(self) -> None:
        await self._at_router(self._said.close)
        if self._said.left is None and self._life is not None:
            if self._said.close:
                await asyncio.sleep(SETTLE_S)
            self._life.tell_to_end()

    async def drained(self) -> int:
        if self._life is None or not self._life.alive:
            return 0
        if self._said.left is None:
            return 1
        if time.monotonic() - self._asked_s >= LOOK_S:
            self._asked_s, self._last_left = time.monotonic(), 1
            self._last_left = _whole(await self._asked(self._said.left, self._role))
        return self._last_left

    async def switch(self, role: Role) -> None:
        await self._stop()
        try:
            await self._start(role)
        except NotStarted as error:
            await self._stop()
            raise NotSwitched(str(error)) from error  # the old role is started anew by open

    async def open(self, role: Role) -> None:
        try:
            await self._serve(role)
        except NotStarted as error:
            await self._give_up_on_it(error)  # whoever calls again makes a pause of his own
            raise

    async def live_role(self) -> Role | None:
        return self._life.role if self._life is not None and self._life.alive and not self._life.ending else None

    def load(self) -> PhaseLoad:
        # As old as the machine: the engine's own load is read by rapidd, or pushed to it.
        return PhaseLoad(self._place.instance, self._role, 0.0, gpus=self._place.gpus)

    # ---- inside ----

    async def _serve(self, role: Role) -> None:
        """Have it run in this role, ready, and known to the router. Raises NotStarted and CommandFailed."""
        life = self._life
        if life is None or not life.alive or life.ending or life.role is not role:
            await self._stop()
            await self._start(role)
        elif not self._ready_s:
            await self._until_ready(life)
        await self._at_router(self._said.open)

    async def _start(self, role: Role) -> None:
        """Return when it is ready. Raises NotStarted."""
        command = [word.replace("{role}", role.value) for word in self._said.run[role]]
        environment, log = self._environment(role), self._options.engine_log
        try:
            life = Life.start(command, role, record=self._said.record, log=log, environment=environment)
        except OSError as error:
            what = f"{error.filename}: " if error.filename else ""
            raise NotStarted(
                f"{self._place.instance}: start: {what}{(error.strerror or str(error)).lower()}"
            ) from error
        self._life, self._role = life, role
        self._say(f"started process {life.pid} as {role.value}")
        await self._until_ready(life)

    async def _until_ready(self, life: Life) -> None:
        """Raises NotStarted."""
        problem, within_s = "it was not asked", self._options.ready_within_s
        about = f"{self._place.instance}: start as {life.role.value}"
        try:
            async with asyncio.timeout(within_s):
                while life.alive and (problem := await self._not_ready(life.role)):
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(LOOK_S):
                            await life.ended()
        except TimeoutError:
            raise NotStarted(f"{about}: process {life.pid} is not ready after {within_s:g} s: {problem}") from None
        if not life.alive:
            raise NotStarted(f"{about}: {self._end_of(life)} before it was ready")
        self._ready_s = time.monotonic()

    async def _not_ready(self, role: Role) -> str:
        """Why it is not; empty: it is."""
        try:
            await self._asked(self._said.ready, role)
        except RapidError as error:
            return str(error)
        return ""

    async def _stop(self) -> None:
        life, within_s, self._ready_s = self._life, self._options.stop_within_s, 0.0
        if life is not None and life.alive and not await life.stop(within_s):
            self._say(f"process {life.pid} did not end within {within_s:g} s of SIGTERM and was killed")

    async def _mourn(self, life: Life) -> None:
        """It has died while it served: the router is told, and it is not started again at once."""
        with contextlib.suppress(CommandFailed):
            await self._at_router(self._said.close)
        served_s = time.monotonic() - self._ready_s if self._ready_s else 0.0
        pause_s = await self._give_up_on_it(NotStarted(self._end_of(life)), served_s)
        self._say(f"starts it again in {pause_s:g} s")
        await asyncio.sleep(pause_s)

    async def _give_up_on_it(self, error: NotStarted, served_s: float = 0.0) -> float:
        """This process is none any more. The pause before the next; raises SwitchFailed when there is to be none."""
        await self._stop()
        self._life = None
        pause_s = self._restarts.died(served_s=served_s)
        if pause_s is None:
            times = f"{self._restarts.deaths} deaths in a row"
            raise SwitchFailed(f"given up after {times}, the last: {error}; see its log, and start this again")
        return pause_s

    def _stay_alone(self) -> None:
        """Raises EngineTaken. The kernel lets go of the lock however we end."""
        if self._lock is not None:
            return
        self._said.record.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = self._said.record.with_suffix(".lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            name = self._place.instance
            raise EngineTaken(f"{name}: begin: another adapter of it runs on this host; stop that one") from None
        self._lock = lock

    async def _at_router(self, command: Sequence[str]) -> None:
        """A step of the router's, if there is one. Raises CommandFailed."""
        if command:
            words = [word.replace("{role}", self._role.value) for word in command]
            await run(words, self._environment(self._role), STEP_WITHIN_S)

    async def _asked(self, question: Question, role: Role) -> str:
        return await question(self._environment(role), QUESTION_WITHIN_S)

    def _environment(self, role: Role) -> dict[str, str]:
        return {"RAPID_INSTANCE": self._place.instance, "RAPID_ROLE": role.value}

    def _end_of(self, life: Life) -> str:
        said = last_line(self._options.engine_log)
        return f"process {life.pid} {life.how()}{f', its last words: {said}' if said else ''}"


def _whole(said: str) -> int:
    """A number of requests. Raises CommandFailed."""
    try:
        number = float(said)
    except ValueError:
        number = -1.0
    if not 0 <= number < 2**53 or number != int(number):
        raise CommandFailed(f"must say how many requests are left, said {said.strip()[:40]!r}")
    return int(number)


@asynccontextmanager
async def opened(place: Place, options: Struct, say: Say) -> AsyncIterator[ExecAdapter]:
    """Its engine ends with it, in order. Raises ConfigInvalid."""
    assert isinstance(options, Options)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=False) as session:
        adapter = ExecAdapter(place, options, session, say)
        try:
            yield adapter
        finally:
            await adapter.end()


KIND = Kind(
    name="exec",
    options=Options,
    open=opened,
    about="Drive any engine that must be started anew to change its role.\n\n"
    "The adapter is its parent: it starts the engine, ends it with SIGTERM (SIGKILL after --stop-within), starts it in "
    "the other role, and starts it again when it dies. Without --left-url or --left-command SIGTERM is the drain: the "
    "engine finishes what it has, and exits. Every command finds RAPID_ROLE and RAPID_INSTANCE in its environment; no "
    "shell is between: say sh -c '...' where one is needed, and exec in a script, so that SIGTERM reaches the engine.",
    examples="""rapidctl attach exec --instance e0 --node h1 --gpu GPU-1b2c --role prefill \\
  --run 'python serve.py --role {role} --port 8000' \\
  --ready-url http://127.0.0.1:8000/health""",
)
