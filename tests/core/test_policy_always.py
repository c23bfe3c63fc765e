"""Whatever a policy sees, what it wants can be granted: limits that devices take and budgets have room for, roles that
instances can take. Each promise is shown to be broken by a planted bug."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import Phase as Stage
from hypothesis import find, given, settings
from hypothesis import strategies as st

from rapid.core.cluster import GpuView, InstanceView, Phase, Role, Targets, View
from rapid.core.policy import NAMES, NO_CHANGE, Policy, StatefulPolicy, make
from rapid.core.policy.rapid import Rapid
from tests.core.engines import load
from tests.core.hosts import W
from tests.core.views import after_w, goes_on, gpu, instance, view

Promise = Callable[[View, Targets], bool]


@st.composite
def views(draw: st.DrawFn) -> View:
    """Up to six instances of one to three equal GPUs on two nodes below a root; some domains too small, some roomy."""
    gpus: list[GpuView] = []
    instances: list[InstanceView] = []
    for index in range(draw(st.integers(1, 6))):
        node, role = draw(st.sampled_from("ab")), draw(st.sampled_from(Role))
        limit_w = draw(st.integers(400, 750))
        names = [f"g{index}.{part}" for part in range(draw(st.integers(1, 3)))]
        gpus += [gpu(name, limit_w, node=node) for name in names]
        queue = load("", role, waiting=draw(st.integers(0, 12)), running=draw(st.integers(0, 5)))
        instances.append(
            instance(
                f"e{index}",
                role,
                names,
                phase=draw(st.sampled_from([Phase.SERVING] * 8 + [Phase.GONE, Phase.FAILED, Phase.DRAINING])),
                roles=draw(st.sampled_from([(Role.PREFILL, Role.DECODE), tuple(Role), (role,)])),
                pinned=draw(st.integers(0, 4)) == 0,
                queue=draw(st.sampled_from([queue, queue, None])),
            )
        )
    gpus += [gpu(f"spare{index}", draw(st.integers(400, 750)), node="a") for index in range(draw(st.integers(0, 2)))]
    rooms_w: dict[str, float] = {}
    for domain, inside in (("root", "ab"), ("rack", "b")):
        sum_mw = sum(each.limit_mw for each in gpus if each.node in inside)
        rooms_w[domain] = round(sum_mw * draw(st.sampled_from([0.5, 0.9, 1.0, 1.0, 1.0, 1.01, 1.3])) / W)
    return view(
        gpus,
        instances,
        rooms_w=rooms_w,
        chains={"a": ("root",), "b": ("rack", "root")},
        ttft_s=draw(st.sampled_from([None, 0.3, 0.9, 1.5])),
        tpot_s=draw(st.sampled_from([None, 0.02, 0.036, 0.05])),
        oldest_wait_s=draw(st.sampled_from([0.0, 2.0])),
        settled=draw(st.integers(0, 9)) > 0,
    )


# ---- the promises ----


def takes_what_devices_take(seen: View, targets: Targets) -> bool:
    known = {each.gpu: each for each in seen.gpus}
    return all(
        name in known and known[name].floor_mw <= limit_mw <= known[name].ceiling_mw
        for name, limit_mw in targets.limits_mw.items()
    )


def stays_within_the_rooms(seen: View, targets: Targets) -> bool:
    """No domain gets more than it has room for, or, if it has too little already, than it had."""
    after = after_w(seen, targets)
    for domain, room_mw in seen.rooms_mw.items():
        inside = [each for each in seen.gpus if domain in seen.chains[each.node]]
        had_mw = sum(each.limit_mw for each in inside)
        if sum(round(after[each.gpu] * W) for each in inside) > max(room_mw, had_mw):
            return False
    return True


def keeps_instances_even(seen: View, targets: Targets) -> bool:
    after = after_w(seen, targets)
    return all(len({after[name] for name in one.gpus}) == 1 for one in seen.instances)


def orders_roles_that_may_be_ordered(seen: View, targets: Targets) -> bool:
    for name, role in targets.roles.items():
        one = next(each for each in seen.instances if each.instance == name)
        others = [
            each
            for each in seen.instances
            if each is not one and each.phase is Phase.SERVING and each.role in (one.role, Role.MIXED)
        ]
        if one.pinned or role not in one.roles or one.phase is not Phase.SERVING or not others:
            return False
    return True


def names_only_what_changes_and_why(seen: View, targets: Targets) -> bool:
    limits = {each.gpu: each.limit_mw for each in seen.gpus}
    roles = {one.instance: one.role for one in seen.instances}
    changes = bool(targets.limits_mw or targets.roles)
    return (
        (targets.reason or not changes)
        and all(limits[name] != limit_mw for name, limit_mw in targets.limits_mw.items())
        and all(roles[name] is not role for name, role in targets.roles.items())
    )


def waits_while_things_are_unsettled(seen: View, targets: Targets) -> bool:
    return seen.settled or targets == NO_CHANGE


PROMISES: list[Promise] = [
    takes_what_devices_take,
    stays_within_the_rooms,
    orders_roles_that_may_be_ordered,
    names_only_what_changes_and_why,
]
REACTIVE: list[Promise] = [*PROMISES, keeps_instances_even, waits_while_things_are_unsettled]


@pytest.mark.parametrize("name", NAMES)
@given(seen=views())
def test_what_a_policy_wants_can_be_granted(name: str, seen: View) -> None:
    policy = make(name, {})

    targets = policy.decide(seen)

    for promise in REACTIVE if isinstance(policy, Rapid) else PROMISES:
        assert promise(seen, targets), f"{name}: {promise.__name__}: {targets}"


@pytest.mark.parametrize("name", NAMES)
@given(seen=views())
def test_what_a_new_policy_wants_rests_on_the_view_alone(name: str, seen: View) -> None:
    policy = make(name, {})

    assert policy.decide(seen) == make(name, {}).decide(seen)
    if not isinstance(policy, StatefulPolicy):
        assert policy.decide(seen) == policy.decide(seen)


@pytest.mark.parametrize("name", NAMES)
@given(seen=st.lists(views(), min_size=2, max_size=8), broken=st.integers(0, 10**9))
def test_a_policy_goes_on_from_its_state_as_if_there_had_been_no_break(
    name: str, seen: list[View], broken: int
) -> None:
    """Whatever it sees, at the pace of the control loop; only what it remembers may tell the two apart."""
    paced = [replace(each, at_s=each.at_s + number / 2) for number, each in enumerate(seen)]

    assert goes_on(lambda: make(name, {}), paced, 1 + broken % (len(paced) - 1))


@pytest.mark.parametrize("name", ["uniform", "static"])
@given(seen=views())
def test_a_fixed_policy_rests_when_it_has_what_it_wants(name: str, seen: View) -> None:
    policy = make(name, {})
    limits_mw = policy.decide(seen).limits_mw
    gpus = tuple(replace(each, limit_mw=limits_mw.get(each.gpu, each.limit_mw)) for each in seen.gpus)

    assert policy.decide(replace(seen, gpus=gpus)) == NO_CHANGE


# ---- planted bugs ----


class Generous(Rapid):
    """Bug: recipients get their step, donors keep theirs."""

    def decide(self, view: View) -> Targets:
        targets = super().decide(view)
        limits = {each.gpu: each.limit_mw for each in view.gpus}
        raises = {name: limit_mw for name, limit_mw in targets.limits_mw.items() if limit_mw > limits[name]}
        return replace(targets, limits_mw=raises) if raises else NO_CHANGE


class Steep(Rapid):
    """Bug: what is moved is moved twice as far, whatever the device takes."""

    def decide(self, view: View) -> Targets:
        targets = super().decide(view)
        limits = {each.gpu: each.limit_mw for each in view.gpus}
        return replace(
            targets, limits_mw={name: mw + 9 * (mw - limits[name]) for name, mw in targets.limits_mw.items()}
        )


class Lopsided(Rapid):
    """Bug: the first GPU of an instance gets its part, the others do not."""

    def decide(self, view: View) -> Targets:
        targets = super().decide(view)
        kept = {name: mw for name, mw in targets.limits_mw.items() if name.endswith(".0")}
        return replace(targets, limits_mw=kept) if kept else NO_CHANGE


class Ruthless(Rapid):
    """Bug: an instance that is pinned, or the last, is moved as well."""

    def decide(self, view: View) -> Targets:
        free = tuple(replace(one, pinned=False) for one in view.instances)
        return super().decide(replace(view, instances=free))


class Hasty(Rapid):
    """Bug: it does not wait until limits are in force."""

    def decide(self, view: View) -> Targets:
        return super().decide(replace(view, settled=True))


class Silent(Rapid):
    """Bug: it does not say why."""

    def decide(self, view: View) -> Targets:
        return replace(super().decide(view), reason="")


@pytest.mark.parametrize(
    ("promise", "bug"),
    [
        (takes_what_devices_take, Steep()),
        (stays_within_the_rooms, Generous()),
        (keeps_instances_even, Lopsided()),
        (orders_roles_that_may_be_ordered, Ruthless()),
        (waits_while_things_are_unsettled, Hasty()),
        (names_only_what_changes_and_why, Silent()),
    ],
)
def test_each_promise_is_broken_by_a_planted_bug(promise: Promise, bug: Policy) -> None:
    quick = settings(max_examples=3000, database=None, phases=[Stage.generate])

    seen = find(views(), lambda each: not promise(each, bug.decide(each)), settings=quick, random=random.Random(1))

    assert promise(seen, Rapid().decide(seen)), "the bug is to blame, and not the view"
