"""How a streaming call goes on and ends: by itself, by a refusal, or because its server stops."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from rapid.core.errors import RapidError
from rapid.rpc import NO_MESSAGE, abort

Request = TypeVar("Request")


class Ended(RapidError):
    """The call is over for a reason that has a status code of its own in the RPC's table."""

    def __init__(self, text: str, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        super().__init__(text)
        self.code = code


class _Done(Exception):
    """One of several works has come to its end."""


async def first_of(*works: Coroutine[Any, Any, object]) -> None:
    """Run them side by side until one returns or raises, which this then does too; the others are cancelled."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(_to_its_end(work))
    except ExceptionGroup as ends:
        if not isinstance(ends.exceptions[0], _Done):
            raise ends.exceptions[0] from None


async def _to_its_end(work: Coroutine[Any, Any, object]) -> None:
    await work
    raise _Done


@contextlib.asynccontextmanager
async def told(context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[None]:
    """Tell the caller every RapidError that comes out of the block, as the status that fits it."""
    try:
        yield
    except RapidError as error:
        await abort(context, error, error.code if isinstance(error, Ended) else None)
    except grpc.aio.InternalError:
        pass  # The caller is gone in the middle of a message, and with it the one who could be told.


async def read(context: grpc.aio.ServicerContext[Request, Any]) -> Request | None:
    """The caller's next message; None when it has no more to say. Raises Ended for bytes that are no message."""
    try:
        request = cast(object, await context.read())  # the stubs do not say that it may be EOF
    except DecodeError as error:
        raise Ended(NO_MESSAGE, grpc.StatusCode.INVALID_ARGUMENT) from error
    return None if request is grpc.aio.EOF else cast(Request, request)
