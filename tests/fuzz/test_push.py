"""Whatever is pushed to a real LoadService, it answers as its table says, and holds what it can report."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from rapid.core.cluster import PhaseLoad, Role
from rapid.core.errors import Refused
from rapid.v1 import load_pb2
from rapid.wire.common import decode_push, encode_push
from rapidd.load.push import FRESH_S, LoadService, LoadTable, serving_load
from tests.fuzz.planted import caught
from tests.fuzz.raw import stream
from tests.wire import nouns
from tests.wire.test_fuzz import fill

KEY, METHOD = "listen.load_socket", "/rapid.v1.LoadService/Push"
INSTANCES = 2
DOCUMENTED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNAVAILABLE,
}


@st.composite
def filled(draw: st.DrawFn) -> bytes:
    return fill(draw, load_pb2.PushRequest()).SerializeToString()


Pushed = tuple[PhaseLoad, float] | bytes  # a load and how old it is, or anything


def pushed(names: st.SearchStrategy[str], ages_s: st.SearchStrategy[float]) -> st.SearchStrategy[Pushed]:
    return st.tuples(st.builds(lambda load, name: replace(load, instance=name), nouns.loads, names), ages_s)


good = pushed(st.sampled_from("abc"), st.sampled_from([0.0, 0.0, 0.5]))
odd = pushed(st.sampled_from(["a", "read here"]), st.sampled_from([0.0, FRESH_S, 1e6, -1.0]))
anything = good | odd | filled() | st.binary(max_size=64)
talks = st.tuples(st.lists(good, min_size=1, max_size=4), st.lists(anything, max_size=2)).map(lambda of: of[0] + of[1])


def data_of(pushed: Pushed, now_s: float) -> bytes:
    if isinstance(pushed, bytes):
        return pushed
    load, age_s = pushed
    return encode_push(replace(load, at_s=max(0.0, now_s - age_s))).SerializeToString()


async def hold(table: LoadTable, folder: Path, talk: list[Pushed]) -> None:
    """What is promised of one stream, and that the service lives on."""
    service = LoadService(table, time.monotonic, scraped=["read here"])
    async with serving_load(service, folder / "load.sock", KEY) as server:
        address, now_s = server.addresses[KEY], time.monotonic()
        code = await stream(address, METHOD, [data_of(pushed, now_s) for pushed in talk])
        event(code.name)
        assert code in DOCUMENTED, f"ended with {code}"
        kept = table.fresh(time.monotonic())
        event(f"{len(kept)} kept")
        assert len(kept) <= INSTANCES, f"{len(kept)} instances are kept"
        assert [decode_push(encode_push(each)) for each in kept] == list(kept)
        good = data_of((PhaseLoad("a", Role.DECODE, 0.0), 0.0), time.monotonic())
        code = await stream(address, METHOD, [good])
        assert code in (grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED), f"dead: {code}"


@given(talk=talks)
@example(talk=[b"\xff"])
@settings(max_examples=150)
async def test_whatever_is_pushed(folder: Path, talk: list[Pushed]) -> None:
    await hold(LoadTable(INSTANCES), folder, talk)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("push")
    folder.chmod(0o750)
    return folder


# ---- planted bugs ----


class Boundless(LoadTable):
    """Has room for everybody."""

    def take(self, load: PhaseLoad, at_s: float) -> None:
        try:
            super().take(load, at_s)
        except Refused:
            self._newest[load.instance] = load


class Forgetful(LoadTable):
    """Knows three instances, and stumbles over a fourth."""

    def take(self, load: PhaseLoad, at_s: float) -> None:
        {"a": 1, "b": 2, "read here": 3}[load.instance]
        super().take(load, at_s)


@pytest.mark.parametrize(("table", "says"), [(Boundless, "3 instances are kept"), (Forgetful, "ended with")])
def test_a_planted_bug_is_caught(table: type[LoadTable], says: str, folder: Path) -> None:
    with asyncio.Runner() as runner:
        assert says in caught(talks, lambda talk: runner.run(hold(table(INSTANCES), folder, talk)), AssertionError)
