"""The tables."""

import statistics
from collections.abc import Sequence

from bench.rapidd.trials import Found, Share

CPU_TARGET, RSS_TARGET_MB, REPAIR_TARGET_S, FALLBACK_TARGET_S = 0.01, 64.0, 1.0, 0.2
_COLUMNS = "{:<25}{:>4}  {:<20}{:<8}{:<11}{:<10}{:<15}{:<15}{}"
HEADS = (
    ("", "GPUs", "CPU of one core", "driver", "memory, MB", "files", "order to", "foreign write", "lease end to"),
    ("", "", "p50 (least..most)", "polls", "start end", "start end", "read-back", "to repair", "fallback"),
    ("", "", "", "", "", "", *["p50 / p99, ms"] * 3),
)


def print_head() -> None:
    print()
    for head in HEADS:
        print(_COLUMNS.format(*head), flush=True)


def print_row(name: str, gpus: int, it: Found) -> None:
    memory, files = f"{it.first.rss_mb:.1f} {it.last.rss_mb:.1f}", f"{it.first.files} {it.last.files}"
    latencies = [quantiles(values_s) for values_s in (it.order_s, it.repair_s, it.fallback_s)]
    print(_COLUMNS.format(name, gpus, shares(it.cpu), polled(it.cpu), memory, files, *latencies), flush=True)


def print_waits(gpus: int, found: Sequence[tuple[str, Sequence[Share]]]) -> None:
    print(f"\nCPU of rapidd at {gpus} GPUs, by what the driver does while a call waits for the GPU")
    for name, cpu in found:
        print(f"  {name:<24}{shares(cpu):<20}and {polled(cpu)} that the driver polls", flush=True)


def print_targets(gpus: int, it: Found) -> bool:
    """Whether all are met."""
    rows = (
        ("CPU of one core, median", statistics.median(one.own for one in it.cpu), CPU_TARGET, "{:.2%}"),
        ("memory at the end", it.last.rss_mb, RSS_TARGET_MB, "{:.1f} MB"),
        ("foreign write to repair, p99", quantile(it.repair_s, 99), REPAIR_TARGET_S, "{:.3f} s"),
        ("lease end to fallback, p99", quantile(it.fallback_s, 99), FALLBACK_TARGET_S, "{:.3f} s"),
    )
    print(f"\nTargets of rapidd at {gpus} GPUs")
    for name, value, target, form in rows:
        print(f"  {name:<32}{form.format(value):>10}  < {form.format(target):<10}{'' if value < target else 'MISSED'}")
    more, hours = it.last.files - it.first.files, it.between_s / 3600
    print(f"  open files {more:+d} and memory {it.last.rss_mb - it.first.rss_mb:+.1f} MB in {hours:.2f} h")
    return all(value < target for _, value, target, _ in rows)


def shares(cpu: Sequence[Share]) -> str:
    own = [one.own for one in cpu]
    return f"{statistics.median(own):.2%} ({100 * min(own):.2f}..{100 * max(own):.2f})"


def polled(cpu: Sequence[Share]) -> str:
    return f"{statistics.median(one.polled for one in cpu):.1%}"


def quantiles(values_s: Sequence[float]) -> str:
    return f"{1e3 * quantile(values_s, 50):.0f} / {1e3 * quantile(values_s, 99):.0f}"


def quantile(values_s: Sequence[float], percent: int) -> float:
    return values_s[0] if len(values_s) == 1 else statistics.quantiles(values_s, n=100, method="inclusive")[percent - 1]
