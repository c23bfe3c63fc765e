"""The limits that are wanted, on their way into force: what waits, what is given up, and when the policy may go on."""

from rapid.core.cluster import GpuView, Mark
from rapid.core.limits import Limits
from rapid.core.settings import Settings
from tests.core.hosts import W
from tests.core.telling import SETTINGS, Story


class Wanting:
    """Limits over the ledger of a story."""

    def __init__(self, story: Story, targets_w: dict[str, float] | None = None) -> None:
        self.story = story
        settings = Settings(story.domains, story.specs, ledger=SETTINGS)
        targets = [(gpu, round(target_w * W)) for gpu, target_w in (targets_w or {}).items()]
        self.limits = Limits(story.ledger, settings, targets)

    def want(self, **limits_w: float) -> list[tuple[str, float | None, float]]:
        wanted_mw = {gpu: round(limit_w * W) for gpu, limit_w in limits_w.items()}
        changes = self.limits.retarget(wanted_mw, self.views())
        return [(gpu, None if before is None else before / W, after / W) for gpu, before, after in changes]

    def views(self) -> list[GpuView]:
        reports = [self.story.ledger.gpus[gpu].report for gpu in self.limits.movable(self.story.now)]
        return [GpuView(each.gpu, "n1", each.floor_mw, each.ceiling_mw, each.limit_mw, None, None) for each in reports]

    def granted(self, *also: str) -> list[dict[str, float]]:
        sent = self.limits.grant(self.story.now, also)
        return [{gpu: limit_mw / W for gpu, limit_mw in each.batch.limits_mw} for each in sent]

    def settled(self) -> bool:
        return self.limits.settled(self.limits.movable(self.story.now), self.story.now)


def landed(**targets_w: float) -> tuple[Story, Wanting]:
    story = Story()
    story.landed()
    return story, Wanting(story, targets_w)


def test_a_gpu_seen_for_the_first_time_gets_an_equal_share() -> None:
    _, wanting = landed()

    assert wanting.want() == [("g0", None, 600.0), ("g1", None, 600.0)]
    assert wanting.limits.moved_mw == 0, "a first target moves nothing"


def test_what_is_wanted_is_cut_to_what_the_budget_leaves() -> None:
    _, wanting = landed(g0=500, g1=500)

    assert wanting.want(g0=700, g1=700) == [("g0", 500.0, 600.0), ("g1", 500.0, 600.0)]
    assert wanting.want(g0=700) == [], "the other keeps what it has, and there is no room for more"
    assert wanting.want(g0=700, g1=500) == [("g0", 600.0, 700.0), ("g1", 600.0, 500.0)]
    assert wanting.limits.moved_mw == 300 * W, "raises count, cuts do not"


def test_a_target_waits_until_the_ledger_has_room_and_is_then_sent_unasked() -> None:
    story, wanting = landed(g0=600, g1=600)
    story.hear(covers=story.ask(g0=600, g1=600), g0="600", g1="600")
    wanting.want(g0=700, g1=500)

    assert wanting.granted() == [{"g1": 500.0}]
    assert wanting.granted() == []
    story.hear(covers=Mark(1, 2), g0="600", g1="500 since=0.1")
    assert wanting.granted() == [{"g0": 700.0}]
    story.hear(covers=Mark(1, 3), g0="700", g1="500")
    assert wanting.granted() == []
    assert wanting.settled()


def test_nothing_is_sent_to_a_gpu_that_is_unmanaged_absent_or_silent() -> None:
    story, wanting = landed(g0=500, g1=500)
    wanting.want()
    for _ in range(3):
        story.hear(g0="400 void ill=denied", g1="400 void")
    assert wanting.granted("g0", "g1") == [{"g1": 500.0}]

    story, wanting = landed(g0=500, g1=500)
    wanting.want()
    story.hear(g0="400 void")
    assert wanting.granted("g0", "g1") == [{"g0": 500.0}]

    story, wanting = landed(g0=500, g1=500)
    wanting.want()
    story.wait(3.0)
    assert wanting.granted("g0", "g1") == []
    story.hear(g0="400 void", g1="400 void")
    assert wanting.granted("g0", "g1") == [{"g0": 500.0, "g1": 500.0}], "and when it is back, it gets it"


def test_targets_of_gpus_that_nobody_books_are_forgotten() -> None:
    story, wanting = landed(g0=500, g1=500, ghost=500)
    assert wanting.limits.targets_mw == {"g0": 500 * W, "g1": 500 * W}

    story.wait(5.0)
    story.ledger.release("n1", story.now, 2.0)
    wanting.limits.forget_released()

    assert wanting.limits.targets_mw == {}
    assert wanting.granted("g0", "g1") == []


def test_a_limit_that_never_comes_into_force_holds_the_policy_back_for_five_seconds() -> None:
    story, wanting = landed(g0=500, g1=500)
    assert not wanting.settled()

    for _ in range(4):
        story.wait(1.0)
        story.landed()
        assert not wanting.settled()
    story.wait(1.5)
    story.landed()
    assert wanting.settled(), "given up, not in force"

    story.hear(covers=story.ask(g0=500, g1=500), g0="500", g1="500")
    assert wanting.settled()
    story.hear(g0="400 void", g1="500")
    assert not wanting.settled(), "the next five seconds"


def test_without_a_target_for_each_gpu_nothing_is_settled() -> None:
    story, wanting = landed(g0=400)
    story.hear(covers=story.ask(g0=400, g1=400), g0="400", g1="400")

    assert not wanting.settled()
