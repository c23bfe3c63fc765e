"""A decision in blocks that an operator understands in ten seconds: what and why, what was expected and what came of
it, the numbers it rested on, what else was weighed, and what it changed.
"""

from collections.abc import Iterable, Sequence

from rapid.core.cluster import Candidate, Decision
from rapid.core.errors import watts
from rapid.core.status import Status
from rapidctl.commands._words import ago, count, date_and_clock, every_gpu, gpu_label, measure, noticed, points, share
from rapidctl.output import Block, Cell, Column, Line, Table, Tone, line

CLOSE = 0.05  # a prediction that is off by less is called good (assumed)
INPUT_COLUMNS = (Column("RESTED ON"), Column("VALUE", right=True), Column("", elastic=True))
CANDIDATE_COLUMNS = (Column("WEIGHED", elastic=True), Column("EXPECTED", right=True), Column(""))
NOW = Column("NOW")
CHANGE_COLUMNS = (Column("CHANGED"), Column("BEFORE"), Column("AFTER"), NOW, Column("WHAT", elastic=True))

_Thing = tuple[str, str, str]  # short name, how it stands now, what it is


def explained(decision: Decision, status: Status) -> tuple[Block, ...]:
    """The whole of it."""
    age_s = max(0.0, status.wall_s - decision.wall_s)
    when = f"{ago(age_s)} ago, {date_and_clock(decision.wall_s)}, by {decision.by}"
    head = Line((Cell(decision.id, Tone.STRONG), Cell(f"  {decision.reason}")))
    forecast = [*_forecast(decision), *_measured(decision, age_s)]
    forecast = [*_forecast(decision), *_measured(decision, age_s)]
    return _page((head, line(when, Tone.DIM)), forecast, decision, _changes(decision, status))


def planned(plan: Decision, status: Status) -> tuple[Block, ...]:
    """What the policy would decide now."""
    verdict = f"would make {count(len(plan.changes), 'change')}" if plan.changes else "would change nothing"
    head = Line((Cell(verdict, Tone.STRONG), Cell(f": {plan.reason}")))
    paused = ", paused: nothing of this will be done" if status.paused else ""
    changes = [_without_now(table) for table in _changes(plan, status)]
    return _page((head, line(f"policy {plan.by}{paused}", Tone.DIM)), _forecast(plan), plan, changes)


def _page(
    head: Iterable[Block], forecast: Sequence[Block], decision: Decision, changes: Sequence[Block]
) -> tuple[Block, ...]:
    blocks = [*head]
    for part in (forecast, _inputs(decision), _weighed(decision.candidates), changes):
        blocks += [line(), *part] if part else []
    return tuple(blocks)


def _forecast(decision: Decision) -> list[Block]:
    if decision.predicted is None:
        return []
    text = f"{share(decision.predicted)} SLO attainment over {decision.horizon_s:g} s"
    if decision.held is not None:
        text += f", {share(decision.held)} if nothing were done"
    return [line(f"expected  {text}")]


def _measured(decision: Decision, age_s: float) -> list[Block]:
    if decision.predicted is None:
        return []
    if decision.measured is None:
        left_s = decision.horizon_s - age_s
        text = f"not yet, {ago(left_s)} to go" if left_s > 0 else "nothing: no request came to be measured in that time"
        return [line(f"measured  {text}", Tone.DIM)]
    off = decision.measured - decision.predicted
    tone = Tone.GOOD if abs(off) < CLOSE else Tone.WARN
    verdict = "as expected" if points(off) == "0.0 points" else f"{points(off)} {'less' if off < 0 else 'more'}"
    return [Line((Cell("measured  "), Cell(share(decision.measured), tone), Cell(f", {verdict}")))]


def _inputs(decision: Decision) -> list[Block]:
    rows = []
    for name, value in decision.inputs:
        label, number, unit = measure(name, value)
        rows.append((Cell(label), Cell(number), Cell(unit, Tone.DIM)))
    return [Table(INPUT_COLUMNS, tuple(rows))] if rows else []


def _weighed(candidates: Iterable[Candidate]) -> list[Block]:
    """Best first, as they come."""
    rows = []
    for candidate in candidates:
        tone, mark = (Tone.STRONG, "chosen") if candidate.chosen else (Tone.PLAIN, "")
        rows.append((Cell(candidate.words, tone), Cell(share(candidate.predicted), tone), Cell(mark, Tone.GOOD)))
    return [Table(CANDIDATE_COLUMNS, tuple(rows))] if rows else []


def _changes(decision: Decision, status: Status) -> list[Table]:
    """Roles and budgets before limits, and the GPUs of a node that were treated alike in one row."""
    things, gpus = _things(status), _gpus(status)
    rows: list[tuple[Cell, ...]] = []
    alike: dict[tuple[str, str, str, str], list[tuple[int, _Thing]]] = {}
    for subject, before, after in decision.changes:
        if subject in gpus:
            node, index, thing = gpus[subject]
            alike.setdefault((node, before, after, thing[1]), []).append((index, thing))
        else:
            name, now, what = things.get(subject, (subject, "-", "not known any more"))
            rows.append(_row(name, before, after, now, what))
    for (node, before, after, now), members in alike.items():
        members.sort()
        name, what = members[0][1][0], members[0][1][2]
        if len(members) > 1:
            name = f"{node}/{_runs([index for index, _ in members])}"
            what = count(len(members), "GPU")
        rows.append(_row(name, before, after, now, what))
    return [Table(CHANGE_COLUMNS, tuple(rows))] if rows else []


def _without_now(table: Table) -> Table:
    """What is only planned stands now as it stood before."""
    at = CHANGE_COLUMNS.index(NOW)
    columns = (*table.columns[:at], *table.columns[at + 1 :])
    return Table(columns, tuple((*row[:at], *row[at + 1 :]) for row in table.rows))


def _row(name: str, before: str, after: str, now: str, what: str) -> tuple[Cell, ...]:
    tone = Tone.PLAIN if now == after else Tone.WARN
    return (Cell(name, Tone.STRONG), Cell(before), Cell(after), Cell(now, tone), Cell(what))


def _things(status: Status) -> dict[str, _Thing]:
    """Every subject of a change that is no GPU."""
    things = {domain.domain: (domain.domain, watts(domain.budget_mw), "domain") for domain in status.domains}
    for node in status.nodes:
        things[node.node] = (node.node, watts(sum(gpu.held_mw for gpu in node.gpus)), "node")
    for one in status.instances:
        what = f"instance on {one.node}"
        if one.target_role is not one.role:
            what += f", {one.phase.value} to {one.target_role.value}"
        things[one.instance] = (one.instance, one.role.value, what)
    return things


def _gpus(status: Status) -> dict[str, tuple[str, int, _Thing]]:
    """Every GPU: its node, its number there, and the thing that it is."""
    found: dict[str, tuple[str, int, _Thing]] = {}
    for node, gpu in every_gpu(status):
        what = gpu.gpu + (f", {gpu.instance}" if gpu.instance else "")
        others = gpu.watch.unmanaged or noticed(gpu.watch)
        what += f"; {others}" if others else ""
        found[gpu.gpu] = (node.node, gpu.index, (gpu_label(node.node, gpu), watts(gpu.limit_mw), what))
    return found


def _runs(numbers: list[int]) -> str:
    """Rising numbers in words: "0-3,5,7-8"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
