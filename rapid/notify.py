"""What a service tells systemd: the sd_notify protocol, which is one datagram to the socket in NOTIFY_SOCKET."""

import os
import socket
from collections.abc import Callable, Mapping


class Notifier:
    """Tells the service manager how the process is doing; without one it does nothing."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        # A leading @ stands for the zero byte of the abstract namespace.
        self._address = environ.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        self.watchdog_s = _watchdog_s(environ)
        """How often watchdog() must be called at the latest; None: nobody waits for it."""

    def ready(self) -> None:
        """Start-up is over; what is ordered after this unit may start."""
        self._send("READY=1")

    def stopping(self) -> None:
        """The way out has begun."""
        self._send("STOPPING=1")

    def watchdog(self) -> None:
        """Still doing what it is for. To be called from that very loop, not from a timer of its own."""
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={' '.join(text.split())}")

    def _send(self, state: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
            try:
                sender.sendto(state.encode(), self._address)
            except OSError:
                return  # A service manager that is gone, or too busy to listen, must not stop the enforcement.


class Watchdog:
    """Passes on a loop's signs of life as often as the service manager asks for them.

    `pet` belongs into every turn of the loop that must not hang, and nowhere else: a loop that hangs then falls silent.
    Fed by a timer or a thread of its own, the watchdog would only watch that one. `clock` gives monotonic seconds.
    """

    def __init__(self, notifier: Notifier, clock: Callable[[], float]) -> None:
        self._notifier, self._clock = notifier, clock
        self._next_s = clock()

    def pet(self) -> None:
        """The loop has turned."""
        interval_s = self._notifier.watchdog_s
        if interval_s is None or (at_s := self._clock()) < self._next_s:
            return
        self._next_s = at_s + interval_s
        self._notifier.watchdog()


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """Half of what systemd waits, as it advises; None if it does not wait, or not for this process."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    usec = environ.get("WATCHDOG_USEC", "")
    return int(usec) / 2e6 if usec.isdecimal() and int(usec) > 0 else None
