"""`rapidctl sim sweep`: which rates are run, what they say, and one short sweep."""

import json
import re
from collections.abc import Callable, Iterator
from math import exp
from pathlib import Path
from typing import Any

import click
import pytest

from rapid.sim.study import LEVELS
from rapidctl.commands._verb import Verb
from rapidctl.commands.sim import command as group
from rapidctl.sim.load import measure
from rapidctl.sim.options import SiteChoice, TraceChoice, policy_choice
from rapidctl.sim.question import Question, answer, scenario
from rapidctl.sim.rates import Curve, Point, curves, first_rate, parse_rates, ranked
from rapidctl.sim.report_sweep import sustained_table, sweep_blocks
from rapidctl.sim.sweep import document
from tests.ctl.sim_outcomes import outcome, runs, sim, text_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """300 requests, one a second."""
    rows = [f"{at},{2000 + at % 9},{16 + at % 7}" for at in range(300)]
    file = tmp_path / "mine.csv"
    file.write_text("\n".join(["arrival_s,input_tokens,output_tokens", *rows]))
    return file


def swept(attained: dict[str, Callable[[float], float]], given: tuple[float, ...] | None = None) -> tuple[Curve, ...]:
    """The curves of policies whose attainment is known."""
    found = curves(attained, 10.0, given)
    while wanted := [(curve, rate_rps) for curve in found for rate_rps in curve.wanted()]:
        for curve, rate_rps in wanted:
            share = attained[curve.policy](rate_rps)
            curve.add(Point(rate_rps, runs(curve.policy, share, share)))
    return found


def falling_at(middle_rps: float) -> Callable[[float], float]:
    return lambda rate_rps: 1 / (1 + exp(rate_rps - middle_rps))


# ---- rates ----


@pytest.mark.parametrize(
    ("text", "rates"),
    [
        ("12", (12.0,)),
        ("16,8,12,8", (8.0, 12.0, 16.0)),
        ("8:16:4", (8.0, 12.0, 16.0)),
        ("8:15:4", (8.0, 12.0)),
        ("0.1:0.3:0.1", (0.1, pytest.approx(0.2), pytest.approx(0.3))),
    ],
)
def test_rates_are_a_list_or_a_range(text: str, rates: tuple[float, ...]) -> None:
    assert parse_rates(text) == rates


@pytest.mark.parametrize("text", ["", "a", "0,4", "-1:4:1", "8:4:1", "1:2:0", "1:2", "nan", "1:inf:1", "1,,2"])
def test_what_are_no_rates_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"are no rates above 0; write 8,12,16 or LOW:HIGH:STEP"):
        parse_rates(text)


def test_there_is_a_bound_on_rates() -> None:
    with pytest.raises(ValueError, match="more than 200 rates"):
        parse_rates("1:1e9:1")


def test_the_search_begins_near_what_the_site_can_carry(path: Path) -> None:
    found = scenario(SiteChoice(), policy_choice("uniform"), 0)
    load = measure(TraceChoice(str(path), rate_rps=1.0), 100_000)
    guess_rps = first_rate(found, load.mean_input, load.mean_output)
    low, high = (
        answer(
            Question("uniform", found, measure(TraceChoice(str(path), rate_rps=rate), 100_000)), lambda share: None
        ).attainment
        for rate in (guess_rps / 2, guess_rps * 8)
    )
    assert low == 1.0
    assert high < 0.8
    twice = scenario(SiteChoice(nodes=2), policy_choice("uniform"), 0)
    assert first_rate(twice, 4000, 100) == pytest.approx(2 * first_rate(found, 4000, 100))
    assert first_rate(found, 4000, 100) < first_rate(found, 1000, 100)


# ---- curves ----


def test_each_policy_is_searched_for_itself() -> None:
    found = swept({"uniform": falling_at(20.0), "rapid": falling_at(26.0)})
    # The logistic is .8 at 1.386 below its middle, .9 at 2.197 and .99 at 4.595.
    for curve, middle_rps in zip(found, (20.0, 26.0), strict=True):
        for level, below_rps in zip(LEVELS, (1.386, 2.197, 4.595), strict=True):
            assert curve.sustained(level).rate_rps == pytest.approx(middle_rps - below_rps, rel=0.02)
        rates = [point.rate_rps for point in curve.points]
        assert rates == sorted(set(rates))
    assert [curve.policy for curve in ranked(found)] == ["rapid", "uniform"]


def test_given_rates_are_run_as_given_and_no_others() -> None:
    found = swept({"uniform": falling_at(20.0), "rapid": falling_at(26.0)}, (18.0, 22.0))
    assert [[point.rate_rps for point in curve.points] for curve in found] == [[18.0, 22.0]] * 2


def test_sustained_rates_are_shown_with_what_is_not_known() -> None:
    always, never = (lambda rate_rps: 1.0), (lambda rate_rps: 0.5)
    given = swept({"uniform": falling_at(20.0), "rapid": always, "roles": never}, (18.0, 20.0, 22.0))
    rows = text_of([sustained_table(given)]).splitlines()
    assert re.split("  +", rows[0]) == ["sustains requests/s at", "80 %", "90 %", "99 %", "against uniform"]
    # Between .881 at 18/s and .5 at 20/s, .8 lies at 18 + 2 x .081 / .381 = 18.42; .9 is at none of the three.
    assert re.split("  +", rows[1]) == ["uniform", "18.42", "-", "-", "1.00x"]
    assert re.split("  +", rows[2]) == ["rapid", "> 22.00", "> 22.00", "> 22.00", "1.19x"]
    assert re.split("  +", rows[3]) == ["roles", "-", "-", "-", "-"]
    assert max(map(len, rows)) <= 80


def test_the_report_names_who_sustains_most_and_what_nobody_does(path: Path) -> None:
    load = measure(TraceChoice(str(path), limit=200), 100_000)
    scenarios = {name: scenario(SiteChoice(), policy_choice(name), 0) for name in ("uniform", "rapid")}
    found = swept({"uniform": falling_at(20.0), "rapid": lambda rate_rps: 0.95 * falling_at(26.0)(rate_rps)})
    text = text_of(sweep_blocks(found, load, scenarios, 2, cut=True), None)
    assert re.search(r"rapid sustains most: 24\.\d+ requests/s at 80 % attainment\.", text)
    assert "None attains" not in text  # uniform attains 99 %
    assert "the same 200 requests at every rate, 2,004 tokens in and 19 out" in text
    assert "only the first part of the trace was taken; --limit or --seconds for more" in text
    lost = swept({"uniform": lambda rate_rps: 0.95, "rapid": lambda rate_rps: 0.85})
    assert "None attains 99 % at any rate tried." in text_of(sweep_blocks(lost, load, scenarios, 2, cut=False), None)
    gone = swept({"uniform": lambda rate_rps: 0.1, "rapid": lambda rate_rps: 0.2})
    assert "No policy attains 80 % at any rate tried" in text_of(
        sweep_blocks(gone, load, scenarios, 2, cut=False), None
    )


def test_json_of_a_sweep(path: Path) -> None:
    load = measure(TraceChoice(str(path)), 100_000)
    found = document(swept({"uniform": falling_at(20.0)}, (18.0, 22.0)), load)
    assert found["requests"] == 300
    (curve,) = found["curves"]
    assert curve["policy"] == "uniform"
    assert [point["rate_rps"] for point in curve["points"]] == [18.0, 22.0]
    assert curve["points"][0]["attainment_mean"] == pytest.approx(0.8808, abs=1e-4)
    assert curve["points"][0]["attainment_ci95"] == pytest.approx(0.0, abs=1e-12)
    assert [each["level"] for each in curve["sustained"]] == [0.8, 0.9, 0.99]
    assert curve["sustained"][1] == {"level": 0.9, "rate_rps": None, "low_rps": None, "high_rps": 18.0}
    json.dumps(found, allow_nan=False)


# ---- a sweep ----


def keys(value: Any) -> Iterator[str]:
    for child in value if isinstance(value, list) else ():
        yield from keys(child)
    for key, child in value.items() if isinstance(value, dict) else ():
        yield key
        yield from keys(child)


def test_a_sweep_finds_the_rate_that_more_budget_raises(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the picture needs the extra plot")
    picture = tmp_path / "sweep.png"
    words = ("sweep", "--trace", path, "--policy", "uniform", "--json")
    little = sim(*words, "--budget", "3.4kW", "--plot", picture)
    assert little.exit_code == 0, little.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    much = sim(*words, "--budget", "6kW")
    found = [json.loads(each.stdout)["curves"][0]["sustained"][0]["rate_rps"] for each in (little, much)]
    # Prefill binds here, and at 425 W it has (425/600)^.6 (600/750)^.63 = .71 of its speed by the shallow corner; a
    # run this short forgives some overload, the more the shorter it is.
    assert 0.55 < found[0] / found[1] < 0.75
    command = group.get_command(click.Context(group), "sweep")
    assert isinstance(command, Verb)
    assert set(keys(json.loads(much.stdout))) <= set(re.findall(r"\w+", command.shape))


def test_rates_given_make_a_table(path: Path) -> None:
    words = ("--policy", "uniform", "--policy", "colocated", "--rates", "5,80", "--seeds", 2)
    result = sim("sweep", "--trace", path, *words)
    assert result.exit_code == 0, result.stderr
    assert re.search(r"^ +5 +100\.0 ± 0\.0 +100\.0 ± 0\.0$", result.stdout, re.MULTILINE)
    assert re.search(r"^ +80 ", result.stdout, re.MULTILINE)
    assert "any of 8 runs" in result.stdout


def test_a_rate_and_a_sweep_exclude_each_other() -> None:
    result = sim("sweep", "--trace", "azure", "--rate", "5")
    assert result.exit_code == 2
    assert "No such option: --rate" in result.stderr or "No such option '--rate'" in result.stderr
    assert sim("sweep", "--trace", "azure", "--rates", "8-16").exit_code == 2


def test_any_run_over_budget_is_seen() -> None:
    curve = swept({"uniform": falling_at(20.0)}, (18.0,))[0]
    assert sum(run.over_budget_s for run in curve.runs()) == 0
    curve.add(Point(19.0, (outcome(over_budget_s=0.1),)))
    assert sum(run.over_budget_s for run in curve.runs()) == 0.1
