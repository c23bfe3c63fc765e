"""A small finished run, made by hand, for the tests of what is told about it."""

from pathlib import Path

from rapid.core.cluster import NodeHealth, Phase, Role, SloTargets
from rapid.sim.model.requests import Finished, Request
from rapid.sim.world.checkers import LimitHistory, check_budget
from rapidctl.demo import talk
from rapidctl.demo.audit import Finding
from rapidctl.demo.figures import Figures, RateFigures, host_figures
from rapidctl.demo.record import Attainment
from rapidctl.demo.router import FrontEnd
from rapidctl.demo.scene import GpuScene, HostScene, Scene

BUDGET_MW = 1_200_000
SECONDS = 10.0


def front_end(name: str, *, met: int, missed: int, unfinished: int = 0) -> FrontEnd:
    """A front end whose requests arrived half a second apart: first those that met their SLO."""
    front = FrontEnd(name, SloTargets(), print)
    for number in range(met + missed + unfinished):
        request = Request(number, 0.5 * number, 1000, 101)
        front.record.offer(request)
        if number < met + missed:
            ttft_s = 0.4 if number < met else 3.0
            front.record.end(Finished(request, request.arrival_s + ttft_s + 2.0, ttft_s, 0.020))
    front.lags = {"e0": talk.Lag(10, 0.02, 0.005), "e1": talk.Lag(30, 0.02, 0.011)}
    return front


def finding(*changes: tuple[float, int]) -> Finding:
    """Of two GPUs at 600 W, the second of which changes as told."""
    histories = (
        LimitHistory("g0", 750_000, ((-1.0, 600_000),)),
        LimitHistory("g1", 750_000, ((-1.0, 600_000), *changes)),
    )
    verdict = check_budget(histories, [(0.0, BUDGET_MW)], start_s=0.0, end_s=SECONDS)
    return Finding(verdict, histories, raised_mw=50_000)


def figures(*, over: bool = False, predicted: float | None = 0.6, restarts: int = 0) -> Figures:
    """Uniform met 12 of 20, rapid 15 of 20; with `over`, rapid was 50 W over for a quarter of a second."""
    bad = ((4.0, 650_000), (4.25, 600_000)) if over else ()
    return Figures(
        hosts=(
            host_figures(
                "uniform",
                front_end("uniform", met=12, missed=8),
                finding(),
                seconds=SECONDS,
                energy_mj=4_000_000,
            ),
            host_figures(
                "rapid",
                front_end("rapid", met=15, missed=3, unfinished=2),
                finding(*bad),
                seconds=SECONDS,
                energy_mj=3_600_000,
            ),
        ),
        workload="azure",
        seconds=SECONDS,
        budget_mw=BUDGET_MW,
        slo=SloTargets(),
        rate=RateFigures(scale=5.5, offered_rps=2.0, predicted_attainment=predicted),
        restarts=restarts,
        arrival_lag_max_s=0.004,
        cpu_cores=0.4,
        picture=str(Path("/x/azure.png")),
    )


def gpu(index: int, *, role: Role | None = Role.PREFILL, phase: Phase = Phase.SERVING, limit_w: int = 600) -> GpuScene:
    return GpuScene(index, 1000 * limit_w, 550_000, True, role, phase, waiting=12, running=3)


def host_scene(name: str, *gpus: GpuScene, stale_s: float = 0.1, over: bool = False) -> HostScene:
    return HostScene(
        name=name,
        attainment=Attainment(both=0.573, ttft=0.61, tpot=None, recent=0.4),
        requests=1260,
        finished=1234,
        waiting=0,
        gpus=gpus,
        held_mw=4_800_000,
        draw_mw=4_012_000,
        budget_mw=4_800_000,
        over_budget=over,
        role_moves=2,
        decision="rapid: prefill is short: " + "a reason that goes on and on " * 8,
        decision_age_s=4.0,
        node=NodeHealth.REPORTING,
        stale_s=stale_s,
    )


def scene(*hosts: HostScene, notices: tuple[str, ...] = ()) -> Scene:
    return Scene("RAPID: azure x 5.81", 23.0, 60.0, 43.0, 750_000, hosts, notices)
