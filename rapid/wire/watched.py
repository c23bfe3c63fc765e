"""What a node has noticed, as reports and the status carry it."""

from collections.abc import Mapping

from rapid.core.watched import GpuWatch, Mover, NodeWatch
from rapid.v1 import node_pb2
from rapid.wire import fields

MOVERS: Mapping[node_pb2.Mover, Mover] = {
    node_pb2.MOVER_PROCESS: Mover.PROCESS,
    node_pb2.MOVER_OUTSIDE: Mover.OUTSIDE,
    node_pb2.MOVER_RELOAD: Mover.RELOAD,
    node_pb2.MOVER_UNKNOWN: Mover.UNKNOWN,
}
_MOVER_VALUES = {mover: value for value, mover in MOVERS.items()}
_MOVERS_MAX = 16
_XID_MAX = 2**32 - 1


def encode_gpu_watch(watch: GpuWatch) -> node_pb2.GpuWatch:
    return node_pb2.GpuWatch(
        unmanaged=fields.line(watch.unmanaged),
        moves=[node_pb2.Moves(mover=_MOVER_VALUES[mover], count=count) for mover, count in watch.moves],
        last_move=fields.line(watch.last_move),
        repairs=watch.repairs,
        xids=watch.xids,
        xid=watch.xid,
        losses=watch.losses,
        over_s=watch.over_s,
        unmeasured_s=watch.unmeasured_s,
        cap_bound=watch.cap_bound,
    )


def decode_gpu_watch(message: node_pb2.GpuWatch) -> GpuWatch:
    """Raises WireInvalid."""
    return GpuWatch(
        unmanaged=fields.text(message.unmanaged, "unmanaged"),
        moves=fields.each(message.moves, "moves", _moves, _MOVERS_MAX),
        last_move=fields.text(message.last_move, "last_move"),
        repairs=fields.count(message.repairs, "repairs"),
        xids=fields.count(message.xids, "xids"),
        xid=fields.count(message.xid, "xid", 0, _XID_MAX),
        losses=fields.count(message.losses, "losses"),
        over_s=fields.seconds(message.over_s, "over_s"),
        unmeasured_s=fields.seconds(message.unmeasured_s, "unmeasured_s"),
        cap_bound=fields.fraction(message.cap_bound, "cap_bound") if message.HasField("cap_bound") else None,
    )


def _moves(message: node_pb2.Moves) -> tuple[Mover, int]:
    return fields.choice(message.mover, "mover", MOVERS), fields.count(message.count, "count", 1)


def encode_node_watch(watch: NodeWatch) -> node_pb2.NodeWatch:
    return node_pb2.NodeWatch(
        watched_s=watch.watched_s,
        over_s=watch.over_s,
        unmeasured_s=watch.unmeasured_s,
        excursions=watch.excursions,
        excursion=fields.line(watch.excursion),
    )


def decode_node_watch(message: node_pb2.NodeWatch) -> NodeWatch:
    """Raises WireInvalid."""
    return NodeWatch(
        watched_s=fields.seconds(message.watched_s, "watched_s"),
        over_s=fields.seconds(message.over_s, "over_s"),
        unmeasured_s=fields.seconds(message.unmeasured_s, "unmeasured_s"),
        excursions=fields.count(message.excursions, "excursions"),
        excursion=fields.text(message.excursion, "excursion"),
    )
