"""What a node does with a grant, with a device that does not obey, and with somebody else who sets limits.

Promise 3: a limit counts when it has been read back, not when it was sent.
"""

import pytest

from rapid.core.cluster import GpuHealth, Mark
from rapid.core.drift import FenceSettings
from rapid.core.duties import Write
from tests.core.hosts import W, greeted

# ---- applied, clamped, refused, failed ----


def test_a_grant_is_applied_when_its_limit_has_been_read_back() -> None:
    host = greeted()

    assert host.grant(1, {"g0": 600 * W}) == ["write g0 600 W", "report soon"]
    assert host.answers() == [], "sent to the device is not yet applied"
    assert host.finish() == ["report soon"]
    assert host.answers() == ["1.1 g0 applied"]
    assert host.answers() == [], "each answer leaves with one report"


def test_a_grant_of_the_limit_in_force_is_applied_without_a_write() -> None:
    host = greeted()

    assert host.grant(1, {"g0": 400 * W}) == ["report soon"]

    assert host.answers() == ["1.1 g0 applied"]
    assert host.shown() == "400 W of 400 W", "in force by leave now, and not void"


def test_a_device_that_rounds_down_clamps_and_is_not_pestered() -> None:
    host = greeted()
    host.devices["g0"].step_mw = 50 * W

    host.grant(1, {"g0": 630 * W})
    host.finish()

    assert host.answers() == ["1.1 g0 clamped: device enforces 600 W"]
    assert host.shown() == "600 W of 630 W", "the rest of the grant stays booked: it may come back up by itself"
    assert host.wait(1.0) == host.wait(1.0) == []


def test_a_clamped_grant_that_is_sent_again_is_answered_again() -> None:
    host = greeted()
    host.devices["g0"].step_mw = 50 * W
    host.grant(1, {"g0": 630 * W})
    host.finish()
    host.answers()

    assert host.grant(2, {"g0": 630 * W}) == ["report soon"]

    assert host.answers() == ["1.2 g0 clamped: device enforces 600 W"]


def test_a_write_that_fails_is_answered_and_tried_again_every_retry_s() -> None:
    host = greeted()
    host.devices["g0"].denies = True
    host.grant(1, {"g0": 600 * W})

    assert host.finish() == ["error: limit not in force g0: gpu g0: no permission to set a limit", "report soon"]
    assert host.answers() == ["1.1 g0 failed: gpu g0: no permission to set a limit"]
    assert host.shown() == "400 W of 600 W, denied: gpu g0: no permission to set a limit"
    for _ in range(3):
        assert host.wait(0.49) == []
        assert host.wait(0.01) == ["write g0 600 W"]
        host.finish()

    host.devices["g0"].denies = False
    host.wait(0.5)
    host.finish()
    assert host.shown() == "600 W of 600 W"


def test_a_raise_that_could_not_be_read_back_counts_as_in_force() -> None:
    host = greeted()
    host.devices["g0"].mute = True
    host.grant(1, {"g0": 600 * W})
    host.finish()

    assert host.answers() == ["1.1 g0 failed: gpu g0: does not answer"]
    assert host.shown() == "600 W of 600 W, lost: gpu g0: does not answer"


def test_a_cut_that_could_not_be_read_back_counts_as_not_in_force() -> None:
    host = greeted()
    host.devices["g0"].mute = True
    host.grant(1, {"g0": 200 * W})
    host.finish()

    assert host.shown() == "400 W of 200 W, lost: gpu g0: does not answer"


def test_a_device_that_rounds_up_is_written_again_and_shown_as_it_is() -> None:
    host = greeted()
    host.grant(1, {"g0": 600 * W})
    (write,) = host.writes.values()
    host.writes.clear()
    host.devices["g0"].enforce(610 * W, host.now)

    host.do(host.guard.wrote("g0", write.limit_mw, 610 * W, "", host.report().gpus[0].health, host.now))

    assert host.shown() == "610 W of 600 W"
    assert host.wait(0.5) == ["write g0 600 W"]


@pytest.mark.parametrize(
    ("limit_w", "why"),
    [
        (90, "gpu g0: limit 90 W refused, device floor is 100 W"),
        (99.9, "gpu g0: limit 99.9 W refused, device floor is 100 W"),
        (700.001, "gpu g0: limit 700.0 W refused, device ceiling is 700 W"),
        (-5, "gpu g0: limit -5 W refused, device floor is 100 W"),
    ],
)
def test_a_limit_outside_the_device_range_is_refused(limit_w: float, why: str) -> None:
    host = greeted()

    assert host.grant(1, {"g0": round(limit_w * W)}) == [
        f"warning: grant refused g0: {why}",
        "report soon",
        "report soon",
    ]

    assert host.answers() == [f"1.1 g0 refused: {why}"]
    assert host.shown() == "400 W of 400 W void"


def test_one_bad_limit_in_a_batch_leaves_the_others_alone() -> None:
    host = greeted()

    host.grant(1, {"g0": 90 * W, "g1": 600 * W, "ghost": 300 * W})
    host.finish()

    assert host.shown("g1") == "600 W of 600 W"
    assert sorted(host.answers()) == [
        "1.1 g0 refused: gpu g0: limit 90 W refused, device floor is 100 W",
        "1.1 g1 applied",
        "1.1 ghost refused: no gpu ghost on node n1",
    ]


def test_an_older_or_doubled_grant_is_refused() -> None:
    host = greeted()
    host.grant(5, {"g0": 300 * W})
    host.finish()

    host.grant(5, {"g0": 600 * W})
    host.grant(4, {"g0": 600 * W})

    assert host.answers()[1:] == [
        "1.5 all refused: seq 5 is not above seq 5, the last one taken",
        "1.4 all refused: seq 4 is not above seq 5, the last one taken",
    ]
    assert host.shown() == "300 W of 300 W"


def test_a_grant_for_the_life_before_a_restart_is_refused() -> None:
    host = greeted()
    old = host.guard.incarnation
    host.boot()
    host.settle()
    host.greet()

    host.grant(9, {"g0": 600 * W}, incarnation=old)

    assert host.answers() == ["1.9 all refused: meant for incarnation 1-life, this is 2-life"]
    assert host.guard.mark == Mark(1, 0), "it is not even taken note of"


def test_a_grant_of_a_deposed_controller_is_refused() -> None:
    host = greeted()
    host.greet(epoch=2, controller_id="d")

    host.grant(9, {"g0": 600 * W}, epoch=1, by="c")
    host.grant(9, {"g0": 600 * W}, epoch=2, by="c")

    assert host.answers() == [
        "1.9 all refused: epoch 1 of c is not epoch 2 of d",
        "2.9 all refused: epoch 2 of c is not epoch 2 of d",
    ]


def test_a_grant_that_comes_after_its_time_is_refused_and_covered() -> None:
    """It is covered, so that the controller stops booking it: no later message can bring it back."""
    host = greeted()

    host.grant(3, {"g0": 600 * W}, lease_s=-0.25)
    host.grant(3, {"g0": 600 * W}, lease_s=5.0)

    assert host.report().mark == Mark(1, 3)
    assert host.answers() == [
        "1.3 all refused: arrived 0.250 s after its time had passed",
        "1.3 all refused: seq 3 is not above seq 3, the last one taken",
    ]
    assert host.guard.next_deadline_s() is None


def test_the_hosts_own_hard_budget_bounds_every_raise() -> None:
    host = greeted(hard_budget_mw=1_000 * W)

    host.grant(1, {"g0": 600 * W, "g1": 500 * W})
    host.settle()

    assert host.shown("g1") == "500 W of 500 W", "the smaller raise comes first"
    assert host.shown("g0") == "400 W of 400 W void"
    assert host.answers()[0] == "1.1 g0 refused: gpu g0: limit 600 W would pass the host's hard budget by 100 W"


def test_a_cut_is_taken_even_above_the_hard_budget() -> None:
    """Over the bound already: whoever refuses a cut then keeps it over."""
    host = greeted(hard_budget_mw=500 * W)

    host.grant(1, {"g0": 350 * W, "g1": 390 * W})
    host.settle()

    assert host.answers() == ["1.1 g0 applied", "1.1 g1 applied"]


def test_a_cut_pays_for_a_raise_of_the_host_only_when_it_is_read_back() -> None:
    host = greeted(hard_budget_mw=800 * W)

    host.grant(1, {"g0": 200 * W, "g1": 600 * W})
    assert "1.1 g1 refused: gpu g1: limit 600 W would pass the host's hard budget by 200 W" in host.answers()
    host.settle()
    host.grant(2, {"g1": 600 * W})
    host.settle()

    assert [host.shown("g0"), host.shown("g1")] == ["200 W of 200 W", "600 W of 600 W"]


# ---- one write at a time, and what is wanted meanwhile ----


def test_while_a_limit_is_being_written_the_latest_grant_waits() -> None:
    host = greeted()
    host.grant(1, {"g0": 600 * W})

    assert host.grant(2, {"g0": 500 * W}) == ["report soon"]
    assert host.grant(3, {"g0": 300 * W}) == ["report soon"]
    assert host.finish() == ["write g0 300 W", "report soon"], "only the latest is written"
    host.finish()

    assert host.answers() == ["1.3 g0 applied"]
    assert host.limit_mw() == 300 * W


def test_a_sample_beside_a_write_shows_neither_limit() -> None:
    host = greeted()
    host.grant(1, {"g0": 600 * W})
    device = host.devices["g0"]

    said = host.guard.sampled(
        "g0",
        limit_mw=device.limit_mw,
        requested_mw=None,
        limit_at_s=host.now,
        draw_mw=device.draw_mw,
        draw_at_s=host.now,
        energy_mj=None,
        problem="",
        health=host.report().gpus[0].health,
    )

    assert said == []
    assert host.shown() == "600 W of 600 W"


def test_answers_that_nobody_fetches_are_bounded() -> None:
    host = greeted()
    for seq in range(1, 6_000):
        host.grant(seq, {"ghost": 300 * W})

    answers = host.answers()

    assert len(answers) == 4096
    assert answers[-1].startswith("1.5999 "), "the oldest are forgotten first"


# ---- somebody else sets limits ----


def test_a_limit_that_somebody_raises_is_put_back_and_reported() -> None:
    host = greeted()
    host.grant(1, {"g0": 500 * W})
    host.settle()
    host.devices["g0"].enforce(650 * W, host.now)

    assert host.sample("g0") == [
        "warning: limit moved g0: unknown writer: 500 W to 650 W; 500 W is ours",
        "who holds g0",
        "write g0 500 W",
        "report soon",
    ]
    assert host.shown() == "650 W of 500 W", "what is in force is what counts"
    host.finish()
    assert host.shown() == "500 W of 500 W"


def test_a_limit_that_somebody_lowers_comes_back_up_to_the_grant() -> None:
    host = greeted()
    host.grant(1, {"g0": 500 * W})
    host.settle()
    host.devices["g0"].enforce(200 * W, host.now)

    assert "write g0 500 W" in host.sample("g0")
    host.finish()
    assert host.shown() == "500 W of 500 W"


def test_somebody_who_always_wins_is_fought_at_the_pace_of_the_samples_until_the_fence() -> None:
    host = greeted()
    host.grant(1, {"g0": 500 * W})
    host.settle()
    writes = 0
    for _ in range(10):
        host.devices["g0"].enforce(650 * W, host.now)
        writes += sum(word.startswith("write") for word in host.sample("g0"))
        host.finish()

    assert writes == FenceSettings().repairs


def test_a_cut_that_has_been_obeyed_is_reported_as_soon_as_a_sample_shows_it() -> None:
    host = greeted()
    host.grant(1, {"g0": 300 * W})
    host.finish()

    assert host.sample("g0") == [], "the draw has not come down yet"
    host.wait(0.2)
    assert host.sample("g0") == ["report soon"]
    assert host.sample("g0") == [], "once"


def test_a_higher_limit_that_something_else_holds_down_counts_and_is_written_over() -> None:
    """Promise 1: another tool asked for 650 W while a BMC holds the device at 300 W. When the BMC lets go, the device
    would rise by itself; so the 650 W count as in force, and are replaced by what is granted."""
    host = greeted()
    host.grant(1, {"g0": 500 * W})
    host.settle()
    host.now += 0.1
    duties = host.guard.sampled(
        "g0",
        limit_mw=300 * W,
        requested_mw=650 * W,
        limit_at_s=host.now,
        draw_mw=290 * W,
        draw_at_s=host.now,
        energy_mj=None,
        problem="",
        health=GpuHealth.OK,
    )
    assert Write("g0", 500 * W) in duties
    assert host.guard.report(host.now).gpus[0].limit_mw == 650 * W
