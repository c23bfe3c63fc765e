"""An engine in one role, and how it is built."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

ROLES = ("prefill", "decode")


class Refused(Exception):
    """It cannot be done; the worker is as it was."""


class Broken(Exception):
    """The worker can serve neither role until it is started anew."""


@dataclass(frozen=True, slots=True)
class Half:
    """An engine in one role, ready to serve.

    runtime   a DistributedRuntime of its own: it is shut down to end this half
    endpoint  "namespace.component.endpoint", where it is to be found
    serve     publishes endpoint and model card, and takes requests; what it returns ends when the runtime has been shut
              down and every request is answered
    withdraw  takes the model card back (dynamo.llm.unregister_model): a KV router then chooses this worker no more
    publish   publishes the card again, as `serve` did (dynamo.llm.register_model)
    """

    runtime: Any
    endpoint: str
    serve: Callable[[], Awaitable[None]]
    withdraw: Callable[[], Awaitable[None]]
    publish: Callable[[], Awaitable[None]]


Build = Callable[[Sequence[str], str], Awaitable[Half]]
