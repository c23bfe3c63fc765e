"""What a policy expects of an order is told when it is accepted, and asking changes nothing."""

from rapid.core.cluster import Targets, View
from rapid.core.control import Control
from rapid.core.policy import Policy
from tests.facility.town import settled


class _ByRoom:
    """Predicts the share of 2,000 W that the room leaves, and counts how often it was asked."""

    name = "uniform"

    def __init__(self) -> None:
        self.asked: list[int] = []

    def decide(self, view: View) -> Targets:
        self.asked.append(view.rooms_mw["room"])
        share = min(1.0, max(0.0, view.rooms_mw["room"] / 2_000_000))
        return Targets({}, {}, "as it is", predicted=None, held=share, horizon_s=5.0)


class _Predicting(Control):
    def make_policy(self) -> Policy:
        return _ByRoom()


def test_the_prediction_is_that_of_the_policy_under_the_budget_that_was_ordered() -> None:
    town = settled(control=_Predicting)
    assert town.ask("c1", 1_200, begins_s=60.0).attainment == 0.5, "1,000 W of room beside what is reserved"
    assert town.budget_w == 2_200


def test_it_is_asked_at_most_once_a_second() -> None:
    town = settled(control=_Predicting)
    assert town.ask("c1", 1_200, begins_s=60.0).attainment == 0.5
    assert town.ask("c2", 1_200, begins_s=90.0).attainment is None
    town.run(1.5)
    assert town.ask("c3", 700, begins_s=99.0).attainment == 0.25


def test_a_policy_that_predicts_nothing_is_told_as_null() -> None:
    assert settled().ask("c1", 1_200).attainment is None
