"""One simulated host: its GPUs, and the configurations and command lines of the real programs that run on it."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rapid.core.cluster import Role, SloTargets
from rapid.sim.model.profile import Profile
from rapid.sim.model.requests import Die
from rapidctl.demo.gpus import make_gpus
from rapidctl.demo.processes import Program
from rapidctl.demo.router import FrontEnd

DOMAIN = "host"  # the one domain of each controller, as `rapidctl budget set` names it


@dataclass(frozen=True, slots=True)
class HostPlan:
    """What a host of the demo is. Roles and dies are by GPU; `policy` is also its name."""

    policy: str
    folder: Path
    profile: Profile
    budget_mw: int
    fallback_mw: int
    slo: SloTargets
    roles: tuple[Role, ...]
    dies: tuple[Die, ...]


class Host:
    """Where everything of one host lies, and what to run on it."""

    def __init__(self, plan: HostPlan, say: Callable[[str], None]) -> None:
        self.plan = plan
        self.name = plan.policy
        self.front = FrontEnd(self.name, plan.slo, say)
        folder = plan.folder
        self.node_socket, self.load_socket = folder / "node.sock", folder / "load.sock"
        self.control_socket, self.data_socket = folder / "ctl.sock", folder / "data.sock"
        self.gpu_files = tuple(folder / "gpus" / f"{index}.gpu" for index in range(len(plan.roles)))
        self.instances = tuple(f"e{index}" for index in range(len(plan.roles)))

    @property
    def address(self) -> str:
        """Of its controller."""
        return f"unix:{self.control_socket}"

    def make(self, at_s: float) -> None:
        """Make the GPUs, fresh from the factory at at_s, and write both configurations."""
        plan = self.plan
        plan.folder.mkdir(mode=0o700)  # who can write there can push load and set limits
        make_gpus(self.gpu_files[0].parent, self.name, plan.profile, plan.dies, at_s)
        (plan.folder / "rapidd.toml").write_text(self.node_config())
        (plan.folder / "controller.toml").write_text(self.controller_config())

    def node_config(self) -> str:
        """For rapidd. No hard_budget: the judge is to see what the controller does, not what the host would prevent."""
        return f"""
[node]
name = "{self.name}"
state_dir = "state"
[device]
backend = "sim"
path = "gpus"
[power]
fallback = "{self.plan.fallback_mw / 1e3:g}W"
[listen]
address = "unix:{self.node_socket}"
load_socket = "{self.load_socket}"
metrics = ""
"""

    def controller_config(self) -> str:
        """For rapid-controller; what is not said is as in production."""
        plan = self.plan
        return f"""
[[domain]]
name = "{DOMAIN}"
budget = "{plan.budget_mw / 1e3:g}W"
[[node]]
name = "{self.name}"
address = "unix:{self.node_socket}"
domain = "{DOMAIN}"
gpus = {len(plan.roles)}
floor = "{plan.profile.floor_mw / 1e3:g}W"
ceiling = "{plan.profile.ceiling_mw / 1e3:g}W"
fallback = "{plan.fallback_mw / 1e3:g}W"
[slo]
ttft = "{1e3 * plan.slo.ttft_s:g}ms"
tpot = "{1e3 * plan.slo.tpot_s:g}ms"
[policy]
name = "{plan.policy}"
[journal]
path = "journal.sqlite3"
[listen]
address = "{self.address}"
metrics = ""
"""

    def daemon(self) -> Program:
        return self._program("rapidd", "rapidd", "--config", "rapidd.toml")

    def controller(self) -> Program:
        return self._program("controller", "rapidctl.controller", "--config", "controller.toml")

    def engines(self) -> list[Program]:
        plan, engines = self.plan, []
        for index, (instance, role, die) in enumerate(zip(self.instances, plan.roles, plan.dies, strict=True)):
            given = {
                "--instance": instance,
                "--role": role.value,
                "--node": self.name,
                "--gpu-file": self.gpu_files[index],
                "--profile": plan.profile.name,
                "--die-speed": f"{die.speed:.6f}",
                "--load-socket": self.load_socket,
                "--data-socket": self.data_socket,
                "--address": self.address,
            }
            words = [str(word) for pair in given.items() for word in pair]
            engines.append(self._program(instance, "rapidctl", "sim-engine", *words))
        return engines

    def logs(self) -> Sequence[Path]:
        return sorted(self.plan.folder.glob("*.log"))

    def _program(self, name: str, module: str, *words: str) -> Program:
        folder = self.plan.folder
        files = tuple(str(folder / word) if word.endswith(".toml") else word for word in words)
        notify = {"NOTIFY_SOCKET": str(folder / f"{name}.ntf")}
        return Program(f"{self.name}/{name}", (sys.executable, "-m", module, *files), folder / f"{name}.log", notify)
