"""The names that a shell can complete: the controller is asked, briefly, and silence means no suggestion."""

from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem

from rapid.core.errors import RapidError
from rapid.core.status import Status
from rapidctl.commands._verb import call, options_of
from rapidctl.commands._words import every_gpu, gpu_label

PATIENCE_S = 2.0  # A shell that hangs at a key press is worse than one that knows nothing.

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def domains(status: Status) -> list[str]:
    """The domains."""
    return [domain.domain for domain in status.domains]


def nodes(status: Status) -> list[str]:
    """The nodes."""
    return [node.node for node in status.nodes]


def instances(status: Status) -> list[str]:
    """The instances."""
    return [instance.instance for instance in status.instances]


def subjects(status: Status) -> list[str]:
    """What a decision can be about: GPUs by node and index, instances, domains."""
    return [gpu_label(node.node, gpu) for node, gpu in every_gpu(status)] + instances(status) + domains(status)


def completer(pick: Callable[[Status], Iterable[str]]) -> Completer:
    """Completes with the names that `pick` finds in a status."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        try:
            options = options_of(ctx, timeout_s=PATIENCE_S)
            names = pick(call(options, lambda client: client.status()))
        except RapidError:
            return []
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]

    return complete
