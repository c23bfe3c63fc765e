"""Which load of an instance counts, and for how long; and that what is remembered has a bound."""

from rapid.core.cluster import Role, SloTargets
from rapid.core.loads import Loads
from rapid.core.slo import Slo
from tests.core.engines import load

STALE_S = 2.0


def loads() -> tuple[Loads, Slo]:
    slo = Slo(SloTargets(), 5.0)
    return Loads(slo), slo


def waiting(kept: Loads, instance: str, at_s: float) -> int | None:
    fresh = kept.fresh(instance, at_s, STALE_S)
    return None if fresh is None else fresh[0].waiting_requests


def test_the_fresher_of_two_loads_counts_whichever_is_heard_last() -> None:
    kept, slo = loads()
    kept.take(load("e", Role.PREFILL, waiting=1, ttfts={0.1: 5}), 10.0, 10.0)
    kept.take(load("e", Role.PREFILL, waiting=2, ttfts={0.1: 9}), 11.0, 11.0)
    kept.take(load("e", Role.PREFILL, waiting=3, ttfts={0.1: 8}), 10.9, 11.2)

    assert waiting(kept, "e", 11.2) == 2
    assert slo.ttft.total == 4


def test_a_load_is_stale_when_it_is_older_than_allowed() -> None:
    kept, _ = loads()
    kept.take(load("e", Role.PREFILL, waiting=1), 10.0, 10.5)

    assert waiting(kept, "e", 12.0) == 1
    assert waiting(kept, "e", 12.001) is None
    assert waiting(kept, "nobody", 12.0) is None


def test_an_instance_that_comes_when_all_places_are_taken_gets_the_place_of_the_one_not_heard_for_longest() -> None:
    """Names may come and go for as long as a controller lives; the policy must go on seeing the newest."""
    kept, slo = loads()
    for index in range(16_384):
        kept.take(load(f"e{index}", Role.PREFILL, waiting=1), 10.0, 10.0)
    kept.take(load("e0", Role.PREFILL, waiting=2), 11.0, 11.0)

    kept.take(load("new", Role.PREFILL, waiting=7), 11.0, 11.0)

    assert waiting(kept, "new", 11.0) == 7
    assert waiting(kept, "e0", 11.0) == 2
    assert waiting(kept, "e1", 11.0) is None
    assert waiting(kept, "e2", 11.0) == 1
    assert len(slo._last) == 16_384


def test_what_is_wrong_with_a_load_is_news_once_and_known_while_its_node_says_so() -> None:
    kept, _ = loads()

    assert kept.hear_problems("n1", (("a", "hangs"), ("b", "gone"))) == [("a", "hangs"), ("b", "gone")]
    assert kept.hear_problems("n2", (("c", "gone"),)) == [("c", "gone")]
    assert kept.hear_problems("n1", (("a", "hangs still"),)) == []
    assert [kept.problem(name) for name in "abc"] == ["hangs still", "", "gone"]
    assert kept.hear_problems("n1", ()) == []
    assert kept.hear_problems("n1", (("a", "hangs"),)) == [("a", "hangs")]
