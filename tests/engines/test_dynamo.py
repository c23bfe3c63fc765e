"""The adapter of a Dynamo worker, attached to a controller: before the real wrapper and a frontend of the test's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rapid.core.cluster import Phase, Role
from rapid.core.errors import ConfigInvalid, RapidError
from rapid.core.findings.base import Grade
from rapid.engine import ReadsRole, Reconciles, SeesOthers
from rapidctl.engines import dynamo as kind
from rapidctl.engines.base import Place, SeesEnd
from rapidctl.engines.dynamo import Dynamo, Options
from rapidctl.engines.dynamo_worker.worker import Worker
from tests.engines.bench import Ordered, care_of
from tests.engines.dynamo_fakes import ENDPOINTS, FakeDynamo, fake_worker
from tests.wait import wait_until

PREFILL, DECODE = Role.PREFILL, Role.DECODE
SOON_S = 20.0
PEERS = {"1": ENDPOINTS["prefill"], "2": ENDPOINTS["decode"]}  # so that ours may leave either role


@dataclass
class Scene:
    """A worker of ours, listed beside one peer of each role."""

    folder: Path
    dynamo: FakeDynamo = field(default_factory=lambda: FakeDynamo(peers=dict(PEERS)))
    said: list[str] = field(default_factory=list)
    url: str = ""
    worker: Worker | None = None

    @property
    def control(self) -> Path:
        return self.folder / "d0.sock"

    @asynccontextmanager
    async def adapter(self, role: Role | None = None, **changes: object) -> AsyncIterator[Dynamo]:
        """Not begun yet."""
        given = {"control": self.control, "frontend_url": self.url, "worker_url": self.url, **changes}
        async with kind.KIND.open(Place("d0", "h1", ("g0",), role), Options(**given), self.said.append) as adapter:  # type: ignore[arg-type]
            assert isinstance(adapter, Dynamo)
            adapter.seen_within_s = 2.0  # of what is never seen; what is, is seen at once
            yield adapter

    @asynccontextmanager
    async def attached(self) -> AsyncIterator[Ordered]:
        async with self.adapter() as adapter, care_of(adapter, self.folder, self.said) as ordered:
            yield ordered

    def ours(self) -> list[str]:
        """Where our worker is listed and has a card."""
        listed = self.dynamo.listed.items()
        return [path for worker, path in listed if worker not in PEERS and worker in self.dynamo.cards]


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    scene = Scene(tmp_path)
    async with fake_worker(scene.dynamo, scene.control) as (scene.worker, scene.url):
        yield scene


async def test_it_can_all_that_the_frame_asks_for(scene: Scene) -> None:
    async with scene.adapter() as adapter:
        for ability in (ReadsRole, SeesOthers, Reconciles, SeesEnd):
            assert isinstance(adapter, ability)


@pytest.mark.parametrize("kv", [True, False], ids=["kv router", "other router"])
async def test_a_change_there_and_back(scene: Scene, kv: bool) -> None:
    scene.dynamo.kv = kv
    async with scene.attached() as ordered:
        for role in (DECODE, PREFILL):
            end = await ordered.order(role)
            assert (end.phase, end.role, end.error) == (Phase.SERVING, role, "")
            assert scene.ours() == [ENDPOINTS[role.value]]


async def test_its_endpoint_stays_until_what_was_sent_to_it_is_there(scene: Scene) -> None:
    """Dynamo cancels what has been sent to an endpoint that goes, and is not yet being answered."""
    async with scene.adapter() as adapter:
        await adapter.begin()
        await adapter.close()
        assert ("101" in scene.dynamo.listed, scene.ours()) == (True, [])


async def test_a_router_that_knows_no_cards_is_told_by_discovery(scene: Scene) -> None:
    scene.dynamo.kv = False
    async with scene.adapter() as adapter:
        await adapter.begin()
        await adapter.close()
        assert "101" not in scene.dynamo.listed
        await adapter.open(PREFILL)
        assert scene.ours() == [ENDPOINTS["prefill"]]


async def test_the_last_of_its_role_stays(scene: Scene) -> None:
    scene.dynamo.listed.pop("1")
    async with scene.attached() as ordered:
        end = await ordered.order(DECODE)

        assert end.error == "the last that serves prefill, as its own side sees it"
        assert scene.ours() == [ENDPOINTS["prefill"]]


async def test_a_worker_that_never_drains_is_rolled_back(scene: Scene) -> None:
    scene.dynamo.held = 2
    async with scene.attached() as ordered:
        end = await ordered.order(DECODE, drain_s=0.3)

        assert (end.role, end.error) == (PREFILL, "drain took longer than 0.3 s, 2 requests left")
        assert scene.ours() == [ENDPOINTS["prefill"]]


async def test_a_role_that_cannot_be_built_is_rolled_back(scene: Scene) -> None:
    scene.dynamo.refuses = {"decode"}
    async with scene.attached() as ordered:
        end = await ordered.order(DECODE)

        where = f"d0: switch: worker at {scene.control}"
        assert (end.role, end.error) == (PREFILL, f"{where}: cannot be built as decode: no memory for decode")
        assert scene.ours() == [ENDPOINTS["prefill"]]


async def test_a_worker_that_can_be_built_in_neither_role_has_failed(scene: Scene) -> None:
    async with scene.attached() as ordered:
        scene.dynamo.refuses = {"prefill", "decode"}
        end = await ordered.order(DECODE)

        assert end.phase is Phase.FAILED
        assert "cannot be built as decode (no memory for decode), nor again as prefill" in end.error
        scene.dynamo.refuses = set()


async def test_a_frontend_that_does_not_let_go_of_it_is_named(scene: Scene) -> None:
    async with scene.adapter() as adapter:
        await adapter.begin()
        adapter.seen_within_s = 0.2
        scene.dynamo.deaf = True

        with pytest.raises(
            RapidError, match=r"^d0: close: frontend http://\S+ still sends to worker 101; it may be stuck"
        ):
            await adapter.close()


async def test_a_worker_that_discovery_has_forgotten_is_published_anew(scene: Scene) -> None:
    async with scene.attached() as ordered:
        assert ordered.attached.role is PREFILL
        scene.dynamo.forget()

        await wait_until(lambda: scene.ours() == [ENDPOINTS["prefill"]], SOON_S, "the worker listed again")

        assert any("does not list worker 101 at dynamo.prefill.generate" in line for line in scene.said)
        assert any(line.endswith("; it is published anew") for line in scene.said)


async def test_the_end_of_the_worker_is_seen_and_the_next_one_begins_afresh(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    async with AsyncExitStack() as held, AsyncExitStack() as first:
        scene.worker, scene.url = await first.enter_async_context(fake_worker(scene.dynamo, scene.control))
        adapter = await held.enter_async_context(scene.adapter())
        assert await adapter.begin() is PREFILL
        await first.aclose()

        assert await adapter.ended() == "the worker has hung up"
        with pytest.raises(
            RapidError, match=rf"^d0: drain: worker at {scene.control}: has ended; start it in Dynamo's"
        ):
            await adapter.drained()
        with pytest.raises(RapidError, match=rf"^d0: begin: worker at {scene.control}: no such file or directory"):
            await adapter.begin()


async def test_two_adapters_of_one_worker_are_noticed(scene: Scene) -> None:
    async with scene.adapter() as first, scene.adapter() as second:
        await first.begin()

        with pytest.raises(RapidError, match=r"another adapter drives this worker; stop that one$"):
            await second.begin()


async def test_an_adapter_begins_where_the_one_before_was_killed(scene: Scene) -> None:
    assert scene.worker is not None
    await scene.worker.close()
    await scene.worker.switch("decode")

    async with scene.adapter() as adapter:
        assert await adapter.begin() is DECODE
        assert scene.ours() == [ENDPOINTS["decode"]]


# ---- bad input ----


async def test_a_wrong_socket_says_which_and_what_to_do(scene: Scene) -> None:
    missing = scene.folder / "x.sock"
    async with scene.adapter(control=missing) as adapter:
        with pytest.raises(RapidError) as raised:
            await adapter.begin()

    assert str(raised.value) == (
        f"d0: begin: worker at {missing}: no such file or directory; start it in Dynamo's environment: "
        "python -m rapidctl.engines.dynamo_worker --help"
    )


async def test_a_socket_of_somebody_else_is_noticed(scene: Scene) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"220 mail ready\n")
        writer.close()

    path = scene.folder / "mail.sock"
    async with await asyncio.start_unix_server(answer, path), scene.adapter(control=path) as adapter:
        with pytest.raises(RapidError, match=r"is no worker of RAPID; is --control right\?$"):
            await adapter.begin()


async def test_a_frontend_that_wants_a_key_says_so(scene: Scene) -> None:
    scene.dynamo.status = 401
    async with scene.adapter() as adapter:
        adapter.seen_within_s = 0.2
        with pytest.raises(RapidError, match=r"^d0: begin: GET http://\S+/health: 401 .*--frontend-token-file"):
            await adapter.begin()


@pytest.mark.parametrize(
    ("role", "changes", "message"),
    [
        (Role.MIXED, {}, "config key role: mixed is no role that a Dynamo worker leaves or takes; prefill or decode"),
        (None, {"frontend_url": "localhost:8000"}, "config key frontend_url: 'localhost:8000' is no URL of a host"),
        (None, {"worker_url": "ftp://x"}, "config key worker_url: 'ftp://x' is no URL of a host"),
    ],
)
async def test_options_that_cannot_work_are_refused_at_once(
    scene: Scene, role: Role | None, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigInvalid, match=message):
        async with scene.adapter(role, **changes):
            pass


async def test_check_looks_and_changes_nothing(scene: Scene) -> None:
    async with scene.adapter() as adapter:
        found = await adapter.findings()

        assert [(one.grade, one.topic) for one in found] == [
            (Grade.GREEN, "worker"),
            (Grade.GREEN, "frontend"),
            (Grade.GREEN, "metrics"),
        ]
        async with scene.adapter() as another:
            await another.begin()  # it has not taken the worker


async def test_check_says_what_is_wrong_and_what_to_do(scene: Scene) -> None:
    scene.dynamo.forget()
    async with scene.adapter() as adapter:
        found = await adapter.findings()

    assert (found[1].grade, found[1].topic) == (Grade.RED, "frontend")
    assert "does not list worker 101" in found[1].what
    assert found[1].todo.startswith("see that both use the same discovery and namespace")
