"""A node that only says what it is: NodeService.Describe on a real port."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import grpc

from rapid import __version__
from rapid.v1 import node_pb2, node_pb2_grpc
from rapid.wire.node import GpuDescription, NodeDescription, encode_description
from tests.ctl.cluster import NOON_S

IN_ORDER = NodeDescription(
    node="h1",
    version=__version__,
    backend="nvml",
    incarnation="1-a",
    hard_budget_mw=None,
    gpus=(GpuDescription("GPU-aa00", 0, "H100", "550", 400_000, 750_000, 500_000),),
    wall_s=NOON_S,
)


class FakeNode(node_pb2_grpc.NodeServiceServicer):
    """Says `description` while its block lasts."""

    def __init__(self, credentials: grpc.ServerCredentials | None = None, **changes: Any) -> None:
        self.description = replace(IN_ORDER, **changes)
        self._server = grpc.server(ThreadPoolExecutor(2), options=(("grpc.so_reuseport", 0),))
        node_pb2_grpc.add_NodeServiceServicer_to_server(self, self._server)
        at = "127.0.0.1:0"
        port = self._server.add_secure_port(at, credentials) if credentials else self._server.add_insecure_port(at)
        self.address = f"127.0.0.1:{port}"

    def Describe(self, request: node_pb2.DescribeRequest, context: Any) -> node_pb2.DescribeResponse:
        return encode_description(self.description)

    def Enforce(self, request_iterator: Any, context: Any) -> Any:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "it only says what it is")

    def __enter__(self) -> "FakeNode":
        self._server.start()
        return self

    def __exit__(self, *gone: object) -> None:
        self._server.stop(None).wait()
