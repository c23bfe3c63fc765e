"""Serves /metrics on a thread of its own, so that a scraper that dawdles holds up nothing."""

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import exposition
from prometheus_client.registry import CollectorRegistry

from rapid.core.errors import ConfigInvalid

REQUEST_TIMEOUT_S = 2.0  # requests are answered one after the other, so none may dawdle


@contextlib.contextmanager
def serving(address: str, registry: CollectorRegistry, key: str) -> Iterator[str]:
    """Serve http://address/metrics while this lasts; yields the address with the port that was bound.

    Raises ConfigInvalid, naming the key, for an address that cannot be used.
    """
    page = exposition.make_wsgi_app(registry)

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/metrics":
            start_response(f"{HTTPStatus.NOT_FOUND.value} Not Found", [("Content-Type", "text/plain")])
            return [b"metrics are at /metrics\n"]
        text: Iterable[bytes] = page(environ, start_response)
        return text

    host, _, port = address.rpartition(":")
    try:
        server = (_Server6 if ":" in host else _Server)((host.strip("[]"), int(port)), _Request)
    except OSError as error:
        raise ConfigInvalid(key, f"cannot listen on {address}: {(error.strerror or str(error)).lower()}") from error
    with server:
        server.set_app(answer)
        thread = threading.Thread(target=server.serve_until_stopped, name="metrics", daemon=True)
        thread.start()
        try:
            yield f"{host}:{server.server_port}"
        finally:
            server.stop()
            thread.join(REQUEST_TIMEOUT_S)


class _Server(WSGIServer):
    """One request at a time; callers beyond the kernel's backlog are refused.

    It sleeps until somebody calls. `serve_forever` wakes twice a second to see whether it should stop.
    """

    stopping = False

    def serve_until_stopped(self) -> None:
        while not self.stopping:
            self.handle_request()

    def stop(self) -> None:
        self.stopping = True
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)  # wakes the one who waits for a caller

    def server_bind(self) -> None:
        # The standard one looks the host's name up, and a name server that is down would hold up the start.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.socket.getsockname()[:2]
        self.setup_environ()

    def handle_error(self, request: object, client_address: object) -> None:
        """A caller that hung up or dawdled concerns nobody."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Request(WSGIRequestHandler):
    timeout = REQUEST_TIMEOUT_S

    def log_message(self, format: str, *args: object) -> None:
        """A scrape every few seconds is no news."""
