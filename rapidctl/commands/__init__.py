"""One file per verb; each has a click command named `command`, loaded when it is called.

The table is all that `rapidctl --help` needs, so help is quick, and a verb whose libraries are missing breaks no other.
"""

import importlib
from dataclasses import dataclass

import click


@dataclass(frozen=True, slots=True)
class Entry:
    """A verb, the module below rapidctl.commands that has it, and what it does in a few words."""

    verb: str
    module: str
    help: str


SECTIONS: tuple[tuple[str, tuple[Entry, ...]], ...] = (
    (
        "Look",
        (
            Entry("status", "status", "Show budgets, nodes, GPUs and instances; exit 1 if anything is red."),
            Entry("watch", "watch", "Show the status again and again, until Ctrl-C."),
            Entry("decisions", "decisions", "List the last decisions, newest first."),
            Entry("plan", "plan", "Show what the policy would do now, without doing it."),
            Entry("doctor", "doctor", "Find what is wrong, and what to do about it; exit 1 if anything is red."),
            Entry("why", "why", "Explain a decision, or the last one about a GPU or an instance."),
        ),
    ),
    (
        "Change",
        (
            Entry("budget", "budget", "Show or set the power budget of a domain."),
            Entry("role", "role", "Move an instance to a role and pin it there."),
            Entry("pause", "pause", "Stop the policy; budgets still hold."),
            Entry("resume", "resume", "Start the policy again."),
            Entry("node", "node", "Say that a silent node is off."),
            Entry("attach", "attach", "Put an engine under RAPID's care: SGLang, vLLM, Dynamo, any command."),
        ),
    ),
    (
        "Try",
        (
            Entry("sim", "sim", "Compare policies on a trace of yours, in simulated time."),
            Entry("demo", "demo", "Two simulated hosts on one real trace, side by side."),
            Entry("sim-gpus", "sim_gpus", "Make simulated GPUs for rapidd's sim backend."),
            Entry("sim-engine", "sim_engine", "Run one simulated engine instance."),
        ),
    ),
    ("Shell", (Entry("completion", "completion", "Print the completion script of a shell."),)),
)


class Verbs(click.Group):
    """The group of all verbs in `sections`, whose modules are below `package`."""

    sections = SECTIONS
    package = __name__

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [entry.verb for _, entries in self.sections for entry in entries]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for _, entries in self.sections:
            for entry in entries:
                if entry.verb == cmd_name:
                    return load(entry, self.package)
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            # click knows only what is loaded, and so would suggest nothing.
            raise click.NoSuchCommand(error.command_name, possibilities=self.list_commands(ctx), ctx=ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, entries in self.sections:
            with formatter.section(title):
                formatter.write_dl([(entry.verb, entry.help) for entry in entries])


def load(entry: Entry, package: str = __name__) -> click.Command:
    """The command of the verb, or one in its place that says which module it lacks."""
    try:
        found = importlib.import_module(f"{package}.{entry.module}").command
    except ModuleNotFoundError as error:
        return _absent(entry, error.name or str(error))
    assert isinstance(found, click.Command), f"{entry.module}.command is no click command"
    return found


def _absent(entry: Entry, missing: str) -> click.Command:
    def refuse() -> None:
        raise click.UsageError(f"'{entry.verb}' needs the Python module {missing!r}, which is not installed")

    ignore = {"ignore_unknown_options": True, "allow_extra_args": True}
    return click.Command(entry.verb, callback=refuse, help=entry.help, context_settings=ignore, add_help_option=False)
