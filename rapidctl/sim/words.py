"""Numbers of a run as people read them. None is a dash: nothing was measured."""

NOTHING = "-"


def percent(share: float | None, digits: int = 1) -> str:
    return NOTHING if share is None else f"{100 * share:.{digits}f}"


def seconds(time_s: float | None) -> str:
    return NOTHING if time_s is None else f"{time_s:.2f} s"


def milliseconds(time_s: float | None) -> str:
    return NOTHING if time_s is None else f"{1e3 * time_s:.1f} ms"


def duration(time_s: float) -> str:
    """A target or a span: "1 s", "40 ms", "0.25 s"."""
    return f"{1e3 * time_s:g} ms" if time_s < 0.1 else f"{time_s:g} s"


def number(value: float | None, digits: int = 0) -> str:
    return NOTHING if value is None else f"{value:,.{digits}f}"


def in_watts(power_mw: float) -> str:
    return f"{power_mw / 1e3:,.0f} W"


def listed(words: list[str], last: str = "and") -> str:
    """ "a", "a and b", "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"
