"""Where a run of the demo keeps its sockets, logs and simulated GPUs."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rapid.core.errors import UsageError

SOCKET_PATH_MAX = 107  # bytes that the kernel takes for a Unix socket
LONGEST_INSIDE = 40  # bytes that the demo puts behind the folder: host, then the name of a socket
SHORT = Path("/tmp")


@dataclass(slots=True)
class Folder:
    """The folder of a run. `keep`: it stays afterwards, since there is something to see in it."""

    path: Path
    keep: bool = True


@contextmanager
def working_folder(given: Path | None, say: Callable[[str], None]) -> Iterator[Folder]:
    """The given folder, which must be empty or new and stays; else one of our own, which goes unless it is to be kept.

    Raises UsageError.
    """
    if given is not None:
        yield Folder(_prepared(given))
        return
    usual = Path(tempfile.gettempdir())
    folder = Folder(
        Path(tempfile.mkdtemp(prefix="rapid-demo-", dir=usual if _fits(usual / "rapid-demo-12345678") else SHORT))
    )
    try:
        yield folder
    finally:
        if folder.keep and any(folder.path.iterdir()):  # a bad trace ends a run before there is anything to see
            say(f"logs are kept in {folder.path}")
        else:
            shutil.rmtree(folder.path, ignore_errors=True)


def _prepared(given: Path) -> Path:
    path = given.absolute()
    if not _fits(path):
        bound = SOCKET_PATH_MAX - LONGEST_INSIDE
        raise UsageError(
            f"--folder {path} has {len(bytes(path))} bytes; sockets in it allow {bound}: choose a shorter one"
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--folder {path}: {(error.strerror or str(error)).lower()}; choose another") from error
    if any(path.iterdir()):
        raise UsageError(f"--folder {path} is not empty; choose a new one, or remove what is in it")
    return path


def _fits(path: Path) -> bool:
    return len(bytes(path)) + LONGEST_INSIDE <= SOCKET_PATH_MAX
