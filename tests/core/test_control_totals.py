"""What one life of the controller hands to the next, in the same process or after a restart."""

from rapid.core.cluster import Domain, EngineHello, GpuReport, Mark, NodeReport, NodeSpec, Phase, Role, RoleProgress
from rapid.core.commands import OrderRole
from rapid.core.control import Control
from rapid.core.events import ControlSnapshot, EngineCame, EngineMoved, NodeHeard, RoleAsked, Started, Ticked
from rapid.core.settings import Settings

SETTINGS = Settings((Domain("host", 4_800),), (NodeSpec("h", "host", 3, 400, 750, 600),))
BOTH = (Role.PREFILL, Role.DECODE)


def begin(epoch: int, at_s: float, snapshot: ControlSnapshot | None = None) -> Control:
    control = Control(SETTINGS)
    control.step(Started(at_s, 1e9, epoch, "c", snapshot))
    return control


def hear(control: Control, at_s: float, seq: int) -> None:
    gpus = tuple(GpuReport(f"g{n}", n, 400, 750, 600, 600, 0.0, 600, True, 500, at_s) for n in range(3))
    control.step(NodeHeard(at_s, NodeReport("h", "1-a", seq, at_s, Mark(control.ledger.epoch, 0), 0.0, gpus)))


def attach(control: Control, at_s: float, number: int, role: Role, mark: Mark) -> None:
    hello = EngineHello(f"e{number}", "x", "h", (f"g{number}",), role, BOTH, mark=mark)
    control.step(EngineCame(at_s, hello))


def move(control: Control, at_s: float) -> OrderRole:
    """An operator moves e1 to prefill, and e1 does it."""
    (order,) = [
        each for each in control.step(RoleAsked(at_s, "r", "e1", Role.PREFILL, "op")) if isinstance(each, OrderRole)
    ]
    control.step(EngineMoved(at_s, RoleProgress("e1", "x", order.mark, Phase.SERVING, Role.PREFILL)))
    return order


def first_life() -> tuple[Control, OrderRole]:
    control = begin(1, 0.0)
    hear(control, 1.0, 1)
    for number, role in enumerate((Role.PREFILL, Role.DECODE, Role.DECODE)):
        attach(control, 2.0, number, role, Mark())
    return control, move(control, 3.0)


def test_a_new_life_in_one_epoch_never_numbers_two_role_orders_alike() -> None:
    """Promise 4: an engine takes no order at or below the last one taken, so a number given twice would be lost."""
    control, first = first_life()
    later = begin(1, 5.0, control.snapshot())
    for number, role in enumerate((Role.PREFILL, Role.PREFILL, Role.DECODE)):
        attach(later, 5.0, number, role, first.mark if number == 1 else Mark())
    (order,) = [
        each for each in later.step(RoleAsked(6.0, "r", "e1", Role.DECODE, "op")) if isinstance(each, OrderRole)
    ]
    assert order.mark > first.mark


def test_a_new_epoch_begins_its_numbers_anew() -> None:
    control, first = first_life()
    later = begin(2, 5.0, control.snapshot())
    for number, role in enumerate((Role.PREFILL, Role.PREFILL, Role.DECODE)):
        attach(later, 5.0, number, role, first.mark if number == 1 else Mark())
    (order,) = [
        each for each in later.step(RoleAsked(6.0, "r", "e1", Role.DECODE, "op")) if isinstance(each, OrderRole)
    ]
    assert order.mark == Mark(2, 1) > first.mark


def test_totals_and_cooldowns_go_on() -> None:
    control, _ = first_life()
    control.step(Ticked(4.0))
    later = begin(2, 1000.0, control.snapshot())  # another boot: the clock has nothing to do with the one before
    assert later.status(1000.0).role_moves == 1
    assert later.status(1000.0).watts_moved_mw == control.status(4.0).watts_moved_mw
    assert 1000.0 - later.last_role_s == 4.0 - control.last_role_s
    assert later.last_power_s == control.last_power_s == float("-inf")


def test_pins_and_pause_and_budgets_go_on() -> None:
    control, _ = first_life()
    assert begin(2, 5.0, control.snapshot()).pins == {"e1": Role.PREFILL}
