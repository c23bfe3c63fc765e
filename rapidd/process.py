"""Which process is the rapidd of this host, what it may do, and what it has noticed. Reads /proc and its metrics."""

import os
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from rapid.core.findings.host import ROOT, RightsFacts
from rapid.core.watched import Mover

# By backend, what setting a limit takes: NVIDIA's driver asks for a capability, AMD's library for root itself.
NEEDS = {"nvml": "CAP_SYS_ADMIN", "amdsmi": ROOT}
_SYS_ADMIN = 1 << 21  # capability.h
# CAP_DAC_OVERRIDE or CAP_DAC_READ_SEARCH, and CAP_SYS_PTRACE: what it takes to look into /proc/PID/fd of everybody.
_SIGHT = (1 << 1 | 1 << 2, 1 << 19)
_METRICS_MAX_BYTES = 2**20  # the page of a host with 16 GPUs has 50 kB
_METRICS_TIMEOUT_S = 2.0
_MOVES, _MANAGED = "rapidd_gpu_limit_moves_total", "rapidd_gpu_managed"


@dataclass(frozen=True, slots=True)
class Noticed:
    """What the running daemon says of one GPU: who moved its limit how often, and whether it has given it up."""

    moves: tuple[tuple[Mover, int], ...] = ()
    given_up: bool = False


def running_pid(state_dir: Path) -> int | None:
    """Who holds the lock in the state folder, as the kernel lists it; taking the lock would keep a daemon out."""
    try:
        lock = state_dir / "lock"
        pid, inode = lock.read_text(encoding="ascii").strip(), lock.stat().st_ino
        locks = Path("/proc/locks").read_text(encoding="ascii")
    except (OSError, ValueError):
        return None
    for line in locks.splitlines():
        # 1: FLOCK  ADVISORY  WRITE 812 08:01:131 0 EOF; one that waits for it has "->" in second place.
        words = line.split()
        if words[1] == "FLOCK" and words[4] == pid and words[5].rpartition(":")[2] == str(inode):
            return int(pid)
    return None


def rights(backend: str, pid: int | None) -> RightsFacts:
    """Whether the running daemon, or without one this process, may set limits."""
    needs = NEEDS.get(backend, "")
    who = f"rapidd (pid {pid})" if pid is not None else "this process"
    uid, capabilities = _credentials(pid or os.getpid())
    has = uid == 0 if needs == ROOT else bool(capabilities & _SYS_ADMIN)
    return RightsFacts(who, needs, has, is_daemon=pid is not None)


def sees_all() -> bool:
    """Whether this process may see which files the processes of other users have open."""
    _, mine = _credentials(os.getpid())
    return all(mine & wanted for wanted in _SIGHT)


def noticed(state_dir: Path) -> dict[str, Noticed]:
    """What the running daemon shows on its metrics page, by GPU; nothing if it shows none."""
    try:
        endpoints = msgspec.json.decode((state_dir / "endpoints.json").read_bytes(), type=dict[str, str | int])
        page = f"http://{endpoints['metrics']}/metrics"
        with urllib.request.urlopen(page, timeout=_METRICS_TIMEOUT_S) as answer:
            text = answer.read(_METRICS_MAX_BYTES).decode()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    except (OSError, KeyError, ValueError, msgspec.MsgspecError):
        return {}
    moves: dict[str, list[tuple[Mover, int]]] = {}
    given_up: set[str] = set()
    for sample in samples:
        gpu = sample.labels.get("gpu", "")
        if sample.name == _MOVES and sample.value:
            moves.setdefault(gpu, []).append((Mover[sample.labels["mover"].upper()], int(sample.value)))
        elif sample.name == _MANAGED and not sample.value:
            given_up.add(gpu)
    return {gpu: Noticed(tuple(moves.get(gpu, ())), gpu in given_up) for gpu in moves.keys() | given_up}


def _credentials(pid: int) -> tuple[int | None, int]:
    """The effective user and capabilities, one bit each; (None, 0) if the process has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None, 0
    told = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return int(told["Uid"].split()[1]), int(told["CapEff"], 16)
