"""One host: the real Guard, and simulated devices that do what it asks after a while."""

from collections.abc import Mapping, Sequence
from functools import partial
from math import inf
from random import Random
from typing import Protocol

from rapid.core.cluster import GpuHealth, GrantBatch, Greeting, NodeReport, PhaseLoad, Renewal
from rapid.core.duties import Duty, GuardedGpu, GuardMemory, Persist, ReportSoon, Say, Write
from rapid.core.guard import Guard
from rapid.sim.cluster import Cluster
from rapid.sim.model.sensor import BOX_S, PERIOD_S, Sensor, noise
from rapid.sim.world.agenda import Agenda, Link
from rapid.sim.world.scenario import Scenario

_EAGER_S = 1.0  # after a write, for how long every reading counts: they show that a cut has been obeyed
_TURN_S = 0.1  # the longest pause between two looks at the lease, as in rapidd


class SimGpu:
    """A device: what it enforces, its power meter, and whose GPU it is. It comes up with its ceiling, as from the
    factory."""

    def __init__(self, name: str, instance: str, number: int, ceiling_mw: int, sensor: Sensor) -> None:
        self.name, self.instance, self.number = name, instance, number  # number: which GPU of its instance
        self.limit_mw = ceiling_mw
        self.sensor = sensor

    def enforce(self, asked_mw: int) -> None:
        """Sets a limit."""
        self.limit_mw = asked_mw

    def read_mw(self) -> int:
        """The limit that it says it enforces."""
        return self.limit_mw


class World(Protocol):
    """Whom a node tells what has happened."""

    def ready(self, node: str, at_s: float) -> None: ...

    def limited(self, gpu: SimGpu, at_s: float) -> None:
        """The device enforces another limit from now on."""

    def heard(self, report: NodeReport, at_s: float) -> None:
        """A report has reached the controller."""


class SimNode:
    """rapidd without its sockets and threads: it performs the guard's duties, samples every device, and reports.

    The node's clock is the simulation's. Driven by the agenda once begin() was called.
    """

    def __init__(
        self,
        name: str,
        gpus: Sequence[SimGpu],
        scenario: Scenario,
        agenda: Agenda,
        cluster: Cluster,
        dice: Random,
        world: World,
        *,
        guard: type[Guard] = Guard,
    ) -> None:
        self.name = name
        self.gpus: Mapping[str, SimGpu] = {gpu.name: gpu for gpu in gpus}
        self._settings, self._agenda, self._cluster = scenario.world, agenda, cluster
        self._dice, self._world = dice, world
        profile = scenario.profile
        limits_mw = (profile.floor_mw, profile.ceiling_mw, scenario.fallback_mw, profile.ceiling_mw)
        guarded = [GuardedGpu(gpu.name, index, *limits_mw) for index, gpu in enumerate(gpus)]
        self.guard = guard(node=name, incarnation="sim", gpus=guarded, memory=GuardMemory())
        self._instances = tuple(dict.fromkeys(gpu.instance for gpu in gpus))
        self._up = Link(agenda, dice, scenario.world.network_s)
        self._silences = [each for each in scenario.world.silences if each.node == name]
        self._looks = {gpu.name: partial(self._look, gpu) for gpu in gpus}
        self._eager_until_s = -inf
        self._was_ready = False
        self._greeted = False
        self._reported_s = -inf
        self._report_due_s = inf
        self._loads: tuple[PhaseLoad, ...] = ()
        self._loads_s = -inf

    def begin(self, at_s: float) -> None:
        """The daemon starts: the guard brings every GPU down, and samples begin."""
        self._perform(self.guard.begin(at_s), at_s)
        for gpu in self.gpus.values():
            self._agenda.put(gpu.sensor.next_s, self._looks[gpu.name])
        self._agenda.put(at_s + _TURN_S, self._turn)

    # ---- what the controller says ----

    def greet(self, greeting: Greeting, at_s: float) -> None:
        self._greeted = True
        self._perform(self.guard.greet(greeting, at_s), at_s)

    def grant(self, batch: GrantBatch, at_s: float) -> None:
        self._perform(self.guard.grant(batch, at_s), at_s)

    def renew(self, renewal: Renewal, at_s: float) -> None:
        self._perform(self.guard.renew(renewal, at_s), at_s)

    def silent(self, at_s: float) -> bool:
        """The network drops what the node sends, and what is sent to it."""
        trace_s = at_s - self._settings.lead_in_s
        return any(each.from_s <= trace_s < each.until_s for each in self._silences)

    # ---- devices ----

    def _perform(self, duties: Sequence[Duty], at_s: float) -> None:
        for duty in duties:
            match duty:
                case Write():
                    done_s = at_s + self._dice.uniform(*self._settings.write_s)
                    self._agenda.put(done_s, partial(self._write, self.gpus[duty.gpu], duty.limit_mw))
                case ReportSoon():
                    self._report_soon(at_s)
                case Persist():
                    self.guard.persisted(duty.memory)
                case Say():
                    pass

    def _write(self, gpu: SimGpu, asked_mw: int, at_s: float) -> None:
        before_mw = gpu.limit_mw
        gpu.enforce(asked_mw)
        if gpu.limit_mw != before_mw:
            delay_s = self._dice.uniform(*self._settings.limit_delay_s)
            self._cluster.set_limit(gpu.instance, gpu.limit_mw, gpu=gpu.number, delay_s=delay_s)
            self._world.limited(gpu, at_s)
        self._eager_until_s = at_s + _EAGER_S
        if not gpu.sensor.is_open:
            gpu.sensor.aim(at_s)
            self._agenda.put(gpu.sensor.next_s, self._looks[gpu.name])
        self._perform(self.guard.wrote(gpu.name, asked_mw, gpu.read_mw(), "", GpuHealth.OK, at_s), at_s)
        if not self._was_ready and self.guard.ready:
            self._was_ready = True
            self._world.ready(self.name, at_s)

    def _turn(self, at_s: float) -> None:
        """A look at the lease, and at what has failed."""
        self._perform(self.guard.tick(at_s), at_s)
        self._agenda.put(at_s + _TURN_S, self._turn)

    def _look(self, gpu: SimGpu, at_s: float) -> None:
        """The power meter opens or closes a box; a closed one is a sample."""
        sensor, instance = gpu.sensor, self._cluster.instances[gpu.instance]
        if at_s != sensor.next_s:
            return  # it was aimed at another box meanwhile
        energy_mj = instance.energy_mj(at_s, gpu.number)
        sensor.look(at_s, energy_mj)
        if sensor.is_open:
            instance.set_noise(noise(self._dice), at_s, gpu.number)
        else:
            self._sampled(gpu, energy_mj, at_s)
            # A box that neither a cut waits for nor a report will show is passed over. Nobody can tell.
            if at_s >= self._eager_until_s and self._greeted:
                sensor.aim(self._report_due_s - BOX_S - PERIOD_S)
        self._agenda.put(sensor.next_s, self._looks[gpu.name])

    def _sampled(self, gpu: SimGpu, energy_mj: float, at_s: float) -> None:
        reading = gpu.sensor.reading()
        duties = self.guard.sampled(
            gpu.name,
            limit_mw=gpu.read_mw(),
            requested_mw=None,
            limit_at_s=at_s,
            draw_mw=None if reading is None else reading[0],
            draw_at_s=at_s - BOX_S,  # all of it was drawn after that
            energy_mj=gpu.sensor.counter_mj(energy_mj),
            problem="",
            health=GpuHealth.OK,
        )
        if duties:
            self._perform(duties, at_s)

    # ---- reports ----

    def _report_soon(self, at_s: float) -> None:
        due_s = max(at_s, self._reported_s + self._settings.report_gap_s)
        if self._greeted and due_s < self._report_due_s:
            self._report_due_s = due_s
            self._agenda.put(due_s, self._report)

    def _report(self, at_s: float) -> None:
        if at_s != self._report_due_s:
            return  # one went out earlier instead
        self._reported_s, self._report_due_s = at_s, at_s + self._settings.report_interval_s
        self._agenda.put(self._report_due_s, self._report)
        report = self.guard.report(at_s, self._fresh_loads(at_s))
        if not self.silent(at_s):
            self._up.send(partial(self._world.heard, report), at_s)

    def _fresh_loads(self, at_s: float) -> tuple[PhaseLoad, ...]:
        if at_s - self._loads_s >= self._settings.load_interval_s:
            instances = self._cluster.instances
            self._loads = tuple(instances[name].load(at_s) for name in self._instances)
            self._loads_s = at_s
        return self._loads
