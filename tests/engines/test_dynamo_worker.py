"""The wrapper of a Dynamo worker, without Dynamo: its steps, its socket, its words, its forward passes."""

import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from rapid.pages.kinds import KINDS, read
from rapid.pages.page import Page
from rapidctl.engines.dynamo_worker import words
from rapidctl.engines.dynamo_worker.control import Control
from rapidctl.engines.dynamo_worker.half import Refused
from rapidctl.engines.dynamo_worker.steps import STALE_S, Steps
from tests.engines.dynamo_fakes import ENDPOINTS, Caller, FakeDynamo, fake_worker
from tests.wait import wait_until

SOON_S = 10.0


@pytest.fixture
def dynamo() -> FakeDynamo:
    return FakeDynamo()


@pytest.fixture
def control(tmp_path: Path) -> Path:
    return tmp_path / "d0.sock"


async def test_a_change_is_another_worker_at_the_other_endpoint(dynamo: FakeDynamo, control: Path) -> None:
    async with fake_worker(dynamo, control), Caller.at(control) as caller:
        await wait_until(lambda: dynamo.listed == {"101": ENDPOINTS["prefill"]}, SOON_S, "the worker listed")

        closed = await caller.say(b'{"n": 7, "do": "close"}')
        assert (closed["taking"], dynamo.cards) == (False, set())
        assert closed["n"] == 7, "an answer names its order"

        switched = await caller.say(b'{"do": "switch", "role": "decode"}')
        assert (switched["role"], switched["worker"], dynamo.listed) == ("decode", "102", {}), "and gets no request yet"

        opened = await caller.say(b'{"do": "open"}')
        assert opened["taking"]
        await wait_until(lambda: dynamo.listed == {"102": ENDPOINTS["decode"]}, SOON_S, "the worker listed")


async def test_what_it_has_been_given_and_not_answered_is_left(dynamo: FakeDynamo, control: Path) -> None:
    async with fake_worker(dynamo, control), Caller.at(control) as caller:
        dynamo.held = 3

        assert (await caller.say(b'{"do": "close"}'))["left"] == 3


async def test_a_role_that_cannot_be_built_leaves_it_as_it_was(dynamo: FakeDynamo, control: Path) -> None:
    dynamo.refuses = {"decode"}
    async with fake_worker(dynamo, control), Caller.at(control) as caller:
        await caller.say(b'{"do": "close"}')

        refused = await caller.say(b'{"do": "switch", "role": "decode"}')

        assert refused == {"n": None, "error": "cannot be built as decode: no memory for decode", "refused": True}
        assert (await caller.say(b'{"do": "open"}'))["role"] == "prefill"
        assert dynamo.built == ["prefill", "prefill"]


async def test_one_that_can_be_built_in_neither_role_says_so(dynamo: FakeDynamo, control: Path) -> None:
    async with fake_worker(dynamo, control), Caller.at(control) as caller:
        await caller.say(b'{"do": "close"}')
        dynamo.refuses = {"prefill", "decode"}

        broken = await caller.say(b'{"do": "switch", "role": "decode"}')

        assert broken["broken"]
        assert broken["error"] == (
            "cannot be built as decode (no memory for decode), nor again as prefill: no memory for prefill"
        )
        dynamo.refuses = set()


async def test_what_discovery_has_forgotten_is_published_anew(dynamo: FakeDynamo, control: Path) -> None:
    async with fake_worker(dynamo, control), Caller.at(control) as caller:
        await wait_until(lambda: bool(dynamo.listed), SOON_S, "the worker listed")
        dynamo.forget()

        assert (await caller.say(b'{"do": "open"}'))["worker"] == "101", "it thinks that it is listed"
        assert (await caller.say(b'{"do": "renew"}'))["worker"] == "102"
        await wait_until(lambda: dynamo.listed == {"102": ENDPOINTS["prefill"]}, SOON_S, "the worker listed")


async def test_it_serves_again_when_its_adapter_goes_in_the_middle(dynamo: FakeDynamo, control: Path) -> None:
    async with fake_worker(dynamo, control) as (worker, _):
        async with Caller.at(control) as caller:
            await caller.say(b'{"do": "close"}')
            await caller.say(b'{"do": "switch", "role": "decode"}')
            assert not worker.taking

        await wait_until(lambda: worker.taking, SOON_S, "it serves again")
        assert worker.role == "decode"


async def test_anybody_may_ask_and_one_may_command(dynamo: FakeDynamo, control: Path) -> None:
    async with fake_worker(dynamo, control), Caller.at(control) as first, Caller.at(control) as second:
        await first.say(b'{"do": "close"}')

        assert not (await second.say(b'{"do": "state"}'))["taking"]
        refused = await second.say(b'{"do": "open"}')
        assert refused["error"] == "another adapter drives this worker; stop that one"
        assert refused["refused"]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b'{"do": "dance"}', "knows no 'dance', but state, close, delist, switch, open, renew"),
        (b'{"do": "switch", "role": "mixed"}', "role 'mixed' is none of prefill, decode"),
        (b'{"do": "switch", "role": "decode"}', "it takes requests; close it first"),
        (b"[]", "'list' object has no attribute 'get'"),
        (b"hello", "Expecting value: line 1 column 1 (char 0)"),
    ],
)
async def test_what_makes_no_sense_is_refused_and_changes_nothing(
    dynamo: FakeDynamo, control: Path, line: bytes, error: str
) -> None:
    async with fake_worker(dynamo, control), Caller.at(control) as caller:
        answer = await caller.say(line)

        assert (answer["error"], answer["refused"]) == (error, True)
        assert (await caller.say(b'{"do": "state"}'))["taking"]


async def test_the_socket_of_a_killed_worker_is_taken_and_that_of_a_living_one_is_not(
    dynamo: FakeDynamo, control: Path, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(control))
    async with fake_worker(dynamo, control) as (worker, _):
        assert os.stat(control).st_mode & 0o077 == 0, "who may write to it commands the worker"
        with pytest.raises(OSError, match=r"d0\.sock is served by another worker"):
            async with Control(worker).serving(control):
                pass
    assert not os.listdir(tmp_path)


# ---- words ----


@pytest.mark.parametrize(
    ("given", "role"),
    [
        (["--disaggregation-mode", "decode"], "decode"),
        (["--model-path", "m", "--disaggregation-mode=prefill", "--block-size", "16"], "prefill"),
    ],
)
def test_the_role_to_begin_in_is_dynamos_own_word(given: list[str], role: str) -> None:
    assert words.mode(given) == role
    assert not [word for word in words.without_mode(given) if "disaggregation" in word or word == role]


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ([], "--disaggregation-mode must be there and be one of prefill, decode: the role to begin in"),
        (["--disaggregation-mode", "agg"], "--disaggregation-mode must be there and be one of prefill, decode"),
        (["--endpoint", "dyn://a.b.c"], "--endpoint names the place of one role; leave it out"),
    ],
)
def test_words_that_cannot_work_are_refused(given: list[str], error: str) -> None:
    with pytest.raises(Refused, match=error):
        words.mode(given)


@pytest.mark.parametrize("name", ["no.such.module:build", "json:nothing", "json"])
def test_an_engine_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(Refused, match=f"--engine {name}: .*; say MODULE:FUNCTION"):
        words.named(name)


# ---- forward passes ----


def forward(*, prompts: int = 0, tokens: int = 0, decodes: int = 0, waits: int = 0, took_s: float = 0.05) -> object:
    """One report, as Dynamo's are."""
    return SimpleNamespace(
        wall_time=took_s,
        scheduled_requests=SimpleNamespace(
            num_prefill_requests=prompts, sum_prefill_tokens=tokens, num_decode_requests=decodes
        ),
        queued_requests=SimpleNamespace(num_prefill_requests=waits, num_decode_requests=0),
    )


def page_of(steps: Steps, component: str, inside: int, *, at_s: float = 1.0, finished: int = 0) -> Page:
    """A worker's whole page, with what its forward passes add up to."""
    labels = f'dynamo_component="{component}",dynamo_endpoint="generate",worker_id="a"'
    duration = "dynamo_component_request_duration_seconds"
    page = Page(KINDS["dynamo"].picker)
    page.feed(f"dynamo_component_inflight_requests{{{labels}}} {inside}\n".encode())
    for bound in ("1", "+Inf"):
        page.feed(f'{duration}_bucket{{{labels},le="{bound}"}} {finished}\n'.encode())
    page.feed(steps.text(at_s).encode())
    page.end()
    return page


def test_tokens_are_counted_pass_by_pass() -> None:
    steps = Steps()
    steps.take(forward(prompts=2, tokens=900, waits=1), 1.0)
    steps.take(forward(decodes=3), 1.1)
    steps.take(forward(decodes=2), 1.2)

    load = read("dynamo", page_of(steps, "backend", inside=2))

    assert (load.computed_tokens, load.output_tokens) == (900, 5)


def test_what_has_come_to_prefill_since_its_last_pass_waits() -> None:
    steps = Steps()
    steps.take(forward(prompts=2, tokens=900, waits=1), 1.0)

    load = read("dynamo", page_of(steps, "prefill", inside=7))

    assert (load.running_requests, load.waiting_requests) == (2, 5)


def test_what_is_in_a_decode_worker_and_not_in_its_engine_waits_for_prefill_elsewhere() -> None:
    steps = Steps()
    steps.take(forward(decodes=4, waits=1), 1.0)

    load = read("dynamo", page_of(steps, "backend", inside=30))

    assert (load.running_requests, load.waiting_requests) == (4, 1)


def test_a_report_without_a_pass_says_nothing_of_what_runs() -> None:
    steps = Steps()
    steps.take(forward(prompts=3, tokens=4096, waits=2), 1.0)
    steps.take(forward(took_s=0.0), 2.0)

    load = read("dynamo", page_of(steps, "prefill", inside=5, at_s=2.0))
    assert (load.running_requests, load.waiting_requests) == (3, 2), "the next pass is a long one"
    load = read("dynamo", page_of(steps, "prefill", inside=0, at_s=2.0))
    assert (load.running_requests, load.waiting_requests) == (0, 0), "there is nothing in it"


def test_of_an_engine_that_has_fallen_silent_all_but_one_request_count_as_waiting() -> None:
    steps = Steps()
    steps.take(forward(prompts=3, tokens=4096), 1.0)

    load = read("dynamo", page_of(steps, "prefill", inside=5, at_s=1.0 + STALE_S))

    assert (load.running_requests, load.waiting_requests) == (1, 4), "promise 6: nothing unmeasured is called fine"


def test_a_request_that_finishes_counts_with_the_mean_gap_since_the_last_did() -> None:
    steps = Steps()
    for _ in range(10):
        steps.take(forward(decodes=2, took_s=0.03), 1.0)
    steps.finished(2)
    for _ in range(10):
        steps.take(forward(decodes=1, took_s=0.09), 1.0)
    steps.finished(3)
    steps.finished(3)

    tpot = read("dynamo", page_of(steps, "backend", inside=0, finished=3)).tpot

    assert tpot is not None
    met = sum(count for bound_s, count in zip(tpot.bounds_s, tpot.counts, strict=False) if bound_s <= 0.04)
    assert (met, sum(tpot.counts)) == (2, 3)
