"""What `rapidctl doctor` gathers: the controller's files on this host, its status, and every node's own word.

Asks and reads, and changes nothing. Every wait has a deadline, and ASKED_AT_ONCE nodes are asked at a time.
"""

import asyncio
import os
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import grpc

from rapid import __version__, facts
from rapid.clock import Clock
from rapid.config import ControllerConfig, parse
from rapid.config.controller import parse_controller_config
from rapid.core.errors import ConfigInvalid, NotFound, RapidError
from rapid.core.findings import site
from rapid.core.findings.base import Finding, green, red, yellow
from rapid.core.findings.files import (
    CertificateFacts,
    certificate_finding,
    clock_finding,
    config_finding,
    disk_finding,
    key_finding,
)
from rapid.core.findings.site import NodeFacts
from rapid.core.status import Status
from rapid.rpc import open_channel
from rapid.tls import TlsConfig
from rapid.v1 import node_pb2
from rapid.v1.node_pb2_grpc import NodeServiceStub
from rapid.wire.errors import error_of
from rapid.wire.node import decode_description
from rapid.wire.status import Look
from rapidctl.client import Client
from rapidctl.controller.peek import peek

ASKED_AT_ONCE = 16
AS_ROOT = "run rapidctl doctor as root, or as a member of the group rapid-controller"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whom to ask, and how. `config` is the controller's file; `node` empty: every node."""

    address: str
    tls: TlsConfig | None
    timeout_s: float
    config: Path
    node: str


@dataclass(frozen=True, slots=True)
class Examined:
    """What was found, and the status that it rests on (None: the controller did not answer)."""

    findings: tuple[Finding, ...]
    status: Status | None


@dataclass(frozen=True, slots=True)
class _Clocks:
    """A peer's wall clock less ours, and how far that may be off: half of what the answer took."""

    ahead_s: float
    doubt_s: float


async def examine(wanted: Wanted, clock: Clock) -> Examined:
    """Everything, in the order in which a person would ask. Raises NotFound for a node that nobody knows."""
    config, findings = _config(wanted)
    if config is not None:
        wanted = replace(wanted, tls=wanted.tls or _readable(config.tls))
        findings += _files(config, clock)
    elif wanted.tls is not None:
        findings += _certificates(wanted.tls, clock, "rapidctl")
    look, clocks, told = await _controller(wanted, clock)
    findings += told
    _check_known(wanted.node, config, look)
    status = None if look is None else _of_node(look.status, wanted.node)
    if status is not None:
        findings += site.node_findings(status.nodes)
    asked = [] if config is None else await _ask(wanted, config.addresses, clocks, clock)
    findings += site.asked_findings(asked)
    findings += site.version_findings(__version__, look.version if look else "", asked)
    if look is not None and status is not None:
        findings += site.gpu_findings(status.nodes) + site.watch_findings(status.nodes)
        findings += site.domain_findings(look.status, wanted.node) + site.policy_findings(status)
    findings.append(clock_finding(facts.clock_facts()))
    return Examined(tuple(findings), status)


# ---- this host ----


def _config(wanted: Wanted) -> tuple[ControllerConfig | None, list[Finding]]:
    path = wanted.config
    if not path.exists():
        what = f"there is no {path} on this host: the controller's files and the nodes themselves were not looked at"
        return None, [
            yellow("config", what, "run rapidctl doctor on the controller's host, or name the file: --config")
        ]
    if not os.access(path, os.R_OK):
        return None, [yellow("config", f"{path} is not for you to read", AS_ROOT)]
    try:
        return parse_controller_config(parse.read(path), path=path), [config_finding(facts.file_facts(path))]
    except ConfigInvalid as error:
        return None, [red("config", str(error), f"put it right in {path}; until then the controller will not start")]


def _files(config: ControllerConfig, clock: Clock) -> list[Finding]:
    """The journal and the TLS files that the controller uses."""
    found = _journal(config.journal.path)
    if config.tls is None:
        return [*found, green("tls", "none: only this host is talked to")]
    return found + _certificates(config.tls, clock, "the controller")


def _journal(path: Path) -> list[Finding]:
    if path.parent.is_dir() and not os.access(path.parent, os.R_OK | os.X_OK):
        return [yellow("journal", f"{path.parent} is not for you to read", AS_ROOT)]
    try:
        seen = peek(path)
    except RapidError as error:
        return [red("journal", str(error), "as it says")]
    if seen is None:
        what = f"there is none yet at {path}: a controller that starts now books every GPU at its ceiling"
        return [yellow("journal", what, "systemctl start rapid-controller")]
    told = f"{path} can be read: epoch {seen.epoch}, {seen.size_bytes / 2**20:.2g} MiB"
    free = facts.free_bytes(path.parent)
    return [green("journal", told), disk_finding(str(path.parent), free, lost="nothing more can be decided")]


def _certificates(tls: TlsConfig, clock: Clock, user: str) -> list[Finding]:
    if unread := [path for path in (tls.ca, tls.cert, tls.key) if path.exists() and not os.access(path, os.R_OK)]:
        return [yellow("tls", f"{unread[0]} is not for you to read", AS_ROOT)]
    try:
        tls.check()
    except ConfigInvalid as error:
        return [red("tls", str(error), f"put the file right, then restart {user}")]
    found = [certificate_finding(each, user) for each in facts.certificates(tls, clock.wall_s())]
    return [*found, key_finding(facts.file_facts(tls.key))]


# ---- the controller ----


async def _controller(wanted: Wanted, clock: Clock) -> tuple[Look | None, _Clocks | None, list[Finding]]:
    address = wanted.address
    try:
        async with Client(address, tls=wanted.tls, timeout_s=wanted.timeout_s) as client:
            await client.status()  # so that the time that connecting takes is not counted below
            began_s = clock.monotonic_s()
            look = await client.look()
            took_s = clock.monotonic_s() - began_s
    except ConfigInvalid as error:
        return (
            None,
            None,
            [red("controller", str(error), "give --tls-ca, --tls-cert and --tls-key, or their variables")],
        )
    except RapidError as error:
        todo = "on its host: systemctl status rapid-controller; leases run out, and every node goes to its fallbacks"
        return None, None, [red("controller", str(error), todo)]
    status = look.status
    told = f"{address} answers within {took_s * 1000:.0f} ms: epoch {status.epoch}, {status.controller_id}"
    found = [green("controller", told)]
    if shown := await _shown(address, wanted.tls, wanted.timeout_s, clock):
        found.append(certificate_finding(shown, "the controller"))
    return look, _clocks(look.wall_s, took_s, clock), found


def _clocks(wall_s: float | None, took_s: float, clock: Clock) -> _Clocks | None:
    """The peer read its clock at some time while it was asked; half way is the best guess. None: it did not tell."""
    return None if wall_s is None else _Clocks(wall_s - (clock.wall_s() - took_s / 2), took_s / 2)


def _of_node(status: Status, node: str) -> Status:
    """The status as far as it is about the node; all of it without one."""
    if not node:
        return status
    nodes = tuple(each for each in status.nodes if each.node == node)
    instances = tuple(each for each in status.instances if each.node == node)
    return replace(status, nodes=nodes, instances=instances)


# ---- the nodes ----


def _check_known(node: str, config: ControllerConfig | None, look: Look | None) -> None:
    """Raise NotFound for a node that neither configuration nor controller knows, if either could be asked."""
    known = {*(config.addresses if config else ()), *(each.node for each in (look.status.nodes if look else ()))}
    if node and known and node not in known:
        raise NotFound("node", node, tuple(sorted(known)))


async def _ask(wanted: Wanted, known: Mapping[str, str], controller: _Clocks | None, clock: Clock) -> list[NodeFacts]:
    """The own word of each node that is wanted, in the order of their names."""
    addresses = {node: at for node, at in known.items() if wanted.node in ("", node)}
    turns = asyncio.Semaphore(ASKED_AT_ONCE)

    async def one(node: str, address: str) -> NodeFacts:
        async with turns:
            return await _ask_one(node, address, wanted.tls, wanted.timeout_s, controller, clock)

    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(one(node, address)) for node, address in sorted(addresses.items())]
    return [task.result() for task in asked]


async def _ask_one(
    node: str, address: str, tls: TlsConfig | None, timeout_s: float, controller: _Clocks | None, clock: Clock
) -> NodeFacts:
    try:
        async with open_channel(address, tls) as channel:
            describe = NodeServiceStub(channel).Describe
            await describe(node_pb2.DescribeRequest(), timeout=timeout_s)
            began_s = clock.monotonic_s()
            description = decode_description(await describe(node_pb2.DescribeRequest(), timeout=timeout_s))
            its = _clocks(description.wall_s, clock.monotonic_s() - began_s, clock)
    except grpc.aio.AioRpcError as failure:
        return NodeFacts(node, str(error_of(failure, address=address)))
    except RapidError as error:
        return NodeFacts(node, str(error))
    if description.node != node:
        return NodeFacts(node, f"{address} is node {description.node!r}")
    known = (its, controller) if its and controller else None
    return NodeFacts(
        node,
        version=description.version,
        skew_s=known[0].ahead_s - known[1].ahead_s if known else None,
        doubt_s=known[0].doubt_s + known[1].doubt_s if known else 0.0,
        unmanageable=tuple((f"{node}/{gpu.index}", gpu.unmanageable) for gpu in description.gpus if gpu.unmanageable),
        warnings=tuple((f"{node}/{gpu.index}", text) for gpu in description.gpus for text in gpu.warnings),
        certificate=await _shown(address, tls, timeout_s, clock),
    )


async def _shown(address: str, tls: TlsConfig | None, timeout_s: float, clock: Clock) -> CertificateFacts | None:
    """The certificate at the address; None if there is none, or it cannot be seen now: gRPC has just been there."""
    if tls is None:
        return None
    try:
        return await asyncio.to_thread(facts.shown_certificate, address, tls, clock.wall_s(), timeout_s)
    except (OSError, ssl.SSLError):
        return None


def _readable(tls: TlsConfig | None) -> TlsConfig | None:
    """The controller's own files, where we may read them: controller and nodes ask everybody for a certificate."""
    files: Sequence[Path] = () if tls is None else (tls.ca, tls.cert, tls.key)
    return tls if all(os.access(path, os.R_OK) for path in files) else None
