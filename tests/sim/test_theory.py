"""Where queueing theory has an exact answer, the engines give it.

One prefill instance that takes constant prompts one by one is M/D/1; one decode instance of constant steps and
geometric answers is M/M/c, with c sequences for servers. What is compared is the ratio of the mean wait measured to
the formula's at the load as realised, which is known exactly and takes out much of the chance in it; its standard
error is a jackknife over consecutive groups of requests.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from heapq import heappop, heappush
from math import factorial, floor, inf, log, sqrt
from random import Random

import numpy as np
import pytest
from numpy.typing import NDArray

from rapid.core.cluster import Role
from rapid.sim.model.instance import Instance
from rapid.sim.model.power import LimitCurve
from rapid.sim.model.profile import profile_named
from rapid.sim.model.requests import EngineSettings, Finished, Output, PrefillDone, Request

SERVICE_S = 0.010  # of every prompt
STEP_S = 0.001
MEAN_TOKENS = 1000  # steps of an answer: so many that geometric is as good as exponential, and a step as nothing
WITHIN = 0.02
GROUPS = 50

PLAIN = replace(
    profile_named("h200-8b"),
    prefill_ms=SERVICE_S * 1e3,
    prefill_token_ms=0.0,
    prefill_square_ms=0.0,
    decode_ms=STEP_S * 1e3,
    decode_sequence_ms=0.0,
    decode_context_ms=0.0,
    host_ms=0.0,
    host_sequence_ms=0.0,
    transfer_s=0.0,
    transfer_bytes_per_s=inf,
)
FULL = LimitCurve.constant(PLAIN.ceiling_mw, PLAIN.lag)


@dataclass(frozen=True)
class Sample:
    """One queue, request by request in the order of arrival."""

    gaps_s: NDArray[np.float64]  # from the arrival before
    services_s: NDArray[np.float64]
    waits_s: NDArray[np.float64]


Formula = Callable[[float, float], float]  # the mean wait, of arrivals per second and mean service


def m_d_1(rate: float, service_s: float) -> float:
    """Pollaczek and Khinchine, with a constant service."""
    load = rate * service_s
    return load * service_s / (2 * (1 - load))


def m_m_c(servers: int) -> Formula:
    """Erlang C."""

    def wait_s(rate: float, service_s: float) -> float:
        offered = rate * service_s
        queued = offered**servers / factorial(servers) * servers / (servers - offered)
        below = sum(offered**busy / factorial(busy) for busy in range(servers))
        return queued / (below + queued) * service_s / (servers - offered)

    return wait_s


@cache
def prefill_queue(load: float, requests: int, seed: int, batch: int = 1) -> Sample:
    dice, settings = Random(f"M/D/1, seed {seed}"), EngineSettings(max_batch_requests=batch)
    instance = Instance("p0", Role.PREFILL, PLAIN, FULL, settings=settings)
    gaps_s = [dice.expovariate(load / SERVICE_S) for _ in range(requests)]
    now_s = 0.0
    for number, gap_s in enumerate(gaps_s):
        now_s += gap_s
        instance.submit(Request(number, now_s, input_tokens=1000, output_tokens=1), now_s)
    outputs = instance.advance(now_s + 1e6)
    return sample(gaps_s, [SERVICE_S] * requests, outputs)


@cache
def decode_queue(sequences: int, load: float, requests: int, seed: int) -> Sample:
    dice, settings = Random(f"M/M/c, seed {seed}"), EngineSettings(max_sequences=sequences)
    instance = Instance("d0", Role.DECODE, PLAIN, FULL, settings=settings)
    rate = load * sequences / (MEAN_TOKENS * STEP_S)
    gaps_s = [dice.expovariate(rate) for _ in range(requests)]
    steps = [1 + floor(log(1.0 - dice.random()) / log(1.0 - 1.0 / MEAN_TOKENS)) for _ in range(requests)]
    now_s = 0.0
    for number, gap_s in enumerate(gaps_s):
        now_s += gap_s
        request = Request(number, now_s, input_tokens=1, output_tokens=1 + steps[number])
        instance.receive_kv(PrefillDone(request, now_s, ttft_s=0.0, source="p0"), now_s)
    outputs = instance.advance(now_s + 1e6)
    return sample(gaps_s, [count * STEP_S for count in steps], outputs)


def sample(gaps_s: list[float], services_s: list[float], outputs: list[Output]) -> Sample:
    finished = [output for output in outputs if isinstance(output, Finished)]
    assert len(finished) == len(gaps_s)
    inside_s = np.empty(len(gaps_s))
    for item in finished:
        inside_s[item.request.request_id] = item.at_s - item.request.arrival_s
    services = np.array(services_s)
    return Sample(np.array(gaps_s), services, inside_s - services)


def ratio_to(formula: Formula, seen: Sample) -> tuple[float, float]:
    """The mean wait measured over the formula's at the load as realised, and its standard error."""
    groups = np.array(
        [column.reshape(GROUPS, -1).mean(axis=1) for column in (seen.gaps_s, seen.services_s, seen.waits_s)]
    )

    def ratio(means: NDArray[np.float64]) -> float:
        gap_s, service_s, wait_s = (float(mean) for mean in means)
        return wait_s / formula(1 / gap_s, service_s)

    without = np.array([ratio(np.delete(groups, group, axis=1).mean(axis=1)) for group in range(GROUPS)])
    error = sqrt((GROUPS - 1) * float(np.mean((without - without.mean()) ** 2)))
    return ratio(groups.mean(axis=1)), error


def check(formula: Formula, seen: Sample) -> bool:
    ratio, error = ratio_to(formula, seen)
    assert error <= ratio * WITHIN / 2, f"the sample is too small to tell: {ratio:.4f} +- {error:.4f}"
    return abs(ratio - 1) <= WITHIN


def plain_fifo_waits_s(seen: Sample, servers: int) -> list[float]:
    """Whoever came first gets the server that is free first (Kiefer and Wolfowitz)."""
    free_s = [0.0] * servers
    now_s, waits_s = 0.0, []
    for gap_s, service_s in zip(seen.gaps_s, seen.services_s, strict=True):
        now_s += float(gap_s)
        start_s = max(now_s, heappop(free_s))
        heappush(free_s, start_s + float(service_s))
        waits_s.append(start_s - now_s)
    return waits_s


@pytest.mark.parametrize(("load", "seed"), [(0.3, 1), (0.6, 2), (0.7, 3)])
def test_prefill_waits_as_long_as_m_d_1_says(load: float, seed: int) -> None:
    seen = prefill_queue(load, 300_000, seed)
    assert check(m_d_1, seen), f"seed {seed}: {ratio_to(m_d_1, seen)}"


@pytest.mark.parametrize(("sequences", "load", "seed"), [(2, 0.5, 1)])
def test_decode_waits_as_long_as_erlang_c_says(sequences: int, load: float, seed: int) -> None:
    seen = decode_queue(sequences, load, 400_000, seed)
    assert check(m_m_c(sequences), seen), f"seed {seed}: {ratio_to(m_m_c(sequences), seen)}"


@pytest.mark.parametrize(("load", "seed"), [(0.5, 4), (0.95, 5)])
def test_every_prompt_waits_as_in_a_plain_fifo_queue(load: float, seed: int) -> None:
    seen = prefill_queue(load, 10_000, seed)
    assert seen.waits_s == pytest.approx(plain_fifo_waits_s(seen, 1), abs=1e-9), f"seed {seed}"


@pytest.mark.parametrize(("sequences", "load", "seed"), [(1, 0.9, 6), (3, 0.9, 7), (16, 0.95, 8)])
def test_every_sequence_waits_as_in_a_plain_fifo_queue_but_for_a_step(sequences: int, load: float, seed: int) -> None:
    """It joins between two steps: up to one step later than a server would begin."""
    seen = decode_queue(sequences, load, 10_000, seed)
    late_s = seen.waits_s - plain_fifo_waits_s(seen, sequences)
    assert -1e-9 <= late_s.min() <= late_s.max() <= STEP_S + 1e-9, f"seed {seed}"


def test_a_wrong_formula_is_caught() -> None:
    prompts, sequences = prefill_queue(0.6, 300_000, 2), decode_queue(2, 0.5, 400_000, 1)
    assert not check(m_m_c(1), prompts)  # as if prompts were not all alike
    assert not check(m_m_c(3), sequences)


def test_an_engine_that_does_something_else_is_caught() -> None:
    assert not check(m_d_1, prefill_queue(0.6, 100_000, 2, batch=2))  # two prompts for the time of one
    seen = prefill_queue(0.6, 300_000, 2)
    assert not check(m_d_1, replace(seen, waits_s=seen.waits_s + 0.0005))  # each begins half a millisecond late


def test_one_server_too_many_shows_in_single_waits() -> None:
    seen = decode_queue(3, 0.9, 10_000, 7)
    assert np.abs(seen.waits_s - plain_fifo_waits_s(seen, 4)).max() > STEP_S
