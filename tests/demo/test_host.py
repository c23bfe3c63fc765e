"""The files of a simulated host, read by those who will read them."""

from pathlib import Path

import pytest

from rapid.config import parse_controller_config, parse_node_config
from rapid.core.cluster import Role, SloTargets
from rapid.sim.model.profile import profile_named
from rapid.sim.model.requests import Die
from rapid.simgpu import SimGpu
from rapidctl.demo.host import Host, HostPlan
from rapidctl.demo.load import cast_dies, roles
from rapidctl.demo.run import BUDGET_MW, FALLBACK_MW

PROFILE = profile_named("mi300x-8b")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    dies = (Die(idle=1.1), *cast_dies(0)[1:])
    plan = HostPlan("rapid", tmp_path / "rapid", PROFILE, BUDGET_MW, FALLBACK_MW, SloTargets(), roles(), dies)
    made = Host(plan, print)
    made.make(at_s=100.0)
    return made


def test_rapidd_accepts_its_configuration(host: Host) -> None:
    path = host.plan.folder / "rapidd.toml"
    config = parse_node_config(path.read_text(), path=path)
    assert (config.node.name, config.device.backend, config.device.path) == ("rapid", "sim", host.plan.folder / "gpus")
    assert config.power.hard_budget_mw is None, (
        "the judge could not tell what the controller does from what it prevents"
    )
    assert sum(config.fallbacks_mw([f"g{index}" for index in range(8)]).values()) <= BUDGET_MW


def test_controller_accepts_its_configuration(host: Host) -> None:
    path = host.plan.folder / "controller.toml"
    config = parse_controller_config(path.read_text(), path=path)
    assert config.settings.policy == "rapid"
    assert config.settings.domains[0].budget_mw == BUDGET_MW
    assert config.settings.slo == SloTargets()
    assert config.addresses == {"rapid": f"unix:{host.node_socket}"}
    assert config.listen.address == host.address


def test_gpus_are_fresh_from_the_factory_and_differ_a_little(host: Host) -> None:
    with SimGpu.open(host.gpu_files[0]) as first, SimGpu.open(host.gpu_files[7]) as last:
        assert (first.spec.gpu, last.spec.gpu, last.spec.index) == ("SIM-rapid-0", "SIM-rapid-7", 7)
        assert first.read_limit().enforced_mw == PROFILE.ceiling_mw
        assert first.records() == ()
        assert first.draw_mw(101.0) == round(1.1 * PROFILE.idle_mw)


def test_nobody_else_may_enter_the_folder(host: Host) -> None:
    assert host.plan.folder.stat().st_mode & 0o077 == 0


def test_half_of_the_engines_start_in_each_role(host: Host) -> None:
    engines = host.engines()
    assert [engine.name for engine in engines] == [f"rapid/e{index}" for index in range(8)]
    assert [engine.argv[engine.argv.index("--role") + 1] for engine in engines] == [role.value for role in roles()]
    assert roles().count(Role.PREFILL) == roles().count(Role.DECODE) == 4


def test_same_seed_casts_the_same_dies() -> None:
    assert cast_dies(3) == cast_dies(3) != cast_dies(4)
