"""What every verb has in common: the global options, taken before or after the verb, and the shape of its help."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rapid.core.errors import ConfigInvalid, Refused, UsageError
from rapidctl import output

if TYPE_CHECKING:
    from rapid.tls import TlsConfig
    from rapidctl.client import Client

Result = TypeVar("Result")

DEFAULT_ADDRESS = "127.0.0.1:7600"
DEFAULT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Options:
    """The global options. The fields are named as click names their parameters."""

    address: str = DEFAULT_ADDRESS
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S
    as_json: bool = False


class GlobalOption(click.Option):
    """An option that stands before or after the verb; after it counts."""


class Verb(click.Command):
    """A verb. `examples` and `shape` (what --json prints) are shown in its help as they are written."""

    def __init__(self, *args: Any, examples: str, shape: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += global_options(top=False)
        self.examples, self.shape = examples, shape

    def invoke(self, ctx: click.Context) -> Any:
        ctx.obj = options_of(ctx)
        for field in fields(Options):
            ctx.params.pop(field.name)
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own = [p for p in self.get_params(ctx) if isinstance(p, click.Option) and not isinstance(p, GlobalOption)]
        with formatter.section("Options"):
            formatter.write_dl([record for param in own if (record := param.get_help_record(ctx))])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        flags = " ".join(param.opts[0] for param in self.params if isinstance(param, GlobalOption))
        everywhere = f"{flags}\n'rapidctl --help' says what they mean."
        sections = (("Examples", self.examples), ("With --json", self.shape), ("Global options", everywhere))
        for title, text in sections:
            with formatter.section(title):
                for row in text.strip().splitlines():
                    formatter.write(f"  {row}".rstrip() + "\n")


def options_of(ctx: click.Context, **override: Any) -> Options:
    """The global options as given before, in or after the verb, as the environment says, or by default."""
    given: dict[str, Any] = {}
    above: list[click.Context] = [ctx]
    while above[0].parent is not None:
        above.insert(0, above[0].parent)
    for params in (*(each.params for each in above), override):
        given |= {f.name: value for f in fields(Options) if (value := params.get(f.name)) is not None}
    return Options(**given)


def global_options(*, top: bool) -> list[click.Parameter]:
    """The global options: for `rapidctl` itself with environment and defaults, for a verb with neither."""

    def option(names: tuple[str, ...], env: str | None, default: Any, text: str, **more: Any) -> GlobalOption:
        extra = {"envvar": env, "default": default, "show_envvar": True} if top else {"default": None}
        return GlobalOption(names, help=text, **extra, **more)

    file = click.Path(dir_okay=False, path_type=Path)
    return [
        option(("--address",), "RAPID_ADDRESS", DEFAULT_ADDRESS, "Controller, or unix:/PATH.", metavar="HOST:PORT"),
        option(("--tls-ca",), "RAPID_TLS_CA", None, "Whom to trust: PEM file of the authority.", type=file),
        option(("--tls-cert",), "RAPID_TLS_CERT", None, "Who we are: PEM file of the certificate.", type=file),
        option(("--tls-key",), "RAPID_TLS_KEY", None, "PEM file of the certificate's key.", type=file),
        option(
            ("--timeout", "timeout_s"),
            "RAPID_TIMEOUT",
            DEFAULT_TIMEOUT_S,
            "Seconds to wait for an answer.",
            type=click.FloatRange(0.1, 3600),
            metavar="SECONDS",
        ),
        option(("--json", "as_json"), None, None, "Print JSON for machines.", is_flag=True),
    ]


def call(options: Options, work: "Callable[[Client], Awaitable[Result]]") -> Result:
    """Run `work` with a connected client and return what it returns.

    Raises what it raises, and UsageError for options with which no connection can be made.
    """
    import asyncio

    from rapidctl.client import Client

    async def connected() -> Result:
        async with Client(options.address, tls=tls_of(options), timeout_s=options.timeout_s) as client:
            return await work(client)

    try:
        return asyncio.run(connected())
    except ConfigInvalid as error:
        # It names the keys of a configuration file, where an operator at the command line needs the options.
        text = str(error).removeprefix("config key ").replace("tls.", "--tls-")
        raise UsageError(text.removeprefix("address: ")) from error


def tls_of(options: Options) -> "TlsConfig | None":
    """What the options say about TLS; None: nothing. Raises UsageError if they say only half of it."""
    from rapid.tls import TlsConfig

    ca, cert, key = options.tls_ca, options.tls_cert, options.tls_key
    if ca and cert and key:
        return TlsConfig(ca, cert, key)
    if ca or cert or key:
        raise UsageError("TLS needs all three of --tls-ca, --tls-cert and --tls-key")
    return None


def confirm(what: str, *, yes: bool) -> None:
    """Go on if the operator agrees that `what` be done, or said --yes. Raises Refused if not, or if nobody is there."""
    if yes:
        return
    if not output.can_ask():
        raise Refused(f"not done without a yes: {what}; this is no terminal to ask on: add --yes")
    if not output.ask(f"{what[0].upper()}{what[1:]}?"):
        raise Refused("nothing was changed")


def operator() -> str:
    """Who asks, for the controller's record: user@host."""
    import getpass
    import socket

    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # A uid without a name, as in a container.
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
