"""What is asked of whoever keeps the limits, and how long the driver's record says that it took."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bench.rapidd.host import CEILING_MW, FALLBACK_MW, GRANTS_MW, Host, Keeper, Usage

RENEW_S, LEASE_S = 0.5, 5.0
SETTLE_S = 3.0  # after the start, before anything is measured
LOOK_S = 0.01  # how often the benchmark looks whether something has come to pass
PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to look at the steady work, and how often to try each thing."""

    windows: int
    window_s: float
    trials: int


@dataclass(frozen=True, slots=True)
class Found:
    """One keeper on one host. Latencies are in seconds."""

    cpu: list["Share"]  # of each window
    first: Usage
    last: Usage
    between_s: float  # from first to last
    order_s: list[float]
    repair_s: list[float]
    fallback_s: list[float]


@dataclass(frozen=True, slots=True)
class Share:
    """Of one core: what a keeper takes, and what the driver polls for in its calls."""

    own: float
    polled: float


async def examine(host: Host, keeper: Keeper, plan: Plan) -> Found:
    """Everything about one keeper; the same for all."""
    dice = random.Random(1)
    await keeper.order(GRANTS_MW[0], time.monotonic() + LEASE_S)
    async with renewing(keeper):
        await asyncio.sleep(SETTLE_S)
        await keeper.serve()
        first, begun_s = keeper.usage(), time.monotonic()
        cpu = [await share(host, keeper, plan.window_s) for _ in range(plan.windows)]
        order_s = [await order(keeper, number, dice) for number in range(1, plan.trials + 1)]
        limit_mw = GRANTS_MW[plan.trials % 2]
        repair_s = await repairs(host, keeper, limit_mw, plan.trials, dice)
    await until(lambda: host.holds(FALLBACK_MW), "the end of what was renewed")
    fallback_s = [await fallback(host, keeper, dice) for _ in range(plan.trials)]
    await keeper.order(GRANTS_MW[0], time.monotonic() + LEASE_S)
    await asyncio.sleep(RENEW_S)
    return Found(cpu, first, keeper.usage(), time.monotonic() - begun_s, order_s, repair_s, fallback_s)


async def share(host: Host, keeper: Keeper, seconds: float) -> Share:
    """What the steady work takes of a core."""
    before, polled_s, begun_s = keeper.usage(), host.polled_s, time.monotonic()
    await keeper.serve()
    await asyncio.sleep(seconds)
    took_s, polled_s = keeper.usage().cpu_s - before.cpu_s, host.polled_s - polled_s
    lasted_s = time.monotonic() - begun_s
    return Share((took_s - polled_s) / lasted_s, polled_s / lasted_s)


async def order(keeper: Keeper, number: int, dice: random.Random) -> float:
    """From an order for every GPU to its last read-back."""
    await asyncio.sleep(dice.uniform(0, keeper.look_s))  # a keeper that looks in turns is met at any point of its turn
    begun_s = time.monotonic()
    await keeper.order(GRANTS_MW[number % 2], begun_s + LEASE_S)
    return time.monotonic() - begun_s


async def repairs(host: Host, keeper: Keeper, limit_mw: int, trials: int, dice: random.Random) -> list[float]:
    """From a limit that somebody else sets on one GPU to the right one in force again."""
    gpus, begun_ns = host.gpus.gpus, time.monotonic_ns()
    for number in range(trials):
        await asyncio.sleep(0.2 + dice.uniform(0, keeper.look_s))
        gpus[number % len(gpus)].write(CEILING_MW)
        await until(lambda: host.holds(limit_mw), "the limit again")
    found: list[float] = []
    broken_ns: dict[str, int] = {}
    for entry in host.gpus.record():
        if entry.at_ns >= begun_ns and entry.pid == 0:
            broken_ns[entry.gpu] = entry.at_ns
        elif entry.gpu in broken_ns and entry.enforced_mw <= limit_mw:
            found.append((entry.at_ns - broken_ns.pop(entry.gpu)) / 1e9)
    assert len(found) == trials, f"{trials} foreign writes, {len(found)} repairs"
    return found


async def fallback(host: Host, keeper: Keeper, dice: random.Random) -> float:
    """From the end of a lease to the last GPU at its fallback."""
    until_s = time.monotonic() + 1.0 + 2 * keeper.look_s + dice.uniform(0, keeper.look_s)
    await keeper.order(GRANTS_MW[0], until_s)
    await until(lambda: host.holds(FALLBACK_MW), "the fallback")
    entries = [entry for entry in host.gpus.record() if entry.enforced_mw == FALLBACK_MW]
    return max({entry.gpu: entry.at_ns for entry in entries}.values()) / 1e9 - until_s


@asynccontextmanager
async def renewing(keeper: Keeper) -> AsyncIterator[None]:
    async def renew() -> None:
        while True:
            await keeper.renew(time.monotonic() + LEASE_S)
            await asyncio.sleep(RENEW_S)

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(renew())
        yield
        task.cancel()


async def until(reached: Callable[[], bool], what: str) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not reached():
        if time.monotonic() > end_s:
            raise SystemExit(f"after {PATIENCE_S:g} s there was not {what}")
        await asyncio.sleep(LOOK_S)
