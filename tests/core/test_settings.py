"""A setting that cannot be kept is refused at load, by its key, with what to do about it."""

from dataclasses import replace

import pytest

from rapid.core.cluster import Domain, NodeSpec
from rapid.core.control import Control
from rapid.core.errors import ConfigInvalid
from rapid.core.policy import NAMES, StatefulPolicy, make, settings_of
from rapid.core.policy.predictive import Predictive, Start
from rapid.core.settings import Settings, chains_of
from tests.core.hosts import CEILING, FALLBACK, FLOOR, W

ROOM = Domain("room", 2_000 * W, reserved_mw=300 * W)
RACK = Domain("rack", 1_000 * W, reserved_mw=100 * W, parent="room")
N1 = NodeSpec("n1", "rack", 2, FLOOR, CEILING, FALLBACK)
N2 = NodeSpec("n2", "room", 2, FLOOR, CEILING, FALLBACK)
GOOD = Settings(domains=(ROOM, RACK), nodes=(N1, N2))


def refusal(settings: Settings) -> str:
    with pytest.raises(ConfigInvalid) as caught:
        settings.check()
    assert str(caught.value).startswith(f"config key {caught.value.key}: ")
    return str(caught.value).removeprefix("config key ")


def test_good_settings_pass_to_the_last_watt() -> None:
    """1,600 W of fallbacks and 400 W reserved in a room of 2,000 W; 800 W and 100 W in a rack of 1,000 W."""
    GOOD.check()
    replace(GOOD, domains=(ROOM, replace(RACK, budget_mw=900 * W))).check()


# ---- timing ----


def test_a_lease_that_is_too_short_is_told_the_least_that_would_do() -> None:
    assert refusal(replace(GOOD, lease_s=2.5)) == (
        "control.lease: 2.5 s is shorter than tick + 2 * rpc_timeout + margin = 3 s; set it to 3 s or more"
    )
    replace(GOOD, lease_s=3.0).check()


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("control.tick", "tick_s"),
        ("control.lease", "lease_s"),
        ("control.rpc_timeout", "rpc_timeout_s"),
        ("control.silent_after", "silent_after_s"),
        ("control.window", "window_s"),
        ("control.drain", "drain_s"),
        ("control.switch_timeout", "switch_timeout_s"),
    ],
)
def test_a_duration_must_be_above_zero(key: str, name: str) -> None:
    changes = {name: 0.0}
    assert refusal(replace(GOOD, **changes)) == f"{key}: must be above 0 s, is 0 s"  # type: ignore[arg-type]
    changes = {name: float("nan")}
    assert refusal(replace(GOOD, **changes)) == f"{key}: must be above 0 s, is nan s"  # type: ignore[arg-type]


def test_a_margin_must_not_eat_into_the_timing_inequality() -> None:
    assert refusal(replace(GOOD, margin_s=-1.0, lease_s=2.0)) == "control.margin: must not be below 0 s, is -1 s"
    replace(GOOD, margin_s=0.0).check()


@pytest.mark.parametrize("quantile", [0.0, 1.0, -0.5, 90.0])
def test_a_quantile_lies_between_0_and_1(quantile: float) -> None:
    assert refusal(replace(GOOD, quantile=quantile)) == f"control.quantile: must lie between 0 and 1, is {quantile}"


# ---- domains ----


def test_at_least_one_domain_is_needed() -> None:
    assert refusal(replace(GOOD, domains=())) == "domain: at least one domain is needed"


def test_a_domain_is_named_once() -> None:
    assert refusal(replace(GOOD, domains=(ROOM, RACK, ROOM))) == "domain.room: is named twice"


def test_a_budget_is_above_zero_and_reserved_power_not_below() -> None:
    assert refusal(replace(GOOD, domains=(replace(ROOM, budget_mw=0), RACK))) == (
        "domain.room.budget: must be above 0 W, is 0 W"
    )
    assert refusal(replace(GOOD, domains=(ROOM, replace(RACK, reserved_mw=-500)))) == (
        "domain.rack.reserved: is below 0 W: -0.5 W"
    )


def test_a_parent_must_exist() -> None:
    assert refusal(replace(GOOD, domains=(ROOM, replace(RACK, parent="hall")))) == (
        "domain.rack.parent: no domain named 'hall'"
    )


def test_domains_must_not_form_a_circle() -> None:
    circle = (Domain("a", 1, parent="b"), Domain("b", 1, parent="c"), Domain("c", 1, parent="a"))

    assert refusal(replace(GOOD, domains=circle)) == "domain.a.parent: domains form a circle: a -> b -> c -> a"
    assert refusal(replace(GOOD, domains=(Domain("a", 1, parent="a"),))) == (
        "domain.a.parent: domains form a circle: a -> a"
    )


def test_a_circle_is_found_from_a_domain_outside_it() -> None:
    leaf = (Domain("leaf", 1, parent="a"), Domain("a", 1, parent="b"), Domain("b", 1, parent="a"))

    assert refusal(replace(GOOD, domains=leaf)) == "domain.a.parent: domains form a circle: leaf -> a -> b -> a"


def test_chains_lead_from_a_domain_to_its_root() -> None:
    assert chains_of((RACK, ROOM)) == {"rack": ("rack", "room"), "room": ("room",)}


# ---- nodes ----


def test_a_node_is_named_once() -> None:
    assert refusal(replace(GOOD, nodes=(N1, N1))) == "node.n1: is named twice"


def test_a_node_is_in_a_domain_that_exists() -> None:
    assert refusal(replace(GOOD, nodes=(replace(N1, domain="hall"),))) == "node.n1.domain: no domain named 'hall'"


@pytest.mark.parametrize("gpus", [0, -1, 1025])
def test_a_node_has_1_to_1024_gpus(gpus: int) -> None:
    assert refusal(replace(GOOD, nodes=(replace(N1, gpus=gpus),))) == f"node.n1.gpus: must be 1 to 1024, is {gpus}"


@pytest.mark.parametrize("fallback_mw", [99 * W, 701 * W])
def test_a_fallback_lies_within_what_the_device_takes(fallback_mw: int) -> None:
    assert refusal(replace(GOOD, nodes=(replace(N1, fallback_mw=fallback_mw),))) == (
        f"node.n1.fallback: {fallback_mw // W} W is outside floor..ceiling = 100 W..700 W"
    )


# ---- fallbacks ----


def test_fallbacks_that_do_not_fit_a_domain_are_refused() -> None:
    """Promise 2: whoever loses its controller goes to its fallback, so all of them together must fit."""
    small = (ROOM, replace(RACK, budget_mw=899 * W))

    assert refusal(replace(GOOD, domains=small)) == (
        "domain.rack.budget: 899 W does not cover the fallbacks and reserved power below it, 900 W; "
        "lower the fallbacks or raise the budget"
    )


def test_fallbacks_and_reserved_power_count_all_the_way_up() -> None:
    small = (replace(ROOM, budget_mw=1_999 * W), RACK)

    assert refusal(replace(GOOD, domains=small)).startswith(
        "domain.room.budget: 1999 W does not cover the fallbacks and reserved power below it, 2000 W"
    )


# ---- policies ----


def test_an_unknown_policy_is_told_which_there_are() -> None:
    with pytest.raises(ConfigInvalid) as caught:
        Control(replace(GOOD, policy="fastest"))

    assert str(caught.value) == (
        "config key policy.name: no policy named 'fastest' (known: uniform, static, power, roles, rapid, predictive)"
    )


def test_an_unknown_setting_of_a_policy_is_told_which_there_are() -> None:
    with pytest.raises(ConfigInvalid) as caught:
        Control(replace(GOOD, policy="static", policy_settings={"step_mw": 1.0}))

    assert str(caught.value) == (
        "config key policy.settings.step_mw: policy static has no such setting "
        "(it has: prefill_mw, decode_mw, mixed_mw)"
    )
    with pytest.raises(ConfigInvalid, match=r"policy uniform has no such setting \(it has: none\)"):
        Control(replace(GOOD, policy="uniform", policy_settings={"slack": 1.0}))
    with pytest.raises(ConfigInvalid, match=r"policy\.start\.decode_ms: policy rapid has no such start value"):
        Control(replace(GOOD, policy="rapid", policy_settings={"start_decode_ms": 1.0}))


def test_the_start_profile_of_a_policy_goes_with_its_settings() -> None:
    """It is None to a policy that was told nothing; what was not told keeps its default."""
    told, untold = (make("predictive", settings) for settings in ({"start_decode_ms": 30.0}, {}))

    assert isinstance(told, Predictive)
    assert told.start == Start(decode_ms=30.0)
    assert isinstance(untold, Predictive)
    assert untold.start is None
    assert "start_decode_ms" in settings_of("predictive")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            {"start_decode_ns": 1.0},
            "policy.start.decode_ns: policy predictive has no such start value (it has: prefill_ms,",
        ),
        ({"start_decode_ms": 0.0}, "policy.start.decode_ms: must be above 0, is 0"),
        ({"start_decode_ms": -1.0}, "policy.start.decode_ms: must be a number from 0 up, is -1"),
        ({"start_prefill_exponent": 2.0}, "policy.start.prefill_exponent: 2 is outside 0..1"),
    ],
)
def test_a_start_profile_that_cannot_be_is_refused_by_its_key(settings: dict[str, float], problem: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        Control(replace(GOOD, policy="predictive", policy_settings=settings))

    assert str(caught.value).startswith(f"config key {problem}")


@pytest.mark.parametrize("name", NAMES)
def test_every_control_has_a_policy_of_its_own_if_it_remembers(name: str) -> None:
    one, other = (Control(replace(GOOD, policy=name)).policy for _ in range(2))

    assert one is not other or not isinstance(one, StatefulPolicy)


@pytest.mark.parametrize("name", ["name", "moves_power", "moves_roles"])
def test_what_makes_a_policy_itself_is_no_setting(name: str) -> None:
    with pytest.raises(ConfigInvalid, match="has no such setting"):
        Control(replace(GOOD, policy="rapid", policy_settings={name: 1.0}))


@pytest.mark.parametrize(("value", "word"), [(-1.0, "-1"), (float("nan"), "nan"), (float("inf"), "inf")])
@pytest.mark.parametrize("name", ["step_mw", "slack"])
def test_a_setting_is_a_number_from_0(name: str, value: float, word: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        Control(replace(GOOD, policy="rapid", policy_settings={name: value}))

    assert str(caught.value) == f"config key policy.settings.{name}: must be a number from 0 up, is {word}"
