"""Whatever is said to a real NodeService, it answers as its table says, lives on, and raises on good leave alone."""

import asyncio
import time
from dataclasses import dataclass, replace

import grpc
import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from rapid.core.cluster import GrantBatch, Greeting, Mark, Renewal
from rapid.core.guard import Duty, Guard
from rapid.v1 import node_pb2
from rapid.wire.node import encode_grants, encode_greeting, encode_renewal
from tests.fuzz.planted import caught
from tests.fuzz.raw import stream
from tests.node.caller import LONG_S, NODE
from tests.node.live import live_node
from tests.node.rig import CEILING_MW, FALLBACK_MW, FLOOR_MW, GPUS
from tests.wire.test_fuzz import fill

METHOD = "/rapid.v1.NodeService/Enforce"
LIFE = "1-life"
DOCUMENTED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.UNAVAILABLE,
}


@dataclass(frozen=True, slots=True)
class Said:
    """One message; times are seconds from when it is sent. Spoiled: its bytes are cut at `at`, and `more` follows."""

    what: Greeting | GrantBatch | Renewal | bytes
    at: int | None = None
    more: bytes = b""

    def data(self, now_s: float) -> bytes:
        data = self._whole(now_s)
        return data if self.at is None else data[: self.at] + self.more

    def _whole(self, now_s: float) -> bytes:
        match self.what:
            case Greeting() as greeting:
                return encode_greeting(greeting, report_interval_s=LONG_S).SerializeToString()
            case GrantBatch() as batch:
                return encode_grants(replace(batch, not_after_s=now_s + batch.not_after_s)).SerializeToString()
            case Renewal() as renewal:
                return encode_renewal(replace(renewal, not_after_s=now_s + renewal.not_after_s)).SerializeToString()
            case data:
                return data


lives = st.sampled_from([LIFE, LIFE, "1-other", "2-life", "0-life"])
controllers = st.sampled_from(["a", "a", "b"])
epochs = st.sampled_from([1, 1, 1, 2, 2**63 - 1])
marks = st.builds(Mark, st.just(1) | epochs, st.integers(0, 4))
ahead_s = st.sampled_from([30.0, 30.0, 0.0, -1.0, 1e9])
gpus = st.sampled_from([*GPUS, *GPUS, "GPU-z"])
limits_mw = st.sampled_from([600_000, CEILING_MW, FLOOR_MW, CEILING_MW + 1, FLOOR_MW - 1, FALLBACK_MW])
leave = st.dictionaries(gpus, limits_mw, min_size=1).map(lambda limits: tuple(limits.items()))

# What can be decoded ...
greetings = st.builds(Greeting, epochs, controllers)
good = st.builds(GrantBatch, st.just(NODE), st.just(LIFE), st.just("a"), marks, st.just(30.0), leave)
batches = st.builds(GrantBatch, st.just(NODE), lives, controllers, marks, ahead_s, leave)
renewals = st.builds(Renewal, st.just(NODE), lives, controllers, epochs, ahead_s)
# ... and what cannot.
odd_s = st.sampled_from([float("nan"), float("inf"), -1e9])
odd_leave = st.lists(st.tuples(gpus, limits_mw | st.sampled_from([0, 2**40])), max_size=4).map(tuple)
odd = st.builds(GrantBatch, st.just(NODE), lives, controllers, marks, ahead_s | odd_s, odd_leave)


@st.composite
def filled(draw: st.DrawFn) -> bytes:
    return fill(draw, node_pb2.EnforceRequest()).SerializeToString()


whole = st.builds(Said, good | batches | renewals)
anything = (
    st.builds(Said, greetings | odd)
    | st.builds(Said, greetings | batches | renewals, st.integers(0, 60), st.binary(max_size=8))
    | st.builds(Said, filled() | st.binary(max_size=40))
)
opened = st.tuples(st.builds(Said, greetings), st.lists(whole, min_size=1, max_size=5)).map(lambda of: [of[0], *of[1]])
spoiled = st.tuples(opened, anything, st.lists(whole, max_size=1)).map(lambda of: [*of[0], of[1], *of[2]])
talks = st.lists(opened | spoiled | st.lists(anything, max_size=3), min_size=1, max_size=3)


def most_mw(gpu: str, talk: list[Said]) -> int:
    """What this talk gives leave for, read as the protocol says and not as the guard does: the greatest limit within
    range of a batch for this life, by the controller that was greeted, in time."""
    greeting = talk[0].what if talk and talk[0].at is None else None
    leave_mw = FALLBACK_MW
    for each in talk:
        ours = each.what
        if not isinstance(ours, GrantBatch) or each.at is not None or not isinstance(greeting, Greeting):
            continue
        if (ours.incarnation, ours.controller_id) != (LIFE, greeting.controller_id):
            continue
        if ours.mark.epoch == greeting.epoch and 0 < ours.not_after_s < 1e10:
            within = [mw for name, mw in ours.limits_mw if name == gpu and FLOOR_MW <= mw <= CEILING_MW]
            leave_mw = max([leave_mw, *within])
    return leave_mw


async def hold(kind: type[Guard], talks: list[list[Said]]) -> None:
    """What is promised, on a node of its own."""
    async with live_node(kind=kind) as node:
        landed = [len(device.writes_mw) for device in node.devices]
        for talk in talks:
            now_s = time.monotonic()
            code = await stream(node.address, METHOD, [each.data(now_s) for each in talk])
            event(code.name)
            assert code in DOCUMENTED, f"ended with {code}"
        epoch = min(node.agent.snapshot.report.mark.epoch + 1, 2**63 - 1)
        code = await stream(node.address, METHOD, [Said(Greeting(epoch, "a")).data(0.0)])
        assert code in (grpc.StatusCode.OK, grpc.StatusCode.FAILED_PRECONDITION), f"dead: {code}"
    # The node has stopped, so every write has come to its end.
    for gpu, device, first in zip(GPUS, node.devices, landed, strict=True):
        leave_mw = max([FALLBACK_MW, *(most_mw(gpu, talk) for talk in talks)])
        highest_mw = max(device.writes_mw[first:], default=0)
        event("raised" if highest_mw > FALLBACK_MW else "not raised")
        assert highest_mw <= leave_mw, f"{gpu} was set to {highest_mw} mW, there was leave for {leave_mw} mW"


@given(talks=talks)
@example(talks=[[Said(b"\xff")], [Said(Greeting(1, "a")), Said(b"\xff")]])
@settings(max_examples=150)
async def test_whatever_is_said(talks: list[list[Said]]) -> None:
    await hold(Guard, talks)


# ---- planted bugs ----


class TakesAnyLife(Guard):
    """Applies what was meant for another life of the daemon."""

    def grant(self, batch: GrantBatch, at_s: float) -> list[Duty]:
        return super().grant(replace(batch, incarnation=self.incarnation), at_s)


class TakesLateGrants(Guard):
    """Applies what comes after its time."""

    def grant(self, batch: GrantBatch, at_s: float) -> list[Duty]:
        return super().grant(replace(batch, not_after_s=at_s + 30.0), at_s)


class TakesAnyController(Guard):
    """Applies what another controller says than the one that was greeted."""

    def grant(self, batch: GrantBatch, at_s: float) -> list[Duty]:
        return super().grant(replace(batch, controller_id=self.memory.controller_id), at_s)


class TripsOverAnUnknownGpu(Guard):
    """Dies of a name that it does not know."""

    def grant(self, batch: GrantBatch, at_s: float) -> list[Duty]:
        assert all(name in self._gpus for name, _ in batch.limits_mw)
        return super().grant(batch, at_s)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (TakesAnyLife, "there was leave for"),
        (TakesLateGrants, "there was leave for"),
        (TakesAnyController, "there was leave for"),
        (TripsOverAnUnknownGpu, ""),
    ],
)
def test_a_planted_bug_is_caught(kind: type[Guard], says: str) -> None:
    with asyncio.Runner() as runner:
        caught(talks, lambda each: runner.run(hold(kind, each)), ExceptionGroup if not says else AssertionError)
