"""Every profile against the table of measured iterations that it was fitted to (tests/sim/data)."""

import csv
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from rapid.sim.model.profile import Profile, profile_named

TABLE = Path(__file__).parent / "data" / "llama31_bf16_iterations.csv"
NAMES = ("a100-8b", "b200-70b-tp2", "b200-8b", "h100-70b-tp4", "h100-8b", "h200-70b-tp4", "h200-8b")
METERED = ("b200-70b-tp2", "b200-8b", "h200-70b-tp4", "h200-8b")  # the others' draws are assumed
FULL_MW = 10**9

TIME_ERROR = 0.05  # mean relative error of a profile's times in a phase: the simulator's promise
ROUNDING = 0.005  # of a coefficient against the best fit
DRAW_ERROR = 0.05  # mean relative error of the draws
WORST_DRAW_ERROR = 0.25  # of one row: a profile knows only the batch, and long contexts draw up to a fifth less


class Phase(Enum):
    PREFILL = "prefill"
    DECODE = "decode"


COEFFICIENTS = {
    Phase.PREFILL: ("prefill_ms", "prefill_token_ms", "prefill_square_ms"),
    Phase.DECODE: ("decode_ms", "decode_sequence_ms", "decode_context_ms"),
}
EACH = pytest.mark.parametrize(("name", "phase"), [(name, phase) for name in NAMES for phase in Phase])
EACH_METERED = pytest.mark.parametrize(("name", "phase"), [(name, phase) for name in METERED for phase in Phase])


@dataclass(frozen=True)
class Iteration:
    batch: int
    length: int
    time_ms: float
    draw_w: int | None

    @property
    def tokens(self) -> int:
        return self.batch * self.length


@cache
def iterations(name: str, phase: Phase) -> tuple[Iteration, ...]:
    with TABLE.open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if (row["profile"], row["phase"]) == (name, phase.value)]
    return tuple(
        Iteration(
            int(row["batch"]), int(row["length"]), float(row["time_ms"]), int(row["draw_w"]) if row["draw_w"] else None
        )
        for row in rows
    )


def time_errors(profile: Profile, phase: Phase) -> list[float]:
    """Relative errors of the GPU's time, without the host's."""
    rows = iterations(profile.name, phase)
    if phase is Phase.PREFILL:
        times_s = [profile.prefill_s(row.tokens, row.tokens * row.length, FULL_MW) for row in rows]
    else:
        times_s = [profile.decode_step_s(row.batch, row.tokens, FULL_MW) - profile.host_s(row.batch) for row in rows]
    return [time_s * 1e3 / row.time_ms - 1 for time_s, row in zip(times_s, rows, strict=True)]


def draw_errors(profile: Profile, phase: Phase) -> list[float]:
    errors = []
    for row in iterations(profile.name, phase):
        assert row.draw_w is not None
        draw_mw = profile.prefill_natural_mw if phase is Phase.PREFILL else profile.decode_draw_mw(row.batch)
        errors.append(draw_mw / (row.draw_w * 1e3) - 1)
    return errors


def best_fit(name: str, phase: Phase) -> list[float]:
    """The three coefficients with the least squares of relative errors."""
    rows = iterations(name, phase)
    times_ms = np.array([row.time_ms for row in rows])
    if phase is Phase.PREFILL:
        terms = np.array([[1.0, row.tokens, row.tokens * row.length] for row in rows])
    else:
        terms = np.array([[1.0, row.batch, row.tokens] for row in rows])
    return [float(value) for value in np.linalg.lstsq(terms / times_ms[:, None], np.ones(len(rows)), rcond=None)[0]]


def mean_error(errors: list[float]) -> float:
    return fmean(abs(error) for error in errors)


def worst(name: str, phase: Phase, errors: list[float]) -> str:
    row, error = max(zip(iterations(name, phase), errors, strict=True), key=lambda pair: abs(pair[1]))
    return f"{name} {phase.value}: mean {mean_error(errors):.1%}, worst {error:+.1%} at {row.batch} x {row.length}"


def times_pass(profile: Profile, phase: Phase) -> bool:
    return mean_error(time_errors(profile, phase)) <= TIME_ERROR


def fit_passes(profile: Profile, phase: Phase) -> bool:
    own = [getattr(profile, field) for field in COEFFICIENTS[phase]]
    return own == pytest.approx(best_fit(profile.name, phase), rel=ROUNDING)


def draws_pass(profile: Profile, phase: Phase) -> bool:
    errors = draw_errors(profile, phase)
    return mean_error(errors) <= DRAW_ERROR and max(map(abs, errors)) <= WORST_DRAW_ERROR


def test_the_table_has_every_profile_that_was_fitted_to_it() -> None:
    with TABLE.open(newline="") as lines:
        assert sorted({row["profile"] for row in csv.DictReader(lines)}) == sorted(NAMES)
    for name in NAMES:
        assert len(iterations(name, Phase.PREFILL)) == 22
        assert len(iterations(name, Phase.DECODE)) >= 61
        metered = all(row.draw_w is not None for phase in Phase for row in iterations(name, phase))
        assert metered is (name in METERED)


@EACH
def test_times_are_within_5_percent_on_average(name: str, phase: Phase) -> None:
    profile = profile_named(name)
    assert times_pass(profile, phase), worst(name, phase, time_errors(profile, phase))


@EACH
def test_coefficients_are_the_best_fit(name: str, phase: Phase) -> None:
    assert fit_passes(profile_named(name), phase)


@EACH_METERED
def test_draws_are_within_5_percent_on_average(name: str, phase: Phase) -> None:
    profile = profile_named(name)
    assert draws_pass(profile, phase), worst(name, phase, draw_errors(profile, phase))


@pytest.mark.parametrize("factor", [0.9, 1.1])
@EACH
def test_a_coefficient_that_is_10_percent_off_is_caught(name: str, phase: Phase, factor: float) -> None:
    profile = profile_named(name)
    planted = {field: replace(profile, **{field: getattr(profile, field) * factor}) for field in COEFFICIENTS[phase]}
    assert [field for field, wrong in planted.items() if fit_passes(wrong, phase)] == []
    # The term that makes up most of the time is off by more than the promise allows.
    heaviest = "prefill_token_ms" if phase is Phase.PREFILL else "decode_ms"
    assert not times_pass(planted[heaviest], phase)


@pytest.mark.parametrize("factor", [0.9, 1.1])
@EACH_METERED
def test_a_draw_that_is_10_percent_off_is_caught(name: str, phase: Phase, factor: float) -> None:
    profile = profile_named(name)
    wrong = replace(
        profile,
        prefill_natural_mw=round(profile.prefill_natural_mw * factor),
        decode_natural_mw=tuple((batch, round(draw_mw * factor)) for batch, draw_mw in profile.decode_natural_mw),
    )
    assert not draws_pass(wrong, phase)
