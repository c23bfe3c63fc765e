"""`rapidctl sim run`: options become a scenario and a load, or an error that says what to write; and one run of it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from rapid.core.cluster import Role, SloTargets
from rapid.core.errors import TraceInvalid, UsageError
from rapid.sim.model.profile import DecodeCorner, PrefillCorner
from rapid.sim.world.scenario import Scenario
from rapidctl.commands._verb import Verb
from rapidctl.commands.sim import ENTRIES
from rapidctl.commands.sim import command as group
from rapidctl.sim import progress
from rapidctl.sim.film import Film
from rapidctl.sim.load import Load, at_rate, measure
from rapidctl.sim.options import PolicyChoice, SiteChoice, TraceChoice, policy_choice
from rapidctl.sim.question import Question, answer, scenario
from rapidctl.sim.report import exit_code, judged, run_blocks
from tests.ctl.sim_outcomes import outcome, sim, text_of

MINE = ("run", "compare", "sweep")
MAX_TOKENS = 100_000


def unheard(share: float) -> None:
    """Nobody follows."""


def built(site: SiteChoice | None = None, policy: str = "rapid", seed: int = 0) -> Scenario:
    return scenario(site or SiteChoice(), policy_choice(policy), seed)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A request a second for 100 s, two at once after 50 s; the last prompt is long."""
    rows = [f"{at + (1 if at >= 50 else 0)},{9000 if at == 99 else 100},10" for at in range(100)]
    rows[50] = "50,100,10"
    file = tmp_path / "mine.csv"
    file.write_text("\n".join(["arrival_s,input_tokens,output_tokens", *rows]))
    return file


# ---- help ----


@pytest.mark.parametrize("verb", MINE)
def test_help_has_examples_that_parse_and_fits_80_columns(verb: str) -> None:
    found = group.get_command(click.Context(group), verb)
    assert isinstance(found, Verb)
    text = sim(verb, "--help").stdout
    assert [row for row in text.splitlines() if len(row) > 80] == []
    assert "With --json" in text
    examples = re.findall(rf"rapidctl sim {verb}( [^|#\n]*)", found.examples)
    assert len(examples) >= 4
    for words in examples:
        found.make_context(verb, words.split())


def test_the_group_lists_its_verbs_and_suggests_them() -> None:
    text = sim("--help").stdout
    assert all(re.search(rf"^  {entry.verb} +{re.escape(entry.help)}", text, re.MULTILINE) for entry in ENTRIES)
    assert "Did you mean 'sweep'?" in sim("swep").stderr


# ---- what is served ----


def test_defaults_are_those_of_the_paper() -> None:
    found = built()
    assert (found.profile.name, found.nodes, found.gpus, found.prefill) == ("mi300x-8b", 1, 8, 4)
    assert found.budget_mw == 4_800_000
    assert found.slo == SloTargets(1.0, 0.040)
    assert (found.policy, dict(found.policy_settings), found.seed) == ("rapid", {}, 0)


def test_every_option_reaches_the_scenario() -> None:
    site = SiteChoice("h100-8b", "steep,sharp", 4, 2, 4_000_000, 3, 0.5, 0.025, 512)
    found = built(site, "rapid:step=50W,slack=0.7,power_cooldown=500ms", seed=9)
    assert (found.gpus, found.nodes, found.budget_mw, found.prefill, found.seed) == (4, 2, 4_000_000, 3, 9)
    assert found.slo == SloTargets(0.5, 0.025)
    assert found.profile.prefill_corner is PrefillCorner.STEEP
    assert found.profile.decode_corner is DecodeCorner.SHARP
    assert found.engine.chunk_tokens == 512
    assert found.policy_settings == {"step_mw": 50_000.0, "slack": 0.7, "power_cooldown_s": 0.5}


def test_the_default_split_needs_no_limits_and_fits_every_budget() -> None:
    assert built(policy="static").policy_settings == {"prefill_mw": 750_000.0, "decode_mw": 450_000.0}
    tight = built(SiteChoice(budget_mw=3_420_000), "static")  # 57 %: decode at its floor, prefill the rest
    assert tight.policy_settings == {"prefill_mw": 455_000.0, "decode_mw": 400_000.0}
    whole = built(SiteChoice(budget_mw=6_000_000), "static")
    assert whole.policy_settings == {"prefill_mw": 750_000.0, "decode_mw": 750_000.0}
    wide = built(SiteChoice("h100-8b", nodes=2), "static")  # 80 % of 16 x 700 W, so 4,480 W for each node
    assert wide.policy_settings == {"prefill_mw": 700_000.0, "decode_mw": 420_000.0}


def test_half_of_a_static_split_may_be_given() -> None:
    found = built(policy="static:decode=440W")
    assert found.policy_settings == {"prefill_mw": 750_000.0, "decode_mw": 440_000.0}


def test_colocated_instances_are_all_mixed() -> None:
    assert set(built(policy="colocated").roles) == {Role.MIXED}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--budget", "4800"), "'--budget': '4800' is not a power; write it as '4800W' or '4.8kW'"),
        (("--budget", "0W"), "'0W' is no budget: it must be above 0 W"),
        (("--ttft", "1"), "'--ttft': '1' is not a duration; write it as '1ms' or '1s'"),
        (("--tpot", "0ms"), "'0ms' is too short: it must be above 0s"),
        (("--start", "90"), "'90' is not a duration; write it as '90ms' or '90s'"),
        (("--policy", "rapit"), "no policy named 'rapit'; known: uniform, static, power, roles, rapid"),
        (("--policy", "rapid:step=50"), "'50' is not a power; write it as '50W'"),
        (("--policy", "rapid:power_cooldown=2"), "'2' is not a duration; write it as '2ms' or '2s'"),
        (("--policy", "rapid:slack=half"), "slack takes a number, not 'half'"),
        (("--policy", "rapid:step_mw=5"), "policy rapid has no setting 'step_mw' (it has: step, slack"),
        (("--policy", "uniform:step=5W"), "policy uniform has no setting 'step' (it has: none)"),
        (("--policy", "rapid:step"), "'step' is no setting; write rapid:key=value"),
        (("--policy", "rapid:step=5W,step=6W"), "step is given twice"),
        (("--limits", "750/450"), "--limits is for policy static, not for predictive"),
        (("--limits", "750", "--policy", "static"), "--limits '750': write prefill/decode in watts, as in 750/450"),
        (("--limits", "700/400", "--policy", "static:decode=450W"), "both state limits; leave one out"),
        (("--rate", "3", "--rate-scale", "2"), "--rate and --rate-scale both say how fast; leave one out"),
        (("--plot", "run.pdf"), "--plot writes PNG, so a name that ends in .png is needed, not 'run.pdf'"),
        (("--profile", "h100"), "rapidctl: --profile: no profile named 'h100' (known: a100-8b,"),
        (("--corner", "steep"), "rapidctl: --corner: corner 'steep': want PREFILL,DECODE"),
        (("--budget", "2kW"), "rapidctl: --budget: 2000 W is below the floors of 8 GPUs of mi300x-8b"),
        (("--prefill", "8"), "rapidctl: --prefill: must lie within 1..7 of 8 instances, is 8"),
        (("--gpus", "6", "--profile", "h200-70b-tp4"), "rapidctl: --gpus: 6 cannot be shared out among instances of 4"),
        (("--policy", "static", "--limits", "900/450"), "900 W for prefill is outside 400 W to 750 W"),
        (("--policy", "static", "--limits", "750/451"), "they sum to 4,804 W over all GPUs, and the budget is 4,800 W"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_to_write(words: tuple[str, ...], said: str) -> None:
    result = sim("run", "--trace", "azure", *words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_limits_are_those_of_the_static_policy() -> None:
    result = sim("run", "--trace", "azure", "--limit", 20, "--policy", "static", "--limits", "675/525")
    assert "static: 675 W for prefill, 525 W for decode" in result.stdout
    assert re.search(r"prefill +4.00 +675 W", result.stdout)
    assert policy_choice("static:prefill=675W,decode=525W").settings == (
        ("prefill_mw", 675_000.0),
        ("decode_mw", 525_000.0),
    )


# ---- which requests ----


def load(path: Path, most_s: float | None = None, **fields: Any) -> Load:
    return measure(TraceChoice(str(path), **fields), MAX_TOKENS, most_s)


def arrivals_s(found: Load) -> list[float]:
    return [request.arrival_s for request in found.requests()]


def test_a_trace_is_replayed_as_it_arrived(path: Path) -> None:
    found = load(path)
    assert (found.offered, found.span_s, found.scale, found.whole) == (100, 100.0, 1.0, True)
    assert arrivals_s(found)[:3] == [0.0, 1.0, 2.0]
    assert found.mean_input == (99 * 100 + 9000) / 100


def test_a_rate_is_that_of_the_stretch_itself(path: Path) -> None:
    found = load(path, rate_rps=4.0, seconds=10.0)
    at_s = arrivals_s(found)
    assert len(at_s) == found.offered == 40
    assert at_s[-1] == pytest.approx(10.0)
    assert found.rate_rps == pytest.approx(4.0)
    assert not found.whole


def test_a_trace_that_is_over_sooner_is_replayed_at_the_rate_to_its_end(path: Path) -> None:
    found = load(path, rate_rps=5.0, seconds=1000.0)
    assert (found.offered, found.whole) == (100, True)
    assert found.rate_rps == pytest.approx(5.0)
    assert arrivals_s(found)[-1] == pytest.approx(20.0)


def test_a_scale_speeds_the_gaps_up_and_seconds_end_the_replay(path: Path) -> None:
    found = load(path, rate_scale=4.0, seconds=10.0)
    assert (found.offered, found.scale, found.whole) == (40, 4.0, False)
    assert arrivals_s(found)[:3] == [0.0, 0.25, 0.5]


def test_start_limit_and_longest_prompt_choose_requests(path: Path) -> None:
    found = load(path, start_s=90.0, max_input=1000)
    assert arrivals_s(found) == [float(at) for at in range(10)]
    assert "1" in found.left_out
    assert load(path, start_s=90.0, limit=3).offered == 3


def test_a_bound_on_the_length_holds_unless_seconds_are_given(path: Path) -> None:
    assert (load(path, 30.0).offered, load(path, 30.0).whole) == (30, False)
    assert load(path, 30.0, seconds=60.0).offered > 55
    assert load(path, 300.0).whole


def test_the_same_requests_at_another_rate(path: Path) -> None:
    slow = load(path, limit=60)
    fast = at_rate(slow, 12.0)
    assert fast.rate_rps == pytest.approx(12.0)
    assert [request.input_tokens for request in fast.requests()] == [each.input_tokens for each in slow.requests()]
    assert arrivals_s(fast)[-1] == pytest.approx(5.0)


def test_a_stretch_without_requests_or_without_time_has_no_answer(path: Path) -> None:
    with pytest.raises(TraceInvalid, match="no request from 500 s on; take another part"):
        load(path, start_s=500.0)
    with pytest.raises(TraceInvalid, match="all 1 requests come at 0 s, so they have no rate"):
        load(path, limit=1)


def test_a_bad_line_is_named_before_anything_is_simulated(path: Path) -> None:
    path.write_text(path.read_text().replace("\n7,100,10", "\n7,-100,10"))
    result = sim("run", "--trace", path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.fullmatch(rf"rapidctl: trace {path}, line 9: .*-100.*\n", result.stderr)
    assert "left out: " in sim("run", "--trace", path, "--skip-bad").stdout


# ---- a run ----


def keys(value: Any) -> Iterator[str]:
    for key, child in value.items() if isinstance(value, dict) else ():
        yield key
        yield from keys(child)


def test_json_of_a_run_has_the_keys_of_the_contract(path: Path) -> None:
    result = sim("run", "--trace", path, "--policy", "rapid:step=50W", "--seed", 3, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    contract = "policy profile seed requests attainment ttft_attainment tpot_attainment goodput_rps ttft_s tpot_s "
    contract += "energy_j joules_per_output_token qps_per_budget_watt qps_per_drawn_watt role_moves watts_moved "
    contract += "over_budget_s unfinished sim_s wall_s control_steps why"
    assert list(document) == contract.split()
    assert set(document["ttft_s"]) == {"p50", "p90", "p99"}
    assert (document["policy"], document["profile"], document["seed"]) == ("rapid:step=50W", "mi300x-8b", 3)
    assert document["requests"] == 100
    assert document["over_budget_s"] == 0
    verb = group.get_command(click.Context(group), "run")
    assert isinstance(verb, Verb)
    assert set(keys(document)) <= set(re.findall(r"\w+", verb.shape))


def test_a_run_is_reported_in_a_table_that_fits_80_columns(path: Path) -> None:
    result = sim("run", "--trace", path, "--rate", 20)
    assert result.exit_code == 0
    assert f"load: {path}, 20 times as fast: 100 requests in 5 s, 20.00/s" in result.stdout
    assert re.search(r"SLO attainment +100.0 %", result.stdout)
    assert "judge: at no instant of the run did the limits sum to more than 4,800 W" in result.stdout
    found = built()
    text = text_of(run_blocks(outcome(), load(path), found))
    assert max(len(row) for row in text.splitlines() if str(path) not in row) <= 80  # a path is as long as it is
    assert re.search(r"TTFT p99 +3.25 s", text)
    assert re.search(r"TPOT p99 +44.5 ms", text)
    assert re.search(r"prefill +4.00 +600 W +99 %", text)
    assert "simulated 110 s in 0.5 s, 220 times real time" in text


def test_time_over_budget_is_red_and_the_exit_code(path: Path) -> None:
    fine, broken = outcome(), outcome(over_budget_s=0.25, seed=4)
    assert (exit_code([fine]), exit_code([fine, broken])) == (0, 1)
    said = judged([fine, broken], 4_800_000)
    assert said.cells[0].text == "judge: OVER BUDGET of 4,800 W: uniform seed 4 for 0.250 s"


def test_a_run_is_the_same_every_time_but_for_the_clock(path: Path) -> None:
    question = Question("rapid", built(), load(path, rate_rps=30.0))
    first, second = (answer(question, unheard) for _ in range(2))
    assert first.wall_s > 0
    assert {**vars_of(first), "wall_s": 0} == {**vars_of(second), "wall_s": 0}


def vars_of(found: Any) -> dict[str, Any]:
    return {name: getattr(found, name) for name in found.__slots__}


def test_progress_follows_the_arrivals(path: Path) -> None:
    shares: list[float] = []
    answer(Question("uniform", built(policy="uniform"), load(path)), shares.append)
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, pytest.approx(1.0))


def test_the_film_counts_what_the_outcome_says(path: Path) -> None:
    found = built(SiteChoice(tpot_s=0.0075), "rapid")
    film = Film(found.slo)
    filmed = answer(Question("rapid", found, load(path, rate_rps=60.0)), unheard, film)
    assert sum(second.requests for second in film.seconds.values()) == filmed.requests == 100
    assert sum(second.attained for second in film.seconds.values()) == round(filmed.attainment * 100)
    assert len(film.limits_mw) == len(film.instance_of) == 8
    assert set(film.instance_of.values()) <= set(film.roles)
    unfilmed = answer(Question("rapid", found, load(path, rate_rps=60.0)), unheard)
    assert {**vars_of(filmed), "wall_s": 0} == {**vars_of(unfilmed), "wall_s": 0}


def test_the_picture_is_a_png(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the picture needs the extra plot")
    picture = tmp_path / "new" / "run.png"
    result = sim("run", "--trace", path, "--rate", 20, "--plot", picture)
    assert result.exit_code == 0, result.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert f"picture: {picture}" in result.stdout
    result = sim("run", "--trace", path, "--rate", 20, "--plot", path / "run.png")
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"--plot {path / 'run.png'}: " in result.stderr


# ---- progress ----


def test_progress_is_silent_at_first_and_then_a_line_now_and_then(capfd: pytest.CaptureFixture[str]) -> None:
    now_s = [0.0]
    with progress.Progress("running", lambda: now_s[0], screen=False) as tell:
        for step in range(121):
            now_s[0] = step / 10
            tell(step / 240, f"{step} of 240")
    rows = capfd.readouterr().err.splitlines()
    assert rows == [
        "running: 8 %, 20 of 240, 2 s, about 22 s left",
        "running: 29 %, 70 of 240, 7 s, about 17 s left",
        "running: 50 %, 120 of 240, 12 s, about 12 s left",
    ]


def test_progress_without_an_end_guesses_nothing() -> None:
    assert progress.plain("sweeping", None, "3 runs done", 7.2) == "sweeping: 3 runs done, 7 s"
    assert progress.plain("sweeping", 0.01, "", 7.2) == "sweeping: 1 %, 7 s"


def test_a_policy_is_shown_as_it_was_written() -> None:
    assert str(policy_choice("rapid:step=50W")) == "rapid:step=50W"
    assert str(PolicyChoice("uniform")) == "uniform"


def test_a_scenario_that_cannot_be_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="--policy: "):
        built(policy="rapid:slack=-1")


def test_jitter_is_a_named_setting_of_the_trace() -> None:
    still, spread = (
        json.loads(sim("run", "--trace", "mooncake", "--seconds", 12, "--jitter", jitter, "--json").stdout)
        for jitter in (0, 3)
    )
    assert still["ttft_s"]["p90"] > spread["ttft_s"]["p90"]  # all that arrive in one step of 3 s queue up
