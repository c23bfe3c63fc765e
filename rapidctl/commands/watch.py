"""`rapidctl watch`: the status again and again, until Ctrl-C."""

import asyncio
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack, aclosing
from typing import TYPE_CHECKING, Protocol

import click

from rapid.core.errors import Unreachable
from rapid.core.status import Status
from rapidctl import output
from rapidctl.commands._documents import status_document
from rapidctl.commands._health import troubles
from rapidctl.commands._page import one_line, status_blocks
from rapidctl.commands._verb import Options, Verb, call
from rapidctl.output import Block, Page, Tone, line

if TYPE_CHECKING:
    from rapidctl.client import Client

EXAMPLES = """\
rapidctl watch
rapidctl watch --interval 5 >>rapid.log &
rapidctl watch --json --count 60 | jq '.domains[0].held_w'"""
SHAPE = "one line per picture, each the object of 'rapidctl status --json'"
RETRY_S = 1.0
GIVE_UP_S = 60.0  # since the last picture


@click.command(cls=Verb, examples=EXAMPLES, shape=SHAPE)
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(0.1, 60),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between pictures.",
)
@click.option("--count", type=click.IntRange(1), metavar="N", help="Stop after N pictures.")
@click.option("--all", "every_gpu", is_flag=True, help="Every GPU, also where there are more than 64.")
@click.pass_obj
def command(options: Options, interval_s: float, count: int | None, every_gpu: bool) -> None:
    """Show the status again and again, until Ctrl-C.

    On a terminal a live view, otherwise a line per picture. A controller that goes away is waited for, up to 60 s.
    Exits 0 whatever it has shown: 'rapidctl status' is what judges.
    """
    with ExitStack() as stack:
        view: View = Lines(as_json=options.as_json)
        if output.is_terminal() and not options.as_json:
            view = Screen(stack.enter_context(output.live()), every_gpu=every_gpu)
        try:
            call(options, lambda client: _watch(client, view, interval_s, count))
        except (KeyboardInterrupt, asyncio.CancelledError):
            return


class View(Protocol):
    """Where pictures go."""

    def show(self, status: Status) -> None:
        """A new picture."""

    def lost(self, why: str) -> None:
        """The controller does not answer, `why` says what is known; said again at every retry."""


class Screen:
    """A live view, which keeps the last picture while the controller is away."""

    def __init__(self, draw: Callable[[Sequence[Block]], None], *, every_gpu: bool) -> None:
        self._draw = draw
        self._every_gpu = every_gpu
        self._last: tuple[Block, ...] = ()

    def show(self, status: Status) -> None:
        red = tuple(line(f"red: {trouble}", Tone.BAD) for trouble in troubles(status))
        self._last = (*red, *status_blocks(status, every_gpu=self._every_gpu))
        self._draw(self._last)

    def lost(self, why: str) -> None:
        head = line(f"no picture: {why.partition('; ')[0]}", Tone.BAD)
        self._draw((head, line("trying again; the last one was:", Tone.WARN), *self._last))


class Lines:
    """One line per picture on stdout; on stderr one line per time that the controller goes away."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._told = False

    def show(self, status: Status) -> None:
        self._told = False
        words = one_line(status, troubles(status))
        output.show(Page(status_document(status), (line(words),)), as_json=self._as_json)

    def lost(self, why: str) -> None:
        if not self._told:
            output.talk(f"{why}; waiting for it")
        self._told = True


async def _watch(client: "Client", view: View, interval_s: float, count: int | None) -> None:
    """Show `count` pictures (None: no end). Raises Unreachable at once if there is no first, later after GIVE_UP_S."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    # Without this a SIGTERM would leave the terminal on the live view's screen.
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    shown, last_s = 0, None
    while True:
        try:
            async with aclosing(client.watch(interval_s)) as pictures:
                async for status in pictures:
                    view.show(status)
                    shown, last_s = shown + 1, loop.time()
                    if shown == count:
                        return
        except Unreachable as lost:
            if last_s is None or loop.time() - last_s > GIVE_UP_S:
                raise
            view.lost(str(lost))
        await asyncio.sleep(RETRY_S)
