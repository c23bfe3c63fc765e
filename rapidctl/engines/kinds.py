"""Every kind that `rapidctl attach` knows; the module of one is loaded when it is asked for."""

import importlib
from dataclasses import dataclass

from rapidctl.engines.base import Kind


@dataclass(frozen=True, slots=True)
class Entry:
    """A kind, and what it drives in a few words. Its module below rapidctl.engines has its name."""

    kind: str
    help: str


ENTRIES: tuple[Entry, ...] = (
    Entry("sglang", "SGLang behind sglang-router: moved between the router's pools, switched live."),
    Entry("smg", "Workers behind smg, moved in one call: SGLang, vLLM and others, over HTTP or gRPC."),
    Entry("dynamo", "A worker of NVIDIA Dynamo, withdrawn and published again in the other role."),
    Entry("vllm", "vLLM: kv_both behind smg by routing alone, or its own role where it has one."),
    Entry("exec", "Any engine that must be started anew: a command line per role."),
)


def load(kind: str) -> Kind:
    """The kind of this name, which must be in ENTRIES."""
    found = importlib.import_module(f"rapidctl.engines.{kind}").KIND
    assert isinstance(found, Kind), f"{kind}.KIND is no Kind"
    assert found.name == kind, f"{kind}.KIND says that it is {found.name}"
    return found
