"""`rapidctl sim reproduce`: the table, its JSON, its pictures, and one claim from the command line to the verdict."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rapid.sim.claims import claims
from rapid.sim.claims.claims import CORNERS, Finding, Judgement
from rapid.sim.claims.rules import Part, Verdict
from rapid.sim.claims.runs import SPLIT_675, SPLIT_750, TIGHT_TPOT_S, Corner, GapTask
from rapid.sim.claims.table import CLAIMS
from rapid.sim.model.paper_profile import FITTED, FITTED_RULE, NAME
from rapid.sim.model.profile import profile_named
from rapidctl.sim import reproduce
from rapidctl.sim.picture_claims import draw_claims
from tests.ctl.sim_outcomes import sim, text_of
from tests.sim.test_claims import STATED_RPS, world

PNG = b"\x89PNG\r\n\x1a\n"
SCOPE = claims.quick(profile_named(NAME))


def finding(own: Verdict, elsewhere: Verdict, number: int = 4) -> Finding:
    """Of R5 by default, in the own corner and one other."""
    other: Corner = next(corner for corner in CORNERS if corner != SCOPE.own)
    return Finding(CLAIMS[number], Judgement((Part("28.0 against 23.1", own),)), {SCOPE.own: own, other: elsewhere})


def asked(*words: object) -> dict[str, Any]:
    result = sim("reproduce", *words, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_every_claim_has_an_id_of_the_command_line() -> None:
    assert tuple(claim.id for claim in CLAIMS) == reproduce.IDS


def test_json_has_the_keys_that_help_writes_down() -> None:
    document = asked("--quick", "--claim", "R7")
    (claim,) = document["claims"]
    assert set(document) == {"claims"}
    assert list(claim) == re.findall(r"^    (\w+)", reproduce.SHAPE, flags=re.MULTILINE)
    assert (claim["id"], claim["verdict"]) == ("R7", "reproduced")
    assert claim["corners"] == {"shallow,pessimistic": "reproduced"}


def test_without_quick_every_corner_is_told() -> None:
    (claim,) = asked("--claim", "r7")["claims"]
    assert len(claim["corners"]) == 6
    assert claim["corners"]["shallow,sharp"] == "partly"


def test_a_claim_from_the_command_line_to_the_verdict() -> None:
    (claim,) = asked("--quick", "--claim", "R5", "--seeds", "1")["claims"]
    assert claim["verdict"] == "reproduced"
    assert re.fullmatch(r"[\d.]+ against [\d.]+ requests/s", claim["ours"])


def test_a_person_sees_the_fit_the_verdict_and_where_it_holds() -> None:
    held, lost = finding(Verdict.REPRODUCED, Verdict.NOT), finding(Verdict.NOT, Verdict.REPRODUCED)
    text = text_of(reproduce.blocks([held, lost], SCOPE), width=160)
    for each in (*FITTED, *FITTED_RULE):
        assert re.search(rf"^{each.name} +{each.value:g} ", text, flags=re.MULTILINE), each.name
    assert "R5  reproduced  4P-750W/4D-450W beats 5P3D-600W on LongBench" in text
    assert "reproduced in 1 of 2 corners: shallow,pessimistic" in text
    assert "R5  partly" in text
    assert "  With fast decode three decode GPUs are enough" in text
    assert text.endswith("1 reproduced, 1 partly, 0 not")


def test_a_claim_that_holds_nowhere_is_counted_as_not() -> None:
    text = text_of(reproduce.blocks([finding(Verdict.NOT, Verdict.PARTLY)], SCOPE), width=160)
    assert "R5  not  " in text
    assert "reproduced in 0 of 2 corners" in text
    assert text.endswith("0 reproduced, 0 partly, 1 not")


@pytest.mark.parametrize("words", [("--claim", "R12"), ("--seeds", "0"), ("--plots", __file__)])
def test_what_cannot_be_asked_is_refused(words: tuple[str, ...]) -> None:
    assert sim("reproduce", *words).exit_code == 2


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    result = sim("reproduce", "--quick", "--claim", "R7", "--plots", in_the_way / "figures")
    assert result.exit_code == 2
    assert str(in_the_way) in result.stderr


def test_every_figure_for_which_there_are_numbers_is_drawn(tmp_path: Path) -> None:
    drawn = draw_claims(SCOPE, world(), tmp_path)
    assert [path.name for path in drawn] == [
        "splits.png",
        "efficiency.png",
        "prefill-at-600W.png",
        "speeds.png",
        "shift.png",
        "shift-roles.png",
        "shift-over-time-power.png",
        "shift-over-time-rapid.png",
    ]
    assert all(path.read_bytes().startswith(PNG) for path in drawn)
    assert sorted(drawn) == sorted(tmp_path.iterdir())


def test_a_figure_without_numbers_is_left_out(tmp_path: Path) -> None:
    few = world({key: STATED_RPS[key] for key in ((SPLIT_675, TIGHT_TPOT_S), (SPLIT_750, TIGHT_TPOT_S))}, shift={})
    names = [
        path.name for path in draw_claims(SCOPE, [pair for pair in few if not isinstance(pair[0], GapTask)], tmp_path)
    ]
    assert names == ["splits.png", "speeds.png"]
