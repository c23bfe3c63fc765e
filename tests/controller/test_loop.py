"""Take, step, journal, perform: in this order, and nothing is performed that the journal does not hold."""

import asyncio
from dataclasses import replace

import pytest

from rapid.core.cluster import Decision, Mark, Phase, Role, RoleProgress
from rapid.core.commands import Announce, Answer, Command, Notice, OrderRole, RefuseEngine, Scored
from rapid.core.events import (
    EngineCame,
    EngineGone,
    EngineMoved,
    Event,
    NodeHeard,
    PauseAsked,
    Started,
    Ticked,
)
from rapidctl.controller import codec
from rapidctl.controller.damage import JournalFailed
from rapidctl.controller.decided import DECISIONS_MAX
from rapidctl.controller.loop import BATCH, LifeLimits
from rapidctl.controller.roster import Roster
from tests.controller.fakes import LIFE, SNAPSHOT, Rig, hello, report


def echo(event: Event) -> list[Command]:
    """One notice per event, and an answer to whoever asks."""
    notices: list[Command] = [Notice("info", "echo", type(event).__name__)]
    return [*notices, Answer(event.request, "yes")] if isinstance(event, PauseAsked) else notices


async def test_a_life_begins_in_the_journal_before_anything_is_performed() -> None:
    rig = Rig(echo)
    await rig.loop.begin(SNAPSHOT)
    life, rows = rig.journal.lives[0]
    assert life == LIFE
    assert codec.decode_event(rows[0].kind, rows[0].event.encode()) == Started(100.0, 1000.0, 3, "c1", SNAPSHOT)
    assert rig.recorder.performed == [Notice("info", "echo", "Started")]
    assert (rig.loop.greeting.epoch, rig.loop.greeting.controller_id) == (3, "c1")


async def test_a_turn_takes_what_waits_with_one_commit() -> None:
    rig = Rig(echo)
    await rig.loop.begin(None)
    await rig.inbox.put_report(report())
    rig.inbox.put_tick()
    assert await rig.loop.turn()
    assert rig.journal.kinds == ["Started", "NodeHeard", "Ticked"]
    assert (rig.recorder.commits, rig.recorder.steps) == (1, 3)
    assert rig.recorder.performed[1:] == [Notice("info", "echo", "NodeHeard"), Notice("info", "echo", "Ticked")]


async def test_a_turn_takes_no_more_than_a_batch() -> None:
    rig = Rig(echo, queue=BATCH + 10)
    await rig.loop.begin(None)
    for seq in range(BATCH + 10):
        await rig.inbox.put_report(report(seq=seq))
    await rig.loop.turn()
    assert len(rig.inbox) == 10


async def test_nothing_is_performed_when_the_journal_fails() -> None:
    rig = Rig(echo)
    await rig.loop.begin(None)
    rig.journal.fails = True
    asker = asyncio.ensure_future(rig.inbox.ask(PauseAsked(0.0, "r1", True, "me")))
    await asyncio.sleep(0)
    with pytest.raises(JournalFailed, match="disk is full"):
        await rig.loop.run()
    assert rig.recorder.performed == [Notice("info", "echo", "Started")]
    assert not asker.done()
    asker.cancel()


async def test_a_life_that_cannot_begin_performs_nothing() -> None:
    rig = Rig(echo)
    rig.journal.fails = True
    with pytest.raises(JournalFailed):
        await rig.loop.begin(None)
    assert rig.recorder.performed == []


async def test_run_ends_when_the_inbox_closes() -> None:
    rig = Rig(echo)
    await rig.loop.begin(None)
    rig.inbox.put_tick()
    running = asyncio.ensure_future(rig.loop.run())
    await asyncio.sleep(0)
    rig.inbox.close()
    await running
    assert rig.journal.kinds == ["Started", "Ticked"]


# ---- a new life in the same process ----


async def test_a_life_that_has_grown_long_hands_on_to_a_new_one() -> None:
    rig = Rig(echo, limits=LifeLimits(entries=2, size_bytes=2**30))
    await rig.loop.begin(None)
    for now_s in (101.0, 102.0, 103.0):
        rig.clock.now_s = now_s
        rig.inbox.put_tick()
        await rig.loop.turn()
    (first, first_rows), (second, second_rows) = rig.journal.lives
    assert [row.kind for row in first_rows] == ["Started", "Ticked", "Ticked"]
    assert [row.kind for row in second_rows] == ["Started", "Ticked"]
    assert (second.epoch, second.controller_id) == (first.epoch, first.controller_id)
    assert second.started_wall_s == 1002.0
    assert rig.brains[1].events[0] == Started(102.0, 1002.0, 3, "c1", SNAPSHOT)
    assert rig.brains[1].events[1:] == [Ticked(103.0)]


async def test_a_life_also_ends_by_its_size() -> None:
    rig = Rig(limits=LifeLimits(entries=1000, size_bytes=5000))
    await rig.loop.begin(None)
    for seq in range(1, 20):
        await rig.inbox.put_report(report(seq=seq, gpus=4))
        await rig.loop.turn()
    assert len(rig.journal.lives) > 3
    assert all(sum(len(row.event) for row in rows) < 9000 for _, rows in rig.journal.lives)


async def test_attached_engines_are_introduced_to_the_new_life() -> None:
    order = OrderRole("e1", "i1", Mark(3, 1), Role.DECODE, 30.0, 50.0)

    def script(event: Event) -> list[Command]:
        if isinstance(event, EngineCame) and event.hello.instance == "bad":
            return [RefuseEngine("bad", "i1", "no", "EngineRefused")]
        return [order] if isinstance(event, Ticked) and event.at_s == 104.0 else []

    rig = Rig(script, limits=LifeLimits(entries=5, size_bytes=2**30))
    await rig.loop.begin(None)
    for one in (hello("e1"), hello("e2"), hello("bad")):
        await rig.inbox.put(EngineCame(0.0, one))
    rig.inbox.put_end(EngineGone(0.0, "e2", "i1", "left"))
    await rig.loop.turn()
    assert len(rig.brains) == 1
    rig.clock.now_s = 104.0
    rig.inbox.put_tick()
    await rig.loop.turn()
    ordered = replace(hello("e1"), phase=Phase.DRAINING, mark=Mark(3, 1), engine_time_s=9.0)
    ordered = replace(ordered, from_role=Role.PREFILL, to_role=Role.DECODE)
    assert rig.brains[1].events[1:] == [EngineCame(104.0, ordered)]
    assert [row.kind for row in rig.journal.lives[1][1]] == ["Started", "EngineCame"], "in one commit"


def test_the_roster_follows_a_role_change_to_its_end() -> None:
    roster = Roster()
    roster.follow(EngineCame(10.0, hello()), [])
    roster.follow(Ticked(11.0), [OrderRole("e1", "i1", Mark(3, 1), Role.DECODE, 30.0, 50.0)])

    def move(phase: Phase, role: Role, *, seq: int = 1, incarnation: str = "i1") -> None:
        progress = RoleProgress("e1", incarnation, Mark(3, seq), phase, role)
        roster.follow(EngineMoved(12.0, progress), [])

    def now() -> tuple[Phase, Role]:
        (one,) = roster.hellos(12.0)
        return one.phase, one.role

    move(Phase.SWITCHING, Role.DECODE)
    assert now() == (Phase.SWITCHING, Role.PREFILL)
    move(Phase.SERVING, Role.PREFILL, seq=0)
    move(Phase.SERVING, Role.DECODE, incarnation="other")
    assert now() == (Phase.SWITCHING, Role.PREFILL), "late news, and news of another process, change nothing"
    move(Phase.SERVING, Role.DECODE)
    assert now() == (Phase.SERVING, Role.DECODE)
    roster.follow(EngineGone(13.0, "e1", "other", "left"), [])
    assert len(roster.hellos(13.0)) == 1
    roster.follow(EngineGone(13.0, "e1", "i1", "left"), [])
    assert roster.hellos(13.0) == []


# ---- what others read ----


async def test_the_picture_is_drawn_once_per_step_and_never_ahead_of_it() -> None:
    rig = Rig()
    await rig.loop.begin(None)
    rig.clock.now_s = 105.0
    assert rig.loop.status() is rig.loop.status()
    assert (rig.loop.status().at_s, rig.brain.pictures) == (100.0, 1)
    rig.inbox.put_tick()
    await rig.loop.turn()
    assert (rig.loop.status().at_s, rig.brain.pictures) == (105.0, 2)


async def test_decisions_are_found_by_id_and_by_what_they_changed_across_lives() -> None:
    count = 0

    def script(event: Event) -> list[Command]:
        nonlocal count
        if not isinstance(event, Ticked):
            return []
        count += 1
        gpu = f"g{count % 2}"
        return [Announce(Decision(f"d{count}", event.at_s, 0.0, "rapid", "why", (), ((gpu, "1 W", "2 W"),)))]

    rig = Rig(script, limits=LifeLimits(entries=1, size_bytes=2**30))
    await rig.loop.begin(None)
    for _ in range(5):
        rig.inbox.put_tick()
        await rig.loop.turn()
    assert len(rig.journal.lives) > 2
    assert [decision.id for decision in rig.loop.decisions(3)] == ["d5", "d4", "d3"]
    assert [decision.id for decision in rig.loop.decisions(10, "g1")] == ["d5", "d3", "d1"]
    assert [decision.id for decision in rig.loop.decisions(10, "d2")] == ["d2"]
    assert rig.loop.decisions(10, "nobody") == ()


async def test_a_score_is_kept_with_its_decision_across_lives() -> None:
    steps: list[list[Command]] = [
        [Announce(Decision("d1", 1.0, 0.0, "predictive", "why", predicted=0.9, horizon_s=8.0))],
        [Announce(Decision("d2", 2.0, 0.0, "ann", "why"))],
        [Scored("d1", 0.9, 0.75), Scored("long ago", 0.5, 0.5)],
    ]

    def script(event: Event) -> list[Command]:
        return steps.pop(0) if isinstance(event, Ticked) else []

    rig = Rig(script, limits=LifeLimits(entries=1, size_bytes=2**30))
    await rig.loop.begin(None)
    for _ in range(3):
        rig.inbox.put_tick()
        await rig.loop.turn()

    assert [(each.id, each.predicted, each.measured) for each in rig.loop.decisions(9)] == [
        ("d2", None, None),
        ("d1", 0.9, 0.75),
    ]


async def test_only_so_many_decisions_are_remembered() -> None:
    def script(event: Event) -> list[Command]:
        count = DECISIONS_MAX + 5 if isinstance(event, NodeHeard) else 0
        return [Announce(Decision(f"d{n}", event.at_s, 0.0, "rapid", "why")) for n in range(count)]

    rig = Rig(script)
    await rig.loop.begin(None)
    await rig.inbox.put_report(report())
    await rig.loop.turn()
    known = rig.loop.decisions(2 * DECISIONS_MAX)
    assert (len(known), known[-1].id) == (DECISIONS_MAX, "d5")
