"""Powers and durations on the command line, with their units as in the configuration."""

from typing import Any

import click


class Watts(click.ParamType[int]):
    """A power with its unit, above 0 W; the value is milliwatts."""

    name = "watts"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from rapid.config.units import parse_power

        try:
            power_mw = int(parse_power(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return power_mw if power_mw > 0 else self.fail(f"{value!r} is no budget: it must be above 0 W", param, ctx)


class Seconds(click.ParamType[float]):
    """A duration with its unit, above 0 s; the value is seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from rapid.config.units import parse_duration

        try:
            duration_s = float(parse_duration(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return duration_s if duration_s > 0 else self.fail(f"{value!r} is too short: it must be above 0s", param, ctx)
