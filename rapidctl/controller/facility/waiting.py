"""Genuine orders on their way into the loop: bounded, and each there once, however often it was sent."""

import asyncio

from rapid.core.facility.nouns import BudgetOrder

ORDERS_MAX = 256  # messages

Orders = tuple[BudgetOrder, ...]  # of one message


class Waiting:
    """Taken in their order. One too many, and the oldest gives way: its sender has no answer, and the newest word of
    whoever sends so many is what counts."""

    def __init__(self) -> None:
        self._orders: dict[Orders, None] = {}
        self._news = asyncio.Event()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._orders)

    def put(self, orders: Orders) -> bool:
        """Whether there was room; never waits."""
        if orders in self._orders:
            return True
        room = len(self._orders) < ORDERS_MAX
        if not room:
            del self._orders[next(iter(self._orders))]
            self.dropped += 1
        self._orders[orders] = None
        self._news.set()
        return room

    async def take(self) -> Orders:
        """The oldest; waits for one."""
        while not self._orders:
            self._news.clear()
            await self._news.wait()
        orders = next(iter(self._orders))
        del self._orders[orders]
        return orders
