"""Carries out what the core commands: sends, and says what is worth a line in the log. Decides nothing, never waits."""

from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from rapid.core.commands import (
    Announce,
    Answer,
    CancelRole,
    Command,
    Notice,
    OrderRole,
    PublishResult,
    RefuseEngine,
    Scored,
    SendGrants,
    SendRenewal,
    StepDown,
)
from rapidctl.controller.engines import EngineService
from rapidctl.controller.nodes import Nodes, SteppedDown

CHANGES_MAX = 16  # changes of one decision that go into its line in the log; all of them are in the journal


class Hands:
    """Performs commands in the order given. Raises SteppedDown for StepDown. `tell` hears of each, for the bus."""

    def __init__(
        self,
        nodes: Nodes,
        engines: EngineService,
        log: FilteringBoundLogger,
        *,
        tell: Callable[[Command], None] | None = None,
    ) -> None:
        self._nodes, self._engines, self._log, self._tell = nodes, engines, log, tell

    def perform(self, command: Command) -> None:
        if self._tell is not None:
            self._tell(command)
        match command:
            case SendGrants(batch):
                self._nodes.grant(batch)
            case SendRenewal(renewal):
                self._nodes.renew(renewal)
            case OrderRole() | CancelRole():
                self._engines.tell(command)
            case Announce():
                self._announce(command)
            case Scored(decision, predicted, measured):
                self._log.debug("scored", id=decision, predicted=predicted, measured=measured)
            case Notice(level, about, text):
                say = {"info": self._log.info, "warning": self._log.warning, "error": self._log.error}[level]
                say(text, about=about)
            case StepDown(reason):
                raise SteppedDown(reason)
            case RefuseEngine() | Answer() | PublishResult():
                pass  # Whoever asked waits for what came of the step, and finds them there.

    def _announce(self, command: Announce) -> None:
        decision = command.decision
        shown = [f"{subject}: {before} -> {after}" for subject, before, after in decision.changes[:CHANGES_MAX]]
        if len(decision.changes) > CHANGES_MAX:
            shown.append(f"and {len(decision.changes) - CHANGES_MAX} more")
        self._log.info("decision", id=decision.id, by=decision.by, reason=decision.reason, changes=", ".join(shown))
