"""The page that Prometheus reads says what the picture says, and leaves out what is not known."""

from dataclasses import replace

from prometheus_client import generate_latest

from rapid.core.cluster import GpuHealth, NodeHealth, Phase, PhaseLoad, Role, SloTargets
from rapid.core.events import NodeGone, NodeHeard, Ticked
from rapid.core.status import DomainStatus, GpuStatus, InstanceStatus, NodeStatus, SloStatus, Status
from rapidctl.controller.metrics import Metrics, Shown
from tests.controller.fakes import report

GPU = GpuStatus("g0", 0, 400_000, 750_000, 600_000, 650_000, 640_000, 660_000, 500_500, True, GpuHealth.OK, "", "e0")
LOAD = PhaseLoad("e0", Role.DECODE, 1.0, waiting_requests=3, running_requests=40)
STATUS = Status(
    at_s=1.0,
    wall_s=2.0,
    epoch=4,
    controller_id="c1",
    policy="rapid",
    paused=False,
    domains=(DomainStatus("host", "", 4_800_000, 100_000, 4_700_000, 4_000_000, False, ""),),
    nodes=(NodeStatus("n1", "host", NodeHealth.REPORTING, 0.25, "", (GPU,)),),
    instances=(
        InstanceStatus("e0", "sim", "n1", ("g0",), Role.DECODE, Phase.SERVING, Role.DECODE, False, "", LOAD),
        InstanceStatus("e1", "sim", "n1", ("g1",), Role.DECODE, Phase.GONE, Role.DECODE, False, "", None),
    ),
    slo=SloStatus(SloTargets(), 0.75, None, 0.5, None, 20),
    role_moves=2,
    watts_moved_mw=150_000,
    last_decision=None,
    scored=40,
    prediction_error=0.05,
)
SHOWN = Shown(STATUS, 5, 6, 7, 8, 1, 2)


def page(shown: Shown = SHOWN, metrics: Metrics | None = None) -> list[str]:
    metrics = metrics or Metrics(lambda: shown)
    return generate_latest(metrics.registry).decode().splitlines()


def test_the_page_says_what_the_picture_says() -> None:
    lines = page()
    for line in (
        'rapid_controller_domain_budget_watts{domain="host"} 4800.0',
        'rapid_controller_domain_reserved_watts{domain="host"} 100.0',
        'rapid_controller_domain_held_watts{domain="host"} 4700.0',
        'rapid_controller_domain_draw_watts{domain="host"} 4000.0',
        'rapid_controller_domain_over_budget{domain="host"} 0.0',
        'rapid_controller_node_health{health="reporting",node="n1"} 1.0',
        'rapid_controller_node_health{health="silent",node="n1"} 0.0',
        'rapid_controller_node_report_age_seconds{node="n1"} 0.25',
        'rapid_controller_gpu_limit_watts{gpu="g0",index="0",node="n1"} 640.0',
        'rapid_controller_gpu_target_watts{gpu="g0",index="0",node="n1"} 650.0',
        'rapid_controller_gpu_held_watts{gpu="g0",index="0",node="n1"} 660.0',
        'rapid_controller_gpu_draw_watts{gpu="g0",index="0",node="n1"} 500.5',
        'rapid_controller_gpu_managed{gpu="g0",index="0",node="n1"} 1.0',
        'rapid_controller_instance{instance="e0",phase="serving",role="decode"} 1.0',
        'rapid_controller_instance_waiting_requests{instance="e0"} 3.0',
        'rapid_controller_instance_running_requests{instance="e0"} 40.0',
        'rapid_controller_slo_attainment{kind="ttft"} 0.75',
        'rapid_controller_slo_window_seconds{kind="ttft"} 0.5',
        'rapid_controller_slo_target_seconds{kind="tpot"} 0.04',
        "rapid_controller_role_moves_total 2.0",
        "rapid_controller_moved_watts_total 150.0",
        "rapid_controller_finished_requests_total 20.0",
        "rapid_controller_queue_length 5.0",
        "rapid_controller_replaced_reports_total 6.0",
        "rapid_controller_journal_life_entries 7.0",
        "rapid_controller_journal_life_bytes 8.0",
        "rapid_controller_node_streams 1.0",
        "rapid_controller_engine_streams 2.0",
        "rapid_controller_scored_predictions_total 40.0",
        "rapid_controller_prediction_error 0.05",
    ):
        assert line in lines


def test_what_is_not_known_is_left_out_and_never_zero() -> None:
    unread = replace(STATUS.nodes[0], gpus=(replace(GPU, draw_mw=None),))
    dark = replace(STATUS.domains[0], draw_mw=None)
    status = replace(STATUS, nodes=(unread,), domains=(dark,), scored=0, prediction_error=None)
    lines = page(replace(SHOWN, status=status))
    assert not [line for line in lines if line.startswith("rapid_controller_prediction_error ")]
    assert not [line for line in lines if line.startswith("rapid_controller_gpu_draw_watts{")]
    assert not [line for line in lines if line.startswith("rapid_controller_domain_draw_watts{")]
    assert not [line for line in lines if 'slo_attainment{kind="tpot"}' in line]
    assert not [line for line in lines if 'instance="e1"' in line], "it is gone"


def test_durations_are_counted_by_kind_of_event() -> None:
    metrics = Metrics(lambda: SHOWN)
    for event in (Ticked(0.0), Ticked(0.0), NodeHeard(0.0, report()), NodeGone(0.0, "n1", "why")):
        metrics.stepped(event, 0.002)
    metrics.committed(0.02)
    lines = page(metrics=metrics)
    for kind, count in (("Ticked", 2), ("NodeHeard", 1), ("other", 1)):
        assert f'rapid_controller_step_seconds_count{{event="{kind}"}} {count}.0' in lines
        assert f'rapid_controller_step_seconds_bucket{{event="{kind}",le="0.001"}} 0.0' in lines
        assert f'rapid_controller_step_seconds_bucket{{event="{kind}",le="0.003"}} {count}.0' in lines
    assert 'rapid_controller_journal_commit_seconds_bucket{le="0.03"} 1.0' in lines
