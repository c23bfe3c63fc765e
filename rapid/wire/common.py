"""The types that several services share, and what a push to LoadService holds."""

from collections.abc import Mapping
from itertools import pairwise
from operator import lt

from rapid.core.cluster import Histogram, Mark, Phase, PhaseLoad, Role
from rapid.core.errors import WireInvalid
from rapid.v1 import load_pb2, types_pb2
from rapid.wire import fields

ROLES: Mapping[types_pb2.Role, Role] = {
    types_pb2.ROLE_PREFILL: Role.PREFILL,
    types_pb2.ROLE_DECODE: Role.DECODE,
    types_pb2.ROLE_MIXED: Role.MIXED,
}
# What an engine may say of itself; that it is gone is for the controller to say.
ENGINE_PHASES: Mapping[types_pb2.Phase, Phase] = {
    types_pb2.PHASE_SERVING: Phase.SERVING,
    types_pb2.PHASE_DRAINING: Phase.DRAINING,
    types_pb2.PHASE_SWITCHING: Phase.SWITCHING,
    types_pb2.PHASE_WARMING: Phase.WARMING,
    types_pb2.PHASE_ROLLING_BACK: Phase.ROLLING_BACK,
    types_pb2.PHASE_FAILED: Phase.FAILED,
    types_pb2.PHASE_PARKED: Phase.PARKED,
    types_pb2.PHASE_UNCERTAIN: Phase.UNCERTAIN,
}
PHASES: Mapping[types_pb2.Phase, Phase] = {**ENGINE_PHASES, types_pb2.PHASE_GONE: Phase.GONE}

ROLE_VALUES = {role: value for value, role in ROLES.items()}
PHASE_VALUES = {phase: value for value, phase in PHASES.items()}

_NOTHING_MEASURED = Histogram()


def encode_role(role: Role | None) -> types_pb2.Role:
    """An OPTIONAL role."""
    return types_pb2.ROLE_UNSPECIFIED if role is None else ROLE_VALUES[role]


def encode_mark(mark: Mark) -> types_pb2.Mark:
    return types_pb2.Mark(epoch=mark.epoch, seq=mark.seq)


def decode_mark(message: types_pb2.Mark) -> Mark:
    return Mark(epoch=fields.count(message.epoch, "epoch"), seq=fields.count(message.seq, "seq"))


def encode_load(load: PhaseLoad) -> types_pb2.PhaseLoad:
    return types_pb2.PhaseLoad(
        instance=load.instance,
        role=ROLE_VALUES[load.role],
        at_s=load.at_s,
        waiting_requests=load.waiting_requests,
        waiting_tokens=load.waiting_tokens,
        oldest_wait_s=load.oldest_wait_s,
        running_requests=load.running_requests,
        kv_used_fraction=load.kv_used_fraction,
        arrived=load.arrived,
        finished=load.finished,
        prompt_tokens=load.prompt_tokens,
        output_tokens=load.output_tokens,
        ttft=encode_histogram(load.ttft),
        tpot=encode_histogram(load.tpot),
        gpus=load.gpus,
    )


def decode_load(message: types_pb2.PhaseLoad) -> PhaseLoad:
    """Raises WireInvalid."""
    return PhaseLoad(
        instance=fields.name(message.instance, "instance"),
        role=fields.choice(message.role, "role", ROLES),
        at_s=fields.seconds(message.at_s, "at_s"),
        waiting_requests=message.waiting_requests,
        waiting_tokens=fields.count(message.waiting_tokens, "waiting_tokens"),
        oldest_wait_s=fields.seconds(message.oldest_wait_s, "oldest_wait_s"),
        running_requests=message.running_requests,
        kv_used_fraction=fields.fraction(message.kv_used_fraction, "kv_used_fraction"),
        arrived=fields.count(message.arrived, "arrived"),
        finished=fields.count(message.finished, "finished"),
        prompt_tokens=fields.count(message.prompt_tokens, "prompt_tokens"),
        output_tokens=fields.count(message.output_tokens, "output_tokens"),
        ttft=fields.inner(message.ttft, "ttft", decode_histogram) if message.HasField("ttft") else _NOTHING_MEASURED,
        tpot=fields.inner(message.tpot, "tpot", decode_histogram) if message.HasField("tpot") else _NOTHING_MEASURED,
        gpus=_gpus(message) if message.gpus else (),
    )


def _gpus(message: types_pb2.PhaseLoad) -> tuple[str, ...]:
    fields.size(message.gpus, "gpus", fields.GPUS_MAX)
    return tuple(fields.name(gpu, f"gpus[{at}]") for at, gpu in enumerate(message.gpus))


def encode_histogram(histogram: Histogram) -> types_pb2.Histogram | None:
    """None, which is an absent field, for an instance that does not measure it."""
    if histogram == _NOTHING_MEASURED:
        return None
    return types_pb2.Histogram(bounds_s=histogram.bounds_s, counts=histogram.counts)


def decode_histogram(message: types_pb2.Histogram) -> Histogram:
    """Raises WireInvalid for unequal lengths, too many buckets, or bounds that do not rise from zero."""
    fields.size(message.bounds_s, "bounds_s", fields.BUCKETS_MAX)
    if len(message.counts) != len(message.bounds_s) + 1:
        problem = f"{len(message.counts)} entries, must be {len(message.bounds_s) + 1}: one more than bounds_s"
        raise WireInvalid("counts", problem)
    bounds_s, counts = tuple(message.bounds_s), tuple(message.counts)
    if bounds_s:
        fields.seconds(bounds_s[0], "bounds_s[0]")
        fields.seconds(bounds_s[-1], f"bounds_s[{len(bounds_s) - 1}]")
    if not all(map(lt, bounds_s, bounds_s[1:])):  # NaN compares false, so it ends here as well
        index = next(at for at, (lower_s, upper_s) in enumerate(pairwise(bounds_s), 1) if not lower_s < upper_s)
        problem = f"{bounds_s[index]:g} s does not lie above the {bounds_s[index - 1]:g} s before it"
        raise WireInvalid(f"bounds_s[{index}]", problem)
    fields.count(max(counts), "counts")
    return Histogram(bounds_s=bounds_s, counts=counts)


def encode_push(load: PhaseLoad) -> load_pb2.PushRequest:
    return load_pb2.PushRequest(load=encode_load(load))


def decode_push(message: load_pb2.PushRequest) -> PhaseLoad:
    """Raises WireInvalid. Whether at_s lies in the future is for the receiver to judge, who has the clock."""
    fields.present(message, "load")
    return fields.inner(message.load, "load", decode_load)
