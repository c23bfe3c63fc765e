"""The reactive rule of the RAPID paper (arXiv 2601.12241) in the situations that the paper describes, and the policies
it is compared with."""

from dataclasses import replace

import pytest

from rapid.core.cluster import Phase, Role, Targets, View
from rapid.core.policy import NAMES, NO_CHANGE, Policy, make, settings_of
from tests.core.engines import load
from tests.core.hosts import W
from tests.core.views import DECODE_SHORT, PREFILL_SHORT, after_w, changed, gpu, instance, paper, view

PREFILL, DECODE, MIXED = Role.PREFILL, Role.DECODE, Role.MIXED


def decided(seen: View, policy: str = "rapid", **settings: float) -> Targets:
    return make(policy, settings).decide(seen)


# ---- who is short ----


def test_prefill_is_short_when_ttft_is_late_and_requests_wait_and_tpot_has_slack() -> None:
    seen = paper(ttft_s=1.5, waiting_prefill=5)

    targets = decided(seen)

    assert after_w(seen, targets) == dict.fromkeys(("g0", "g1", "g2", "g3"), 625.0) | dict.fromkeys(
        ("g4", "g5", "g6", "g7"), 575.0
    )
    assert targets.reason == "prefill is short: TTFT 1500 ms over 1000 ms, 5.0 waiting each; watts from decode"
    assert dict(targets.inputs)["prefill_queue"] == 5.0
    assert not targets.roles


def test_decode_is_short_when_tpot_is_late_and_ttft_has_slack() -> None:
    seen = paper(tpot_s=0.050)

    targets = decided(seen)

    assert set(after_w(seen, targets).values()) == {575.0, 625.0}
    assert after_w(seen, targets)["g7"] == 625.0
    assert targets.reason == "decode is short: TPOT 50 ms against 40 ms, 0.0 waiting each; watts from prefill"


def test_decode_is_short_when_its_requests_queue() -> None:
    targets = decided(paper(waiting_decode=3))

    assert targets.reason == "decode is short: TPOT 20 ms against 40 ms, 3.0 waiting each; watts from prefill"


@pytest.mark.parametrize(
    ("why", "situation"),
    [
        ("neither is late", {}),
        ("both are late", {"ttft_s": 1.5, "waiting_prefill": 5, "tpot_s": 0.050}),
        ("TTFT is late, but nobody waits: watts would come too late", {"ttft_s": 1.5}),
        ("TTFT is late and decode has no slack to give", {"ttft_s": 1.5, "waiting_prefill": 5, "tpot_s": 0.036}),
        ("TPOT is late and prefill has no slack to give", {"tpot_s": 0.050, "ttft_s": 0.9}),
        ("just at its target is not late", {"ttft_s": 1.0, "waiting_prefill": 5}),
        ("at the threshold is not above it", {"ttft_s": 1.5, "waiting_prefill": 2}),
        ("nothing was measured", {"ttft_s": None, "tpot_s": None}),
    ],
)
def test_no_move_without_a_phase_that_is_short_and_one_that_can_give(why: str, situation: dict[str, float]) -> None:
    assert decided(paper(**situation)) == NO_CHANGE, why  # type: ignore[arg-type]


def test_a_request_that_waits_has_a_ttft_of_at_least_its_wait() -> None:
    """With prefill stuck no first token comes, so nothing is measured while all is late."""
    assert decided(paper(ttft_s=None, waiting_prefill=5, oldest_wait_s=0.9)) == NO_CHANGE
    assert decided(paper(ttft_s=None, waiting_prefill=5, oldest_wait_s=1.1)).limits_mw
    assert decided(paper(ttft_s=0.1, waiting_prefill=5, oldest_wait_s=1.1)).limits_mw


@pytest.mark.parametrize(
    ("what", "value", "situation"),
    [
        ("slack", 0.5, {"ttft_s": 1.5, "waiting_prefill": 5, "tpot_s": 0.021}),
        ("prefill_queue", 5.0, PREFILL_SHORT),
        ("decode_queue", 3.0, {"waiting_decode": 3}),
        ("least_move_mw", 101 * W, PREFILL_SHORT),
    ],
)
def test_each_number_of_the_rule_is_a_setting(what: str, value: float, situation: dict[str, float]) -> None:
    seen = paper(**situation)  # type: ignore[arg-type]
    assert decided(seen, "power") != NO_CHANGE

    assert decided(seen, "power", **{what: value}) == NO_CHANGE


# ---- when the rule waits ----


@pytest.mark.parametrize(
    ("why", "situation"),
    [
        ("the last limits are not in force yet", {"settled": False}),
        ("watts moved less than 1 s ago", {"since_power_s": 0.9}),
        ("a role moved less than 5 s ago", {"since_role_s": 4.9}),
    ],
)
def test_one_move_at_a_time(why: str, situation: dict[str, float]) -> None:
    assert decided(paper(**PREFILL_SHORT, **situation)) == NO_CHANGE, why  # type: ignore[arg-type]
    assert decided(paper(**PREFILL_SHORT, since_power_s=1.0, since_role_s=5.0)) != NO_CHANGE  # type: ignore[arg-type]


@pytest.mark.parametrize("phase", [Phase.DRAINING, Phase.SWITCHING, Phase.WARMING, Phase.ROLLING_BACK])
def test_nothing_moves_while_a_role_changes(phase: Phase) -> None:
    seen = paper(**PREFILL_SHORT)  # type: ignore[arg-type]

    assert decided(changed(seen, d7=replace(seen.instances[7], phase=phase))) == NO_CHANGE


@pytest.mark.parametrize("phase", [Phase.GONE, Phase.FAILED])
def test_an_instance_that_is_gone_or_failed_holds_nothing_up_and_gets_nothing(phase: Phase) -> None:
    seen = paper(**PREFILL_SHORT)  # type: ignore[arg-type]

    targets = decided(changed(seen, d7=replace(seen.instances[7], phase=phase, load=None)))

    assert "g7" not in targets.limits_mw
    assert targets.limits_mw["g6"] == 575 * W


# ---- how watts move ----


def test_donors_give_down_to_their_floor_and_recipients_take_up_to_their_ceiling() -> None:
    seen = paper(prefill_w=745, decode_w=410, **PREFILL_SHORT)  # type: ignore[arg-type]

    after = after_w(seen, decided(seen))

    assert [after[f"g{index}"] for index in range(8)] == [750.0] * 4 + [405.0] * 4, "no watt is given that nobody takes"


def test_unequal_recipients_each_take_what_they_can() -> None:
    seen = paper(prefill=3, prefill_w=700, **PREFILL_SHORT)  # type: ignore[arg-type]
    limits_w = {"g0": 740.0, "g1": 720.0, "g2": 650.0}
    gpus = [replace(each, limit_mw=round(limits_w.get(each.gpu, 600.0) * W)) for each in seen.gpus]
    seen = replace(seen, gpus=tuple(gpus), rooms_mw={"room": sum(each.limit_mw for each in gpus)})

    after = after_w(seen, decided(seen))

    assert [after[f"g{index}"] for index in range(8)] == [750.0, 750.0, 735.0] + [575.0] * 5


def test_a_move_gives_no_more_than_donors_have() -> None:
    seen = paper(prefill_w=600, decode_w=402, **PREFILL_SHORT)  # type: ignore[arg-type]

    assert decided(seen, "power", least_move_mw=9 * W) == NO_CHANGE, "8 W in sum is none"
    assert after_w(seen, decided(seen, "power"))["g0"] == 602.0


def test_few_recipients_get_what_many_donors_give() -> None:
    seen = paper(prefill=2, **PREFILL_SHORT)  # type: ignore[arg-type]

    after = after_w(seen, decided(seen))

    assert [after[f"g{index}"] for index in range(8)] == [675.0] * 2 + [575.0] * 6


def test_unequal_donors_each_give_what_they_can() -> None:
    seen = paper(**PREFILL_SHORT)  # type: ignore[arg-type]
    gpus = [replace(each, limit_mw=410 * W) if each.gpu == "g4" else each for each in seen.gpus]

    after = after_w(seen, decided(replace(seen, gpus=tuple(gpus), rooms_mw={"room": 4_610 * W})))

    assert after == {"g0": 621.25, "g1": 621.25, "g2": 621.25, "g3": 621.25, "g4": 400.0} | dict.fromkeys(
        ("g5", "g6", "g7"), 575.0
    )


def test_watts_move_inside_a_node_only() -> None:
    """Node a is all prefill: nobody there can give. On b one of each exchange watts."""
    gpus = [gpu("a0", 600, node="a"), gpu("a1", 600, node="a"), gpu("b0", 600, node="b"), gpu("b1", 600, node="b")]
    instances = [
        instance("pa0", PREFILL, ["a0"], queue=load("pa0", PREFILL, waiting=9)),
        instance("pa1", PREFILL, ["a1"], queue=load("pa1", PREFILL, waiting=9)),
        instance("pb", PREFILL, ["b0"], queue=load("pb", PREFILL, waiting=9)),
        instance("db", DECODE, ["b1"]),
    ]
    seen = view(gpus, instances, rooms_w={"room": 2_400}, ttft_s=1.5, tpot_s=0.020)

    assert after_w(seen, decided(seen)) == {"a0": 600.0, "a1": 600.0, "b0": 625.0, "b1": 575.0}


def test_the_gpus_of_an_instance_stay_equal() -> None:
    """Tensor parallelism runs at the pace of the slowest GPU: a watt more on one of them is wasted."""
    gpus = [gpu(f"g{index}", 600, ceiling_w=700) for index in range(6)]
    instances = [
        instance("big", PREFILL, ["g0", "g1", "g2", "g3"], queue=load("big", PREFILL, waiting=9)),
        instance("d4", DECODE, ["g4"]),
        instance("d5", DECODE, ["g5"]),
    ]
    seen = view(gpus, instances, rooms_w={"room": 3_600}, ttft_s=1.5, tpot_s=0.020)

    after = after_w(seen, decided(seen, step_mw=25_001.0))

    assert [after[f"g{index}"] for index in range(6)] == [612.5] * 4 + [574.999] * 2, (
        "2 mW are left over, not handed out"
    )


# ---- roles ----


def test_when_power_cannot_do_it_an_instance_changes_role_and_limits_are_reset() -> None:
    seen = paper(prefill_w=750, decode_w=450, **PREFILL_SHORT)  # type: ignore[arg-type]

    targets = decided(seen)

    assert dict(targets.roles) == {"d4": PREFILL}, "the one with the least to drain"
    assert set(after_w(seen, targets).values()) == {600.0}
    assert targets.reason == (
        "prefill is short: TTFT 1500 ms over 1000 ms, 5.0 waiting each; power cannot do it; d4 changes role"
    )


def test_donors_at_their_floor_cannot_do_it_either() -> None:
    targets = decided(paper(prefill_w=750, decode_w=400, tpot_s=0.050, ttft_s=0.3))
    assert targets.limits_mw["g4"] > 400 * W

    assert dict(decided(paper(prefill_w=400, decode_w=600, **DECODE_SHORT)).roles) == {"p0": DECODE}  # type: ignore[arg-type]


def test_policy_power_moves_no_roles_and_policy_roles_no_watts_but_to_equal_shares() -> None:
    stuck = paper(prefill_w=750, decode_w=450, **PREFILL_SHORT)  # type: ignore[arg-type]
    assert decided(stuck, "power") == NO_CHANGE

    targets = decided(paper(**PREFILL_SHORT), "roles")  # type: ignore[arg-type]
    assert (dict(targets.roles), dict(targets.limits_mw)) == ({"d4": PREFILL}, {})
    assert targets.reason.endswith("5.0 waiting each; d4 changes role")


def test_the_last_instance_of_a_role_stays_and_so_do_pinned_ones() -> None:
    last = paper(prefill=7, prefill_w=640, decode_w=400, ttft_s=1.5, waiting_prefill=5)
    assert decided(last) == NO_CHANGE

    stuck = paper(prefill_w=750, decode_w=450, **PREFILL_SHORT)  # type: ignore[arg-type]
    pinned = changed(stuck, **{one.instance: replace(one, pinned=True) for one in stuck.instances[4:6]})
    assert dict(decided(pinned).roles) == {"d6": PREFILL}
    all_pinned = changed(stuck, **{one.instance: replace(one, pinned=True) for one in stuck.instances})
    assert decided(all_pinned) == NO_CHANGE


def test_only_an_instance_that_can_take_the_role_is_asked() -> None:
    stuck = paper(prefill_w=750, decode_w=450, **PREFILL_SHORT)  # type: ignore[arg-type]
    stiff = changed(stuck, **{one.instance: replace(one, roles=(DECODE,)) for one in stuck.instances[4:7]})

    assert dict(decided(stiff).roles) == {"d7": PREFILL}


def test_a_role_without_an_instance_gets_one() -> None:
    targets = decided(paper(prefill=0, ttft_s=None))

    assert dict(targets.roles) == {"d0": PREFILL}
    assert targets.reason == "prefill is short: no instance serves it; power cannot do it; d0 changes role"
    assert dict(decided(paper(prefill=8, tpot_s=None)).roles) == {"p0": DECODE}


def test_a_mixed_instance_serves_both_roles_so_none_is_missing() -> None:
    gpus = [gpu(f"g{index}", 600) for index in range(4)]
    mixed = [instance(f"m{index}", MIXED, [f"g{index}"]) for index in (2, 3)]
    prefill = [instance(f"p{index}", PREFILL, [f"g{index}"]) for index in (0, 1)]

    assert decided(view(gpus, [*prefill, *mixed], rooms_w={"room": 2_400}, ttft_s=0.3, tpot_s=0.02)) == NO_CHANGE


def test_a_mixed_instance_counts_for_both_phases_and_moves_for_neither() -> None:
    gpus = [gpu(f"g{index}", 600) for index in range(4)]
    instances = [
        instance("p0", PREFILL, ["g0"], queue=load("p0", PREFILL, waiting=9)),
        instance("d1", DECODE, ["g1"]),
        instance("m2", MIXED, ["g2"]),
        instance("m3", MIXED, ["g3"]),
    ]
    seen = view(gpus, instances, rooms_w={"room": 2_400}, ttft_s=1.5, tpot_s=0.02)

    targets = decided(seen)

    assert after_w(seen, targets) == {"g0": 625.0, "g1": 575.0, "g2": 600.0, "g3": 600.0}
    assert (dict(targets.inputs)["prefill_instances"], dict(targets.inputs)["decode_instances"]) == (3.0, 3.0)


def test_the_instance_with_the_least_to_finish_is_moved_waiting_requests_count() -> None:
    stuck = paper(prefill_w=750, decode_w=450, **PREFILL_SHORT)  # type: ignore[arg-type]
    queues = {"d4": (1, 4), "d5": (4, 0), "d6": (0, 6), "d7": (2, 1)}  # running, waiting
    busy = {
        one.instance: replace(one, load=load(one.instance, DECODE, running=queue[0], waiting=queue[1]))
        for one in stuck.instances
        if (queue := queues.get(one.instance))
    }

    assert dict(decided(changed(stuck, **busy), decode_queue=9.0).roles) == {"d7": PREFILL}


def test_without_any_instance_nothing_is_short() -> None:
    assert decided(view([gpu("g0", 600)], [], rooms_w={"room": 600})) == NO_CHANGE
    assert decided(view([], [])) == NO_CHANGE


# ---- a budget that was raised ----


@pytest.mark.parametrize("policy", ["power", "roles", "rapid"])
def test_what_a_raised_budget_frees_is_spent_at_once_also_while_a_phase_is_short(policy: str) -> None:
    seen = paper(budget_w=5_600, **PREFILL_SHORT)  # type: ignore[arg-type]

    targets = decided(seen, policy)

    assert set(after_w(seen, targets).values()) == {700.0}
    assert targets.reason == "800 W of the budget are unused"


def test_spare_watts_lift_the_lowest_and_take_back_no_move() -> None:
    seen = paper(prefill_w=750, decode_w=450, budget_w=5_000)

    assert after_w(seen, decided(seen)) == dict.fromkeys(("g0", "g1", "g2", "g3"), 750.0) | dict.fromkeys(
        ("g4", "g5", "g6", "g7"), 500.0
    )


def test_a_few_spare_watts_are_not_worth_a_move() -> None:
    assert decided(paper(budget_w=4_839.999)) == NO_CHANGE
    assert decided(paper(budget_w=4_840)) != NO_CHANGE, "least_move for each GPU"


# ---- uniform and static ----


def test_uniform_gives_equal_limits_and_then_rests() -> None:
    seen = paper(prefill_w=750, decode_w=450)

    targets = decided(seen, "uniform")

    assert set(after_w(seen, targets).values()) == {600.0}
    assert targets.reason == "equal shares of the budget"
    assert decided(paper(), "uniform") == NO_CHANGE
    assert decided(paper(**PREFILL_SHORT), "uniform") == NO_CHANGE  # type: ignore[arg-type]


def test_static_gives_each_role_its_limit_and_then_rests() -> None:
    seen = paper()

    assert set(after_w(seen, decided(seen, "static")).values()) == {750.0, 450.0}
    assert decided(paper(prefill_w=750, decode_w=450), "static") == NO_CHANGE
    assert set(after_w(seen, decided(seen, "static", prefill_mw=700.0 * W, decode_mw=500.0 * W)).values()) == {
        700.0,
        500.0,
    }


def test_static_leaves_a_gpu_without_an_instance_at_its_floor_and_fits_the_budget() -> None:
    seen = view(
        [gpu("g0", 600), gpu("g1", 600), gpu("g2", 600)],
        [instance("p", PREFILL, ["g0"]), instance("m", MIXED, ["g1", "elsewhere"])],
        rooms_w={"room": 1_650},
    )

    assert after_w(seen, decided(seen, "static")) == {"g0": 650.0, "g1": 600.0, "g2": 400.0}


def test_every_policy_has_its_name_and_says_its_settings() -> None:
    made: list[Policy] = [make(name, {}) for name in NAMES]

    assert [policy.name for policy in made] == list(NAMES)
    assert settings_of("uniform") == ()
    assert settings_of("power") == settings_of("roles") == settings_of("rapid")
    assert settings_of("rapid")[:2] == ("step_mw", "slack")
