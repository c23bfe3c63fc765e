"""The controller's side of a role change: what comes of every event in every phase. A pair that is missing fails."""

from collections.abc import Callable, Sequence
from itertools import combinations

import pytest

from rapid.core.cluster import Mark, Phase, Role
from rapid.core.commands import Command, Notice
from rapid.core.errors import EngineRefused, RoleRefused
from rapid.core.role_table import NEXT_PHASES
from rapid.core.roles import Roles
from tests.core.engines import DRAIN_S, NODES_OF, SWITCH_S, hello, news, pair_of_each
from tests.core.transitions import cases

PREFILL, DECODE = Role.PREFILL, Role.DECODE
AT_S = 5.0  # when e0 is told to serve decode, by order 1.1
ORDER = Mark(1, 1)


def roles(phase: Phase) -> Roles:
    """e0 on its way from prefill to decode, or at rest where that began, beside one of prefill and two of decode."""
    made = pair_of_each(parks=True)
    made.order("e0", DECODE, AT_S)
    if phase is Phase.GONE:
        made.detach("e0", "first")
    else:
        made.progress(news("e0", ORDER, phase, PREFILL))
    return made


def says(phase: Phase, role: Role = PREFILL, mark: Mark = ORDER) -> Callable[[Roles], Sequence[Command]]:
    return lambda roles: roles.progress(news("e0", mark, phase, role))


def comes(phase: Phase, role: Role, incarnation: str = "first") -> Callable[[Roles], Sequence[Command]]:
    """It attaches, with the word that it is on its way to decode or back from there."""

    def attach(roles: Roles) -> Sequence[Command]:
        way = (PREFILL, DECODE) if phase in (Phase.DRAINING, Phase.SWITCHING) else (None, None)
        said = hello("e0", role, phase=phase, mark=ORDER, incarnation=incarnation, way=way)
        roles.attach(said, 20.0, NODES_OF)
        return []

    return attach


def goes(incarnation: str) -> Callable[[Roles], Sequence[Command]]:
    def detach(roles: Roles) -> Sequence[Command]:
        roles.detach("e0", incarnation)
        return []

    return detach


EVENTS: dict[str, Callable[[Roles], Sequence[Command]]] = {
    "says serving prefill": says(Phase.SERVING),
    "says serving decode": says(Phase.SERVING, DECODE),
    "says draining": says(Phase.DRAINING),
    "says switching": says(Phase.SWITCHING),
    "says warming": says(Phase.WARMING),
    "says rolling back": says(Phase.ROLLING_BACK),
    "says uncertain": says(Phase.UNCERTAIN),
    "says parked": says(Phase.PARKED),
    "says failed": says(Phase.FAILED),
    "says of an older order": says(Phase.SERVING, DECODE, Mark(1, 0)),
    "order to decode": lambda roles: [roles.order("e0", DECODE, 20.0)],
    "order to prefill": lambda roles: [roles.order("e0", PREFILL, 20.0)],
    "park": lambda roles: [roles.park("e0", 20.0)],
    "comes serving prefill": comes(Phase.SERVING, PREFILL),
    "comes serving decode": comes(Phase.SERVING, DECODE),
    "comes draining": comes(Phase.DRAINING, PREFILL),
    "comes switching": comes(Phase.SWITCHING, DECODE),
    "comes parked": comes(Phase.PARKED, PREFILL),
    "comes anew": comes(Phase.SERVING, PREFILL, "second"),
    "goes": goes("first"),
    "an older life goes": goes("zeroth"),
    "tick": lambda roles: roles.tick(AT_S + 1.0),
    "tick after the drain": lambda roles: roles.tick(AT_S + DRAIN_S + 1.1),
    "tick after the switch": lambda roles: roles.tick(AT_S + DRAIN_S + SWITCH_S + 0.1),
}

TABLE = {
    "serving": """
        serving prefill: nothing <- says serving prefill, says draining, says switching, says warming, says
            rolling back, says uncertain, says parked, says of an older order, comes serving prefill, an older
            life goes, tick, tick after the drain, tick after the switch
        serving decode: warning <- says serving decode
        failed prefill: error <- says failed
        draining prefill to decode: OrderRole <- order to decode
        refused: RoleRefused <- order to prefill
        draining prefill: OrderRole <- park
        serving decode: nothing <- comes serving decode
        draining prefill to decode: nothing <- comes draining
        switching prefill to decode: nothing <- comes switching
        parked prefill: nothing <- comes parked
        refused: EngineTaken <- comes anew
        gone prefill: nothing <- goes
    """,
    "draining": """
        serving prefill: warning <- says serving prefill
        serving decode: info <- says serving decode
        draining prefill to decode: nothing <- says draining, says of an older order, comes draining, an older
            life goes, tick
        switching prefill to decode: nothing <- says switching, comes switching
        warming prefill to decode: nothing <- says warming
        rolling back prefill to decode: nothing <- says rolling back
        uncertain prefill to decode: error <- says uncertain, tick after the switch
        parked prefill: warning <- says parked
        failed prefill to decode: error <- says failed
        refused: RoleRefused <- order to decode, order to prefill, park
        serving prefill: nothing <- comes serving prefill
        serving decode: nothing <- comes serving decode
        parked prefill: nothing <- comes parked
        refused: EngineTaken <- comes anew
        gone prefill to decode: nothing <- goes
        draining prefill to decode: CancelRole <- tick after the drain
    """,
    "switching": """
        serving prefill: warning <- says serving prefill
        serving decode: info <- says serving decode
        switching prefill to decode: nothing <- says draining, says switching, says of an older order, comes
            switching, an older life goes, tick, tick after the drain
        warming prefill to decode: nothing <- says warming
        rolling back prefill to decode: nothing <- says rolling back
        uncertain prefill to decode: error <- says uncertain, tick after the switch
        parked prefill: warning <- says parked
        failed prefill to decode: error <- says failed
        refused: RoleRefused <- order to decode, order to prefill, park
        serving prefill: nothing <- comes serving prefill
        serving decode: nothing <- comes serving decode
        draining prefill to decode: nothing <- comes draining
        parked prefill: nothing <- comes parked
        refused: EngineTaken <- comes anew
        gone prefill to decode: nothing <- goes
    """,
    "warming": """
        serving prefill: warning <- says serving prefill
        serving decode: info <- says serving decode
        warming prefill to decode: nothing <- says draining, says switching, says warming, says of an older
            order, an older life goes, tick, tick after the drain
        rolling back prefill to decode: nothing <- says rolling back
        uncertain prefill to decode: error <- says uncertain, tick after the switch
        parked prefill: warning <- says parked
        failed prefill to decode: error <- says failed
        refused: RoleRefused <- order to decode, order to prefill, park
        serving prefill: nothing <- comes serving prefill
        serving decode: nothing <- comes serving decode
        draining prefill to decode: nothing <- comes draining
        switching prefill to decode: nothing <- comes switching
        parked prefill: nothing <- comes parked
        refused: EngineTaken <- comes anew
        gone prefill to decode: nothing <- goes
    """,
    "rolling back": """
        serving prefill: warning <- says serving prefill
        serving decode: info <- says serving decode
        rolling back prefill to decode: nothing <- says draining, says switching, says warming, says rolling
            back, says of an older order, an older life goes, tick, tick after the drain
        uncertain prefill to decode: error <- says uncertain, tick after the switch
        parked prefill: warning <- says parked
        failed prefill to decode: error <- says failed
        refused: RoleRefused <- order to decode, order to prefill, park
        serving prefill: nothing <- comes serving prefill
        serving decode: nothing <- comes serving decode
        draining prefill to decode: nothing <- comes draining
        switching prefill to decode: nothing <- comes switching
        parked prefill: nothing <- comes parked
        refused: EngineTaken <- comes anew
        gone prefill to decode: nothing <- goes
    """,
    "uncertain": """
        serving prefill: warning <- says serving prefill
        serving decode: info <- says serving decode
        uncertain prefill to decode: nothing <- says draining, says switching, says warming, says rolling back,
            says uncertain, says of an older order, an older life goes, tick
        parked prefill: warning <- says parked
        failed prefill to decode: error <- says failed
        refused: RoleRefused <- order to decode, order to prefill, park
        serving prefill: nothing <- comes serving prefill
        serving decode: nothing <- comes serving decode
        draining prefill to decode: nothing <- comes draining
        switching prefill to decode: nothing <- comes switching
        parked prefill: nothing <- comes parked
        refused: EngineTaken <- comes anew
        gone prefill to decode: nothing <- goes
        uncertain prefill to decode: CancelRole <- tick after the drain, tick after the switch
    """,
    "parked": """
        parked prefill: nothing <- says serving prefill, says serving decode, says draining, says switching,
            says warming, says rolling back, says uncertain, says parked, says of an older order, comes parked,
            an older life goes, tick, tick after the drain, tick after the switch
        failed prefill: error <- says failed
        draining prefill to decode: OrderRole <- order to decode
        draining prefill: OrderRole <- order to prefill
        refused: RoleRefused <- park
        serving prefill: nothing <- comes serving prefill
        serving decode: nothing <- comes serving decode
        draining prefill to decode: nothing <- comes draining
        switching prefill to decode: nothing <- comes switching
        refused: EngineTaken <- comes anew
        gone prefill: nothing <- goes
    """,
    "failed": """
        serving prefill: info <- says serving prefill
        serving decode: info <- says serving decode
        failed prefill to decode: nothing <- says draining, says switching, says warming, says rolling back,
            says uncertain, says of an older order, an older life goes, tick, tick after the drain, tick after
            the switch
        parked prefill: info <- says parked
        failed prefill to decode: error <- says failed
        refused: RoleRefused <- order to decode, order to prefill, park
        serving prefill: nothing <- comes serving prefill
        serving decode: nothing <- comes serving decode
        draining prefill to decode: nothing <- comes draining
        switching prefill to decode: nothing <- comes switching
        parked prefill: nothing <- comes parked
        refused: EngineTaken <- comes anew
        gone prefill to decode: nothing <- goes
    """,
    "gone": """
        gone prefill to decode: nothing <- says serving prefill, says serving decode, says draining, says
            switching, says warming, says rolling back, says uncertain, says parked, says failed, says of an
            older order, goes, an older life goes, tick, tick after the drain, tick after the switch
        refused: RoleRefused <- order to decode, order to prefill, park
        serving prefill: nothing <- comes serving prefill, comes anew
        serving decode: nothing <- comes serving decode
        draining prefill to decode: nothing <- comes draining
        switching prefill to decode: nothing <- comes switching
        parked prefill: nothing <- comes parked
    """,
}


def outcome(phase: Phase, event: str) -> str:
    """How e0 stands afterwards, and what was commanded; or why the event was refused."""
    made = roles(phase)
    try:
        commands = EVENTS[event](made)
    except (RoleRefused, EngineRefused) as refused:
        return f"refused: {type(refused).__name__}"
    words = [each.level if isinstance(each, Notice) else type(each).__name__ for each in commands]
    one = made.instances["e0"]
    way = one.role.value if one.role is one.target_role else f"{one.role.value} to {one.target_role.value}"
    return f"{one.phase.value} {way}: {' '.join(words) or 'nothing'}"


@pytest.mark.parametrize(("phase", "event", "expected"), cases(TABLE, [phase.value for phase in Phase], EVENTS))
def test_what_comes_of_an_event(phase: str, event: str, expected: str) -> None:
    assert outcome(Phase(phase), event) == expected


@pytest.mark.parametrize("phase", Phase)
def test_news_change_nothing_unless_the_table_lets_them(phase: Phase) -> None:
    for heard in set(Phase) - {Phase.GONE}:
        made = roles(phase)
        made.progress(news("e0", ORDER, heard, PREFILL))
        assert made.instances["e0"].phase is (heard if heard in NEXT_PHASES[phase] else phase)


def test_no_news_makes_a_phase_go_backwards() -> None:
    order = [Phase.DRAINING, Phase.SWITCHING, Phase.UNCERTAIN, Phase.WARMING, Phase.ROLLING_BACK]
    for late, now in combinations(order, 2):
        assert late not in NEXT_PHASES[now] or late is Phase.UNCERTAIN, f"{late} after {now}"
