"""One adapter for one engine: a second one on this host is told so, and waits."""

import errno
import socket

from rapid.core.errors import RapidError


class Claim:
    """On what is named, such as an engine's URL, until `close`, or until the process ends, however it ends.

    It is a socket without a file (Linux), so that nothing is left behind and nobody needs a folder to write to.
    """

    def __init__(self, instance: str, name: str) -> None:
        self._instance, self._name = instance, name
        self._socket: socket.socket | None = None

    def take(self) -> None:
        """Raises RapidError while another holds it."""
        if self._socket is not None:
            return
        taken = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            taken.bind(f"\0rapid-attach {self._name}"[:_NAME_MAX])
        except OSError as error:
            taken.close()
            if error.errno != errno.EADDRINUSE:
                raise RapidError(f"{self._instance}: begin: cannot claim {self._name}: {error.strerror}") from error
            raise RapidError(
                f"{self._instance}: begin: another adapter on this host drives {self._name}; stop that one, or name "
                "another engine"
            ) from None
        self._socket = taken

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()


_NAME_MAX = 107  # bytes of such a socket's name
