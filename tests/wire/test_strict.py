"""A field that is missing or out of bounds is refused by its name; at the bound it is taken."""

import math
from collections.abc import Iterator
from copy import deepcopy

import pytest
from google.protobuf.message import Message

from rapid.core.cluster import NodeReport, Phase
from rapid.core.errors import WireInvalid
from rapid.v1 import controller_pb2, engine_pb2, node_pb2, types_pb2
from rapid.wire import common, engine, fields, node, operator
from tests.wire.examples import EXAMPLES, holder

# Fields whose zero has a meaning of its own (or that are OPTIONAL): clearing one must be taken, any other refused.
ZERO_MEANS_SOMETHING = {
    *("index", "epoch", "seq", "draw_mw", "draw_at_s", "energy_mj", "requested_mw", "problem", "detail", "void"),
    *("grant_mw", "lease_left_s", "node_time_s", "limit_since_s", "not_after_s", "drain_s", "loads", "answers"),
    "load_problems",
    *("hard_budget_mw", "gpus", "at_s", "wall_s", "waiting_requests", "waiting_tokens", "oldest_wait_s"),
    *("running_requests", "kv_used_fraction", "arrived", "finished", "prompt_tokens", "output_tokens", "ttft", "tpot"),
    *("from_role", "to_role", "parks", "reads_role", "quiet_s", "park"),
    *(
        "engine",
        "engine_time_s",
        "switch_s",
        "requests_left",
        "error",
        "noticed",
        "reason",
        "goodbye",
        "load_interval_s",
        "load",
    ),
    *("inputs", "changes", "decisions", "paused", "domains", "nodes", "instances", "role_moves", "watts_moved_mw"),
    *("last_decision", "parent", "reserved_mw", "held_mw", "over_budget", "advice", "age_s", "target_mw", "limit_mw"),
    *("managed", "instance", "pinned", "ttft_target_s", "tpot_target_s", "ttft_attainment", "tpot_attainment"),
    *("ttft_window_s", "tpot_window_s", "text", "bounds_s"),
    *("watch", "unmanaged", "moves", "last_move", "repairs", "xids", "xid", "losses", "over_s", "unmeasured_s"),
    *("cap_bound", "watched_s", "excursions", "excursion", "bus", "unmanageable", "lacks", "warnings"),
    *("standing_mw", "held_by", "days", "start_s", "ramp_down_s", "ramp_up_s", "schedules", "active"),
    *("starts_wall_s", "ends_wall_s"),
    *("predicted", "held", "horizon_s", "candidates", "chosen", "measured", "scored", "prediction_error"),
}
# Where the same name is REQUIRED in one message and has a meaningful zero in another, by the message's type.
NOT_ZERO = {
    "Greeting": {"epoch"},
    "Renewal": {"epoch"},
    "Welcome": {"epoch"},
    "Grant": {"limit_mw"},
    "GpuReport": {"limit_mw", "gpu"},
    "NodeReport": {"gpus"},
    "PhaseLoad": {"instance"},
    "LoadProblem": {"instance", "problem"},
    "EngineHello": {"instance", "gpus"},
    "InstanceStatus": {"instance", "gpus"},
    "EngineLoad": {"load"},
    "PushRequest": {"load"},
    "AttachRequest": {"load", "goodbye"},
    "Decision": {"reason"},
    "DecisionInput": {"text"},
    "Histogram": {"bounds_s"},  # the counts no longer fit
}
OPTIONAL_ANYWHERE = {
    ("GrantAnswer", "gpu"),
    ("GetStatusResponse", "version"),
    ("DomainStatus", "budget_mw"),
    ("Schedule", "budget_mw"),
    ("Schedule", "by"),
}


def paths(message: Message, prefix: str = "") -> Iterator[str]:
    """The path of every field that is set, at any depth."""
    for field, value in message.ListFields():
        yield prefix + field.name
        if field.message_type is None:
            continue
        for index, inner in enumerate(value) if field.is_repeated else [(None, value)]:
            yield from paths(inner, f"{prefix}{field.name}{'' if index is None else f'[{index}]'}.")


CLEARED = [(name, path) for name, (message, _) in EXAMPLES.items() for path in paths(message)]


@pytest.mark.parametrize(("name", "path"), CLEARED, ids=[f"{name}: {path}" for name, path in CLEARED])
def test_a_missing_field_is_refused_by_name_unless_its_zero_means_something(name: str, path: str) -> None:
    original, decode = EXAMPLES[name]
    message = deepcopy(original)
    inner, field = holder(message, path)
    inner.ClearField(field)
    kind = inner.DESCRIPTOR.name
    if field in ZERO_MEANS_SOMETHING - NOT_ZERO.get(kind, set()) or (kind, field) in OPTIONAL_ANYWHERE:
        decode(message)
        return
    with pytest.raises(WireInvalid) as caught:
        decode(message)
    if kind == "Histogram":
        assert caught.value.field == path.replace("bounds_s", "counts")
    elif kind == "DecisionInput" and field in ("number", "text"):
        assert caught.value.field == path.replace(field, "value")
    elif not kind.endswith(("Request", "Response")) or field in ("report", "status"):
        assert caught.value.field == path


WRONG = [
    ("report", "report.gpus[0].limit_mw", fields.GPU_POWER_MAX_MW + 1, "is outside 1..100000000 mW"),
    ("report", "report.gpus[0].floor_mw", 750_001, "750001 mW is above ceiling_mw, 750000 mW"),
    ("report", "report.gpus[0].gpu", "GPU-\x1b[31m", "cannot be printed"),
    ("report", "report.gpus[0].gpu", "x" * (fields.NAME_MAX + 1), "129 characters, at most 128 allowed"),
    ("report", "report.gpus[0].problem", "x" * (fields.TEXT_MAX + 1), "1025 characters, at most 1024 allowed"),
    ("report", "report.gpus[0].health", 99, "unknown value 99"),
    ("report", "report.gpus[0].draw_at_s", math.nan, "nan s is outside"),
    ("report", "report.gpus[0].energy_mj", 2**63, "is outside 0.."),
    ("report", "report.node_time_s", math.inf, "inf s is outside"),
    ("report", "report.lease_left_s", -0.5, "-0.5 s is outside 0..1e+10 s"),
    ("report", "report.loads[0].kv_used_fraction", 1.01, "1.01 is outside 0..1"),
    ("report", "report.loads[0].oldest_wait_s", -1.0, "-1 s is outside"),
    ("report", "report.answers[0].verdict", 5, "unknown value 5"),
    ("report", "report.mark.epoch", 2**63, "is outside"),
    ("greeting", "greeting.report_interval_s", 0.09, "0.09 s is outside 0.1..10 s"),
    ("greeting", "greeting.report_interval_s", 10.1, "10.1 s is outside 0.1..10 s"),
    ("grants", "grants.not_after_s", math.nan, "nan s is outside"),
    ("grants", "grants.grants[1].limit_mw", fields.GPU_POWER_MAX_MW + 1, "is outside 1..100000000 mW"),
    ("push", "load.role", 4, "unknown value 4"),
    ("hello", "hello.phase", types_pb2.PHASE_GONE, "unknown value 7"),
    ("hello", "hello.role", types_pb2.ROLE_MIXED, "does not hold mixed, the role served now"),
    ("load", "load.load.instance", "other", "'other' is not 'i1', which said hello"),
    ("decisions", "decisions[0].inputs[0].number", math.nan, "is not a number"),
    ("decisions", "decisions[0].predicted", 1.01, "1.01 is outside 0..1"),
    ("decisions", "decisions[0].horizon_s", math.inf, "inf s is outside"),
    ("decisions", "decisions[0].candidates[1].predicted", math.nan, "nan is outside 0..1"),
    ("schedules", "schedules[0].schedule.duration_s", 0.5, "0.5 s is outside 1..604800 s"),
    ("status", "status.nodes[0].age_s", -1.0, "-1 s is outside"),
    ("status", "status.slo.ttft_attainment", 1.5, "1.5 is outside 0..1"),
    ("status", "status.domains[0].budget_mw", fields.POWER_MAX_MW + 1, "is outside 0.."),
]


@pytest.mark.parametrize(("name", "path", "value", "problem"), WRONG)
def test_a_wrong_value_is_refused_with_field_value_and_bound(name: str, path: str, value: object, problem: str) -> None:
    original, decode = EXAMPLES[name]
    message = deepcopy(original)
    inner, field = holder(message, path)
    setattr(inner, field, value)
    with pytest.raises(WireInvalid) as caught:
        decode(message)
    named = path.replace("hello.role", "hello.roles") if "does not hold" in problem else path
    assert caught.value.field == named
    assert problem in str(caught.value)
    assert str(caught.value).startswith(f"message field {named}: ")


def test_an_interval_at_its_bounds_is_taken() -> None:
    for interval_s in node.REPORT_INTERVAL_S:
        original, decode = EXAMPLES["greeting"]
        message = deepcopy(original)
        message.greeting.report_interval_s = interval_s
        assert decode(message).report_interval_s == interval_s


def report_message() -> node_pb2.EnforceResponse:
    message: node_pb2.EnforceResponse = deepcopy(EXAMPLES["report"][0])
    return message


def test_a_report_carries_as_many_gpus_as_the_bound_and_no_more() -> None:
    message = report_message()
    for index in range(1, fields.GPUS_MAX):
        gpu = message.report.gpus.add()
        gpu.CopyFrom(message.report.gpus[0])
        gpu.gpu = f"other {index}"
    assert len(node.decode_report(message).gpus) == fields.GPUS_MAX
    message.report.gpus.add().CopyFrom(message.report.gpus[0])
    with pytest.raises(WireInvalid, match=r"^message field report\.gpus: 1025 entries, 1 to 1024 allowed$"):
        node.decode_report(message)


def test_a_report_carries_as_many_answers_as_the_bound_and_no_more() -> None:
    message = report_message()
    while len(message.report.answers) < fields.ANSWERS_MAX:
        message.report.answers.add().CopyFrom(message.report.answers[0])
    assert isinstance(node.decode_report(message), NodeReport)
    message.report.answers.add().CopyFrom(message.report.answers[0])
    with pytest.raises(WireInvalid, match=r"^message field report\.answers: 4097 entries, 0 to 4096 allowed$"):
        node.decode_report(message)


def test_a_gpu_that_is_named_twice_is_refused() -> None:
    message = report_message()
    message.report.gpus.add().CopyFrom(message.report.gpus[0])
    with pytest.raises(WireInvalid, match=r"^message field report\.gpus: GPU-1 is named twice$"):
        node.decode_report(message)
    grants = deepcopy(EXAMPLES["grants"][0])
    grants.grants.grants[1].gpu = "GPU-1"
    with pytest.raises(WireInvalid, match=r"^message field grants\.grants: GPU-1 is named twice$"):
        node.decode_enforce(grants, node="h1")


@pytest.mark.parametrize(
    ("bounds_s", "counts", "named"),
    [
        ([1.0], [1], "ttft.counts: 1 entries, must be 2"),
        ([1.0], [1, 2, 3], "ttft.counts: 3 entries, must be 2"),
        ([1.0, 1.0], [1, 2, 3], r"ttft.bounds_s\[1\]: 1 s does not lie above the 1 s"),
        ([1.0, math.nan, 2.0], [1, 2, 3, 4], r"ttft.bounds_s\[1\]: nan s does not lie above the 1 s"),
        ([math.nan], [1, 2], r"ttft.bounds_s\[0\]: nan s is outside"),
        ([-1.0], [1, 2], r"ttft.bounds_s\[0\]: -1 s is outside"),
        ([1.0, math.inf], [1, 2, 3], r"ttft.bounds_s\[1\]: inf s is outside"),
        ([1.0], [1, 2**63], "ttft.counts: 9223372036854775808 is outside"),
        ([float(bound) for bound in range(257)], [0] * 258, "ttft.bounds_s: 257 entries, 0 to 256 allowed"),
    ],
)
def test_a_histogram_that_is_none_is_refused(bounds_s: list[float], counts: list[int], named: str) -> None:
    message = deepcopy(EXAMPLES["push"][0])
    message.load.ttft.CopyFrom(types_pb2.Histogram(bounds_s=bounds_s, counts=counts))
    with pytest.raises(WireInvalid, match=f"^message field load.{named}"):
        EXAMPLES["push"][1](message)


def test_a_histogram_at_its_bound_is_taken() -> None:
    message = deepcopy(EXAMPLES["push"][0])
    message.load.ttft.CopyFrom(types_pb2.Histogram(bounds_s=[float(bound) for bound in range(256)], counts=[1] * 257))
    assert len(EXAMPLES["push"][1](message).ttft.counts) == 257


def test_text_with_line_breaks_is_taken_as_one_line() -> None:
    message = report_message()
    message.report.gpus[0].problem = "lost\n\x1b[31mred"
    assert node.decode_report(message).gpus[0].problem == "lost  [31mred"


def test_the_first_request_of_an_engine_is_a_hello_and_no_other_is() -> None:
    progress = EXAMPLES["progress"][0]
    with pytest.raises(WireInvalid, match="the first request of a stream must be a hello, not progress"):
        engine.decode_attach(progress, hello=None)
    with pytest.raises(WireInvalid, match="the first request of a stream must be a hello, not empty"):
        engine.decode_attach(engine_pb2.AttachRequest(), hello=None)
    hello_message, decode = EXAMPLES["hello"]
    with pytest.raises(WireInvalid, match="hello: comes twice"):
        engine.decode_attach(hello_message, hello=decode(hello_message))


def test_every_phase_but_gone_may_be_said_by_an_engine() -> None:
    message = deepcopy(EXAMPLES["progress"][0])
    said = set()
    for value in set(types_pb2.Phase.values()) - {types_pb2.PHASE_UNSPECIFIED, types_pb2.PHASE_GONE}:
        message.progress.phase = value
        said.add(EXAMPLES["progress"][1](message).phase)
    assert said == set(Phase) - {Phase.GONE}


def test_what_an_operator_asks_has_defaults_and_bounds() -> None:
    watch, decisions = controller_pb2.WatchRequest, controller_pb2.ListDecisionsRequest
    assert operator.decode_watch(watch()) == operator.WATCH_DEFAULT_S
    assert operator.decode_watch(watch(interval_s=60.0)) == 60.0
    assert operator.decode_list_decisions(decisions()) == (operator.DECISIONS_DEFAULT, "")
    assert operator.decode_list_decisions(decisions(limit=fields.DECISIONS_MAX)) == (fields.DECISIONS_MAX, "")
    for wrong in (0.01, 60.5, math.nan):
        with pytest.raises(WireInvalid, match=r"interval_s: .* is outside 0\.1\.\.60 s"):
            operator.decode_watch(watch(interval_s=wrong))
    with pytest.raises(WireInvalid, match=r"limit: 10001 is outside 1\.\.10000"):
        operator.decode_list_decisions(decisions(limit=10_001))


def test_a_budget_of_zero_is_refused_and_no_role_takes_the_pin_away() -> None:
    with pytest.raises(WireInvalid, match="budget_mw: 0 mW is outside 1"):
        operator.decode_set_budget(controller_pb2.SetBudgetRequest(domain="row"), at_s=1.0, request="r1")
    asked = operator.decode_set_role(controller_pb2.SetRoleRequest(instance="i1"), at_s=1.0, request="r1")
    assert (asked.role, asked.by) == (None, operator.UNNAMED)
    assert common.encode_role(None) == types_pb2.ROLE_UNSPECIFIED
    paused = [operator.decode_pause(m(), at_s=1.0, request="r1").paused for m in (
        controller_pb2.PauseRequest, controller_pb2.ResumeRequest
    )]  # fmt: skip
    assert paused == [True, False]
