"""Findings as every verb that looks for them shows them."""

from rapid.core.findings.base import GRADE_COLUMNS, Grade
from rapidctl import output
from rapidctl.output import Cell, Line, Tone

TONES = {Grade.GREEN: Tone.GOOD, Grade.YELLOW: Tone.WARN, Grade.RED: Tone.BAD}


def finding_line(grade: Grade | None, text: str) -> Line:
    """One line of a laid-out finding; None: it goes on with the one before."""
    if grade is None:
        return output.line(" " * GRADE_COLUMNS + text)
    return Line((Cell(grade.value, TONES[grade]), Cell(" " * (GRADE_COLUMNS - len(grade.value)) + text)))
