"""Powers and durations as people write them: "600W", "4.8kW", "500ms", "2s"; a bare number says nothing.

The parsers raise ValueError with half a sentence for the operator; who calls them knows the key, or the option.
"""

import re
from decimal import Decimal

POWER_MAX_MW = 10_000_000_000_000  # 10 GW, the bound of a site on the wire too
DURATION_MAX_S = 86_400.0  # a day; nothing here waits longer

_POWERS_MW = {"W": 1_000, "kW": 1_000_000, "MW": 1_000_000_000}
_DURATIONS_S = {"ms": Decimal("0.001"), "s": Decimal(1), "min": Decimal(60), "h": Decimal(3600)}
_QUANTITY = re.compile(r"(\d{1,15}(?:\.\d{1,9})?) ?([A-Za-zµ]*)")


class Milliwatts(int):
    """A power that a configuration states with its unit."""


class Seconds(float):
    """A duration that a configuration states with its unit."""


def parse_power(raw: object) -> Milliwatts:
    """Whole milliwatts up to POWER_MAX_MW. Raises ValueError."""
    number, unit = _split(raw)
    if number is None or unit not in _POWERS_MW:
        raise ValueError(f"{_shown(raw)} is not a power; write it as {_power_example(number)}")
    power_mw = number * _POWERS_MW[unit]
    if power_mw != int(power_mw):
        raise ValueError(f"{_shown(raw)} is finer than a milliwatt")
    if power_mw > POWER_MAX_MW:
        raise ValueError(f"{_shown(raw)} is above {POWER_MAX_MW // 10**9} MW, the most there can be")
    return Milliwatts(int(power_mw))


def parse_duration(raw: object) -> Seconds:
    """Seconds up to DURATION_MAX_S. Raises ValueError."""
    number, unit = _split(raw)
    if number is None or unit not in _DURATIONS_S:
        raise ValueError(f"{_shown(raw)} is not a duration; write it as {_duration_example(number)}")
    duration_s = float(number * _DURATIONS_S[unit])
    if duration_s > DURATION_MAX_S:
        raise ValueError(f"{_shown(raw)} is above {DURATION_MAX_S / 3600:g}h, the most there can be")
    return Seconds(duration_s)


def format_power(power_mw: int) -> str:
    """What parse_power reads as power_mw again: "600W", "612.5W"."""
    return f"{Decimal(power_mw) / 1000:f}W"


def format_duration(duration_s: float) -> str:
    """What parse_duration reads as duration_s again: "0.5s"."""
    return f"{Decimal(repr(duration_s)):f}s"


def _split(raw: object) -> tuple[Decimal | None, str]:
    """The number (None: there is none) and the unit (empty: there is none)."""
    if isinstance(raw, str):
        found = _QUANTITY.fullmatch(raw)
        return (Decimal(found[1]), found[2]) if found else (None, "")
    if isinstance(raw, int | float) and not isinstance(raw, bool) and 0.001 <= raw < 10**12:
        return round(Decimal(raw), 3), ""
    return None, ""


def _shown(raw: object) -> str:
    shown = repr(raw)
    return shown if len(shown) <= 40 else f"{shown[:37]}..."


def _power_example(number: Decimal | None) -> str:
    """The operator's own number with units, when there is one: the unit alone was wrong."""
    number = Decimal(600) if number is None else number.normalize()
    return f"'{number:f}W' or '{number / 1000:f}kW'"


def _duration_example(number: Decimal | None) -> str:
    number = Decimal(500) if number is None else number.normalize()
    return f"'{number:f}ms' or '{number:f}s'"
