"""Engines attach, are judged by the core, get orders meant for this process of theirs, and are missed when they go."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc
import pytest

from rapid.core.cluster import EngineHello, Mark, Phase, PhaseLoad, Role, RoleProgress
from rapid.core.commands import CancelRole, Command, OrderRole, RefuseEngine
from rapid.core.errors import EngineRefused, EngineTaken, RapidError, Unreachable, WireInvalid
from rapid.core.events import EngineCame, EngineGone, EngineLoaded, EngineMoved, Event, Ticked
from rapid.v1 import engine_pb2
from rapid.wire.engine import (
    EngineLoad,
    Goodbye,
    Welcome,
    decode_told,
    encode_engine_load,
    encode_goodbye,
    encode_hello,
    encode_progress,
)
from rapid.wire.errors import error_of
from rapidctl.controller.engines import OUTBOX_MAX
from tests.controller.fakes import hello
from tests.controller.stack import WITHIN_S, Stack, engine_stub
from tests.wait import wait_until

ORDER = OrderRole("e1", "i1", Mark(3, 1), Role.DECODE, 30.0, 50.0)
LOAD = EngineLoad(6.0, PhaseLoad("e1", Role.PREFILL, 5.5))
PROGRESS = RoleProgress("e1", "i1", Mark(3, 1), Phase.DRAINING, Role.PREFILL)
Call = Any  # grpc.aio.StreamStreamCall; its stubs do not know that read() may give EOF


async def attach(channel: grpc.aio.Channel, one: EngineHello | None = None) -> Call:
    call = engine_stub(channel).Attach(timeout=WITHIN_S)
    await call.write(encode_hello(one or hello()))
    return call


async def told(call: Call) -> Any:
    return decode_told(await call.read(), instance="e1")


async def ending(call: Call) -> tuple[grpc.StatusCode, RapidError]:
    """With what the call fails."""
    try:
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as failure:
        return failure.code(), error_of(failure, address="controller")
    raise AssertionError("the call ended without an error")


async def test_an_accepted_engine_is_welcomed_and_its_words_become_events() -> None:
    stack = Stack(load_interval_s=1.0)
    async with stack.serving() as channel:
        call = await attach(channel)
        assert await told(call) == Welcome(3, 1.0)
        await call.write(encode_engine_load(LOAD))
        await call.write(encode_progress(PROGRESS))
        await wait_until(lambda: stack.of(EngineMoved), WITHIN_S, "progress")
        assert stack.of(EngineCame) == [EngineCame(100.0, hello())]
        assert stack.of(EngineLoaded) == [EngineLoaded(100.0, "e1", "i1", 6.0, LOAD.load)]
        assert stack.of(EngineMoved) == [EngineMoved(100.0, PROGRESS)]
        assert stack.engines.attached == 1


async def test_orders_go_down_after_the_welcome_even_those_of_the_same_step() -> None:
    def script(event: Event) -> list[Command]:
        return [ORDER, CancelRole("e1", "i1", Mark(3, 1))] if isinstance(event, EngineCame) else []

    async with Stack(script).serving() as channel:
        call = await attach(channel)
        assert [await told(call) for _ in range(3)] == [Welcome(3, 0.0), ORDER, CancelRole("e1", "i1", Mark(3, 1))]


async def test_an_order_for_another_process_of_the_instance_is_not_sent() -> None:
    def script(event: Event) -> list[Command]:
        return [replace(ORDER, incarnation="i0"), ORDER] if isinstance(event, Ticked) else []

    stack = Stack(script)
    async with stack.serving() as channel:
        call = await attach(channel)
        await told(call)
        stack.inbox.put_tick()
        assert await told(call) == ORDER


def refusing(kind: str) -> Callable[[Event], list[Command]]:
    def script(event: Event) -> list[Command]:
        return [RefuseEngine("e1", "i1", "because", kind)] if isinstance(event, EngineCame) else []

    return script


@pytest.mark.parametrize(
    ("kind", "code", "error"),
    [
        ("EngineRefused", grpc.StatusCode.FAILED_PRECONDITION, EngineRefused),
        ("EngineTaken", grpc.StatusCode.ALREADY_EXISTS, EngineTaken),
    ],
)
async def test_a_refused_engine_is_told_why_with_the_code_of_the_table(
    kind: str, code: grpc.StatusCode, error: type[RapidError]
) -> None:
    stack = Stack(refusing(kind))
    async with stack.serving() as channel:
        got_code, got = await ending(await attach(channel))
        assert (got_code, type(got), str(got)) == (code, error, "because")
        await wait_until(lambda: stack.engines.attached == 0, WITHIN_S, "the end of the stream")


async def test_a_newer_stream_of_the_same_process_ends_the_older_and_nobody_is_gone() -> None:
    stack = Stack()
    async with stack.serving() as channel:
        older = await attach(channel)
        await told(older)
        newer = await attach(channel)
        code, error = await ending(older)
        assert code is grpc.StatusCode.ABORTED
        assert str(error).endswith("instance e1: a newer stream of the same process took over")
        await told(newer)
        assert stack.of(EngineGone) == []
        assert stack.engines.attached == 1


async def test_another_process_of_the_same_name_is_for_the_core_to_judge() -> None:
    def script(event: Event) -> list[Command]:
        taken = isinstance(event, EngineCame) and event.hello.incarnation == "i2"
        return [RefuseEngine("e1", "i2", "lives", "EngineTaken")] if taken else []

    stack = Stack(script)
    async with stack.serving() as channel:
        first = await attach(channel)
        await told(first)
        code, _ = await ending(await attach(channel, hello(incarnation="i2")))
        assert code is grpc.StatusCode.ALREADY_EXISTS
        await first.write(encode_progress(PROGRESS))
        await wait_until(lambda: stack.of(EngineMoved), WITHIN_S, "word from the first")


async def test_a_goodbye_says_why() -> None:
    stack = Stack()
    async with stack.serving() as channel:
        call = await attach(channel)
        await told(call)
        await call.write(encode_goodbye(Goodbye("scaled down")))
        await wait_until(lambda: stack.of(EngineGone), WITHIN_S, "the end")
        assert stack.of(EngineGone) == [EngineGone(100.0, "e1", "i1", "it said goodbye: scaled down")]
        assert await call.read() is grpc.aio.EOF


@pytest.mark.parametrize("how", ["done_writing", "cancel"])
async def test_an_engine_that_leaves_is_gone(how: str) -> None:
    stack = Stack()
    async with stack.serving() as channel:
        call = await attach(channel)
        await told(call)
        if how == "cancel":
            call.cancel()
        else:
            await call.done_writing()
        await wait_until(lambda: stack.of(EngineGone), WITHIN_S, "the end")
        (gone,) = stack.of(EngineGone)
        assert isinstance(gone, EngineGone)
        assert gone.reason == "it has ended its stream"
        assert stack.engines.attached == 0


async def test_a_first_word_that_is_no_hello_is_refused() -> None:
    stack = Stack()
    async with stack.serving() as channel:
        call: Call = engine_stub(channel).Attach(timeout=WITHIN_S)
        await call.write(encode_progress(PROGRESS))
        code, error = await ending(call)
        assert (code, type(error)) == (grpc.StatusCode.INVALID_ARGUMENT, WireInvalid)
        assert stack.of(EngineCame) == stack.of(EngineGone) == []


async def test_no_first_word_is_refused_after_a_while() -> None:
    async with Stack().serving() as channel:
        call: Call = engine_stub(channel).Attach(timeout=WITHIN_S)
        code, error = await ending(call)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "nothing came within 0.5 s" in str(error)


async def test_nonsense_ends_the_stream_and_the_engine_is_gone() -> None:
    stack = Stack()
    async with stack.serving() as channel:
        call = await attach(channel)
        await told(call)
        await call.write(engine_pb2.AttachRequest())
        code, _ = await ending(call)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        await wait_until(lambda: stack.of(EngineGone), WITHIN_S, "the end")


async def test_an_engine_that_owes_its_load_for_too_long_is_gone() -> None:
    stack = Stack(load_interval_s=0.02)
    async with stack.serving() as channel:
        call = await attach(channel)
        code, error = await ending(call)
        assert (code, type(error)) == (grpc.StatusCode.UNAVAILABLE, Unreachable)
        assert "instance e1: no load came for 0.6 s" in str(error)


async def test_more_orders_than_may_wait_end_the_stream() -> None:
    def script(event: Event) -> list[Command]:
        return [ORDER] * (OUTBOX_MAX + 1) if isinstance(event, EngineCame) else []

    async with Stack(script).serving() as channel:
        code, error = await ending(await attach(channel))
        assert code is grpc.StatusCode.UNAVAILABLE
        assert f"{OUTBOX_MAX} messages wait to be sent" in str(error)


async def test_when_the_controller_stops_engines_are_told_to_look_for_the_next() -> None:
    stack = Stack()
    async with stack.serving() as channel:
        call = await attach(channel)
        await told(call)
        stack.engines.stop()
        code, error = await ending(call)
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "attach again when it is back" in str(error)
