"""The control loop through whole stories, with real guards behind it. tests/core/site.py checks promise 1 after every
event, every message and every write of them."""

from dataclasses import replace

import pytest

from rapid.core import picture
from rapid.core.cluster import Phase, Role
from rapid.core.commands import Command
from rapid.core.control import Control
from rapid.core.events import EngineGone, EngineLoaded, Event, NodeGone, NodeHeard, RoleAsked
from tests.core.engines import load
from tests.core.hosts import W
from tests.core.site import Site, in_words, paper_site, two_hosts, with_engines

PREFILL, DECODE = Role.PREFILL, Role.DECODE
LATE_PREFILL = {"waiting": 6, "oldest_wait_s": 1.5, "ttfts": {1.5: 10}}


def prefill_late(site: Site) -> Site:
    for index in range(4):
        site.loads[f"e{index}"] = LATE_PREFILL
    return site


# ---- from the start to settled ----


def test_from_a_cold_start_to_equal_shares() -> None:
    site = paper_site("uniform")
    assert site.said == ["info controller: epoch 1: every GPU is booked at its ceiling until heard"]
    site.said.clear()

    assert site.run(3.0) == [
        "info n1: node is reporting; was never heard",
        "D1 uniform: equal shares of the budget",
        "grant g0 600 W, g1 600 W, g2 600 W, g3 600 W, g4 600 W, g5 600 W, g6 600 W, g7 600 W",
    ]
    assert site.limits_w() == [600.0] * 8
    assert site.control.ledger.domain_held_mw("host") == 4_800 * W
    assert site.run(60.0) == [], "and then it rests"


def test_while_one_node_was_not_heard_the_other_gets_only_what_is_left() -> None:
    site = two_hosts()
    site.cut_off.add("n2")

    site.run(5.0)
    assert site.limits_w() == [300.0, 300.0, 400.0, 400.0], "n2 is booked at its ceilings, 1,400 W"

    site.connect("n2")
    site.run(5.0)
    assert site.limits_w() == [500.0] * 4


def test_leases_are_renewed_for_as_long_as_a_node_is_heard() -> None:
    site = paper_site("uniform")
    site.run(600.0)

    assert site.limits_w() == [600.0] * 8
    assert not any("landed" in word for word in site.hosts["n1"].words)


# ---- watts move ----


def test_a_power_move_cuts_first_and_raises_when_the_cuts_are_confirmed() -> None:
    site = prefill_late(with_engines(paper_site("rapid")))

    said = site.run(1.2)

    assert said[:3] == [
        "D2 rapid: prefill is short: TTFT 1900 ms over 1000 ms, 6.0 waiting each; watts from decode",
        "grant g4 575 W, g5 575 W, g6 575 W, g7 575 W",
        "grant g0 625 W, g1 625 W, g2 625 W, g3 625 W",
    ]
    steps = [[in_words(command) for command in commands] for commands in site.commands]
    cut, raised = (next(at for at, step in enumerate(steps) if word in step) for word in said[1:3])
    assert raised > cut, "not in the same step"
    assert isinstance(site.events[raised], NodeHeard), "the report that confirms the cuts"


def test_watts_move_until_power_can_do_no_more_and_then_a_role_does() -> None:
    site = prefill_late(with_engines(paper_site("rapid")))

    said = site.run(12.0)

    moves = [word for word in said if word.startswith("D")]
    assert len(moves) == 7
    assert all(word.endswith("watts from decode") for word in moves[:6])
    assert moves[6].endswith("power cannot do it; e4 changes role")
    assert "order e4 to prefill (1.1)" in said
    assert site.limits_w() == [600.0] * 8, "and power is tuned anew from the equal share"


def test_a_node_that_stops_obeying_ends_a_move_without_passing_the_budget() -> None:
    """The donors' cuts never come into force: nobody may be raised, and the donors end up unmanaged."""
    site = with_engines(paper_site("rapid"))
    for gpu in ("g4", "g5", "g6", "g7"):
        site.hosts["n1"].devices[gpu].denies = True
    prefill_late(site)

    said = site.run(10.0)

    assert not any("g0 625 W" in word for word in said)
    assert "error g4: unmanaged, booked at its ceiling 750 W: gpu g4: no permission to set a limit" in said
    assert site.limits_w()[4:] == [600.0] * 4, "what denies its cut keeps what it has"
    assert site.limits_w()[:4] == [450.0] * 4, "the others make room for the worst that it could be"
    assert any(word.startswith("error host: OVER BUDGET by 600 W: booked at their ceilings: g4, g5") for word in said)


# ---- roles move ----


def test_a_role_change_from_the_order_to_the_commit() -> None:
    site = prefill_late(with_engines(paper_site("roles")))

    assert site.run(1.0)[:2] == [
        "D2 roles: prefill is short: TTFT 1900 ms over 1000 ms, 6.0 waiting each; e4 changes role",
        "order e4 to prefill (1.1)",
    ]
    assert site.run(5.0) == [], "one at a time"
    for phase in (Phase.DRAINING, Phase.SWITCHING, Phase.WARMING):
        assert site.moved("e4", phase) == []
    assert site.moved("e4", Phase.SERVING) == ["info e4: serves prefill now"]

    status = site.control.status(site.now)
    assert status.role_moves == 1
    assert next(one.role for one in status.instances if one.instance == "e4") is PREFILL
    assert site.run(1.0)[1] == "order e5 to prefill (1.2)", "still short: the next one"


def test_a_role_change_that_is_rolled_back_leaves_things_as_they_were() -> None:
    site = prefill_late(with_engines(paper_site("roles")))
    site.run(1.0)
    site.moved("e4", Phase.SWITCHING)
    site.moved("e4", Phase.ROLLING_BACK, error="no memory")

    assert site.moved("e4", Phase.SERVING, error="no memory") == ["warning e4: serves decode again: no memory"]
    assert site.control.status(site.now).role_moves == 0


def test_an_engine_that_never_drains_is_told_to_give_up_until_its_role_is_uncertain() -> None:
    site = prefill_late(with_engines(paper_site("roles")))
    site.run(1.0)

    said = site.run(62.0)

    *cancels, error = said[: said.index("order e5 to prefill (1.2)") - 1]
    assert set(cancels) == {"cancel e4"}, "again and again"
    assert error == "error e4: still draining after 60 s; its role is uncertain", "the loop goes on without it"
    assert site.moved("e4", Phase.SERVING, error="cancelled") == ["warning e4: serves decode again: cancelled"]


def test_engines_that_attach_one_after_another_are_not_taken_for_all_there_are() -> None:
    """A controller that was killed starts beside engines that come back one by one: the first few may all be decode."""
    site = paper_site("rapid")
    site.run(2.0)
    for index in (4, 5, 6, 7, 0, 1, 2, 3):
        site.attach(f"e{index}", PREFILL if index < 4 else DECODE)
        said = site.run(0.5)
        assert not any("changes role" in word for word in said), said

    assert site.run(10.0) == []


def test_a_role_that_stays_without_an_instance_gets_one() -> None:
    site = with_engines(paper_site("rapid"))
    for index in range(4):
        site.step(EngineGone(site.now, f"e{index}", "first", "killed"))
        del site.loads[f"e{index}"]

    assert site.run(3.0)[:2] == [
        "D2 rapid: prefill is short: no instance serves it; power cannot do it; e4 changes role",
        "order e4 to prefill (1.1)",
    ]


def test_an_engine_whose_stream_broke_and_that_goes_on_serving_is_not_replaced() -> None:
    site = with_engines(paper_site("rapid"))
    for index in range(4):
        site.step(EngineGone(site.now, f"e{index}", "first", "connection reset"))

    assert not [words for words in site.run(10.0) if "order" in words], "its load still comes, by way of rapidd"


# ---- nodes and engines come and go ----


def test_a_silent_node_keeps_its_watts_and_gets_them_again_when_it_is_back() -> None:
    site = two_hosts()
    site.run(5.0)
    site.said.clear()
    site.cut_off.add("n2")
    assert site.step(NodeGone(site.now, "n2", "connection reset")) == [
        "warning n2: stream ended: connection reset; its watts stay booked"
    ]

    assert site.run(10.0) == ["warning n2: node is silent; was reporting"]
    assert site.limits_w() == [500.0, 500.0, 400.0, 400.0], "its lease ran out, and nobody knows"
    assert site.control.ledger.domain_held_mw("room") == 2_000 * W

    site.connect("n2")
    assert site.run(2.0) == ["grant h0 500 W, h1 500 W", "info n2: node is reporting; was silent"]
    assert site.limits_w() == [500.0] * 4


def test_a_node_that_restarts_comes_up_low_and_gets_its_share_again() -> None:
    site = two_hosts()
    site.run(5.0)
    site.said.clear()

    site.hosts["n2"].boot()
    site.write(site.hosts["n2"])
    assert site.limits_w() == [500.0, 500.0, 400.0, 400.0]
    site.connect("n2")

    assert site.run(2.0)[:2] == ["warning n2: rapidd restarted (now 2-life)", "grant h0 500 W, h1 500 W"]
    assert site.limits_w() == [500.0] * 4


def test_an_engine_that_cannot_be_what_it_says_is_refused_with_the_reason() -> None:
    site = with_engines(paper_site("uniform"))

    assert site.attach("e9", PREFILL, gpus=("ghost",)) == [
        "refuse e9: EngineRefused: instance e9: no node has reported gpu ghost",
        "warning e9: engine refused: instance e9: no node has reported gpu ghost",
    ]
    assert site.attach("e9", PREFILL, gpus=("g0",))[0] == (
        "refuse e9: EngineTaken: instance e9: gpu g0 belongs to instance e0, which lives"
    )
    assert site.attach("e9", PREFILL, gpus=("g0",), node="n7")[0] == (
        "refuse e9: EngineRefused: instance e9: gpu g0 is on node n1, not on n7"
    )
    assert len(site.control.roles.instances) == 8


def test_the_end_of_a_stream_is_said_and_the_end_of_a_stranger_is_not() -> None:
    site = with_engines(paper_site("uniform"))

    assert site.step(EngineGone(site.now, "e0", "first", "killed")) == ["warning e0: engine gone: killed"]
    assert site.step(EngineGone(site.now, "e1", "another process", "killed")) == []
    assert site.step(EngineGone(site.now, "e99", "first", "killed")) == []


def test_of_two_loads_the_fresher_counts() -> None:
    """An engine may report over its own stream and through the rapidd of its host."""
    site = with_engines(paper_site("uniform"))
    site.loads.clear()
    site.run(1.0)
    own = load("e0", PREFILL, at_s=7.0, waiting=3)
    older = load("e0", PREFILL, at_s=6.0, waiting=9)

    site.step(EngineLoaded(site.now, "e0", "first", 7.1, own))
    site.step(EngineLoaded(site.now, "e0", "first", 7.2, older))
    site.step(EngineLoaded(site.now, "e0", "another process", 7.2, load("e0", PREFILL, at_s=7.2, waiting=99)))

    shown = site.control.status(site.now).instances[0].load
    assert shown is not None
    assert shown.waiting_requests == 3


def test_a_load_is_as_old_as_its_node_says_by_its_own_clock() -> None:
    """A report that comes fresh may carry a load that the engine pushed a while ago."""
    site = with_engines(paper_site("uniform"))
    site.loads.clear()
    site.run(3.0)
    host = site.hosts["n1"]
    old = load("e0", PREFILL, at_s=host.now - 1.5, waiting=3)

    site.step(NodeHeard(site.now, host.report((old,))))
    assert site.control.status(site.now).instances[0].load == old
    assert site.control.status(site.now + 0.6).instances[0].load is None

    site.step(NodeHeard(site.now, host.report((replace(old, at_s=host.now + 60.0),))))
    assert site.control.status(site.now + 2.1).instances[0].load is None, "no load is from the future"


def test_a_policy_sees_the_role_that_an_instance_changes_to_and_the_longest_wait() -> None:
    site = with_engines(paper_site("static"))
    site.run(2.0)
    site.loads["e0"] = {"waiting": 1, "oldest_wait_s": 0.5}
    site.loads["e1"] = {"waiting": 1, "oldest_wait_s": 0.9}
    site.loads["e5"] = {"waiting": 1, "oldest_wait_s": 9.0}
    site.step(RoleAsked(site.now, "r", "e4", PREFILL, "ann"))
    site.run(0.5)

    seen = picture.view(site.control, site.control.limits.movable(site.now), True)

    assert seen.latencies.oldest_wait_s == pytest.approx(0.9, abs=0.01), "what waits for decode has its first token"
    assert next(one.role for one in seen.instances if one.instance == "e4") is PREFILL
    assert {each.gpu: each.limit_mw for each in seen.gpus}["g4"] > 600 * W, "static gives it the watts of its new role"


def test_a_load_that_is_old_is_no_load() -> None:
    site = with_engines(paper_site("uniform"))
    site.loads.clear()
    site.step(EngineLoaded(site.now, "e0", "first", 7.0, load("e0", PREFILL, at_s=7.0, waiting=3)))

    site.run(2.5)

    assert site.control.status(site.now).instances[0].load is None


# ---- the checker of these stories ----


class Trusting(Control):
    """Bug: a cut frees its watts as soon as it is sent."""

    def step(self, event: Event) -> list[Command]:
        commands = super().step(event)
        for booking in self.ledger.gpus.values():
            if booking.sent:
                freed_mw = max(0, booking.confirmed_mw - booking.sent[-1].limit_mw)
                booking.confirmed_mw -= freed_mw
                self.ledger._add(self.ledger.nodes[booking.node], -freed_mw)
        return commands


class Believing(Control):
    """Bug: a limit that was read back is taken for obeyed."""

    def step(self, event: Event) -> list[Command]:
        if isinstance(event, NodeHeard):
            gpus = tuple(replace(gpu, draw_mw=0, draw_at_s=gpu.limit_since_s) for gpu in event.report.gpus)
            event = replace(event, report=replace(event.report, gpus=gpus))
        return super().step(event)


@pytest.mark.parametrize("bug", [Trusting, Believing])
def test_the_site_catches_a_planted_bug(bug: type[Control]) -> None:
    site = with_engines(paper_site("rapid", control=bug))
    prefill_late(site)

    with pytest.raises(AssertionError, match=r"takes"):
        site.run(12.0)
