"""What has been computed already, in one file per state of the sources: a stale result is never found.

The file is named by a digest of everything that can change a result: the simulator, the core, their traces, the modules
here that make a run, and the Python that runs them. Its lines are results by the key of their task.
"""

import platform
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from bench.evaluation.rule import Load
from bench.evaluation.tasks import Run, Task
from rapid.core.errors import UsageError

ROOT = Path(__file__).parents[2]
SOURCES = ("rapid/core", "rapid/sim")
MAKERS = ("grid", "meter", "rule", "tasks", "windows")  # of bench/evaluation; the others only show
SKIPPED = ("__pycache__",)


@dataclass(frozen=True, slots=True)
class _Line:
    key: str
    load: Load | None = None
    run: Run | None = None


def digest_of(root: Path = ROOT) -> str:
    """Of the sources below root and of this Python."""
    files = [path for folder in SOURCES for path in sorted((root / folder).rglob("*")) if path.is_file()]
    files += [root / "bench" / "evaluation" / f"{name}.py" for name in MAKERS]
    digest = sha256(f"{platform.python_implementation()} {platform.python_version()}".encode())
    for path in files:
        if not set(SKIPPED) & set(path.parts):
            content = path.read_bytes()
            digest.update(f"\n{path.relative_to(root)} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


class Store:
    """Results by task. Raises UsageError when the sources have changed since it was opened: nothing is mixed."""

    def __init__(self, folder: Path, root: Path = ROOT) -> None:
        self._root = root
        self.digest = digest_of(root)
        self._path = folder / f"{self.digest}.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        self._found = {line.key: line for line in _lines(self._path)}

    def get(self, task: Task) -> Load | Run | None:
        """None: not yet computed."""
        line = self._found.get(task.key)
        return None if line is None else line.load or line.run

    def put(self, done: Iterable[tuple[Task, Load | Run]]) -> None:
        """Keep these, on disk when it returns."""
        if digest_of(self._root) != self.digest:
            raise UsageError(
                "the sources changed while they ran, so these results are of neither state and are not kept; run again"
            )
        lines = [_line(task, result) for task, result in done]
        encode = msgspec.json.Encoder().encode
        with self._path.open("ab") as file:
            # The line end comes first, so that a line that a crash cut short spoils no other.
            file.write(b"".join(b"\n" + encode(line) for line in lines))
        self._found |= {line.key: line for line in lines}


def _line(task: Task, result: Load | Run) -> _Line:
    return _Line(task.key, load=result) if isinstance(result, Load) else _Line(task.key, run=result)


def _lines(path: Path) -> Iterable[_Line]:
    """All whole lines; one that was cut short by a crash is computed again."""
    decode = msgspec.json.Decoder(_Line).decode
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        try:
            yield decode(line)
        except msgspec.DecodeError:
            continue
