"""A scenario that cannot be run is refused, and the message names the key, the value and the bound."""

from dataclasses import replace

import pytest

from rapid.core.cluster import Role, SloTargets
from rapid.core.errors import ConfigInvalid
from rapid.core.policy import NAMES
from rapid.sim.model.profile import profile_named
from rapid.sim.world.scenario import Scenario, Silence, WorldSettings
from tests.sim.sites import MI300X, scenario

GOOD = Scenario(MI300X, 4_800_000, 4)


@pytest.mark.parametrize("policy", [*NAMES, "colocated", "oracle"])
def test_every_policy_makes_a_good_scenario(policy: str) -> None:
    scenario(policy).check()


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (replace(GOOD, budget_mw=3_199_000), ("key budget:", "3199 W", "3200 W", "8 GPUs")),
        (replace(GOOD, prefill=0), ("key prefill:", "1..7", "is 0")),
        (replace(GOOD, prefill=8), ("key prefill:", "1..7", "is 8")),
        (replace(GOOD, gpus=1), ("key gpus:", "1 GPUs", "2 or more")),
        (replace(GOOD, gpus=0), ("key gpus:", "0")),
        (replace(GOOD, nodes=0), ("key nodes:", "1 or more", "is 0")),
        (replace(GOOD, policy="rabid"), ("key policy:", "'rabid'", "uniform", "oracle")),
        (replace(GOOD, policy_settings={"step": 1.0}), ("policy.settings.step", "step_mw")),
        (replace(GOOD, policy="colocated", policy_settings={"step_mw": 1.0}), ("policy.settings", "none", "step_mw")),
        (replace(GOOD, slo=SloTargets(0.0, 0.04)), ("slo.ttft_s", "above 0 s", "is 0 s")),
        (replace(GOOD, slo=SloTargets(1.0, float("nan"))), ("slo.tpot_s", "is nan s")),
        (replace(GOOD, world=WorldSettings(report_interval_s=0.0)), ("world.report_interval_s", "is 0 s")),
        (replace(GOOD, world=WorldSettings(report_gap_s=0.6)), ("world.report_gap_s", "0..0.5 s", "is 0.6 s")),
        (replace(GOOD, world=WorldSettings(network_s=(0.2, 0.1))), ("world.network_s", "low <= high", "0.2, 0.1")),
        (replace(GOOD, world=WorldSettings(draw_tolerance=1.5)), ("world.draw_tolerance", "0..1", "is 1.5")),
        (replace(GOOD, world=WorldSettings(silences=(Silence("n7", 1.0, 2.0),))), ("world.silences", "'n7'", "node0")),
        (replace(GOOD, world=WorldSettings(tick_s=4.0)), ("control.lease", "5 s is shorter", "6.5 s")),
        (replace(GOOD, world=WorldSettings(quantile=1.0)), ("control.quantile", "between 0 and 1", "1.0")),
    ],
)
def test_a_bad_one_is_refused_in_words(bad: Scenario, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        bad.check()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_gpus_that_make_no_whole_instances_are_refused() -> None:
    with pytest.raises(ConfigInvalid, match=r"key gpus: 6 cannot be shared out among instances of 4 \(h100-70b-tp4\)"):
        Scenario(profile_named("h100-70b-tp4"), 6 * 500_000, 1, gpus=6).check()


def test_a_gpu_falls_back_to_its_share_of_the_budget_but_never_above_its_ceiling() -> None:
    assert scenario(watts_each=600, nodes=3).fallback_mw == 600_000
    assert scenario(watts_each=900).fallback_mw == MI300X.ceiling_mw
    assert replace(GOOD, budget_mw=4_799_999).fallback_mw == 599_999


def test_the_controller_gets_one_domain_with_the_whole_budget_and_all_nodes() -> None:
    found = replace(scenario(nodes=12), world=WorldSettings(tick_s=0.25, window_s=3.0, quantile=0.95))
    settings = found.settings()
    assert [(domain.name, domain.budget_mw) for domain in settings.domains] == [("site", 12 * 4_800_000)]
    assert [node.name for node in settings.nodes] == [f"node{number:02}" for number in range(12)]
    assert (settings.tick_s, settings.window_s, settings.quantile) == (0.25, 3.0, 0.95)


def test_roles_at_the_start() -> None:
    assert replace(GOOD, prefill=3).roles == (Role.PREFILL,) * 3 + (Role.DECODE,) * 5
    assert scenario("colocated").roles == (Role.MIXED,) * 8
    assert scenario(profile=profile_named("h100-70b-tp4")).roles == (Role.PREFILL, Role.DECODE)


def test_a_colocated_host_may_be_one_gpu() -> None:
    Scenario(MI300X, 600_000, 0, policy="colocated", gpus=1).check()
