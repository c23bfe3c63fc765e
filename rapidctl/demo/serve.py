"""One simulated engine as a process: its links, its GPU, and the loop that lets model time follow the clock."""

import asyncio
import secrets
import signal
import time
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from random import Random

from rapid.core.cluster import Role
from rapid.core.errors import ConfigInvalid, UsageError
from rapid.core.role_change import RoleChange
from rapid.sim.model.instance import Instance
from rapid.sim.model.profile import Profile
from rapid.sim.model.requests import Activity, Die
from rapid.simgpu import SimGpu
from rapid.tls import TlsConfig, check_dial
from rapidctl.demo.engine import Clients, Controller, Engine
from rapidctl.demo.links import ControllerLink, FrontEndLink, LoadLink, Say, keep_connected
from rapidctl.demo.own_load import OwnLoad

PRODUCT = "rapid sim-engine"
# How often to look at the GPU's limit. Shorter than the lag before a device begins to follow a new one, so that no
# batch and no step is ever computed with an outdated limit in effect.
LIMIT_LOOK_S = 0.05
# The device is told that work goes on for a little longer than it does, so that it does not look idle until a late
# process tells it of the next work. It is told when work really ended, so its energy stays right.
WAKE_SLACK_S = 0.05
LEAVE_WITHIN_S = 1.0  # on the way out, for the goodbye to the controller


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What one engine process is told."""

    instance: str
    role: Role
    gpu_file: Path
    profile: Profile
    node: str
    controller: str  # its address
    tls: TlsConfig | None  # for the controller
    load_socket: Path | None  # None: nobody takes the load
    data_socket: Path | None  # None: it makes up its own requests
    rate_rps: float  # of its own requests; binds only without data_socket
    seed: int
    die_speed: float


class Felt:
    """The GPU as the engine feels it: its limit slows the engine down, and the engine's work makes it draw."""

    def __init__(self, gpu: SimGpu) -> None:
        self._gpu = gpu
        # An engine that was killed here before may have left the GPU at work.
        now_s = time.monotonic()
        gpu.set_activity(gpu.spec.idle_mw, now_s, now_s)
        self.curve = gpu.limit_curve()
        self._activity: Activity | None = None

    def look(self, engine: Engine, now_s: float) -> None:
        """Take over a limit that has been set since the last look."""
        curve = self._gpu.limit_curve()
        if curve != self.curve:
            self.curve = curve
            engine.limit_curve(curve, now_s)

    def work(self, engine: Engine) -> None:
        """Tell the device what keeps it busy, from when on, and until when; it goes idle by itself."""
        activity, before = engine.instance.activity(), self._activity
        if activity == before:
            return
        self._activity = activity
        if activity is not None:
            self._gpu.set_activity(activity.natural_mw, activity.until_s + WAKE_SLACK_S, activity.from_s)
        elif before is not None:
            self._gpu.set_activity(self._gpu.spec.idle_mw, before.until_s, before.until_s)


async def serve(options: ServeOptions, say: Say) -> None:
    """Run the engine until SIGTERM or SIGINT.

    Raises DeviceError if gpu_file is no simulated GPU, and UsageError if the controller cannot be dialled like that or
    the model does not run on one GPU.
    """
    _check_controller(options)
    _check_profile(options.profile)
    stopping, woken = asyncio.Event(), asyncio.Event()

    def stop() -> None:
        stopping.set()
        woken.set()

    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop)
    with SimGpu.open(options.gpu_file) as gpu:
        controller = ControllerLink(
            options.controller,
            options.tls,
            node=options.node,
            gpus=(gpu.spec.gpu,),
            product=PRODUCT,
            wake=woken.set,
            stopping=stopping,
            say=say,
        )
        front_end = FrontEndLink(options.data_socket, woken.set) if options.data_socket else None
        own = None if front_end else OwnLoad(options.rate_rps, Random(options.seed), time.monotonic())
        felt = Felt(gpu)
        engine = _engine(options, felt, front_end or own, controller)
        connections = {"controller": controller.connect}
        if front_end:
            connections["front end"] = front_end.connect
        if options.load_socket:
            connections["rapidd"] = LoadLink(f"unix:{options.load_socket}", stopping).connect
        async with asyncio.TaskGroup() as tasks:
            links = [
                tasks.create_task(keep_connected(peer, partial(connect, engine), say, stopping))
                for peer, connect in connections.items()
            ]
            await _live(engine, felt, front_end, own, stopping, woken)
            if front_end:
                front_end.leave()
            for task in (await asyncio.wait(links, timeout=LEAVE_WITHIN_S))[1]:
                task.cancel()


def _check_controller(options: ServeOptions) -> None:
    """Once and at the start, so that what no retry can heal is not retried for ever."""
    try:
        check_dial(options.controller, options.tls, "address")
        if options.tls is not None:
            options.tls.check()
    except ConfigInvalid as error:
        text = str(error).removeprefix("config key ")
        raise UsageError(text.removeprefix("address: ").replace("tls.", "--tls-")) from error


def _check_profile(profile: Profile) -> None:
    if profile.gpus != 1:
        needs = f"--profile {profile.name} needs {profile.gpus} GPUs"
        raise UsageError(f"{needs}, and a simulated engine has 1; choose a profile of one GPU")


def _engine(options: ServeOptions, felt: Felt, clients: Clients | None, controller: Controller) -> Engine:
    assert clients is not None
    return Engine(
        instance=Instance(
            options.instance,
            options.role,
            options.profile,
            felt.curve,
            start_s=time.monotonic(),
            die=Die(speed=options.die_speed),
        ),
        change=RoleChange(
            instance=options.instance,
            incarnation=secrets.token_hex(8),
            role=options.role,
            roles=(Role.PREFILL, Role.DECODE),
        ),
        clients=clients,
        controller=controller,
        switch_s=options.profile.switch_s,
    )


async def _live(
    engine: Engine,
    felt: Felt,
    front_end: FrontEndLink | None,
    own: OwnLoad | None,
    stopping: asyncio.Event,
    woken: asyncio.Event,
) -> None:
    """Keep the model up with the clock: wake for its next event, for whatever came in, and to look at the limit."""
    loop = asyncio.get_running_loop()
    while not stopping.is_set():
        woken.clear()
        now_s = time.monotonic()
        felt.look(engine, now_s)
        if own:
            own.arrive(engine, now_s)
        engine.wake(now_s)
        felt.work(engine)
        if front_end:
            front_end.tell_lag(engine, now_s)
        wake_s = min(engine.next_s(), now_s + LIMIT_LOOK_S, own.next_s if own else inf)
        # The loop's clock is time.monotonic too; a timer costs less than a timeout around the wait.
        timer = loop.call_at(wake_s, woken.set)
        await woken.wait()
        timer.cancel()
