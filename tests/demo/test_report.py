"""The figures, the JSON contract, and the report for people."""

import json
from dataclasses import replace

import pytest

from rapidctl.demo.figures import host_figures, to_document
from rapidctl.demo.report import blocks
from rapidctl.output import render
from tests.demo.story import SECONDS, figures, finding, front_end


def text(**changes: object) -> str:
    return "\n".join(render(blocks(figures(**changes)), width=None, colour=False))  # type: ignore[arg-type]


def row(report: str, title: str) -> list[str]:
    (line,) = (line for line in report.splitlines() if line.strip().startswith(title))
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_shares_are_of_all_requests_and_goodput_is_of_the_whole_time() -> None:
    base, other = (host.summary for host in figures().hosts)
    assert (base.attainment, other.attainment) == (12 / 20, 15 / 20)
    assert other.ttft_attainment == 15 / 20
    assert other.tpot_attainment == 18 / 20  # the two that did not finish have no TPOT to show
    assert other.goodput_rps == 15 / SECONDS
    assert (other.unfinished, base.ttft.p50_s, base.ttft.p99_s) == (2, 0.4, 3.0)


def test_joules_are_per_token_of_the_requests_that_finished() -> None:
    base, other = (host.summary for host in figures().hosts)
    assert base.joules_per_output_token == 4000 / (20 * 101)
    assert other.joules_per_output_token == 3600 / (18 * 101)


def test_lag_is_the_worst_of_all_engines_and_the_mean_over_their_events() -> None:
    lags = figures().hosts[0].lags
    assert (lags.max_s, lags.mean_s) == (0.011, 0.001)


def test_document_is_the_contract() -> None:
    document = json.loads(json.dumps(to_document(figures(over=True)), allow_nan=False))
    assert list(document)[:4] == ["hosts", "budget_w", "over_budget_s", "picture"]
    assert list(document["hosts"]) == ["uniform", "rapid"]
    assert (document["budget_w"], document["over_budget_s"]) == (1200, 0.25)
    assert document["picture"] == "/x/azure.png"
    rapid = document["hosts"]["rapid"]
    assert list(rapid)[:9] == [
        *("attainment", "ttft_attainment", "tpot_attainment", "goodput_rps", "requests", "joules_per_output_token"),
        *("role_moves", "watts_moved", "over_budget_s"),
    ]
    assert (rapid["attainment"], rapid["requests"], rapid["watts_moved"]) == (0.75, 20, 50)
    assert (rapid["over_budget_s"], rapid["highest_limits_w"]) == (0.25, 1250)
    assert document["hosts"]["uniform"]["over_budget_s"] == 0


def test_instant_without_length_breaks_the_budget_too() -> None:
    assert not finding((4.0, 650_000), (4.0 + 1e-9, 600_000)).verdict.kept
    assert finding((4.0, 650_000), (4.0, 600_000)).verdict.kept  # never in force at all


def test_report_compares_with_the_baseline() -> None:
    report = text()
    assert row(report, "SLO attainment") == ["SLO attainment", "60.0 %", "75.0 %", "1.25x"]
    assert row(report, "goodput") == ["goodput", "1.2 /s", "1.5 /s", "1.25x"]
    assert row(report, "TPOT p99") == ["TPOT p99", "20.0 ms", "20.0 ms"]
    assert "judge: by the devices' own records no instant over 1,200 W since rapidd was ready" in report
    assert "rule: uniform measured 60.0 %, within 50 to 70 %" in report
    assert "chosen so that the uniform host attains between 50 and 70 %; predicted 60.0 %" in report
    assert "picture: /x/azure.png" in report
    assert "died" not in report


def test_report_says_loudly_what_went_wrong() -> None:
    report = text(over=True, restarts=3)
    assert "judge: OVER BUDGET of 1,200 W: rapid 1 times, 0.250 s in all, at worst 1,250 W" in report
    assert "3 processes died and came back" in report


def test_rate_that_was_given_claims_no_rule() -> None:
    assert "rate: azure x 5.50, 2.0 requests/s, as given" in text(predicted=None)


def test_host_without_a_finished_request_can_be_reported() -> None:
    empty = host_figures(
        "rapid", front_end("rapid", met=0, missed=0, unfinished=3), finding(), seconds=SECONDS, energy_mj=1000
    )
    both = replace(figures(), hosts=(figures().hosts[0], empty))
    document = to_document(both)
    assert document["hosts"]["rapid"]["ttft_p50_s"] is None
    assert row("\n".join(render(blocks(both), width=None, colour=False)), "TTFT p99")[-1] == "-"


@pytest.mark.parametrize(("met", "within"), [(9, False), (10, True), (14, True), (15, False)])
def test_rule_holds_within_its_bounds(met: int, within: bool) -> None:
    base = host_figures(
        "uniform", front_end("uniform", met=met, missed=20 - met), finding(), seconds=SECONDS, energy_mj=1
    )
    assert replace(figures(), hosts=(base, figures().hosts[1])).within_rule is within
