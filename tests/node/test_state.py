"""The state folder: one daemon at a time, a memory that survives a power cut or says that it did not, and addresses."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rapid.core.errors import ConfigInvalid, JournalCorrupt, Refused
from rapid.core.guard import GuardMemory
from rapidd.state import State

KNOWN = GuardMemory(7, "controller-a")


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process may grow any more; works for root too, unlike permissions."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_new_host_remembers_nothing(tmp_path: Path) -> None:
    assert State(tmp_path).load_memory() == GuardMemory(0, "")


async def test_what_was_saved_is_there_for_the_next_daemon(tmp_path: Path) -> None:
    await State(tmp_path).save_memory(KNOWN)
    assert State(tmp_path).load_memory() == KNOWN


async def test_a_full_disk_is_an_error_and_leaves_the_old_memory_whole(tmp_path: Path) -> None:
    state = State(tmp_path)
    await state.save_memory(KNOWN)
    with full_disk(), pytest.raises(OSError, match="File too large"):
        await state.save_memory(GuardMemory(8, "controller-b"))
    assert State(tmp_path).load_memory() == KNOWN
    assert sorted(os.listdir(tmp_path)) == ["guard.json"]
    await state.save_memory(GuardMemory(8, "controller-b"))
    assert State(tmp_path).load_memory() == GuardMemory(8, "controller-b")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"epoch": "7"}', b'{"epoch": -1, "controller_id": ""}', b"\xff\xfe", b"9" * 5000]
)
def test_a_memory_that_cannot_be_trusted_is_named_with_the_way_out(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "guard.json").write_bytes(content)
    with pytest.raises(JournalCorrupt) as caught:
        State(tmp_path).load_memory()
    assert str(caught.value).startswith(f"{tmp_path}/guard.json: ")
    assert "highest epoch seen is not known any more" in str(caught.value)
    assert "move the file away" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_second_daemon_is_kept_out_and_told_who_is_in(tmp_path: Path) -> None:
    with State(tmp_path).locked():
        with pytest.raises(Refused) as caught, State(tmp_path).locked():
            pass
        assert f"another rapidd (pid {os.getpid()}) holds {tmp_path}" in str(caught.value)
    with State(tmp_path).locked():
        pass


def test_a_full_disk_does_not_keep_a_daemon_from_starting(tmp_path: Path) -> None:
    with full_disk(), State(tmp_path).locked():
        pass


def test_a_folder_that_cannot_be_made_is_a_bad_configuration(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigInvalid) as caught, State(tmp_path / "file").locked():
        pass
    assert caught.value.key == "state_dir"
    assert str(caught.value) == f"config key state_dir: {tmp_path}/file cannot be used: File exists"


def test_the_folder_is_made_for_its_owner_and_group_only(tmp_path: Path) -> None:
    with State(tmp_path / "a" / "b").locked():
        assert (tmp_path / "a" / "b").stat().st_mode & 0o007 == 0


def test_addresses_are_there_while_the_daemon_is_and_never_those_of_an_earlier_one(tmp_path: Path) -> None:
    endpoints = tmp_path / "endpoints.json"
    endpoints.write_text('{"node": "127.0.0.1:1"}')
    state = State(tmp_path)
    with state.locked():
        assert not endpoints.exists()
        with state.published({"node": "127.0.0.1:7001", "pid": 42}):
            assert endpoints.read_text() == '{"node":"127.0.0.1:7001","pid":42}'
        assert not endpoints.exists()
