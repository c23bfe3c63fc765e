"""The demo from start to end: choose the rate, start the hosts, replay, stop, judge, sum up."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from rapid.core.cluster import SloTargets
from rapid.core.errors import RapidError
from rapid.sim.model.profile import profile_named
from rapidctl.demo import audit, picture
from rapidctl.demo.figures import Figures, RateFigures, host_figures
from rapidctl.demo.host import DOMAIN, Host, HostPlan
from rapidctl.demo.load import Load, cast_dies, prepare, roles
from rapidctl.demo.replay import finish, replay
from rapidctl.demo.report import in_watts
from rapidctl.demo.scene import Scene
from rapidctl.demo.stage import Actor, Stage
from rapidctl.demo.view import Board

PROFILE = profile_named("mi300x-8b")
SLO = SloTargets()
BUDGET_MW = 4_800_000
FALLBACK_MW = 600_000  # eight of them are the budget
BASELINE = "uniform"
LEAD_S = 0.3  # from the decision to start to the first second of the trace
KEEP_SLOWDOWN = 2.0  # with keep, the trace repeats so much slower


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the user asked for. rate_scale None: by the rule. picture None: none is drawn."""

    workload: str
    policy: str
    seconds: float
    rate_scale: float | None
    seed: int
    keep: bool
    picture: Path | None
    folder: Path


@dataclass(frozen=True, slots=True)
class Played:
    """What only those who were there can tell. Energy is by host."""

    start_s: float
    end_s: float
    arrival_lag_max_s: float
    cpu_s: float
    energy_mj: dict[str, int]


async def run_demo(options: DemoOptions, board: Board, report: Callable[[Figures], None]) -> Figures:
    """Run it all; `report` hears the result, which is also returned. Raises RapidError.

    With `keep` it goes on after the report until it is cancelled. Whatever happens, no process is left.
    """
    dies = cast_dies(options.seed)
    load = prepare(
        options.workload,
        seconds=options.seconds,
        scale=options.rate_scale,
        profile=PROFILE,
        dies=dies,
        limit_mw=FALLBACK_MW,
        slo=SLO,
        say=board.say,
    )
    hosts = [
        Host(HostPlan(policy, options.folder / policy, PROFILE, BUDGET_MW, FALLBACK_MW, SLO, roles(), dies), board.say)
        for policy in dict.fromkeys((BASELINE, options.policy))
    ]
    stage = Stage(hosts, board.say)
    with _one_error():
        async with asyncio.TaskGroup() as tasks, AsyncExitStack() as stack:
            await stage.open(tasks, stack)
            played = await _play(stage, load, board)
            figures = _figures(stage, load, played, options.picture)
            if options.keep:
                report(figures)
                await _keep_on(hosts, load, board)
    # The way out is judged too: power may only go down on it.
    figures = _judged(stage, figures, time.monotonic())
    report(figures)
    return figures


# ---- the run ----


async def _play(stage: Stage, load: Load, board: Board) -> Played:
    """The same arrivals to every host, and then the time to finish them."""
    fronts = [actor.host.front for actor in stage.actors]
    start_s = time.monotonic() + LEAD_S
    cpu_s, energy_mj = stage.cpu_s(), _energy_mj(stage)
    async with asyncio.TaskGroup() as tasks:
        showing = tasks.create_task(board.show(lambda: _scene(stage, load, start_s)))
        lag_s = await replay(fronts, load.requests, start_s=start_s)
        await finish(fronts, start_s + load.seconds)
        showing.cancel()
    spent_mj = {name: after_mj - energy_mj[name] for name, after_mj in _energy_mj(stage).items()}
    return Played(start_s, time.monotonic(), lag_s, stage.cpu_s() - cpu_s, spent_mj)


async def _keep_on(hosts: Sequence[Host], load: Load, board: Board) -> None:
    """The trace again and again, slower, until someone ends it."""
    for line in _hints(hosts):
        board.say(line)
    fronts = [host.front for host in hosts]
    for round_number in count(1):
        for front in fronts:
            front.begin_anew()
        first = round_number * len(load.requests)
        start_s = time.monotonic()
        await replay(fronts, load.requests, start_s=start_s, slowdown=KEEP_SLOWDOWN, first_number=first)
        await finish(fronts, start_s + KEEP_SLOWDOWN * load.seconds)


def _hints(hosts: Sequence[Host]) -> list[str]:
    """What to try while it runs."""
    base, other = hosts[0], hosts[-1]
    return [
        "",
        f"everything runs on until Ctrl-C, with the trace at 1/{KEEP_SLOWDOWN:g} of its speed. In another shell:",
        f"  export RAPID_ADDRESS={other.address}",
        "  rapidctl status",
        "  rapidctl watch",
        f"  rapidctl budget set {DOMAIN} 4kW",
        f"  rapidctl role set {other.instances[-1]} prefill",
        "  rapidctl decisions",
        f"  rapidctl why {other.instances[-1]}",
        "  rapidctl pause; rapidctl resume",
        f"the controller of {base.name} is at {base.address}; logs are in {other.plan.folder.parent}",
    ]


# ---- what is shown, and what came of it ----


def _scene(stage: Stage, load: Load, start_s: float) -> Scene:
    now_s = time.monotonic()
    actors = stage.actors
    return Scene(
        title=_title(load, len(actors)),
        now_s=now_s - start_s,
        seconds=load.seconds,
        arriving_rps=actors[0].host.front.record.arriving_rps(now_s),
        ceiling_mw=PROFILE.ceiling_mw,
        hosts=stage.scenes(now_s),
        notices=tuple(stage.notices),
    )


def _title(load: Load, hosts: int) -> str:
    return (
        f"RAPID: {load.workload} x {load.scale:.2f}, {load.offered_rps:.0f} requests/s, "
        f"on {hosts} hosts of {len(roles())} GPUs under {in_watts(BUDGET_MW)} each"
    )


def _figures(stage: Stage, load: Load, played: Played, picture_path: Path | None) -> Figures:
    findings = {actor.host.name: _judge(actor, played.end_s) for actor in stage.actors}
    return Figures(
        hosts=tuple(
            host_figures(
                name := actor.host.name,
                actor.host.front,
                findings[name],
                seconds=load.seconds,
                energy_mj=played.energy_mj[name],
            )
            for actor in stage.actors
        ),
        workload=load.workload,
        seconds=load.seconds,
        budget_mw=BUDGET_MW,
        slo=SLO,
        rate=RateFigures(load.scale, load.offered_rps, load.chosen.attainment if load.chosen else None),
        restarts=stage.keeper.restarts,
        arrival_lag_max_s=played.arrival_lag_max_s,
        cpu_cores=played.cpu_s / (played.end_s - played.start_s),
        picture=_draw(stage, load, played, findings, picture_path) if picture_path else None,
    )


def _judge(actor: Actor, until_s: float) -> audit.Finding:
    """From READY of the host's first rapidd on."""
    assert actor.readiness.first_s is not None, "judged before it was ready"
    return audit.judge(
        actor.host.gpu_files,
        PROFILE.ceiling_mw,
        budget_mw=BUDGET_MW,
        start_s=actor.readiness.first_s,
        end_s=until_s,
    )


def _judged(stage: Stage, figures: Figures, until_s: float) -> Figures:
    """The same figures, with the budget judged until later."""
    judged = [
        replace(host, verdict=_judge(actor, until_s).verdict)
        for host, actor in zip(figures.hosts, stage.actors, strict=True)
    ]
    return replace(figures, hosts=tuple(judged))


def _energy_mj(stage: Stage) -> dict[str, int]:
    now_s = time.monotonic()
    return {actor.host.name: audit.energy_mj(actor.host.gpu_files, now_s) for actor in stage.actors}


def _draw(stage: Stage, load: Load, played: Played, findings: Mapping[str, audit.Finding], path: Path) -> str | None:
    """Where the picture lies; None without matplotlib, which is an extra. Raises PictureFailed."""
    hosts = tuple(
        picture.HostStory(
            host.name, host.front.record, findings[host.name].histories, host.instances, tuple(host.front.doors)
        )
        for host in (actor.host for actor in stage.actors)
    )
    story = picture.Story(
        title=_title(load, len(hosts)),
        hosts=hosts,
        budget_mw=BUDGET_MW,
        floor_mw=PROFILE.floor_mw,
        ceiling_mw=PROFILE.ceiling_mw,
        start_s=played.start_s,
        end_s=played.start_s + load.seconds,
    )
    try:
        picture.draw(story, path)
    except ModuleNotFoundError:
        return None
    except OSError as error:
        raise PictureFailed(f"cannot write the picture {path}: {error.strerror}; choose another --picture") from error
    return str(path)


class PictureFailed(RapidError):
    """The path for the picture cannot be written."""


@contextmanager
def _one_error() -> Iterator[None]:
    """Raise the first RapidError of a group as itself. Anything else in the group is our own mistake, and stays."""
    try:
        yield
    except BaseExceptionGroup as group:
        ours, rest = group.split(RapidError)
        if ours is None or rest is not None:
            raise
        error: BaseException = ours
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from group
