"""`rapidd --check`: gathers what findings are made of on this host. Changes nothing on any device, or in any engine."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from rapid import facts
from rapid.clock import Clock
from rapid.config import NodeConfig, parse
from rapid.config.node import EngineTable, parse_node_config
from rapid.core.errors import ConfigInvalid, DeviceError, JournalCorrupt, RapidError, ScrapeFailed
from rapid.core.findings.base import Finding, green, merged, red
from rapid.core.findings.engine import EngineFacts, engine_findings
from rapid.core.findings.files import certificate_finding, clock_finding, config_finding, disk_finding, key_finding
from rapid.core.findings.host import (
    GpuFacts,
    HolderFacts,
    LossFacts,
    daemon_finding,
    gpu_findings,
    left_alone_finding,
    loss_findings,
    rights_finding,
    writer_findings,
)
from rapidd.device.base import Backend, Device
from rapidd.device.open import open_backend
from rapidd.load.scrape import read_metrics
from rapidd.process import NEEDS, Noticed, noticed, rights, running_pid, sees_all
from rapidd.start import choose_devices
from rapidd.state import State


@dataclass(slots=True)
class Report:
    """What was found. `uncounted` GPUs are not in `gpus`; what it did not come to stays empty."""

    findings: list[Finding] = field(default_factory=list)
    gpus: list[GpuFacts] = field(default_factory=list)
    uncounted: int = 0
    loss: LossFacts | None = None


def check(path: Path, clock: Clock) -> Report:
    """Look at everything that the configuration at `path` names. Raises nothing that the world does."""
    report = Report()
    try:
        config = parse_node_config(parse.read(path), path=path)
        report.findings.append(config_finding(facts.file_facts(path)))
    except (ConfigInvalid, OSError) as error:
        report.findings.append(red("config", str(error), f"put it right in {path}; nothing else was looked at"))
        return report
    pid = running_pid(config.node.state_dir)
    report.findings += [daemon_finding(pid), rights_finding(rights(config.device.backend, pid))]
    report.findings += _gpus(config, pid, clock, report)
    report.loss = LossFacts(float(config.power.lease_max_s), config.power.hard_budget_mw, report.uncounted)
    if report.gpus:
        report.findings += loss_findings(report.gpus, report.loss)
    report.findings += engine_findings(asyncio.run(_engines(config.engine)))
    report.findings += [*_state(config), *_tls(config, clock), clock_finding(facts.clock_facts())]
    report.findings = list(merged(report.findings))
    return report


def _gpus(config: NodeConfig, pid: int | None, clock: Clock, report: Report) -> list[Finding]:
    """Read every GPU of the configuration into the report."""
    try:
        backend = open_backend(config.device.backend, sim_dir=config.device.path, clock=clock.monotonic_s)
    except ConfigInvalid as error:
        return [red("gpu", str(error), "put it right in the configuration")]
    except DeviceError as error:
        return [red("gpu", str(error), "put the driver right, then check again")]
    try:
        return _of_backend(backend, config, pid, report)
    finally:
        backend.close()


def _of_backend(backend: Backend, config: NodeConfig, pid: int | None, report: Report) -> list[Finding]:
    todo = "look for Xid errors in dmesg; the GPU needs a reset, or the host a reboot"
    found = [red("gpu", str(fault), todo) for fault in backend.faults]
    try:
        # A logger that only returns what it is given: every fault is a finding already.
        devices = choose_devices(backend, config, structlog.wrap_logger(structlog.ReturnLogger()))
    except RapidError as error:
        return [*found, red("gpu", str(error), "nvidia-smi -L lists the GPUs of this host")]
    seen = {} if pid is None else noticed(config.node.state_dir)
    report.gpus = gpus = [_gpu(device, config, pid, seen.get(device.info.gpu, Noticed())) for device in devices]
    report.uncounted = len(backend.faults) + len(backend.devices) - len(devices)
    found += gpu_findings(gpus, running=pid is not None)
    # Files that simulate GPUs are held open by nobody who would have to be looked for.
    found += writer_findings(gpus, sees_all=config.device.backend not in NEEDS or sees_all())
    if len(devices) < len(backend.devices):
        found.append(left_alone_finding(len(backend.devices) - len(devices)))
    return found


def _gpu(device: Device, config: NodeConfig, pid: int | None, seen: Noticed) -> GpuFacts:
    info, enforced_mw, requested_mw, problem = device.info, None, None, ""
    try:
        reading = device.read_limit()
        enforced_mw, requested_mw = reading.enforced_mw, reading.requested_mw
        device.read_power()
    except DeviceError as error:
        problem = str(error)
    holders = tuple(HolderFacts(h.pid, h.name, h.user) for h in device.holders() if h.pid != pid)
    return GpuFacts(
        gpu=info.gpu,
        index=info.index,
        floor_mw=info.floor_mw,
        ceiling_mw=info.ceiling_mw,
        fallback_mw=config.power.fallback.of(info.gpu),
        enforced_mw=enforced_mw,
        requested_mw=requested_mw,
        unmanageable=info.unmanageable,
        lacks=info.lacks,
        warnings=info.warnings,
        holders=holders,
        moves=seen.moves,
        given_up=seen.given_up and not info.unmanageable,
        problem=problem,
    )


async def _engines(engines: Sequence[EngineTable]) -> list[EngineFacts]:
    """A look at the metrics of each, as the daemon would take it; all at once, since one may take its whole time."""
    return await asyncio.gather(*map(_engine, engines))


async def _engine(engine: EngineTable) -> EngineFacts:
    try:
        await read_metrics(engine)
    except ScrapeFailed as failed:
        return EngineFacts(engine.instance, engine.kind, engine.url, failed.fault, str(failed))
    return EngineFacts(engine.instance, engine.kind, engine.url)


def _state(config: NodeConfig) -> list[Finding]:
    """What must survive a restart."""
    folder = config.node.state_dir
    found: list[Finding] = []
    try:
        epoch = State(folder).load_memory().epoch
        found.append(
            green("state", f"{folder} knows epoch {epoch}" if epoch else f"{folder} has seen no controller yet")
        )
    except JournalCorrupt as error:
        found.append(red("state", str(error), "as it says; until then rapidd will not start"))
    there = next(each for each in (folder, *folder.parents) if each.is_dir())
    found.append(disk_finding(str(there), facts.free_bytes(there), lost="a new controller could not be followed"))
    return found


def _tls(config: NodeConfig, clock: Clock) -> list[Finding]:
    tls = config.tls
    if tls is None:
        return [green("tls", "none: only this host is listened to")]
    try:
        tls.check()
    except ConfigInvalid as error:
        return [red("tls", str(error), "put the file right; until then rapidd will not start")]
    found = [certificate_finding(each, "rapidd") for each in facts.certificates(tls, clock.wall_s())]
    return [*found, key_finding(facts.file_facts(tls.key))]
