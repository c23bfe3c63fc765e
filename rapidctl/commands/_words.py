"""Numbers and names as people read them, and GPUs by the names that people give them."""

import math
from collections.abc import Iterator
from datetime import datetime

from rapid.core.errors import NotFound, Refused
from rapid.core.status import GpuStatus, NodeStatus, Status
from rapid.core.watched import GpuWatch

CANDIDATES_SHOWN = 8
UNITS = {  # by what a name ends in
    "_tokens": "tokens",
    "_rps": "requests/s",
    "_tps": "tokens/s",
    "_share": "%",
    "_fraction": "%",
    "_mw": "W",
    "_ms": "ms",
    "_s": "s",
}
WRITTEN = {"ttft": "TTFT", "tpot": "TPOT", "kv": "KV", "gpu": "GPU", "gpus": "GPUs", "slo": "SLO"}


def number_w(power_mw: int) -> str:
    """Watts for a column that says so in its title: "600", "612.5"."""
    whole, rest = divmod(power_mw, 1000)
    return str(whole) if rest == 0 else f"{power_mw / 1000:.1f}"


def draw_w(power_mw: int | None) -> str:
    """Measured watts, to the watt; unmeasured ones are never shown as a number."""
    return "?" if power_mw is None else f"{power_mw / 1000:.0f}"


def count(number: int, what: str) -> str:
    """A number of things: "1 GPU", "8 GPUs"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def ago(age_s: float) -> str:
    """A length of time: "0.4 s", "12 s", "3 min", "5 h", "2 d", "ever"."""
    if math.isinf(age_s):
        return "ever"
    if age_s < 9.95:
        return f"{age_s:.1f} s"
    for unit, size_s, until_s in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if age_s < until_s:
            return f"{age_s / size_s:.0f} {unit}"
    return f"{age_s / 86_400:.0f} d"


def latency(value_s: float | None) -> str:
    """A latency: "31 ms", "1.40 s", "-" for none."""
    if value_s is None:
        return "-"
    return f"{value_s * 1000:.0f} ms" if value_s < 0.1 else f"{value_s:.2f} s"


def share(value: float | None) -> str:
    """A share of 1 as a percentage. Rounded down, so that 100 % means all of them."""
    return "-" if value is None else f"{math.floor(value * 1000) / 10:.1f} %"


def points(difference: float) -> str:
    """A difference of two shares, without its sign: "1.9 points"."""
    return f"{abs(difference) * 100:.1f} points"


def measure(name: str, value: float | str) -> tuple[str, str, str]:
    """An input of a decision as (what it is, the number, its unit), going by the unit that its name ends in."""
    stem, unit = name, ""
    for ending, words in UNITS.items():
        if name.endswith(ending):
            stem, unit = name.removesuffix(ending), words
            break
    label = " ".join(WRITTEN.get(word, word) for word in stem.split("_"))
    if isinstance(value, str):
        return label, value, ""
    if unit == "%":
        return label, f"{value * 100:.1f}", unit
    if unit == "s" and value < 0.1:
        return label, f"{value * 1000:.3g}", "ms"
    if unit == "W":
        return label, f"{value / 1000:.1f}".removesuffix(".0"), unit
    return label, f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}", unit


def clock(wall_s: float) -> str:
    """The time of day where the operator is."""
    return datetime.fromtimestamp(wall_s).astimezone().strftime("%H:%M:%S")


def date_and_clock(wall_s: float) -> str:
    """Date and time of day where the operator is."""
    return datetime.fromtimestamp(wall_s).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def noticed(watch: GpuWatch) -> str:
    """What others did to it since its daemon started."""
    moves = sum(count for _, count in watch.moves)
    parts = [
        f"limit moved {count(moves, 'time')}, last {watch.last_move}" if moves else "",
        f"{count(watch.xids, 'driver error')}, last Xid {watch.xid}" if watch.xids else "",
        f"lost {count(watch.losses, 'time')}" if watch.losses else "",
    ]
    return "; ".join(filter(None, parts))


def gpu_label(node: str, gpu: GpuStatus) -> str:
    """The short name of a GPU: "h1/3"."""
    return f"{node}/{gpu.index}"


def every_gpu(status: Status) -> Iterator[tuple[NodeStatus, GpuStatus]]:
    """Each GPU with its node."""
    return ((node, gpu) for node in status.nodes for gpu in node.gpus)


def subject_of(status: Status, name: str) -> str:
    """What decisions call the thing that an operator names: itself, but a GPU also by node/index or a unique prefix.

    Raises NotFound, or Refused with the candidates where a prefix fits several.
    """
    instances = [instance.instance for instance in status.instances]
    others = [domain.domain for domain in status.domains] + [node.node for node in status.nodes]
    if name in instances or name in others:
        return name
    labels = {gpu.gpu: gpu_label(node.node, gpu) for node, gpu in every_gpu(status)}
    for uuid, label in labels.items():
        if name in (uuid, label):
            return uuid
    fits = [uuid for uuid in labels if name and uuid.startswith(name)]
    if len(fits) > 1:
        shown = ", ".join(f"{uuid} ({labels[uuid]})" for uuid in fits[:CANDIDATES_SHOWN])
        more = f" and {len(fits) - CANDIDATES_SHOWN} more" if len(fits) > CANDIDATES_SHOWN else ""
        raise Refused(f"gpu {name!r} fits {len(fits)} GPUs: {shown}{more}; write more of it")
    if not fits:
        raise NotFound("decision, GPU or instance", name, (*instances, *labels.values()))
    return fits[0]
