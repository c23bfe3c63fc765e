"""A site with somebody who orders budgets: two hosts of two GPUs in a room of 2,200 W, of which 200 W are reserved.

The sources `bms` and `grid` are known; `grid` may raise, and the ceiling of the room is 2,600 W. The clock on the wall
is the site's own, and `skew_s` sets it forwards or back.
"""

from collections.abc import Iterable
from dataclasses import replace

from rapid.core.cluster import Domain, NodeSpec
from rapid.core.commands import Command, PublishResult
from rapid.core.control import Control
from rapid.core.events import BudgetAsked, BudgetOrdered, Event, ScheduleAsked, Started, Ticked
from rapid.core.facility.nouns import BudgetOrder, BudgetResult, Outcome, Schedule, Why
from rapid.core.settings import FacilitySettings, Settings, SourceSettings
from tests.core.hosts import Host, W
from tests.core.site import Site

WALL_S = 1.75e9  # on the wall when the site's own time is 1,000 s: Sunday, 15 June 2025, 15:06:40 UTC
FACILITY = FacilitySettings(
    publishes=True,
    sources=(SourceSettings("bms"), SourceSettings("grid", may_raise=True), SourceSettings("far", ("elsewhere",))),
    ceilings_mw=(("room", 2_600 * W),),
)


class Town(Site):
    """Ticks carry the clock on the wall, orders are made now unless they say otherwise."""

    def __init__(
        self, facility: FacilitySettings = FACILITY, control: type[Control] = Control, domains: tuple[Domain, ...] = ()
    ) -> None:
        self.skew_s = 0.0
        specs = tuple(NodeSpec(name, "room", 2, 100 * W, 700 * W, 400 * W) for name in ("n1", "n2"))
        settings = Settings(
            domains or (Domain("room", 2_200 * W, 200 * W),), specs, policy="uniform", facility=facility
        )
        super().__init__(settings, [_host(spec, letter) for spec, letter in zip(specs, "gh", strict=True)], control)

    @property
    def wall_s(self) -> float:
        return WALL_S + self.now - 1_000.0 + self.skew_s

    def step(self, event: Event) -> list[str]:
        if isinstance(event, Ticked):
            event = replace(event, wall_s=self.wall_s)
        if isinstance(event, Started):
            event = replace(event, wall_s=self.wall_s)
        return super().step(event)

    # ---- what is asked ----

    def order(
        self,
        id: str,
        budget_w: float | None,
        *,
        source: str = "bms",
        domain: str = "room",
        made_s: float = 0.0,
        begins_s: float = 0.0,
        lasts_s: float = float("inf"),
        ramp_down_s: float = 0.0,
        ramp_up_s: float = 0.0,
    ) -> BudgetOrder:
        """Times are from now."""
        budget_mw = None if budget_w is None else round(budget_w * W)
        begin_s = self.wall_s + begins_s
        return BudgetOrder(
            id, source, domain, budget_mw, self.wall_s + made_s, begin_s, begin_s + lasts_s, ramp_down_s, ramp_up_s
        )

    def send(self, *orders: BudgetOrder) -> list[BudgetResult]:
        """They arrive together; the answers to them."""
        self.step(BudgetOrdered(self.now, self.wall_s, orders))
        return results(self.commands[-1])

    def ask(self, id: str, budget_w: float | None, **more: object) -> BudgetResult:
        """The first answer to an order."""
        return next(it for it in self.send(self.order(id, budget_w, **more)) if it.id == id)  # type: ignore[arg-type]

    def refused(self, id: str, budget_w: float | None, **more: object) -> Why | None:
        """Why an order is refused; None: it is not."""
        answer = self.ask(id, budget_w, **more)
        assert (answer.outcome is Outcome.REFUSED) == (answer.why is not None)
        return answer.why

    def set_budget(self, budget_w: float, *, force: bool = False) -> list[str]:
        """The operator's word."""
        return self.step(BudgetAsked(self.now, "r", "room", round(budget_w * W), force, "ann"))

    def add_schedule(self, schedule: Schedule) -> str:
        """The answer."""
        return self.step(ScheduleAsked(self.now, "r", schedule.name, schedule, "ann"))[-1]

    def remove_schedule(self, name: str) -> str:
        said = self.step(ScheduleAsked(self.now, "r", name, None, "ann"))
        return next(word for word in said if word.startswith("answer"))

    # ---- what can be seen ----

    @property
    def budget_w(self) -> float:
        return self.control.ledger.domains["room"].budget_mw / W

    def told(self, id: str = "") -> list[str]:
        """The outcomes that were published in this life, about one order or all."""
        every = [it for commands in self.commands for it in results(commands)]
        return [it.outcome.value if id else f"{it.id} {it.outcome.value}" for it in every if it.id == id or not id]

    def last(self, id: str) -> BudgetResult:
        """The last answer about an order."""
        return [it for commands in self.commands for it in results(commands) if it.id == id][-1]

    def restart(self, *, away_s: float = 0.0) -> None:
        """The controller ends, and another life goes on from it after a while."""
        snapshot = self.control.snapshot()
        self.now += away_s
        self.begin(snapshot.ledger.mark.epoch + 1, snapshot)


def results(commands: Iterable[Command]) -> list[BudgetResult]:
    return [command.result for command in commands if isinstance(command, PublishResult)]


def settled(**more: object) -> Town:
    """A town that has come up, at 500 W a GPU."""
    town = Town(**more)  # type: ignore[arg-type]
    town.run(5.0)
    assert town.limits_w() == [500.0] * 4
    return town


def _host(spec: NodeSpec, letter: str) -> Host:
    limits = {f"{letter}{index}": spec.fallback_mw for index in range(spec.gpus)}
    host = Host(
        limits,
        name=spec.name,
        now=77.0,
        floor_mw=spec.floor_mw,
        ceiling_mw=spec.ceiling_mw,
        fallback_mw=spec.fallback_mw,
    )
    for device in host.devices.values():
        device.energy_mj, device.metered_s = 0.0, host.now
    host.settle()
    return host
