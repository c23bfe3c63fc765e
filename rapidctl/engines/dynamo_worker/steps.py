"""What the forward passes of an engine add up to, as metrics."""

import threading
import time
from bisect import bisect_left
from typing import Any, Protocol

from rapidctl.engines.dynamo_worker.half import Half

STALE_S = 5.0  # forward passes are reported at least once a second, also when nothing runs
# Of TPOT: what SLOs ask for (25, 40 ms) are bounds themselves, the others are near enough to tell how far off it is.
BOUNDS_S = (0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5)


class Steps:
    """What the forward passes of one half add up to. Fed by a thread, read by others."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at_s = 0.0
        self._prompt_tokens = self._output_tokens = 0
        self._running = self._waiting = 0
        self._gaps_s, self._gaps = 0.0, 0  # between output tokens, since requests were last seen to finish
        self._finished = 0
        self._tpot = [0] * (len(BOUNDS_S) + 1)
        self._tpot_s = 0.0

    def take(self, step: Any, at_s: float) -> None:
        """One forward pass (dynamo.common.forward_pass_metrics), which is reported when it is over.

        A report without a pass comes at least once a second, in a long pass as well: it says that there is an engine,
        and nothing of what it has.
        """
        now, queue = step.scheduled_requests, step.queued_requests
        with self._lock:
            self._at_s = at_s
            if not step.wall_time:
                return
            self._prompt_tokens += now.sum_prefill_tokens
            self._output_tokens += now.num_decode_requests
            self._running = now.num_prefill_requests + now.num_decode_requests
            self._waiting = queue.num_prefill_requests + queue.num_decode_requests
            self._gaps += now.num_decode_requests
            self._gaps_s += now.num_decode_requests * step.wall_time

    def finished(self, requests: int) -> None:
        """So many requests have finished since the start. Those that are new count with the mean gap between output
        tokens since the last time: of a request alone, Dynamo's pages tell no TPOT."""
        with self._lock:
            new = requests - self._finished
            self._finished = requests
            if new > 0 and self._gaps:
                tpot_s = self._gaps_s / self._gaps
                self._tpot[bisect_left(BOUNDS_S, tpot_s)] += new
                self._tpot_s += new * tpot_s
                self._gaps_s, self._gaps = 0.0, 0

    def text(self, at_s: float) -> str:
        """Prometheus text. Of an engine that has fallen silent nobody is told that it has nothing to do."""
        with self._lock:
            lines = [
                "# TYPE rapid_fpm_prompt_tokens_total counter",
                f"rapid_fpm_prompt_tokens_total {self._prompt_tokens}",
                "# TYPE rapid_fpm_output_tokens_total counter",
                f"rapid_fpm_output_tokens_total {self._output_tokens}",
            ]
            if at_s - self._at_s < STALE_S:
                lines += [
                    "# TYPE rapid_fpm_running_requests gauge",
                    f"rapid_fpm_running_requests {self._running}",
                    "# TYPE rapid_fpm_waiting_requests gauge",
                    f"rapid_fpm_waiting_requests {self._waiting}",
                ]
            return "\n".join([*lines, *self._tpot_lines(), ""])

    def _tpot_lines(self) -> list[str]:
        count, lines = 0, ["# TYPE rapid_fpm_tpot_seconds histogram"]
        for bound, more in zip((*map(str, BOUNDS_S), "+Inf"), self._tpot, strict=True):
            count += more
            lines.append(f'rapid_fpm_tpot_seconds_bucket{{le="{bound}"}} {count}')
        return [*lines, f"rapid_fpm_tpot_seconds_sum {self._tpot_s:.6f}", f"rapid_fpm_tpot_seconds_count {count}"]


class Ears(Protocol):
    """Hears the forward passes of one worker, until stopped."""

    def stop(self) -> None: ...


class Listener:
    """Feeds the forward passes of one worker to its Steps, on a thread, for a component's are heard all at once."""

    def __init__(self, half: Half, steps: Steps) -> None:
        from dynamo.common.forward_pass_metrics import decode
        from dynamo.llm import FpmEventSubscriber

        endpoint = half.runtime.endpoint(half.endpoint)
        self._subscriber, self._decode = FpmEventSubscriber(endpoint), decode
        self._worker, self._steps = str(endpoint.connection_id()), steps
        endpoint.metrics.register_prometheus_expfmt_callback(lambda: steps.text(time.monotonic()))
        threading.Thread(target=self._listen, name="forward passes", daemon=True).start()

    def stop(self) -> None:
        self._subscriber.shutdown()

    def _listen(self) -> None:
        while (data := self._subscriber.recv()) is not None:
            step = self._decode(data)
            if step is not None and step.worker_id == self._worker:
                self._steps.take(step, time.monotonic())
