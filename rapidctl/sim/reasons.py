"""Which policy serves a trace best, and why, in a few sentences. Every number in them is a mean over the seeds."""

from collections.abc import Sequence

from rapid.sim.world.outcome import Outcome, PerRole
from rapidctl.sim.standing import Standing, lead, ranked
from rapidctl.sim.words import listed, percent

NEAR_ALL = 0.995  # of the requests attained by every policy: the load tells nothing about them
NEAR_NONE = 0.05
PLAIN = "uniform"  # what others are held against: it never moves a watt
NOTICED = 0.005  # a share of requests that is worth a word
EVERY_MOVE = 0.5  # role moves per run that are worth a word


def reasons(everybody: Sequence[Standing]) -> list[str]:
    """One to four sentences, best policy first."""
    able = ranked(everybody)
    if not able:
        return []
    best = able[0]
    said = [_verdict(able)]
    against = next((each for each in able[1:] if each.policy == PLAIN), able[-1])
    if best.attainment.mean < NEAR_ALL or against.attainment.mean < NEAR_ALL:
        if against is not best:
            said.append(f"{against.policy}: {_missed(against)}; {_at_work(against)}.")
        said.append(f"{best.policy}: {_missed(best)}; {_at_work(best)}{_moved(best)}.")
    said += _beyond(everybody, best)
    return said


def _verdict(able: Sequence[Standing]) -> str:
    best = able[0]
    mean = f"{percent(best.attainment.mean)} % of the requests meet both targets"
    if len(able) == 1:
        return f"Under {best.policy} {mean}."
    if min(each.attainment.mean for each in able) >= NEAR_ALL:
        return f"Every policy serves this load: {mean}. 'rapidctl sim sweep' finds where they part."
    if best.attainment.mean <= NEAR_NONE:
        return f"No policy serves this load: even under {best.policy} only {mean}. Try a lower rate or more GPUs."
    level = [each for each in able if each is best or not _surely_ahead(best, each)]
    if len(level) > 1:
        names = listed([each.policy for each in level])
        values = listed([percent(each.attainment.mean) for each in level])
        how = "one seed cannot say more" if len(best.runs) == 1 else "the seeds differ by more"
        return f"{names} serve this trace best: {values} % of the requests meet both targets; {how}."
    return f"{best.policy} serves this trace best: {mean}, {_ahead(best, able[1])}."


def _surely_ahead(best: Standing, other: Standing) -> bool:
    """By more than chance explains; a single seed is taken at its word unless it is a hair's breadth."""
    difference = lead(best, other)
    return difference.mean >= NOTICED if difference.half is None else difference.excludes_zero


def _ahead(best: Standing, other: Standing) -> str:
    difference = lead(best, other)
    width = "" if difference.half is None else f" (± {percent(difference.half)})"
    return f"{percent(difference.mean)} points{width} ahead of {other.policy}"


def _missed(mine: Standing) -> str:
    """Who missed what."""
    missed = [
        (mine.share(lambda run: run.why.missed.ttft_only), "miss TTFT"),
        (mine.share(lambda run: run.why.missed.tpot_only), "miss TPOT"),
        (mine.share(lambda run: run.why.missed.both), "miss both"),
        (mine.share(lambda run: run.why.missed.unfinished), "are never finished"),
    ]
    worth = [f"{percent(share)} % {what}" for share, what in missed if share >= NOTICED]
    return listed(worth) if worth else f"less than {percent(NOTICED)} % miss anything"


def _at_work(mine: Standing) -> str:
    """Limits, instances and use of each role."""
    parts = []
    for role in ("prefill", "decode", "mixed"):
        limit_w, count, busy = (_mean(mine, role, field) for field in ("limit_w", "instances", "busy"))
        if limit_w is None or not count or busy is None:
            continue
        parts.append(f"{_count(count)} {role} instances busy {percent(busy, 0)} % at {limit_w:,.0f} W")
    return ", ".join(parts)


def _moved(mine: Standing) -> str:
    moves = mine.share(lambda run: run.role_moves)
    moved_w = mine.share(lambda run: run.watts_moved)
    parts = [f"{moves:.0f} role moves" if moves >= 1.5 else "1 role move"] if moves >= EVERY_MOVE else []
    parts += [f"{moved_w:,.0f} W moved"] if moved_w >= 1 else []
    return f"; {listed(parts)} in a run" if parts else "; it moves nothing"


def _beyond(everybody: Sequence[Standing], best: Standing) -> list[str]:
    oracle = next((each for each in everybody if each.foresees), None)
    if oracle is None or best.regret is None:
        return []
    seen = f"oracle, which sees the future, attains {percent(oracle.attainment.mean)} %"
    if best.regret.mean < NOTICED:
        return [f"{seen}: {best.policy} leaves nothing to win that it can see."]
    return [f"{seen}: {percent(best.regret.mean)} points are left for a better policy than {best.policy}."]


def _mean(mine: Standing, role: str, field: str) -> float | None:
    def measure(run: Outcome) -> float | None:
        per_role: PerRole = getattr(run.why, field)
        value: float | None = getattr(per_role, role)
        return value

    return mine.mean(measure)


def _count(instances: float) -> str:
    return f"{instances:.0f}" if abs(instances - round(instances)) < 0.05 else f"{instances:.1f}"
