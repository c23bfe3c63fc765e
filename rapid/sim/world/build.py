"""What a site is made of, by scenario and seed: the same dies and power meters under whatever policy."""

from dataclasses import dataclass
from random import Random

from rapid.core.cluster import EngineHello, Role
from rapid.core.control import Control
from rapid.core.guard import Guard
from rapid.sim.cluster import InstancePlan, cast_die
from rapid.sim.model.sensor import Sensor
from rapid.sim.world.node import SimGpu
from rapid.sim.world.scenario import COLOCATED, Scenario


@dataclass(frozen=True, slots=True)
class Parts:
    """The makes of what is safe only if it is right; a test puts a broken one in, to see that it is caught."""

    control: type[Control] = Control
    guard: type[Guard] = Guard
    gpu: type[SimGpu] = SimGpu


def plans(scenario: Scenario) -> list[InstancePlan]:
    """The instances of all nodes. Every GPU comes up with its ceiling."""
    dice = Random(f"rapid.sim dies {scenario.seed}")
    return [
        InstancePlan(role, scenario.profile.ceiling_mw, cast_die(dice), node=node, name=f"{node}-{number}")
        for node in scenario.node_names
        for number, role in enumerate(scenario.roles)
    ]


def gpus(scenario: Scenario, node: str, dice: Random, make: type[SimGpu]) -> list[SimGpu]:
    """The GPUs of a node, those of each instance side by side."""
    each = scenario.profile.gpus
    return [
        make(f"{node}-gpu{index}", f"{node}-{index // each}", index % each, scenario.profile.ceiling_mw, Sensor(dice))
        for index in range(scenario.gpus)
    ]


def hello(scenario: Scenario, plan: InstancePlan, gpu_names: tuple[str, ...]) -> EngineHello:
    """How the engine of an instance introduces itself. Any engine can prefill and decode, unless all are mixed."""
    assert plan.name is not None, "every instance of a site has a name"
    return EngineHello(
        instance=plan.name,
        incarnation="sim",
        node=plan.node,
        gpus=gpu_names,
        role=plan.role,
        roles=(Role.MIXED,) if scenario.policy == COLOCATED else (Role.PREFILL, Role.DECODE),
        switch_s=scenario.profile.switch_s,
        engine="sim",
    )
