"""The JSON of rapidctl: the nouns as documents. Units are in the names: _w watts (a float), _s seconds, 0 to 1 shares.

What is unknown, or infinite, is null. Keys are added in later versions, never renamed or taken away.
"""

import math

from rapid.core.cluster import Decision, PhaseLoad
from rapid.core.status import DomainStatus, GpuStatus, InstanceStatus, NodeStatus, SloStatus, Status
from rapidctl.commands._health import troubles
from rapidctl.output import Document

DECISION_SHAPE = """\
id at_s wall_s by reason inputs changes
predicted held horizon_s candidates measured
  at_s is the controller's monotonic clock, wall_s seconds since 1970
  inputs      an object: what the decision rested on, by name
  changes     a list of: subject before after
  predicted   SLO attainment expected over the next horizon_s, and held, the
              same if nothing were done; null: nothing was predicted
  candidates  what was weighed, best first: a list of
              words predicted chosen
  measured    SLO attainment in that time; null: not yet, or none"""

PLAN_SHAPE = """\
one object: paused by reason at_s wall_s inputs changes
            predicted held horizon_s candidates
  as in 'rapidctl why', of a decision that is not made; without changes,
  nothing would be done; paused: whether the policy is"""

STATUS_SHAPE = """\
one object: ok troubles at_s wall_s epoch controller_id policy paused
            role_moves watts_moved domains nodes instances slo last_decision
            scored prediction_error
  ok         true when nothing is red; troubles lists what is, in words
  domains    a list of: domain parent budget_w reserved_w held_w free_w draw_w
             over_budget advice standing_w held_by
    held_by  the order that makes the budget what it is; standing_w without it
  nodes      a list of: node domain health age_s problem watch gpus
    health   "never heard", "reporting", "silent" or "released"
    watch    since rapidd started: watched_s, and of them over_s (over the
             leave, by energy) and unmeasured_s; excursions, excursion
    gpus     a list of: gpu index instance limit_w target_w held_w draw_w
             floor_w ceiling_w fallback_w managed health problem watch
      watch  since rapidd started: unmanaged moves last_move repairs xids xid
             losses over_s unmeasured_s cap_bound
  instances  a list of: instance engine node gpus role phase target_role
             pinned problem load cap_bound
    cap_bound  share of the last ten seconds in which a limit slowed it
    load     at_s waiting_requests waiting_tokens oldest_wait_s
             running_requests kv_used_fraction arrived finished
             prompt_tokens output_tokens
  slo        ttft_target_s tpot_target_s ttft_attainment tpot_attainment
             ttft_window_s tpot_window_s finished
  last_decision  as in 'rapidctl why'
  scored         predictions of the policy that were held against what came
  prediction_error  the mean of the absolute differences
Names end in the unit: _w watts, _s seconds; attainment is a share of 1.
null: not known or none, such as a draw without a fresh reading."""


def status_document(status: Status) -> Document:
    """See STATUS_SHAPE."""
    red = troubles(status)
    return {
        "ok": not red,
        "troubles": red,
        "at_s": status.at_s,
        "wall_s": status.wall_s,
        "epoch": status.epoch,
        "controller_id": status.controller_id,
        "policy": status.policy,
        "paused": status.paused,
        "role_moves": status.role_moves,
        "watts_moved": status.watts_moved_mw / 1000,
        "domains": [domain_document(domain) for domain in status.domains],
        "nodes": [_node_document(node) for node in status.nodes],
        "instances": [_instance_document(instance) for instance in status.instances],
        "slo": _slo_document(status.slo),
        "last_decision": decision_document(status.last_decision) if status.last_decision else None,
        "scored": status.scored,
        "prediction_error": status.prediction_error,
    }


def domain_document(domain: DomainStatus) -> Document:
    """A domain as in STATUS_SHAPE."""
    return {
        "domain": domain.domain,
        "parent": domain.parent or None,
        "budget_w": domain.budget_mw / 1000,
        "reserved_w": domain.reserved_mw / 1000,
        "held_w": domain.held_mw / 1000,
        "free_w": (domain.budget_mw - domain.reserved_mw - domain.held_mw) / 1000,
        "draw_w": _watts(domain.draw_mw),
        "over_budget": domain.over_budget,
        "advice": domain.advice,
        "standing_w": domain.truth.standing_mw / 1000 or None,
        "held_by": domain.truth.held_by or None,
    }


def decision_document(decision: Decision) -> Document:
    """See DECISION_SHAPE."""
    return {
        "id": decision.id,
        "at_s": decision.at_s,
        "wall_s": decision.wall_s,
        "by": decision.by,
        "reason": decision.reason,
        "inputs": {name: value if isinstance(value, str) else _finite(value) for name, value in decision.inputs},
        "changes": [
            {"subject": subject, "before": before, "after": after} for subject, before, after in decision.changes
        ],
        "predicted": decision.predicted,
        "held": decision.held,
        "horizon_s": decision.horizon_s if decision.predicted is not None else None,
        "candidates": [
            {"words": it.words, "predicted": it.predicted, "chosen": it.chosen} for it in decision.candidates
        ],
        "measured": decision.measured,
    }


def plan_document(plan: Decision, status: Status) -> Document:
    """See PLAN_SHAPE."""
    document = decision_document(plan)
    return {"paused": status.paused} | {key: document[key] for key in document if key not in ("id", "measured")}


def _node_document(node: NodeStatus) -> Document:
    return {
        "node": node.node,
        "domain": node.domain,
        "health": node.health.value,
        "age_s": _finite(node.age_s),
        "problem": node.problem,
        "watch": {
            "watched_s": node.watch.watched_s,
            "over_s": node.watch.over_s,
            "unmeasured_s": node.watch.unmeasured_s,
            "excursions": node.watch.excursions,
            "excursion": node.watch.excursion,
        },
        "gpus": [_gpu_document(gpu) for gpu in node.gpus],
    }


def _gpu_document(gpu: GpuStatus) -> Document:
    return {
        "gpu": gpu.gpu,
        "index": gpu.index,
        "instance": gpu.instance or None,
        "limit_w": _watts(gpu.limit_mw or None),
        "target_w": _watts(gpu.target_mw or None),
        "held_w": gpu.held_mw / 1000,
        "draw_w": _watts(gpu.draw_mw),
        "floor_w": gpu.floor_mw / 1000,
        "ceiling_w": gpu.ceiling_mw / 1000,
        "fallback_w": gpu.fallback_mw / 1000,
        "managed": gpu.managed,
        "health": gpu.health.value,
        "problem": gpu.problem,
        "watch": {
            "unmanaged": gpu.watch.unmanaged,
            "moves": {mover.value: count for mover, count in gpu.watch.moves},
            "last_move": gpu.watch.last_move,
            "repairs": gpu.watch.repairs,
            "xids": gpu.watch.xids,
            "xid": gpu.watch.xid or None,
            "losses": gpu.watch.losses,
            "over_s": gpu.watch.over_s,
            "unmeasured_s": gpu.watch.unmeasured_s,
            "cap_bound": gpu.watch.cap_bound,
        },
    }


def _instance_document(instance: InstanceStatus) -> Document:
    return {
        "instance": instance.instance,
        "engine": instance.engine,
        "node": instance.node,
        "gpus": list(instance.gpus),
        "role": instance.role.value,
        "phase": instance.phase.value,
        "target_role": instance.target_role.value,
        "pinned": instance.pinned,
        "problem": instance.problem,
        "load": _load_document(instance.load) if instance.load else None,
        "cap_bound": instance.cap_bound,
    }


def _load_document(load: PhaseLoad) -> Document:
    return {
        "at_s": load.at_s,
        "waiting_requests": load.waiting_requests,
        "waiting_tokens": load.waiting_tokens,
        "oldest_wait_s": load.oldest_wait_s,
        "running_requests": load.running_requests,
        "kv_used_fraction": load.kv_used_fraction,
        "arrived": load.arrived,
        "finished": load.finished,
        "prompt_tokens": load.prompt_tokens,
        "output_tokens": load.output_tokens,
    }


def _slo_document(slo: SloStatus) -> Document:
    return {
        "ttft_target_s": slo.targets.ttft_s,
        "tpot_target_s": slo.targets.tpot_s,
        "ttft_attainment": slo.ttft_attainment,
        "tpot_attainment": slo.tpot_attainment,
        "ttft_window_s": slo.ttft_window_s,
        "tpot_window_s": slo.tpot_window_s,
        "finished": slo.finished,
    }


def _watts(power_mw: int | None) -> float | None:
    return None if power_mw is None else power_mw / 1000


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
