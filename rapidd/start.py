"""From a configuration to a node that is being enforced: which GPUs, down to which limits, by which agent."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from rapid import __version__
from rapid.config import NodeConfig
from rapid.config.node import DEFAULT
from rapid.core.drift import FenceSettings
from rapid.core.errors import ConfigInvalid, Unreachable, watts
from rapid.core.excursion import ExcursionSettings
from rapid.core.guard import Guard, GuardedGpu, GuardMemory
from rapid.core.vigil import Vigil
from rapid.wire.node import GpuDescription, NodeDescription
from rapidd.agent import Agent, first_limits
from rapidd.device.base import Backend, Device, DeviceInfo
from rapidd.events import EventThread
from rapidd.inbox import Inbox
from rapidd.load.owners import check_gpus
from rapidd.load.push import LoadTable
from rapidd.rounds import Rounds
from rapidd.state import State
from rapidd.talk import Talk
from rapidd.worker import Event, Worker

WORKER_STOP_S = 1.0  # for one that hangs in a driver call; the others stop at once, or after one wait for events


@dataclass(frozen=True, slots=True)
class Node:
    """What enforces the limits of this host, from its first write on."""

    agent: Agent
    crew: "Crew"
    events: EventThread
    loads: LoadTable
    incarnation: str
    config: NodeConfig

    def describe(self) -> NodeDescription:
        """The inventory as it is now: a GPU may come later."""
        config, infos = self.config, [device.info for device in self.crew.devices]
        return NodeDescription(
            node=config.node.name,
            version=__version__,
            backend=config.device.backend,
            incarnation=self.incarnation,
            hard_budget_mw=config.power.hard_budget_mw,
            gpus=tuple(_description(info, self.crew.fallbacks_mw[info.gpu]) for info in infos),
        )

    def stop_workers(self) -> bool:
        """False if a driver call hangs; its device must not be closed then."""
        stopped = [self.crew.rounds.stop(WORKER_STOP_S)]
        stopped += [worker.stop(WORKER_STOP_S) for worker in self.crew.workers]
        return self.events.stop(WORKER_STOP_S) and all(stopped)


def choose_devices(backend: Backend, config: NodeConfig, log: FilteringBoundLogger) -> tuple[Device, ...]:
    """The GPUs to take care of. A dead one is logged and must not keep the others from their limits: it may be one that
    is named, if it cannot even tell its UUID.

    Raises ConfigInvalid for a GPU that is not there, Unreachable when none is left.
    """
    for fault in backend.faults:
        log.error("gpu left out", about=fault.gpu, detail=str(fault))
    devices = {device.info.gpu: device for device in backend.devices}
    wanted = tuple(devices) if isinstance(config.device.gpus, str) else config.device.gpus
    dead = {fault.gpu for fault in backend.faults}
    named = config.power.fallback.keys() - {DEFAULT}
    for gpu in (*wanted, *sorted(named)):
        if gpu not in devices and not dead:
            key = "device.gpus" if gpu in wanted else f"power.fallback.{gpu}"
            known = ", ".join(devices) or "none"
            raise ConfigInvalid(key, f"this host has no gpu {gpu} (it has: {known})")
    if not dead:
        check_gpus(config.engine, devices)
    if not (found := tuple(devices[gpu] for gpu in wanted if gpu in devices)):
        raise Unreachable(f"no usable GPU found through {config.device.backend}; is the driver loaded?")
    return found


def fallbacks_of(devices: Sequence[Device], config: NodeConfig) -> dict[str, int]:
    """The fallback of each device. Raises ConfigInvalid for one that the device would not take."""
    managed = [device for device in devices if not device.info.unmanageable]
    fallbacks_mw = config.fallbacks_mw([device.info.gpu for device in managed])
    for device in managed:
        info, fallback_mw = device.info, fallbacks_mw[device.info.gpu]
        if not info.floor_mw <= fallback_mw <= info.ceiling_mw:
            own = f".{info.gpu}" if info.gpu in config.power.fallback else ""
            raise ConfigInvalid(
                f"power.fallback{own}",
                f"{watts(fallback_mw)} is outside what gpu {info.gpu} accepts, "
                f"{watts(info.floor_mw)}..{watts(info.ceiling_mw)}",
            )
    # One that rapidd must not set never goes down: it may draw all it can.
    return fallbacks_mw | {one.info.gpu: one.info.ceiling_mw for one in devices if one.info.unmanageable}


async def begin(
    devices: Sequence[Device],
    backend: Backend,
    config: NodeConfig,
    state: State,
    clock: Callable[[], float],
    log: FilteringBoundLogger,
) -> Node:
    """Start the threads and let every GPU go to its fallback. Raises ConfigInvalid or JournalCorrupt before that."""
    fallbacks_mw, memory = fallbacks_of(devices, config), state.load_memory()
    inbox, loads = Inbox(len(devices)), LoadTable(config.load.max_instances)
    crew = Crew(devices, fallbacks_mw, config, inbox.deliver, clock, log)
    limits_mw = await first_limits(crew.workers, inbox)
    crew.rounds.start()
    guard = _guard([_spec(one.info, fallbacks_mw, limits_mw[one.info.gpu]) for one in devices], memory, config)
    agent = Agent(
        guard,
        crew.workers,
        inbox,
        loads=loads,
        memory=state,
        talk=Talk(log, clock),
        clock=clock,
        rescue=crew.rounds.rescue,
        adopt=crew.adopt,
    )
    events = EventThread(backend, inbox.deliver)
    events.start()
    return Node(agent, crew, events, loads, guard.incarnation, config)


class Crew:
    """The GPUs in our care, each with a worker that has been started, and their rounds, which have not; `adopt` takes
    one more."""

    def __init__(
        self,
        devices: Sequence[Device],
        fallbacks_mw: Mapping[str, int],
        config: NodeConfig,
        deliver: Callable[[Event], None],
        clock: Callable[[], float],
        log: FilteringBoundLogger,
    ) -> None:
        self.devices: list[Device] = []
        self.workers: list[Worker] = []
        self.rounds = Rounds(clock, float(config.report.sample_interval_s))
        self.fallbacks_mw = fallbacks_mw
        self._config, self._deliver, self._clock, self._log = config, deliver, clock, log
        for device in devices:
            self._take(device)

    def adopt(self, device: Device) -> tuple[Worker, GuardedGpu] | None:
        """Take care of a GPU that was dead at the start; None if the configuration does not have it."""
        gpu, wanted = device.info.gpu, self._config.device.gpus
        if not isinstance(wanted, str) and gpu not in wanted:
            self._log.info("gpu not adopted", about=gpu, detail="it answers now, and device.gpus leaves it out")
            return None
        try:
            self.fallbacks_mw = fallbacks_of([*self.devices, device], self._config)
        except ConfigInvalid as error:
            self._log.error("gpu not adopted", about=gpu, detail=f"it answers now, and cannot be managed: {error}")
            return None
        return self._take(device), _spec(device.info, self.fallbacks_mw, None)

    def _take(self, device: Device) -> Worker:
        _warn(device.info, self._log)
        worker = Worker(device, self._deliver, self._clock)
        worker.start()
        self.rounds.add(worker)
        self.devices.append(device)
        self.workers.append(worker)
        return worker


def _spec(info: DeviceInfo, fallbacks_mw: Mapping[str, int], limit_mw: int | None) -> GuardedGpu:
    fallback_mw = fallbacks_mw[info.gpu]
    return GuardedGpu(info.gpu, info.index, info.floor_mw, info.ceiling_mw, fallback_mw, limit_mw, info.unmanageable)


def _warn(info: DeviceInfo, log: FilteringBoundLogger) -> None:
    for warning in info.warnings:
        log.warning("gpu warning", about=info.gpu, detail=warning)
    if info.unmanageable:
        log.error("gpu not managed", about=info.gpu, detail=info.unmanageable)


def _guard(gpus: Sequence[GuardedGpu], memory: GuardMemory, config: NodeConfig) -> Guard:
    power, excursion, fence = config.power, config.excursion, config.fence
    return Guard(
        node=config.node.name,
        incarnation=secrets.token_hex(8),
        gpus=gpus,
        memory=memory,
        hard_budget_mw=power.hard_budget_mw,
        lease_max_s=power.lease_max_s,
        fence=FenceSettings(fence.repairs, fence.window_s),
        vigil=Vigil(ExcursionSettings(excursion.draw_tolerance), power.hard_budget_mw, cuts=excursion.enabled),
    )


def _description(info: DeviceInfo, fallback_mw: int) -> GpuDescription:
    return GpuDescription(
        gpu=info.gpu,
        index=info.index,
        name=info.name,
        driver=info.driver,
        floor_mw=info.floor_mw,
        ceiling_mw=info.ceiling_mw,
        fallback_mw=fallback_mw,
        bus=info.bus,
        unmanageable=info.unmanageable,
        lacks=info.lacks,
        warnings=info.warnings,
    )
