"""A node is dialled for as long as the controller lives, whatever the node does; only a stale epoch ends that."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
import structlog
import trustme
from structlog.testing import capture_logs

from rapid.core.cluster import GrantBatch, Greeting, Mark, Renewal
from rapid.core.errors import Refused, Stale
from rapid.core.events import Event, NodeGone, NodeHeard
from rapid.rpc import Context, abort
from rapid.tls import TlsConfig
from rapidctl.controller.inbox import Inbox
from rapidctl.controller.nodes import OUTBOX_MAX, NodeLink, Nodes, SteppedDown, Timing
from tests.certificates import issue
from tests.controller.fake_node import FakeNode, for_ever, serving
from tests.controller.fakes import HandClock, report
from tests.wait import wait_until

WITHIN_S = 10.0
TIMING = Timing(rpc_timeout_s=0.3, report_interval_s=0.1)
NOBODY = "127.0.0.1:1"  # a port that nothing listens on


@dataclass
class Talk:
    """A link at work, and the events that came of it."""

    link: NodeLink
    inbox: Inbox
    events: list[Event]
    clock: HandClock

    async def until(self, count: int, kind: type[Event]) -> list[Event]:
        """The first `count` events of a kind."""
        await wait_until(lambda: len(self.of(kind)) >= count, WITHIN_S, f"{count} times {kind.__name__}")
        return self.of(kind)[:count]

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


@asynccontextmanager
async def talking(address: str, node: str = "n1", tls: TlsConfig | None = None) -> AsyncIterator[Talk]:
    clock = HandClock()
    inbox = Inbox(clock, 64)
    events: list[Event] = []
    link = NodeLink(
        node,
        address,
        inbox,
        lambda: Greeting(3, "c1"),
        timing=TIMING,
        tls=tls,
        clock=clock,
        log=structlog.get_logger(),
    )

    async def listen() -> None:
        while taken := await inbox.take(8):
            events.extend(item.event for item in taken)

    tasks = [asyncio.ensure_future(link.run()), asyncio.ensure_future(listen())]
    try:
        yield Talk(link, inbox, events, clock)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def batch(seq: int) -> GrantBatch:
    return GrantBatch("n1", "1-a", "c1", Mark(3, seq), 50.0, (("n1-g0", 600_000),))


def renewal(not_after_s: float) -> Renewal:
    return Renewal("n1", "1-a", "c1", 3, not_after_s)


async def one_report(node: FakeNode, context: Context) -> None:
    await node.send(context, report())
    await node.take_orders(context)


async def test_it_greets_and_passes_reports_on() -> None:
    node = FakeNode(one_report)
    async with serving(node) as address, talking(address) as talk:
        (heard,) = await talk.until(1, NodeHeard)
        assert heard == NodeHeard(100.0, report())
        assert talk.link.reporting
        assert node.greeted[0].greeting == Greeting(3, "c1")
        assert node.greeted[0].report_interval_s == 0.1


async def test_grants_and_renewals_go_down_in_order_and_only_the_newest_renewal_waits() -> None:
    node = FakeNode(one_report)
    async with serving(node) as address, talking(address) as talk:
        await talk.until(1, NodeHeard)
        talk.link.renew(renewal(51.0))
        talk.link.grant(batch(1))
        talk.link.renew(renewal(52.0))
        talk.link.grant(batch(2))
        await wait_until(lambda: len(node.orders) >= 3, WITHIN_S, "three orders")
        assert node.orders == [batch(1), renewal(52.0), batch(2)]


async def test_a_node_behind_tls_is_dialled_with_the_controllers_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    theirs, ours = issue(authority, tmp_path / "n", "127.0.0.1"), issue(authority, tmp_path / "c", "controller")
    async with serving(FakeNode(one_report), tls=theirs) as address, talking(address, tls=ours) as talk:
        await talk.until(1, NodeHeard)


async def test_a_node_behind_the_tls_of_strangers_is_not_heard(tmp_path: Path) -> None:
    theirs, ours = (issue(trustme.CA(), tmp_path / name, "127.0.0.1") for name in ("n", "c"))
    with capture_logs() as lines:
        async with serving(FakeNode(one_report), tls=theirs) as address, talking(address, tls=ours) as talk:
            await wait_until(lambda: lines, WITHIN_S, "a line in the log")
            assert talk.events == []
    assert f"cannot reach {address}: " in lines[0]["reason"]
    assert "tls.ca" in lines[0]["reason"], "it says where to look"


async def test_without_a_stream_orders_are_dropped() -> None:
    async with talking(NOBODY) as talk:
        talk.link.grant(batch(1))
        talk.link.renew(renewal(51.0))
    Nodes({}).grant(batch(1))
    Nodes({}).renew(renewal(51.0))


async def test_a_node_that_hangs_up_is_gone_and_dialled_again() -> None:
    async def hang_up(node: FakeNode, context: Context) -> None:
        await node.send(context, report(seq=len(node.greeted)))

    node = FakeNode(hang_up)
    async with serving(node) as address, talking(address) as talk:
        await talk.until(2, NodeHeard)
        (gone,) = await talk.until(1, NodeGone)
        assert gone == NodeGone(100.0, "n1", "the node has ended the stream")
        kinds = [type(event) for event in talk.events[:3]]
        assert kinds == [NodeHeard, NodeGone, NodeHeard]


async def test_a_refusal_that_is_for_this_node_alone_is_tried_again() -> None:
    async def refuse(node: FakeNode, context: Context) -> None:
        if len(node.greeted) < 3:
            await abort(context, Refused("not now"))
        await one_report(node, context)

    node = FakeNode(refuse)
    with capture_logs() as lines:
        async with serving(node) as address, talking(address) as talk:
            await talk.until(1, NodeHeard)
    told = [line for line in lines if line["event"] == "node cannot be reached"]
    assert [(line["reason"], line["node"]) for line in told] == [("not now", "n1")], "once, however often it happens"
    assert talk.of(NodeGone) == []


async def test_what_goes_on_unchanged_is_said_again_only_after_a_while() -> None:
    async def refuse(node: FakeNode, context: Context) -> None:
        await abort(context, Refused("not now"))

    node = FakeNode(refuse)
    with capture_logs() as lines:
        async with serving(node) as address, talking(address) as talk:
            await wait_until(lambda: len(node.greeted) >= 2, WITHIN_S, "two tries")
            soon = [line["reason"] for line in lines if line["event"] == "node cannot be reached"]
            talk.clock.now_s += 61.0
            before = len(node.greeted)
            await wait_until(lambda: len(node.greeted) >= before + 2, WITHIN_S, "two more tries")
    said = [line["reason"] for line in lines if line["event"] == "node cannot be reached"]
    later = said[len(soon) :]
    # Now and then gRPC loses a status that arrives beside a pending write, and the reason is another for one try.
    assert "not now" in soon
    assert "not now" in later
    assert all(one != other for part in (soon, later) for one, other in pairwise(part)), (soon, later)


async def test_a_node_that_nobody_serves_is_dialled_until_it_is_there() -> None:
    node = FakeNode(one_report)
    async with serving(FakeNode(for_ever)) as address:
        pass  # Now the port is known to be free.
    async with talking(address) as talk:
        async with serving(node, address):
            await talk.until(1, NodeHeard)
        await talk.until(1, NodeGone)


async def test_a_black_hole_is_dropped_and_dialled_again() -> None:
    node = FakeNode(for_ever)
    with capture_logs() as lines:
        async with serving(node) as address, talking(address) as talk:
            await wait_until(lambda: len(node.greeted) >= 2, WITHIN_S, "a second try")
            assert not talk.link.reporting
            await wait_until(lambda: node.streams <= 1, WITHIN_S, "the end of the first stream")
    assert [line["reason"] for line in lines] == ["no report came for 0.6 s"]


async def test_a_node_that_falls_silent_is_gone() -> None:
    async def fall_silent(node: FakeNode, context: Context) -> None:
        await node.send(context, report())
        await for_ever(node, context)

    async with serving(FakeNode(fall_silent)) as address, talking(address) as talk:
        (gone,) = await talk.until(1, NodeGone)
        assert gone == NodeGone(100.0, "n1", "no report came for 0.6 s")


async def test_a_node_that_is_another_one_is_not_heard() -> None:
    with capture_logs() as lines:
        async with serving(FakeNode(one_report)) as address, talking(address, node="n2") as talk:
            await wait_until(lambda: lines, WITHIN_S, "a line in the log")
            assert talk.events == []
    assert lines[0]["reason"] == f"{address} is node 'n1', not 'n2'"


async def test_more_orders_than_may_wait_end_the_stream_and_a_new_one_begins_empty() -> None:
    node = FakeNode(one_report)
    async with serving(node) as address, talking(address) as talk:
        await talk.until(1, NodeHeard)
        for seq in range(OUTBOX_MAX + 1):
            talk.link.grant(batch(seq))
        (gone,) = await talk.until(1, NodeGone)
        assert isinstance(gone, NodeGone)
        assert gone.reason == f"{OUTBOX_MAX} messages wait to be sent; the peer does not take them"
        await talk.until(2, NodeHeard)
        talk.link.grant(batch(99))
        await wait_until(lambda: batch(99) in node.orders, WITHIN_S, "the order on the new stream")


@pytest.mark.parametrize("before", [0, 1], ids=["at the greeting", "in the middle of the stream"])
async def test_a_stale_epoch_makes_the_controller_step_down(before: int) -> None:
    async def refuse(node: FakeNode, context: Context) -> None:
        for _ in range(before):
            await node.send(context, report())
        await abort(context, Stale("node n1: epoch 3 is lower than epoch 8, which it has seen"))

    async with serving(FakeNode(refuse)) as address:
        link = NodeLink(
            "n1",
            address,
            Inbox(HandClock(), 8),
            lambda: Greeting(3, "c1"),
            timing=TIMING,
            tls=None,
            clock=HandClock(),
            log=structlog.get_logger(),
        )
        with pytest.raises(SteppedDown) as caught:
            await asyncio.wait_for(link.run(), WITHIN_S)
    text = str(caught.value)
    assert text.startswith("node n1: epoch 3 is lower than epoch 8, which it has seen; another controller leads")
    assert "this one (c1, epoch 3) sends nothing more" in text
    assert "--epoch-at-least N, N above the epoch that the node has seen" in text
