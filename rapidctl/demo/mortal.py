"""Becomes another program, one that the kernel kills as soon as its parent dies: `mortal.py PARENT_PID PROGRAM ...`.

A program of its own, because the demo has threads, and in the child of a process with threads nothing but exec is safe:
a preexec_fn that asked the kernel crashed now and then. It needs no package, only the interpreter.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, program = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)  # it died before the kernel was asked
    os.execv(program[0], program)


if __name__ == "__main__":
    main()
