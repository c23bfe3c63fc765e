"""What an operator asks of the role of an instance, and what comes of it."""

from typing import TYPE_CHECKING

from rapid.core.cluster import Phase
from rapid.core.commands import Answer, Command
from rapid.core.errors import Refused
from rapid.core.events import RoleAsked

if TYPE_CHECKING:
    from rapid.core.control import Control


def role(control: "Control", event: RoleAsked) -> list[Command]:
    """Move an instance and pin it, park it, or let go of it."""
    try:
        if event.park:
            return _park(control, event)
        return _unpin(control, event) if event.role is None else _move(control, event)
    except Refused as error:
        return [refusal(event.request, error)]


def refusal(request: str, error: Refused) -> Answer:
    """The answer to what is not done."""
    return Answer(request, "", str(error), type(error).__name__)


def _move(control: "Control", event: RoleAsked) -> list[Command]:
    assert event.role is not None
    one, name = control.roles.get(event.instance), event.instance
    if one.role is event.role and one.serves:
        control.pins[name] = event.role
        return [Answer(event.request, f"instance {name}: serves {event.role.value}, and is pinned to it")]
    before = "parked" if one.phase is Phase.PARKED else one.role.value
    order = control.roles.order(name, event.role, control.at_s)
    control.pins[name], control.last_role_s = event.role, control.at_s
    change = (name, before, event.role.value)
    decision = control.decided(event.by, f"moves instance {name} and pins it", changes=(change,))
    text = f"instance {name}: told to change from {change[1]} to {change[2]}, and pinned to it"
    return [decision, order, Answer(event.request, text)]


def _park(control: "Control", event: RoleAsked) -> list[Command]:
    one, name = control.roles.get(event.instance), event.instance
    if one.phase is Phase.PARKED:
        return [Answer(event.request, f"instance {name}: is parked")]
    order = control.roles.park(name, control.at_s)
    control.last_role_s = control.at_s
    change = (name, one.role.value, "parked")
    decision = control.decided(event.by, f"parks instance {name}", changes=(change,))
    return [decision, order, Answer(event.request, f"instance {name}: told to serve nobody")]


def _unpin(control: "Control", event: RoleAsked) -> list[Command]:
    """The policy decides again. It cannot have a parked instance serve again, so this does."""
    name = event.instance
    if control.pins.pop(name, None) is None:
        control.roles.get(name)
    text = f"instance {name}: no longer pinned to a role"
    one = control.roles.instances.get(name)
    if one is None or one.phase is not Phase.PARKED:
        return [Answer(event.request, text)]
    order = control.roles.order(name, one.role, control.at_s)
    control.last_role_s = control.at_s
    change = (name, "parked", one.role.value)
    decision = control.decided(event.by, f"has instance {name} serve again", changes=(change,))
    return [decision, order, Answer(event.request, f"{text}, and told to serve again")]
