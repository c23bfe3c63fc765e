"""The folder of a run."""

from pathlib import Path

import pytest

from rapid.core.errors import UsageError
from rapidctl.demo.folder import working_folder


def test_own_folder_goes_unless_there_is_something_to_see(capsys: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    with working_folder(None, said.append) as folder:
        assert folder.path.is_dir()
        folder.keep = False
    assert not folder.path.exists()
    with working_folder(None, said.append) as folder:
        (folder.path / "e0.log").touch()
    assert said == [f"logs are kept in {folder.path}"]
    (folder.path / "e0.log").unlink()
    folder.path.rmdir()


def test_own_folder_goes_when_the_run_ended_before_it_began() -> None:
    said: list[str] = []
    with pytest.raises(UsageError), working_folder(None, said.append) as folder:
        raise UsageError("a bad trace")
    assert (said, folder.path.exists()) == ([], False)


def test_given_folder_stays() -> None:
    with working_folder(None, print) as outer:
        outer.keep = False
        with working_folder(outer.path / "mine", print) as folder:
            folder.keep = False
        assert folder.path.is_dir()


def test_given_folder_must_be_empty_and_short(tmp_path: Path) -> None:
    with working_folder(None, print) as outer:
        outer.keep = False
        (outer.path / "old.log").touch()
        with pytest.raises(UsageError, match="is not empty; choose a new one"):
            working_folder(outer.path, print).__enter__()
        with pytest.raises(UsageError, match="sockets in it allow 67: choose a shorter one"):
            working_folder(outer.path / ("x" * 80), print).__enter__()
        with pytest.raises(UsageError, match="not a directory; choose another"):
            working_folder(outer.path / "old.log" / "run", print).__enter__()
