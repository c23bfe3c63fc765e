"""Who holds a GPU's device file open. psutil lists regular files only, so the links in /proc are read here."""

import os
from collections.abc import Collection
from pathlib import Path

import psutil

from rapidd.device.base import Holder

_CAP_SYS_ADMIN = 1 << 21  # capability.h; without it a driver refuses to set a limit


def holders_of(files: Collection[Path]) -> tuple[Holder, ...]:
    """Every process but this one that has one of the files open and the right to set a limit, by pid.

    What the operating system does not let us see is left out: looking into the processes of others takes
    CAP_SYS_PTRACE. Raises nothing.
    """
    wanted, found = {str(file) for file in files}, []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            if _holds(process.pid, wanted) and _may_set(process.pid):
                found.append(Holder(process.pid, process.name(), _user(process)))
        except (OSError, psutil.Error):
            continue  # it has ended meanwhile, or is none of our business
    return tuple(found)


def _holds(pid: int, files: set[str]) -> bool:
    folder = f"/proc/{pid}/fd"
    return any(_target(f"{folder}/{number}") in files for number in os.listdir(folder))


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""  # closed since it was listed


def _may_set(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) & _CAP_SYS_ADMIN)


def _user(process: psutil.Process) -> str:
    try:
        return process.username()
    except (KeyError, psutil.Error):
        return ""  # no name for that number here
