"""One line per event, to stderr: key=value for people, JSON for machines. Ids and reasons are fields, not sentences.

log = rapid.log.get()
log.info("limit set", gpu=uuid, limit_mw=600_000, reason="grant 3/17")

A line that cannot be written (a full disk, a reader that is gone) is lost: who logs has limits to enforce.
"""

import contextlib
import json
import logging
import math
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog
from structlog.typing import FilteringBoundLogger

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
VALUE_MAX = 4096  # characters of one value in a line for people


def configure(level: str = "info", format: str = "auto", stream: TextIO | None = None) -> None:
    """Once, at the start of the process: what is logged from `level` up, as console or json (auto: by the terminal).

    Warnings of libraries that use `logging` come out as lines of the same form.
    """
    stream = sys.stderr if stream is None else stream
    as_text = format == "console" or (format == "auto" and stream.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
            structlog.processors.format_exc_info,
            render_text if as_text else render_json,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *_: _Lines(stream),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_Forward()], level=max(LEVELS[level], logging.WARNING), force=True)


def get(**fields: object) -> FilteringBoundLogger:
    """A logger that adds these fields to each of its lines."""
    logger: FilteringBoundLogger = structlog.get_logger(**fields)
    return logger


def render_text(_: object, __: str, event: MutableMapping[str, Any]) -> str:
    """`2026-11-22T10:00:00.000000Z info limit set gpu=GPU-1 limit_mw=600000 reason="grant 3/17"`, always one line."""
    words = [str(event.pop("at")), str(event.pop("level")), _printable(str(event.pop("event")))]
    return " ".join([*words, *(f"{key}={_value(value)}" for key, value in event.items())])


def render_json(_: object, __: str, event: MutableMapping[str, Any]) -> str:
    """The same as one JSON object, `at`, `level` and `event` first; what JSON does not know is written as text."""
    first = {key: event.pop(key) for key in ("at", "level", "event")}
    return json.dumps({**first, **{key: _finite(value) for key, value in event.items()}}, default=str)


def _finite(value: object) -> object:
    """JSON has no word for infinity, which is the age of what was never heard."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _value(value: object) -> str:
    text = str(value)
    if len(text) > VALUE_MAX:
        text = f"{text[:VALUE_MAX]}..."
    plain = text.isprintable() and text and not any(sign in text for sign in ' "=')
    return text if plain else json.dumps(text, ensure_ascii=not text.isprintable())


def _printable(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)


class _Lines:
    """Writes each line to the stream at once, if that can be."""

    def __init__(self, stream: TextIO) -> None:
        self._lines = structlog.WriteLogger(stream)

    def msg(self, line: str) -> None:
        with contextlib.suppress(OSError):
            self._lines.msg(line)

    debug = info = warning = error = critical = msg


class _Forward(logging.Handler):
    """Hands what libraries log to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level = min(record.levelno // 10 * 10, logging.CRITICAL)
            error = {"exc_info": record.exc_info} if record.exc_info and record.exc_info[0] else {}
            get(library=record.name).log(level, record.getMessage(), **error)
        except Exception:
            self.handleError(record)  # As every handler does: a bad line of a library must not stop its caller.
