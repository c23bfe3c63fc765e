"""The outcome of a run is a contract: these keys, defined like this."""

import json
from dataclasses import fields, replace
from inspect import getdoc

import pytest

from rapid.core.cluster import Role
from rapid.sim.world.outcome import Outcome, PerRole, Why, to_document
from rapid.sim.world.site import Site, simulate
from rapid.sim.world.why import Means
from tests.sim.sites import Recorder, poisson, scenario

KEYS = [
    *("policy", "profile", "seed", "requests", "attainment", "ttft_attainment", "tpot_attainment", "goodput_rps"),
    *("ttft_s", "tpot_s", "energy_j", "joules_per_output_token", "qps_per_budget_watt", "qps_per_drawn_watt"),
    *("role_moves", "watts_moved", "over_budget_s", "unfinished", "sim_s", "wall_s", "control_steps", "why"),
]


def test_the_document_has_these_keys_and_is_json() -> None:
    outcome = replace(simulate(scenario("uniform"), poisson(10.0, 3.0)), wall_s=0.25)
    document = to_document(outcome)
    assert list(document) == KEYS
    assert json.loads(json.dumps(document)) == document
    assert document["policy"] == "uniform"
    assert document["profile"] == "mi300x-8b"
    assert document["wall_s"] == 0.25
    for key in ("ttft_s", "tpot_s"):
        spot = document[key]
        assert isinstance(spot, dict)
        assert list(spot) == ["p50", "p90", "p99"]


@pytest.mark.parametrize("kind", [Outcome, Why])
def test_every_key_is_explained(kind: type[Outcome] | type[Why]) -> None:
    text = getdoc(kind) or ""
    assert [field.name for field in fields(kind) if field.name not in text] == []


def test_rates_and_energies_are_what_they_are_called() -> None:
    """Held against a record of all that finished."""
    watch = Recorder()
    requests = list(poisson(40.0, 20.0))
    site = Site(scenario(), iter(requests), watch=watch)
    outcome = site.run()
    last_s = requests[-1].arrival_s
    met = sum(1 for _, item in watch.finishes if item.ttft_s <= 1.0 and (item.tpot_s is None or item.tpot_s <= 0.040))
    assert outcome.goodput_rps == pytest.approx(met / last_s)
    assert outcome.qps_per_budget_watt == pytest.approx(len(watch.finishes) / last_s / 4800)
    assert outcome.qps_per_drawn_watt == pytest.approx(len(watch.finishes) / outcome.energy_j)
    tokens = sum(item.request.output_tokens for _, item in watch.finishes)
    assert outcome.joules_per_output_token == pytest.approx(outcome.energy_j / tokens)
    assert outcome.sim_s == pytest.approx(watch.finishes[-1][0])
    spent_j = sum(instance.energy_mj(site.cluster.now_s) for instance in site.cluster.instances.values()) / 1e3
    lead_in_j = 8 * 140 * 10.0
    assert outcome.energy_j == pytest.approx(spent_j - lead_in_j, rel=0.02), "the lead-in does not count"


def test_watts_moved_are_those_of_the_watch() -> None:
    watch = Recorder()
    outcome = simulate(scenario(), poisson(85.0, 20.0), watch=watch)
    limits = dict.fromkeys((gpu for _, gpu, _, _ in watch.limits), 0)
    raised_mw = 0
    for at_s, gpu, _, limit_mw in watch.limits:
        raised_mw += max(0, limit_mw - limits[gpu]) if at_s > -9.5 else 0
        limits[gpu] = limit_mw
    assert outcome.watts_moved > 100
    assert outcome.watts_moved == pytest.approx(raised_mw / 1e3, rel=0.1), "targets, some replaced on their way"


def test_means_per_role_follow_limits_and_roles() -> None:
    means = Means({"a": Role.PREFILL, "b": Role.DECODE}, {"a": [600_000, 600_000], "b": [400_000, 400_000]})
    means.limited("a", 0, 999_000, 1.0)
    means.limited("a", 0, 600_000, 5.0)
    means.begin(10.0, {"a": 3.0, "b": 4.0})
    means.limited("a", 0, 700_000, 12.0)
    means.limited("a", 1, 700_000, 12.0)
    means.moved("b", None, 14.0, 6.0)
    means.moved("b", Role.PREFILL, 16.0, 6.0)
    means.end(20.0, {"a": 13.0, "b": 8.0})
    means.moved("a", Role.DECODE, 30.0, 23.0)
    means.limited("a", 0, 1_000_000, 31.0)
    # Prefill: two GPUs for 2 s at 600 W and 8 s at 700 W, and two for 4 s at 400 W.
    prefill_w = (2 * (2 * 600 + 8 * 700) + 2 * 4 * 400) / (2 * 10 + 2 * 4)
    assert _numbers(means.limit_w()) == pytest.approx([prefill_w, 400.0])
    assert _numbers(means.instances()) == pytest.approx([1.4, 0.4])
    assert means.changing() == pytest.approx(0.2)
    assert _numbers(means.busy()) == pytest.approx([(10 + 2) / 14, 2 / 4])


def _numbers(mean: PerRole) -> list[float | None]:
    assert mean.mixed is None
    return [mean.prefill, mean.decode]
