"""What `rapidd --check` finds at the addresses where the engines of its host should show their metrics."""

from collections.abc import Sequence
from dataclasses import dataclass

from rapid.core.errors import ScrapeFault
from rapid.core.findings.base import Finding, green, red, yellow

TOPIC = "engine"
# Where each kind shows them, as its own documentation says.
_SHOWN = {
    "vllm": "vLLM shows them at /metrics of its API server",
    "sglang": "SGLang shows them at /metrics when it is started with --enable-metrics",
    "dynamo": "a Dynamo worker shows them at /metrics of DYN_SYSTEM_PORT, and not at its frontend",
}


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """One [[engine]] of the configuration, and how a look at its metrics went: `fault` None: well."""

    instance: str
    kind: str
    url: str
    fault: ScrapeFault | None = None
    problem: str = ""


def engine_findings(engines: Sequence[EngineFacts]) -> list[Finding]:
    """An engine that is not there may come later; what will not come right by itself is red."""
    return [_finding(engine) for engine in engines]


def _finding(engine: EngineFacts) -> Finding:
    key, what = f"engine.{engine.instance}", f"{engine.url} {engine.problem}"
    match engine.fault:
        case None:
            return green(TOPIC, f"its metrics can be read, and are those of {engine.kind}", engine.instance)
        case ScrapeFault.UNREACHABLE:
            return yellow(TOPIC, what, f"start the engine; if it runs, put {key}.url right", engine.instance)
        case ScrapeFault.SILENT:
            todo = f"look whether the engine hangs, or whether something else listens there: {key}.url"
            return yellow(TOPIC, what, todo, engine.instance)
        case ScrapeFault.METRICS:
            todo = (
                "an engine that has just started may show some only after its first request; else it is of a version "
            )
            return yellow(TOPIC, what, f"{todo}that rapidd does not know: report it", engine.instance)
        case ScrapeFault.KIND:
            return red(TOPIC, what, f"put {key}.kind or {key}.url right", engine.instance)
        case ScrapeFault.ANSWER:
            return red(TOPIC, what, f"put {key}.url right: {_SHOWN[engine.kind]}", engine.instance)
