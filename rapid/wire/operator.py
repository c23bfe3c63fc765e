"""ControllerService: what an operator asks, as events for the core, and the decisions that explain the answers."""

from rapid.core.cluster import Candidate, Decision
from rapid.core.errors import WireInvalid
from rapid.core.events import BudgetAsked, PauseAsked, ReleaseAsked, RoleAsked
from rapid.v1 import controller_pb2
from rapid.wire import fields
from rapid.wire.common import ROLES

WATCH_INTERVAL_S = (0.1, 60.0)  # the least and the greatest interval between pictures
WATCH_DEFAULT_S = 1.0
DECISIONS_DEFAULT = 20
UNNAMED = "an operator"


# ---- what is asked; `request` is the id under which the core answers ----


def decode_set_budget(message: controller_pb2.SetBudgetRequest, *, at_s: float, request: str) -> BudgetAsked:
    """Raises WireInvalid."""
    return BudgetAsked(
        at_s=at_s,
        request=request,
        domain=fields.name(message.domain, "domain"),
        budget_mw=fields.power(message.budget_mw, "budget_mw", 1, fields.POWER_MAX_MW),
        force=message.force,
        by=_by(message.by),
    )


def decode_set_role(message: controller_pb2.SetRoleRequest, *, at_s: float, request: str) -> RoleAsked:
    """Raises WireInvalid."""
    return RoleAsked(
        at_s=at_s,
        request=request,
        instance=fields.name(message.instance, "instance"),
        role=fields.choice(message.role, "role", ROLES) if message.role else None,
        by=_by(message.by),
        park=message.park,
    )


def decode_pause(
    message: controller_pb2.PauseRequest | controller_pb2.ResumeRequest, *, at_s: float, request: str
) -> PauseAsked:
    """Pause and Resume, told apart by their type. Raises WireInvalid."""
    paused = isinstance(message, controller_pb2.PauseRequest)
    return PauseAsked(at_s=at_s, request=request, paused=paused, by=_by(message.by))


def decode_release(message: controller_pb2.ReleaseNodeRequest, *, at_s: float, request: str) -> ReleaseAsked:
    """Raises WireInvalid."""
    return ReleaseAsked(at_s=at_s, request=request, node=fields.name(message.node, "node"), by=_by(message.by))


def _by(value: str) -> str:
    """Who asks, or somebody: a decision without an author could not be shown."""
    return fields.text(value, "by") or UNNAMED


def decode_watch(message: controller_pb2.WatchRequest) -> float:
    """The interval between pictures in seconds. Raises WireInvalid."""
    least_s, most_s = WATCH_INTERVAL_S
    return fields.seconds(message.interval_s or WATCH_DEFAULT_S, "interval_s", least_s, most_s)


def decode_list_decisions(message: controller_pb2.ListDecisionsRequest) -> tuple[int, str]:
    """How many decisions, and about what (empty: all). Raises WireInvalid."""
    return (
        fields.count(message.limit or DECISIONS_DEFAULT, "limit", 1, fields.DECISIONS_MAX),
        fields.name_or_empty(message.about, "about"),
    )


# ---- decisions ----


def encode_decisions(decisions: tuple[Decision, ...]) -> controller_pb2.ListDecisionsResponse:
    return controller_pb2.ListDecisionsResponse(decisions=[encode_decision(decision) for decision in decisions])


def decode_decisions(message: controller_pb2.ListDecisionsResponse) -> tuple[Decision, ...]:
    """Raises WireInvalid."""
    return fields.each(message.decisions, "decisions", decode_decision, fields.DECISIONS_MAX)


def encode_plan(plan: Decision) -> controller_pb2.PlanResponse:
    return controller_pb2.PlanResponse(plan=encode_decision(plan))


def decode_plan(message: controller_pb2.PlanResponse) -> Decision:
    """Raises WireInvalid."""
    fields.present(message, "plan")
    return fields.inner(message.plan, "plan", decode_decision)


def encode_decision(decision: Decision) -> controller_pb2.Decision:
    return controller_pb2.Decision(
        id=decision.id,
        at_s=decision.at_s,
        wall_s=decision.wall_s,
        by=fields.line(decision.by),
        reason=fields.line(decision.reason),
        inputs=[_input_message(name, value) for name, value in decision.inputs],
        changes=[
            controller_pb2.DecisionChange(subject=subject, before=fields.line(before), after=fields.line(after))
            for subject, before, after in decision.changes
        ],
        predicted=decision.predicted,
        held=decision.held,
        horizon_s=decision.horizon_s,
        candidates=[
            controller_pb2.Candidate(words=fields.line(it.words), predicted=it.predicted, chosen=it.chosen)
            for it in decision.candidates
        ],
        measured=decision.measured,
    )


def decode_decision(message: controller_pb2.Decision) -> Decision:
    """Raises WireInvalid."""
    return Decision(
        id=fields.name(message.id, "id"),
        at_s=fields.seconds(message.at_s, "at_s"),
        wall_s=fields.seconds(message.wall_s, "wall_s"),
        by=fields.words(message.by, "by"),
        reason=fields.words(message.reason, "reason"),
        inputs=fields.each(message.inputs, "inputs", _input, fields.INPUTS_MAX),
        changes=fields.each(message.changes, "changes", _change, fields.CHANGES_MAX),
        predicted=fields.fraction(message.predicted, "predicted") if message.HasField("predicted") else None,
        held=fields.fraction(message.held, "held") if message.HasField("held") else None,
        horizon_s=fields.seconds(message.horizon_s, "horizon_s"),
        candidates=fields.each(message.candidates, "candidates", _candidate, fields.CANDIDATES_MAX),
        measured=fields.fraction(message.measured, "measured") if message.HasField("measured") else None,
    )


def _input_message(name: str, value: float | str) -> controller_pb2.DecisionInput:
    if isinstance(value, str):
        return controller_pb2.DecisionInput(name=name, text=fields.line(value))
    return controller_pb2.DecisionInput(name=name, number=value)


def _input(message: controller_pb2.DecisionInput) -> tuple[str, float | str]:
    name = fields.name(message.name, "name")
    match message.WhichOneof("value"):
        case "number":
            return name, fields.number(message.number, "number")
        case "text":
            return name, fields.text(message.text, "text")
        case _:
            raise WireInvalid("value", "missing; one of number and text")


def _change(message: controller_pb2.DecisionChange) -> tuple[str, str, str]:
    return (
        fields.name(message.subject, "subject"),
        fields.words(message.before, "before"),
        fields.words(message.after, "after"),
    )


def _candidate(message: controller_pb2.Candidate) -> Candidate:
    return Candidate(
        fields.words(message.words, "words"), fields.fraction(message.predicted, "predicted"), message.chosen
    )
