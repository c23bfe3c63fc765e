"""A streaming call whose messages are bytes, good ones and others."""

import asyncio
from collections.abc import Sequence

import grpc

from tests.node.caller import DEADLINE_S


async def stream(address: str, method: str, messages: Sequence[bytes]) -> grpc.StatusCode:
    """Say all of it, hear all that is answered; the status with which the call ends.

    From a thread, with the blocking client: of the other one, a write that a refusal overtakes hides the refusal.
    """
    return await asyncio.to_thread(_stream, address, method, messages)


def _stream(address: str, method: str, messages: Sequence[bytes]) -> grpc.StatusCode:
    with grpc.insecure_channel(address) as channel:
        call = channel.stream_stream(method, request_serializer=_as_it_is, response_deserializer=_as_it_is)(
            iter(messages), timeout=DEADLINE_S
        )
        try:
            for _ in call:
                pass
        except grpc.RpcError:
            pass  # the same as what code() tells
        code: grpc.StatusCode = call.code()
        return code


def _as_it_is(data: bytes) -> bytes:
    return data
