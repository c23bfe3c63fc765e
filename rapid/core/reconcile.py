"""What an engine should be against what its router and it itself say, and what to do about a difference.

A router forgets workers when it restarts; somebody changes a role behind our back; an engine is started anew in the
role of its launch. A Reconciler is told what was seen at each look and says what to do, one thing at a time:

    PutBack   the router lists it nowhere, and it should get requests: open it again
    Renew     it is listed twice, or in the wrong role: take it out everywhere, and open it again
    TakeOut   it is listed, and should serve nobody
    Adopt     the engine has another role than we think. What it has, counts: nobody switches it back unasked
    Lost      the engine does not answer at all, so it serves nobody
    Back      it was lost, or had failed, and is there again, in another life

It never flaps: a difference must be seen CONFIRM_LOOKS times; each repair waits longer than the one before; and after
FENCE_REPAIRS within FENCE_WINDOW_S the instance is *fenced*: another hand undoes what we do, so it is left alone,
loudly, but for one repair in minutes, in case the other hand has gone. The fence goes when all has been well for a
whole window, or a role change has set it anew. Who adopts that often takes no orders for as long.

Pure: time is passed in.
"""

from collections import deque
from dataclasses import dataclass, field

from rapid.core.cluster import Role

LOOK_S = 2.0  # between two looks when all is well (assumed: a router that forgets is noticed in seconds)
SOON_S = 0.5  # between two looks while something is not
CONFIRM_LOOKS = 2  # that must show the same difference: a list may be read in the middle of somebody's change
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0  # before the next repair; doubles with each (assumed)
FENCE_REPAIRS, FENCE_WINDOW_S = 5, 60.0  # as rapidd's own fence against another writer of limits
FENCED_PAUSE_S = 600.0  # between repairs behind the fence, at most; the first comes after a window (assumed)


@dataclass(frozen=True, slots=True)
class Should:
    """What an instance should be.

    taking  it should get requests; False: none; None: it is on its way there, so the router is not looked at
    failed  it serves no role until it is started anew
    """

    role: Role
    roles: tuple[Role, ...]
    taking: bool | None = True
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at an engine and its router.

    listed   the roles in which the router lists it, one for each entry; None: it cannot be told, or there is no router
    healthy  whether the router sends requests to where it is listed
    live     the role that the engine itself says it has; None: it cannot be told
    up       False: nobody is there; what only answers late is up
    life     another text in another life of the engine; empty: it cannot be told
    problem  what could not be seen, and why, in one line
    """

    listed: tuple[Role, ...] | None = None
    healthy: bool = True
    live: Role | None = None
    up: bool = True
    life: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class PutBack:
    """Open it, in its role."""

    role: Role


@dataclass(frozen=True, slots=True)
class Renew:
    """Close it, and open it in its role."""

    role: Role
    why: str


@dataclass(frozen=True, slots=True)
class TakeOut:
    """Close it."""


@dataclass(frozen=True, slots=True)
class Adopt:
    """Take `role` for the one that it has."""

    role: Role


@dataclass(frozen=True, slots=True)
class Lost:
    """Take it for failed."""

    why: str


@dataclass(frozen=True, slots=True)
class Back:
    """Take it in again, in `role`."""

    role: Role


Repair = PutBack | Renew | TakeOut
Remedy = Repair | Adopt | Lost | Back


def difference(should: Should, seen: Seen) -> Remedy | None:
    """What one look asks for; None: all is as it should be, as far as it could be seen."""
    if should.failed:
        return None
    if not seen.up:
        return Lost(seen.problem or "it does not answer")
    if seen.live is not None and seen.live is not should.role:
        return Adopt(seen.live) if seen.live in should.roles else Lost(_unknown(seen.live, should))
    if seen.listed is None or should.taking is None:
        return None
    if not should.taking:
        return TakeOut() if seen.listed else None
    if not seen.listed:
        return PutBack(should.role)
    if len(seen.listed) > 1:
        return Renew(should.role, f"the router lists it {len(seen.listed)} times: {_words(seen.listed)}")
    if seen.listed != (should.role,):
        return Renew(should.role, f"the router lists it as {_words(seen.listed)}")
    return None


@dataclass(slots=True)
class Reconciler:
    """One instance. Call `look` with what was seen, do what it says, say with `done` what came of it.

    trouble  what is wrong and not put right, in one line; empty: nothing
    """

    trouble: str = ""
    _pending: Remedy | None = None
    _looks: int = 0
    _life: str = ""  # of the engine as it last was well
    _was_down: bool = False
    _fenced: bool = False
    _repairs: deque[float] = field(default_factory=lambda: deque(maxlen=FENCE_REPAIRS))
    _adoptions: deque[float] = field(default_factory=lambda: deque(maxlen=FENCE_REPAIRS))
    _not_before_s: float = 0.0  # the next repair
    _pause_s: float = FIRST_PAUSE_S
    _well_s: float | None = None  # since when nothing differs

    def look(self, should: Should, seen: Seen, at_s: float) -> Remedy | None:
        """What to do now about what was seen; None: nothing, or not yet."""
        wanted = self._back(should, seen) if should.failed else difference(should, seen)
        self._remember(should, seen)
        if wanted is None:
            self._nothing(seen, at_s)
            return None
        self._well_s = None
        # Texts may differ from look to look, and mean the same.
        same = (
            self._pending is not None and type(wanted) is type(self._pending) and _role(wanted) is _role(self._pending)
        )
        self._looks = self._looks + 1 if same else 1
        self._pending = wanted
        if self._looks < CONFIRM_LOOKS:
            return None
        return self._confirmed(wanted, at_s)

    def done(self, remedy: Remedy, at_s: float, error: str = "") -> None:
        """It was tried; `error` says why it did not work."""
        self._pending, self._looks = None, 0
        if isinstance(remedy, Adopt):
            self._adoptions.append(at_s)
        elif isinstance(remedy, PutBack | Renew | TakeOut):
            self._not_before_s = at_s + self._pause_s
            self._pause_s = min(2 * self._pause_s, FENCED_PAUSE_S if self._fenced else LONGEST_PAUSE_S)
            if error:
                self.trouble = f"{words(remedy)}, and cannot be put right: {error}"
            else:
                self._repairs.append(at_s)
                self.trouble = ""

    def changed(self) -> None:
        """A role change has set it anew: what was repaired before does not count any more."""
        self._repairs.clear()
        self._fenced, self._pending, self._looks, self.trouble = False, None, 0, ""
        self._not_before_s, self._pause_s, self._well_s = 0.0, FIRST_PAUSE_S, None

    def refusal(self, at_s: float) -> str:
        """Why no order is taken now; empty: orders are. Whoever moves a role again and again would move it back."""
        if not _within_window(self._adoptions, at_s):
            return ""
        return (
            f"another hand has changed its role {FENCE_REPAIRS} times within {FENCE_WINDOW_S:g} s; find who calls the "
            f"engine or its router, and stop that; orders are taken again {FENCE_WINDOW_S:g} s after the first of them"
        )

    @property
    def pause_s(self) -> float:
        """How long to wait before the next look."""
        return SOON_S if self._pending is not None or self.trouble else LOOK_S

    # ---- inside ----

    def _back(self, should: Should, seen: Seen) -> Remedy | None:
        """Of one that has failed: whether this is another life of it."""
        reborn = self._was_down or (bool(seen.life) and bool(self._life) and seen.life != self._life)
        fit = seen.up and seen.live is not None and seen.live in should.roles
        return Back(seen.live) if reborn and fit and seen.live is not None else None

    def _remember(self, should: Should, seen: Seen) -> None:
        if not seen.up:
            self._was_down = True
        elif not should.failed or not self._life:
            self._was_down, self._life = self._was_down and should.failed, seen.life or self._life

    def _nothing(self, seen: Seen, at_s: float) -> None:
        """Nothing is to be done; it may still not be well."""
        self._pending, self._looks = None, 0
        if seen.problem:
            self.trouble = seen.problem
        elif seen.listed and not seen.healthy:
            self.trouble = "the router finds it unhealthy and sends it nothing; see that it reaches the engine"
        else:
            self.trouble = ""
        self._well_s = at_s if self._well_s is None else self._well_s
        if at_s - self._well_s >= FENCE_WINDOW_S:
            self.changed()
            self._well_s = at_s

    def _confirmed(self, wanted: Remedy, at_s: float) -> Remedy | None:
        if isinstance(wanted, Adopt | Lost | Back):
            return wanted
        if not self._fenced and _within_window(self._repairs, at_s):
            self._fenced, self._pause_s, self._not_before_s = True, FENCE_WINDOW_S, at_s + FENCE_WINDOW_S
        if self._fenced:
            self.trouble = (
                f"{words(wanted)}; it was put right {FENCE_REPAIRS} times within {FENCE_WINDOW_S:g} s, and undone "
                "each time, so it is left alone: find who else drives the router or the engine, and stop that; a role "
                f"change takes it up again, and it is tried again after {self._pause_s:g} s"
            )
        return wanted if at_s >= self._not_before_s else None


def words(remedy: Remedy) -> str:
    """What was noticed, in a few words."""
    match remedy:
        case PutBack():
            return "the router listed it nowhere"
        case Renew(_, why):
            return why
        case TakeOut():
            return "the router listed it, though it should serve nobody"
        case Adopt(role):
            return f"another hand has made it {role.value}"
        case Lost(why):
            return f"it is lost: {why}"
        case Back(role):
            return f"it is there again, as {role.value}"


def _within_window(times_s: deque[float], at_s: float) -> bool:
    """Whether the last so many were all within one window that is not over yet."""
    return len(times_s) == FENCE_REPAIRS and at_s - times_s[0] <= FENCE_WINDOW_S


def _role(remedy: Remedy) -> Role | None:
    return remedy.role if isinstance(remedy, PutBack | Renew | Adopt | Back) else None


def _words(roles: tuple[Role, ...]) -> str:
    return " and ".join(role.value for role in roles)


def _unknown(live: Role, should: Should) -> str:
    return f"it has role {live.value}, which is none of {', '.join(role.value for role in should.roles)}"
