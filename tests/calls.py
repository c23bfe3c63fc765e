"""How a test calls a server: what fails raises the error that the caller would show."""

from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from rapid.wire.errors import error_of


@contextmanager
def calling(address: str) -> Iterator[None]:
    """Around calls to `address`: a call that fails raises the RapidError that its server raised, or that fits."""
    try:
        yield
    except grpc.aio.AioRpcError as failure:
        raise error_of(failure, address=address) from failure
