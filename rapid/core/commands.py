"""What the controller asks of the world. The shell performs them in the order given, after the journal is on disk.

No order between the commands of one step is needed for safety: a raise is only ever commanded when it fits beside
everything that may be in force. A command that cannot be delivered is dropped; the next steps command it anew.
"""

from dataclasses import dataclass

from rapid.core.cluster import Decision, GrantBatch, Mark, Renewal, Role
from rapid.core.facility.nouns import BudgetResult


@dataclass(frozen=True, slots=True)
class SendGrants:
    """Send to the node named in the batch. Must not leave before the journal holds this step."""

    batch: GrantBatch


@dataclass(frozen=True, slots=True)
class SendRenewal:
    """Send to the node named in the renewal."""

    renewal: Renewal


@dataclass(frozen=True, slots=True)
class OrderRole:
    """Tell an engine to change role: drain for at most drain_s, never start after not_after_s of the engine's clock.

    The drain is over when nothing has been left for quiet_s; the engine rolls back when it takes too long. With `park`
    it serves nobody then, and `role` is the one that it keeps. The same order may be sent again until the engine has
    answered. Must not leave before the journal holds this step.
    """

    instance: str
    incarnation: str
    mark: Mark
    role: Role
    drain_s: float
    not_after_s: float
    quiet_s: float = 0.05  # that of journals which do not say
    park: bool = False


@dataclass(frozen=True, slots=True)
class CancelRole:
    """Tell an engine to give up every order up to `mark`, unless it has begun to switch, and to say where it stands."""

    instance: str
    incarnation: str
    mark: Mark


@dataclass(frozen=True, slots=True)
class RefuseEngine:
    """End the stream of an engine whose hello cannot be accepted; `reason` goes to it as the status message.

    `kind` names the RapidError class, EngineRefused or EngineTaken.
    """

    instance: str
    incarnation: str
    reason: str
    kind: str


@dataclass(frozen=True, slots=True)
class Announce:
    """A decision was made: log it, show it, keep it for `rapidctl why`."""

    decision: Decision


@dataclass(frozen=True, slots=True)
class Scored:
    """The time of what a decision predicted is up: keep what was measured with it. Both are SLO attainment, 0 to 1."""

    decision: str
    predicted: float
    measured: float


@dataclass(frozen=True, slots=True)
class Notice:
    """Something an operator should know that is no decision: `level` is info, warning or error; ids in `about`."""

    level: str
    about: str
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to the operator request with this id. `error` is empty when done; `kind` names a RapidError class."""

    request: str
    text: str
    error: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True)
class PublishResult:
    """Answer a budget order over the bus. One with a number comes again in the next life, until it is Delivered."""

    result: BudgetResult


@dataclass(frozen=True, slots=True)
class StepDown:
    """Another controller has a higher epoch: stop at once, send nothing more, exit."""

    reason: str


Command = (
    SendGrants
    | SendRenewal
    | OrderRole
    | CancelRole
    | RefuseEngine
    | Announce
    | Scored
    | Notice
    | Answer
    | PublishResult
    | StepDown
)
