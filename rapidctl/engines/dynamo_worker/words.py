"""What is said on the command line and in the environment."""

import importlib
import os
from collections.abc import Sequence

from rapidctl.engines.dynamo_worker.half import ROLES, Build, Refused

PORT_MAX = 32767  # Dynamo 1.6.1 reads it as a signed number of 16 bits
_MODE = "--disaggregation-mode"


def mode(words: Sequence[str]) -> str:
    """The role to begin in. Raises Refused."""
    if any(word.partition("=")[0] == "--endpoint" for word in words):
        raise Refused("--endpoint names the place of one role; leave it out, and say DYN_NAMESPACE for a namespace")
    given = [word.partition("=")[2] or after for word, after in _pairs(words) if word.partition("=")[0] == _MODE]
    if not given or given[-1] not in ROLES:
        raise Refused(f"{_MODE} must be there and be one of {', '.join(ROLES)}: the role to begin in")
    return given[-1]


def without_mode(words: Sequence[str]) -> list[str]:
    """The words, but for the role."""
    kept, skip = [], False
    for word in words:
        if not skip and word.partition("=")[0] != _MODE:
            kept.append(word)
        skip = not skip and word == _MODE
    return kept


def system_port() -> int:
    """Where the worker shows its metrics. Raises Refused."""
    text = os.environ.get("DYN_SYSTEM_PORT", "")
    if not text.isdecimal() or not 0 < int(text) <= PORT_MAX:
        why = "drains are counted, and loads read, there"
        raise Refused(f"DYN_SYSTEM_PORT is {text!r}, must be a port from 1 to {PORT_MAX}: {why}")
    return int(text)


def named(name: str) -> Build:
    """What --engine names. Raises Refused."""
    module, _, function = name.partition(":")
    try:
        found: Build = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise Refused(f"--engine {name}: {error}; say MODULE:FUNCTION") from error
    return found


def _pairs(words: Sequence[str]) -> list[tuple[str, str]]:
    """Each word with the one after it."""
    return list(zip(words, [*words[1:], ""], strict=False))
