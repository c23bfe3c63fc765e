"""One simulated engine as a process: its links, its GPU, and the loop that lets model time follow the clock."""

import asyncio
import signal
import time
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from random import Random

from rapid.core.cluster import Role
from rapid.core.errors import ConfigInvalid, UsageError
from rapid.engine import Attached, attach
from rapid.engine.link import Say, keep_connected
from rapid.sim.model.instance import Instance
from rapid.sim.model.profile import Profile
from rapid.sim.model.requests import Activity, Die
from rapid.simgpu import SimGpu
from rapid.tls import TlsConfig
from rapidctl.demo.engine import Clients, Engine
from rapidctl.demo.links import FrontEndLink, Steps
from rapidctl.demo.own_load import OwnLoad

PRODUCT = "rapid sim-engine"
# How often to look at the GPU's limit. Shorter than the lag before a device begins to follow a new one, so that no
# batch and no step is ever computed with an outdated limit in effect.
LIMIT_LOOK_S = 0.05
# The device is told that work goes on for a little longer than it does, so that it does not look idle until a late
# process tells it of the next work. It is told when work really ended, so its energy stays right.
WAKE_SLACK_S = 0.05


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
    _check_profile(options.profile)
    stopping, woken = asyncio.Event(), asyncio.Event()

    def stop() -> None:
        stopping.set()
        woken.set()

    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop)
    with SimGpu.open(options.gpu_file) as gpu:
        front_end = FrontEndLink(options.data_socket, woken.set) if options.data_socket else None
        own = None if front_end else OwnLoad(options.rate_rps, Random(options.seed), time.monotonic())
        felt = Felt(gpu)
        engine = _engine(options, felt, front_end or own)
        steps = Steps(engine, woken.set)
        try:
            async with _attached(options, gpu.spec.gpu, steps, say), asyncio.TaskGroup() as tasks:
                if front_end:
                    serving = partial(front_end.connect, engine)
                    meeting = tasks.create_task(keep_connected("front end", serving, say, stopping))
                await _live(engine, steps, felt, front_end, own, stopping, woken)
                if front_end:
                    front_end.leave()
                    meeting.cancel()
        except ConfigInvalid as error:
            text = str(error).removeprefix("config key ")
            raise UsageError(text.removeprefix("address: ").replace("tls.", "--tls-")) from error


def _check_profile(profile: Profile) -> None:
    if profile.gpus != 1:
        needs = f"--profile {profile.name} needs {profile.gpus} GPUs"
        raise UsageError(f"{needs}, and a simulated engine has 1; choose a profile of one GPU")


def _attached(options: ServeOptions, gpu: str, steps: Steps, say: Say) -> AbstractAsyncContextManager[Attached]:
    return attach(
        steps,
        instance=options.instance,
        node=options.node,
        gpus=(gpu,),
        role=options.role,
        address=options.controller,
        tls=options.tls,
        load_address=f"unix:{options.load_socket}" if options.load_socket else "",
        switch_s=options.profile.switch_s,
        product=PRODUCT,
        say=say,
    )


def _engine(options: ServeOptions, felt: Felt, clients: Clients | None) -> Engine:
    assert clients is not None
    die = Die(speed=options.die_speed)
    name, role, now_s = options.instance, options.role, time.monotonic()
    return Engine(Instance(name, role, options.profile, felt.curve, start_s=now_s, die=die), clients)


async def _live(
    engine: Engine,
    steps: Steps,
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
        steps.look()
        felt.work(engine)
        if front_end:
            front_end.tell_lag(engine, now_s)
        wake_s = min(engine.next_s(), now_s + LIMIT_LOOK_S, own.next_s if own else inf)
        # The loop's clock is time.monotonic too; a timer costs less than a timeout around the wait.
        timer = loop.call_at(wake_s, woken.set)
        await woken.wait()
        timer.cancel()
