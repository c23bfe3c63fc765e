"""Looks at an engine: each ends in time, and an error is one line."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

LOOK_WITHIN_S = 5.0  # at what is left, at a role, at the others, at router and engine (assumed)

T = TypeVar("T")


async def look(at: Awaitable[T], *through: type[Exception]) -> tuple[T | None, str]:
    """What a look shows, or None and why it cannot be had. Only errors of the types named come through."""
    try:
        async with asyncio.timeout(LOOK_WITHIN_S):
            return await at, ""
    except through:
        raise
    except Exception as error:
        return None, line(error, f"no answer within {LOOK_WITHIN_S:g} s")


def line(error: Exception, late: str) -> str:
    """The error as one line; `late` stands for a timeout, which says nothing itself."""
    return " ".join((str(error) or (late if isinstance(error, TimeoutError) else type(error).__name__)).split())
