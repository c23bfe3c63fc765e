"""Requests as they come: taken from their source one by one, so that a trace of any length fits into memory."""

from collections import deque
from collections.abc import Iterable, Sequence
from math import inf

from rapid.core.errors import TraceInvalid, UsageError
from rapid.sim.model.requests import Request


class Arrivals:
    """The requests in order of arrival, late_s later than their source says.

    Raises UsageError if there are none, and TraceInvalid, at the request, if one comes before the one before it.
    """

    def __init__(self, requests: Iterable[Request], late_s: float) -> None:
        self._source = iter(requests)
        self._late_s = late_s
        self._read_s = late_s  # the last arrival that was taken from the source
        self._ahead: deque[Request] = deque()
        self.next_s = inf  # when the next one arrives; infinite: there is none
        if not self._read():
            raise UsageError("no request arrives; give a trace with at least one")
        self.next_s = self._ahead[0].arrival_s

    def take(self) -> Request:
        """The next one."""
        request = self._ahead.popleft()
        self.next_s = self._ahead[0].arrival_s if self._ahead or self._read() else inf
        return request

    def ahead(self, until_s: float) -> Sequence[Request]:
        """Those that are still to come up to until_s."""
        while self._read_s <= until_s and self._read():
            pass
        return [request for request in self._ahead if request.arrival_s <= until_s]

    def _read(self) -> bool:
        """Takes one more from the source; False: it has no more."""
        request = next(self._source, None)
        if request is None:
            self._read_s = inf
            return False
        arrival_s = request.arrival_s + self._late_s
        if not self._read_s <= arrival_s < inf:
            raise TraceInvalid(
                f"request {request.request_id}: arrives at {request.arrival_s:g} s, after one of "
                f"{self._read_s - self._late_s:g} s (the first may arrive at 0 s); sort the requests"
            )
        self._read_s = arrival_s
        self._ahead.append(Request(request.request_id, arrival_s, request.input_tokens, request.output_tokens))
        return True
