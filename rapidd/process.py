"""Which process is the rapidd of this host, and what it may do. Reads /proc and nothing else."""

import os
from pathlib import Path

from rapid.core.findings.host import RightsFacts

# By backend: the capability that setting a limit takes, and its number in capability.h. NVIDIA's driver asks for the
# one; the file in sysfs that is an AMD GPU's limit belongs to root. Simulated GPUs ask for nothing.
_SIGHT = (1 << 1 | 1 << 2, 1 << 19)  # CAP_DAC_OVERRIDE or CAP_DAC_READ_SEARCH, and CAP_SYS_PTRACE: /proc/PID/fd of all
NEEDS = {"nvml": ("CAP_SYS_ADMIN", 21), "amd": ("CAP_DAC_OVERRIDE", 1)}


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


def sees_all() -> bool:
    """Whether this process may see which files the processes of other users have open."""
    mine = _capabilities(os.getpid())
    return all(mine & wanted for wanted in _SIGHT)


def rights(backend: str, pid: int | None) -> RightsFacts:
    """Whether the running daemon, or without one this process, may set limits."""
    needs, number = NEEDS.get(backend, ("", 0))
    who = f"rapidd (pid {pid})" if pid is not None else "this process"
    return RightsFacts(who, needs, bool(_capabilities(pid or os.getpid()) >> number & 1), is_daemon=pid is not None)


def _capabilities(pid: int) -> int:
    """The effective ones, one bit each; none if the process has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    return next((int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:")), 0)
