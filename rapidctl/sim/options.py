"""The options that run, compare and sweep share, read into one frozen value. Units are strict: 4800W, 1s, 40ms."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from rapid.core.errors import ConfigInvalid
from rapidctl.commands._units import Seconds, Watts

Function = TypeVar("Function", bound=Callable[..., Any])

FIXED_LIMITS = "static"  # the policy that --limits is for
MORE_POLICIES = ("colocated", "oracle")  # besides those of the controller
DEFAULT_PROFILE = "mi300x-8b"


@dataclass(frozen=True, slots=True)
class PolicyChoice:
    """A policy with its settings by the core's names, and as the user wrote it."""

    name: str
    settings: tuple[tuple[str, float], ...] = ()
    label: str = ""

    def __str__(self) -> str:
        return self.label or self.name


@dataclass(frozen=True, slots=True)
class TraceChoice:
    """Which requests of which trace, how fast. rate_rps and rate_scale are never both given; None: not given.

    start_s is of the trace's own time, seconds are of the replay.
    """

    name: str
    rate_rps: float | None = None
    rate_scale: float | None = None
    max_input: int | None = None
    limit: int | None = None
    start_s: float = 0.0
    seconds: float | None = None
    skip_bad: bool = False
    jitter_s: float | None = None


@dataclass(frozen=True, slots=True)
class SiteChoice:
    """What serves them. None: by default, which depends on the profile."""

    profile: str = DEFAULT_PROFILE
    corner: str | None = None
    gpus: int = 8
    nodes: int = 1
    budget_mw: int | None = None
    prefill: int | None = None
    ttft_s: float = 1.0
    tpot_s: float = 0.040
    chunk_tokens: int | None = None


class PolicyType(click.ParamType[PolicyChoice]):
    """NAME or NAME:key=value,key=value with units as in the controller's configuration: rapid:step=50W,slack=0.7."""

    name = "policy"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> PolicyChoice:
        if isinstance(value, PolicyChoice):
            return value
        try:
            return policy_choice(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in policy_names() if name.startswith(incomplete)]


def policy_names() -> tuple[str, ...]:
    from rapid.core.policy import NAMES

    return (*NAMES, *MORE_POLICIES)


def policy_choice(text: str) -> PolicyChoice:
    """Raises ValueError with half a sentence for the user."""
    name, colon, rest = text.partition(":")
    if name not in policy_names():
        raise ValueError(f"no policy named {name!r}; known: {', '.join(policy_names())}")
    known = _settings_of(name)
    settings: dict[str, float] = {}
    for part in rest.split(",") if colon else ():
        key, equals, raw = part.partition("=")
        if not equals or not key or not raw:
            raise ValueError(f"{part!r} is no setting; write {name}:key=value,key=value")
        found, value = _setting(name, known, key, raw)
        if found in settings:
            raise ValueError(f"{key} is given twice")
        settings[found] = value
    return PolicyChoice(name, tuple(settings.items()), text)


def with_limits(policies: tuple[PolicyChoice, ...], limits: str | None) -> tuple[PolicyChoice, ...]:
    """The policies, where `static` has the limits of --limits 750/450 (prefill/decode, in watts).

    Raises click.UsageError if there is no static policy for it, or one that states limits itself.
    """
    if limits is None:
        return policies
    if not any(policy.name == FIXED_LIMITS for policy in policies):
        asked = ", ".join(str(policy) for policy in policies)
        raise click.UsageError(f"--limits is for policy {FIXED_LIMITS}, not for {asked}")
    stated = next((policy for policy in policies if policy.name == FIXED_LIMITS and policy.settings), None)
    if stated is not None:
        raise click.UsageError(f"--limits and {stated} both state limits; leave one out")
    settings = _limits(limits)
    return tuple(
        PolicyChoice(policy.name, settings, policy.label) if policy.name == FIXED_LIMITS else policy
        for policy in policies
    )


def policies_of(policies: Sequence[PolicyChoice], limits: str | None) -> tuple[PolicyChoice, ...]:
    """Those of compare and sweep, each once. Raises click.UsageError."""
    for number, policy in enumerate(policies):
        if policy in policies[:number]:
            raise click.UsageError(f"--policy {policy} is given twice")
    return with_limits(tuple(policies), limits)


jitter_option = click.option(
    "--jitter",
    "jitter_s",
    type=click.FloatRange(0, 3600),
    metavar="SECONDS",
    help="Put each arrival off by up to so much. Default: 3 for Mooncake, which rounds to 3 s; else 0.",
)


def policies_option(text: str) -> Callable[[Function], Function]:
    """--policy, which may be given many times: by default all but the oracle, which is slow."""
    return click.option(
        "--policy",
        "policies",
        type=PolicyType(),
        multiple=True,
        default=lambda: tuple(name for name in policy_names() if name != "oracle"),
        metavar="NAME[:key=value,...]",
        help=text,
    )


def trace_options(*, rate: bool) -> Callable[[Function], Function]:
    """--trace and what is taken of it, with or without how fast; read with trace_choice."""
    positive = click.FloatRange(0, 1_000_000, min_open=True)
    how_fast = (
        click.option("--rate", "rate_rps", type=positive, metavar="RPS", help="Replay at so many requests per second."),
        click.option("--rate-scale", type=positive, metavar="X", help="Replay so many times as fast."),
    )
    how_long = "Replay so long." if rate else "Take what comes in so long at the rate that the search begins with."
    return lambda function: _decorated(
        function,
        click.option(
            "--trace",
            "name",
            required=True,
            metavar="FILE|NAME",
            help="Requests: a file, or one of those that 'rapidctl sim trace' lists.",
        ),
        *(how_fast if rate else ()),
        click.option(
            "--max-input", type=click.IntRange(1), metavar="TOKENS", help="Leave out requests with longer prompts."
        ),
        click.option("--limit", type=click.IntRange(1), metavar="N", help="Take at most so many requests."),
        click.option("--start", "start_s", type=Seconds(), metavar="TIME", help="Begin here in the trace: 90s, 5min."),
        click.option("--seconds", type=positive, help=how_long, metavar="SECONDS"),
        click.option("--skip-bad", is_flag=True, help="Leave out bad lines and count them, instead of stopping."),
        jitter_option,
    )


def site_options(function: Function) -> Function:
    """What serves the trace; read with site_choice."""
    return _decorated(
        function,
        click.option("--profile", default=DEFAULT_PROFILE, metavar="NAME", help="What a GPU and the model can do."),
        click.option("--gpus", type=click.IntRange(1, 1024), default=8, metavar="N", help="Of each node."),
        click.option("--nodes", type=click.IntRange(1, 1024), default=1, metavar="N", help="Under one budget."),
        click.option(
            "--budget",
            "budget_mw",
            type=Watts(),
            metavar="POWER",
            help="Of all GPUs together: 4800W, 4.8kW. Default: 80 % of their ceilings.",
        ),
        click.option(
            "--prefill",
            type=click.IntRange(0, 1024),
            metavar="N",
            help="Instances of a node that start in prefill. Default: half.",
        ),
        click.option("--ttft", "ttft_s", type=Seconds(), default="1s", metavar="TIME", help="Its target."),
        click.option("--tpot", "tpot_s", type=Seconds(), default="40ms", metavar="TIME", help="Its target."),
        click.option(
            "--corner",
            metavar="steep|shallow,gentle|sharp",
            help="How fast prefill, decode are under a limit, where nobody has measured it. Default: the profile's.",
        ),
        click.option(
            "--chunk",
            "chunk_tokens",
            type=click.IntRange(16, 1_000_000),
            metavar="TOKENS",
            help="Of a mixed step, for policy colocated.",
        ),
    )


LIMITS = click.option(
    "--limits",
    metavar="P/D",
    help="Of policy static, in watts, as in 750/450. Default: prefill at its ceiling, decode with what is left.",
)
PLOT = click.option(
    "--plot", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.png", help="Draw a picture."
)


def trace_choice(given: dict[str, Any]) -> TraceChoice:
    """Takes its options out of `given`. Raises click.UsageError for options that exclude each other."""
    if given.get("rate_rps") is not None and given.get("rate_scale") is not None:
        raise click.UsageError("--rate and --rate-scale both say how fast; leave one out")
    start_s = given.pop("start_s")
    names = ("name", "rate_rps", "rate_scale", "max_input", "limit", "seconds", "skip_bad", "jitter_s")
    return TraceChoice(start_s=start_s or 0.0, **{name: given.pop(name, None) for name in names})


def site_choice(given: dict[str, Any]) -> SiteChoice:
    """Takes its options out of `given`."""
    names = ("profile", "corner", "gpus", "nodes", "budget_mw", "prefill", "ttft_s", "tpot_s", "chunk_tokens")
    return SiteChoice(**{name: given.pop(name) for name in names})


def check_plot(plot: Path | None) -> None:
    """Says so before anything has been computed. Raises click.UsageError."""
    from importlib.util import find_spec

    if plot is not None and find_spec("matplotlib") is None:
        raise click.UsageError("--plot needs matplotlib, which is not installed: pip install 'rapid-power[plot]'")
    if plot is not None and plot.suffix.lower() != ".png":
        raise click.UsageError(f"--plot writes PNG, so a name that ends in .png is needed, not {plot.name!r}")


def _decorated(function: Function, *decorators: Callable[[Function], Function]) -> Function:
    for decorate in reversed(decorators):  # as if they stood above it in this order
        function = decorate(function)
    return function


def _settings_of(name: str) -> tuple[str, ...]:
    from rapid.core.policy import settings_of

    try:
        return settings_of(name)
    except ConfigInvalid:
        return ()  # one that only the simulator has


def _setting(policy: str, known: tuple[str, ...], key: str, raw: str) -> tuple[str, float]:
    """Name and value as the core has them."""
    from rapid.config.units import parse_duration, parse_power

    if f"{key}_mw" in known:
        return f"{key}_mw", float(parse_power(raw))
    if f"{key}_s" in known:
        return f"{key}_s", float(parse_duration(raw))
    if key in known and not key.endswith(("_mw", "_s")):
        try:
            return key, float(raw)
        except ValueError:
            raise ValueError(f"{key} takes a number, not {raw!r}") from None
    names = ", ".join(name.removesuffix("_mw").removesuffix("_s") for name in known)
    raise ValueError(f"policy {policy} has no setting {key!r} (it has: {names or 'none'})")


def _limits(text: str) -> tuple[tuple[str, float], ...]:
    from rapid.config.units import parse_power

    parts = [part.removesuffix("W") for part in text.split("/")]
    try:
        prefill_mw, decode_mw = (float(parse_power(f"{part}W")) for part in parts)
    except ValueError:
        raise click.UsageError(f"--limits {text!r}: write prefill/decode in watts, as in 750/450") from None
    return ("prefill_mw", prefill_mw), ("decode_mw", decode_mw)
