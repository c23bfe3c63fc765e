"""Traces from the package and from files: the one module of rapid.sim that reads anything.

It is here, and not in a shell, because a trace is part of the question that a simulation answers, and every shell that
asks (the demo, the simulator's commands, tests) needs the same traces. It reads once, before time begins, and returns
frozen values; what it returns depends on nothing but the bytes it reads.
"""

import gzip
import zlib
from importlib import resources
from io import BytesIO
from pathlib import Path

from rapid.core.errors import TraceInvalid
from rapid.sim.workload import Arrival, TraceWorkload, Workload, mixed, parse_trace, split_shift

WORKLOADS = ("azure", "sonnet")
MAX_FILE_BYTES = 512 * 1024 * 1024  # of a trace, unpacked


def load_workload(name: str, max_tokens: int) -> Workload:
    """A workload by name, or from a CSV file (.gz: compressed). No request may hold more than max_tokens.

    azure    Azure's chat and code services of 2023, both as they arrived, from the start of both traces. The first
    three
             minutes are chat only; code, with its long prompts, comes in bursts (minutes 3-5, 9-10, 14-15, 18-24 of
             34).
    sonnet   8,192 tokens in and 128 out, then 512 and 512: Poisson, half of the time each; the rate scale is the rate.

    Raises TraceInvalid for a file that cannot be read or has a bad line.
    """
    if name == "azure":
        return mixed(name, _packaged("azure2023_conv", max_tokens), _packaged("azure2023_code", max_tokens))
    if name == "sonnet":
        return split_shift(name, _packaged("rapid_sonnet_shift_unitpoisson", max_tokens))
    try:
        content = Path(name).read_bytes()
    except OSError as error:
        known = ", ".join(WORKLOADS)
        raise TraceInvalid(f"trace {name}: {error.strerror}; give a file, or one of: {known}") from error
    return TraceWorkload(name, _parse(name, content, max_tokens))


def _packaged(name: str, max_tokens: int) -> tuple[Arrival, ...]:
    file = f"{name}_dev.csv.gz"
    return _parse(file, resources.files("rapid.sim").joinpath("data", file).read_bytes(), max_tokens)


def _parse(name: str, content: bytes, max_tokens: int) -> tuple[Arrival, ...]:
    try:
        text = _unpacked(name, content).decode("ascii")
    except (OSError, EOFError, zlib.error) as error:
        raise TraceInvalid(f"trace {name}: not a whole gzip file ({error})") from error
    except UnicodeDecodeError as error:
        raise TraceInvalid(f"trace {name}: byte {error.start} is not text; a trace is CSV or CSV in gzip") from error
    return parse_trace(name, text.splitlines(), max_tokens)


def _unpacked(name: str, content: bytes) -> bytes:
    if name.endswith(".gz"):
        with gzip.GzipFile(fileobj=BytesIO(content)) as file:
            content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise TraceInvalid(f"trace {name}: longer than {MAX_FILE_BYTES // 2**20} MiB")
    return content
