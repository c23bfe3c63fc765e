"""`rapidctl attach KIND`: put an engine that does not speak EngineControl itself under RAPID's care."""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from rapid import log
from rapid.config.units import Seconds, format_duration
from rapid.core.cluster import Role
from rapid.core.errors import ConfigInvalid, UsageError
from rapid.core.findings.base import Finding, documents, is_red, laid_out, summary
from rapidctl import output
from rapidctl.commands._findings import finding_line
from rapidctl.commands._verb import GlobalOption, Options, Verb, global_options, options_of, tls_of
from rapidctl.engines import check
from rapidctl.engines.base import Kind
from rapidctl.engines.kinds import ENTRIES, load
from rapidctl.engines.options import Wanted, made, parse_file, place_of, read_kind, wanted
from rapidctl.engines.run import Sidecar, run

SHAPE = """\
nothing: it runs until Ctrl-C, and logs on stderr
with --check, one object: ok findings
  ok        true when nothing is red
  findings  a list of: grade topic about what do"""
EXAMPLES = """\
rapidctl attach sglang --help
rapidctl attach --config /etc/rapid/attach-p0.toml
rapidctl attach --config /etc/rapid/attach-p0.toml --check"""
CHECK_HELP = "Only look: are controller, router and engine reached, and as they should be? Exits 1 if anything is red."


class Attach(click.Group):
    """One command per kind, made from the kind's options when it is asked for; or a file that says which."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += global_options(top=False)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [entry.kind for entry in ENTRIES]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if all(entry.kind != cmd_name for entry in ENTRIES):
            return None
        return _command(load(cmd_name))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            raise click.NoSuchCommand(error.command_name, possibilities=self.list_commands(ctx), ctx=ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Kinds"):
            formatter.write_dl([(entry.kind, entry.help) for entry in ENTRIES])

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own = [param for param in self.get_params(ctx) if not isinstance(param, GlobalOption)]
        with formatter.section("Options"):
            formatter.write_dl([record for param in own if (record := param.get_help_record(ctx))])
        self.format_commands(ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, text in (("Examples", EXAMPLES), ("With --json", SHAPE)):
            with formatter.section(title):
                for row in text.splitlines():
                    formatter.write(f"  {row}\n")


@click.group(cls=Attach, invoke_without_command=True)
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="TOML: instance, node, gpus, role, address, and a table of the kind's own options.",
)
@click.option("--check", "only_check", is_flag=True, help=CHECK_HELP)
@click.pass_context
def command(ctx: click.Context, /, config: Path | None, only_check: bool, **_: Any) -> None:
    """Put an engine that runs today under RAPID's care: an adapter that drives it and its router.

    It runs beside the engine until Ctrl-C or SIGTERM, and the engine serves on, whatever becomes of it. One per
    instance. What it is to do comes from the command line (a KIND and its options) or from a file.
    """
    if ctx.invoked_subcommand is not None:
        if config is not None or only_check:
            raise UsageError(f"--config and --check stand alone, or after the kind: {ctx.invoked_subcommand} --check")
        return
    if config is None:
        click.echo(ctx.get_help())
        return
    options = options_of(ctx)
    kind, text = read_kind(config)
    if all(entry.kind != kind for entry in ENTRIES):
        raise ConfigInvalid("kind", f"{kind!r} is not known; known are {', '.join(entry.kind for entry in ENTRIES)}")
    of_kind = load(kind)
    file, own = parse_file(text, of_kind, path=config)
    place = place_of(file.instance, file.node, file.gpus, file.role, reports_load=file.load_socket is not None)
    sidecar = Sidecar(
        of_kind, own, place, file.address or options.address, file.tls or tls_of(options), file.load_socket
    )
    log.configure(file.log.level, file.log.format)
    _go(sidecar, options, only_check=only_check)


def _command(kind: Kind) -> click.Command:
    """The command of one kind."""
    own = [_option(each) for each in wanted(kind.options)]
    callback = click.pass_obj(lambda options, **given: _attach(kind, options, given))
    return Verb(
        kind.name,
        params=[*_common(), *own],
        callback=callback,
        help=kind.about,
        examples=kind.examples,
        shape=SHAPE,
    )


def _common() -> list[click.Parameter]:
    """What every kind asks for."""
    roles = click.Choice([role.value for role in Role])
    path = click.Path(path_type=Path)
    return [
        click.Option(["--instance"], required=True, metavar="ID", help="Its id, unique in the cluster."),
        click.Option(["--node"], required=True, metavar="NAME", help="The node whose rapidd has its GPUs."),
        click.Option(
            ["--gpu", "gpus"], required=True, multiple=True, metavar="UUID", help="A GPU of it; once for each."
        ),
        click.Option(["--role"], type=roles, help="The role it starts in; left out: it tells itself."),
        click.Option(
            ["--load-socket"], type=path, help="rapidd's socket for load; left out: rapidd reads the metrics itself."
        ),
        click.Option(["--check", "only_check"], is_flag=True, help=CHECK_HELP),
    ]


def _option(one: Wanted) -> click.Option:
    metavar = None if one.words or one.type is bool else _METAVARS[one.type]
    return click.Option(
        [f"--{one.key.replace('_', '-')}", one.key],
        type=click.Choice(one.words) if one.words else _TYPES[one.type],
        is_flag=one.type is bool,
        multiple=one.several,
        required=one.required,
        metavar=metavar,
        help=one.help
        + ("" if one.required or one.default in (None, "", False, ()) else f"  [default: {_default(one)}]"),
    )


_TYPES: Mapping[type, Any] = {
    str: str,
    int: int,
    float: float,
    bool: bool,
    Path: click.Path(path_type=Path),
    Seconds: str,
}
_METAVARS: Mapping[type, str] = {str: "TEXT", int: "N", float: "X", Path: "FILE", Seconds: "DURATION"}


def _default(one: Wanted) -> str:
    """What holds when it is left out, as far as that is more than nothing."""
    if one.default in (None, "", False, ()):
        return ""
    return f"  [default: {format_duration(one.default) if one.type is Seconds else one.default}]"


def _attach(kind: Kind, options: Options, given: dict[str, Any]) -> None:
    common = {key: given.pop(key) for key in ("instance", "node", "gpus", "role", "load_socket", "only_check")}
    load_socket = common["load_socket"]
    try:
        place = place_of(
            common["instance"],
            common["node"],
            common["gpus"],
            common["role"] or "",
            reports_load=load_socket is not None,
        )
        sidecar = Sidecar(kind, made(kind, given), place, options.address, tls_of(options), load_socket)
        log.configure()
        _go(sidecar, options, only_check=common["only_check"])
    except ConfigInvalid as error:
        key, problem = error.key, str(error).removeprefix(f"config key {error.key}: ")
        name = {"gpus": "gpu"}.get(key, key).replace("tls.", "tls-").replace("_", "-")
        raise UsageError(f"--{name}: {problem}") from error


def _go(sidecar: Sidecar, options: Options, *, only_check: bool) -> None:
    lines = log.get(instance=sidecar.place.instance, kind=sidecar.kind.name)
    if only_check:
        findings = asyncio.run(check.examine(sidecar, lambda _: None))
        _show(findings, options)
    else:
        asyncio.run(run(sidecar, lambda text: lines.info(text)))


def _show(findings: list[Finding], options: Options) -> None:
    document: output.Document = {"ok": not is_red(findings), "findings": documents(findings)}
    rows = laid_out(findings, output.terminal_width(sys.stdout))
    blocks = [finding_line(row.grade, row.text) for row in rows]
    blocks += [output.line(), output.line(summary(findings))]
    output.show(output.Page(document, tuple(blocks)), as_json=options.as_json)
    if is_red(findings):
        raise click.exceptions.Exit(1)
