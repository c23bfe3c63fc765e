"""Which engines may attach, and what becomes of a role change when a stream breaks in the middle of it."""

import pytest

from rapid.core.cluster import Mark, Phase, Role
from rapid.core.errors import EngineRefused, EngineTaken
from tests.core.engines import NODES_OF, hello, news, pair_of_each, roles_of, stands, told

PREFILL, DECODE, MIXED = Role.PREFILL, Role.DECODE, Role.MIXED

# ---- attaching ----


def test_an_engine_that_cannot_be_what_it_says_is_refused() -> None:
    roles = roles_of(hello("e0"))
    for wrong, why in [
        (hello("e1", gpus=("ghost",)), "instance e1: no node has reported gpu ghost"),
        (hello("e1", gpus=("g1", "h0")), "instance e1: gpu h0 is on node n2, not on n1"),
        (hello("e1", node=""), "instance e1: gpu g1 is on node n1, not on no node"),
        (hello("e1", MIXED), "instance e1: role mixed is not among those it says it can take"),
    ]:
        with pytest.raises(EngineRefused) as caught:
            roles.attach(wrong, 0.0, NODES_OF)
        assert str(caught.value) == why
        assert not isinstance(caught.value, EngineTaken)
    assert list(roles.instances) == ["e0"]


def test_a_gpu_has_one_instance_that_lives() -> None:
    roles = roles_of(hello("e0", gpus=("g0", "g1")))
    taken = "instance e1: gpu g1 belongs to instance e0, which lives"

    with pytest.raises(EngineTaken, match=taken):
        roles.attach(hello("e1", gpus=("g1", "g2")), 0.0, NODES_OF)
    roles.instances["e0"].phase = Phase.FAILED
    with pytest.raises(EngineTaken, match=taken):
        roles.attach(hello("e1", gpus=("g1", "g2")), 0.0, NODES_OF)

    roles.detach("e0", "first")
    roles.attach(hello("e1", gpus=("g1", "g2")), 0.0, NODES_OF)
    assert list(roles.instances) == ["e1"]


def test_an_engine_that_is_refused_takes_nothing_from_one_that_is_gone() -> None:
    roles = roles_of(hello("e0"), hello("e1"))
    roles.detach("e0", "first")

    with pytest.raises(EngineTaken, match="gpu g1 belongs to instance e1, which lives"):
        roles.attach(hello("e2", gpus=("g0", "g1")), 0.0, NODES_OF)

    assert list(roles.instances) == ["e0", "e1"]


def test_two_processes_of_one_name_do_not_attach_side_by_side() -> None:
    roles = roles_of(hello("e0"))

    with pytest.raises(EngineTaken, match=r"^instance e0: another process of this name is attached and lives$"):
        roles.attach(hello("e0", incarnation="second"), 0.0, NODES_OF)

    roles.detach("e0", "first")
    roles.attach(hello("e0", DECODE, incarnation="second"), 0.0, NODES_OF)
    assert (stands(roles), roles.moves) == ("serving decode", 0), "a new process is no role move"


def test_the_end_of_an_old_stream_does_not_end_the_new_one() -> None:
    roles = roles_of(hello("e0"))
    roles.detach("e0", "first")
    roles.attach(hello("e0", incarnation="second"), 0.0, NODES_OF)

    assert not roles.detach("e0", "first")
    assert not roles.detach("e9", "first")
    assert stands(roles) == "serving prefill"


def test_an_instance_that_is_gone_is_remembered_and_serves_nothing() -> None:
    roles = pair_of_each()

    assert roles.detach("e0", "first")

    assert stands(roles) == "gone prefill"
    assert roles.serving(PREFILL) == 1
    assert roles.progress(news("e0", Mark(1, 9), Phase.SERVING, DECODE)) == []


# ---- a stream that breaks in the middle of a change ----


def test_an_engine_that_comes_back_in_the_middle_of_a_change_goes_on_with_it() -> None:
    roles = pair_of_each()
    mark = roles.order("e0", DECODE, 5.0).mark
    roles.detach("e0", "first")

    roles.attach(hello("e0", PREFILL, phase=Phase.SWITCHING, mark=mark), 7.0, NODES_OF)
    assert stands(roles) == "switching prefill"
    assert roles.instances["e0"].target_role is DECODE

    roles.progress(news("e0", mark, Phase.SERVING, DECODE))
    assert (stands(roles), roles.moves) == ("serving decode", 1)


def test_an_engine_that_committed_while_it_was_not_heard_counts_as_moved() -> None:
    roles = pair_of_each()
    mark = roles.order("e0", DECODE, 5.0).mark
    roles.detach("e0", "first")

    roles.attach(hello("e0", DECODE, mark=mark), 7.0, NODES_OF)

    assert (stands(roles), roles.moves) == ("serving decode", 1)
    assert roles.instances["e0"].target_role is DECODE


def test_an_engine_that_never_got_the_order_serves_on() -> None:
    roles = pair_of_each()
    roles.order("e0", DECODE, 5.0)
    roles.detach("e0", "first")

    roles.attach(hello("e0", PREFILL), 7.0, NODES_OF)

    assert (stands(roles), roles.moves) == ("serving prefill", 0)
    assert roles.order("e0", DECODE, 8.0).mark == Mark(1, 2)


def test_an_engine_that_died_in_the_middle_of_a_change_comes_back_as_what_it_is() -> None:
    roles = pair_of_each()
    roles.order("e0", DECODE, 5.0)
    roles.detach("e0", "first")

    roles.attach(hello("e0", DECODE, incarnation="second"), 7.0, NODES_OF)

    assert (stands(roles), roles.moves) == ("serving decode", 0)
    assert roles.tick(1_000.0) == []


def test_a_life_that_goes_on_in_its_epoch_gives_orders_that_engines_take() -> None:
    """Engines take an order only above the last one; a new life learns from their hellos which that was."""
    roles = roles_of(hello("e0", mark=Mark(1, 7)), hello("e1", mark=Mark(1, 3)), hello("e2", mark=Mark(0, 99)))

    assert roles.order("e1", DECODE, 0.0).mark == Mark(1, 8)


def test_a_new_process_found_in_a_change_goes_back_to_what_it_says_it_is() -> None:
    """The order that it obeys was given to the process before; nobody here knows where it leads."""
    roles = pair_of_each()
    roles.order("e0", DECODE, 5.0)
    roles.detach("e0", "first")

    roles.attach(hello("e0", PREFILL, incarnation="second", phase=Phase.WARMING), 7.0, NODES_OF)

    assert roles.instances["e0"].target_role is PREFILL


@pytest.mark.parametrize("phase", [Phase.SWITCHING, Phase.WARMING, Phase.UNCERTAIN])
def test_an_engine_says_itself_where_a_change_comes_from_and_leads_to(phase: Phase) -> None:
    """A controller that has just started knows nothing else of it."""
    said = hello("e0", DECODE, phase=phase, mark=Mark(0, 4), way=(PREFILL, DECODE))
    roles = roles_of(said, hello("e1"), hello("e2", DECODE))

    assert (stands(roles), roles.instances["e0"].target_role) == (f"{phase.value} prefill", DECODE)
    roles.progress(news("e0", Mark(1, 0), Phase.SERVING, DECODE))
    assert (stands(roles), roles.moves) == ("serving decode", 1)


def test_an_engine_found_on_its_way_to_be_parked_is_parked_in_the_end() -> None:
    roles = roles_of(hello("e0", phase=Phase.DRAINING, mark=Mark(0, 4), way=(PREFILL, PREFILL)), hello("e1"))

    said = roles.progress(news("e0", Mark(1, 0), Phase.PARKED, PREFILL))

    assert told(said) == ["info e0: is parked and serves nobody"]


def test_a_life_goes_on_from_the_order_number_of_the_one_before_in_its_epoch_only() -> None:
    roles = pair_of_each()
    roles.go_on_from(Mark(1, 9), 4)
    assert (roles.order("e0", DECODE, 0.0).mark, roles.moves) == (Mark(1, 10), 4)

    roles = pair_of_each()
    roles.go_on_from(Mark(0, 9), 4)
    assert roles.order("e0", DECODE, 0.0).mark == Mark(1, 1)
