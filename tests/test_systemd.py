"""The units: hardened as far as they can be, free of mistakes, and in agreement with the daemons that they start."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from rapid.config.controller import JournalTable
from rapid.config.node import ListenTable, NodeTable
from rapidctl.controller.__main__ import STEPPED_DOWN, USAGE
from rapidd import agent, start
from rapidd.__main__ import CONFIG

HERE = Path(__file__).parent.parent
UNITS = HERE / "systemd"
ETC = HERE / "packaging" / "etc"
MOST_EXPOSED = 2.5  # of 10; an ordinary service has 9.6
NAMES = ("rapidd.service", "rapid-controller.service")
HOST_UNITS = Path("/usr/lib/systemd/system")

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None or not HOST_UNITS.is_dir(),
    reason="systemd-analyze is not here; install the Debian package systemd",
)


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def installed(root: Path, *, amd: bool = False) -> Path:
    """The units as a package would install them below `root`, beside those of this machine."""
    here = root / "etc/systemd/system"
    here.mkdir(parents=True)
    for name in NAMES:
        shutil.copy(UNITS / name, here)
    if amd:
        (here / "rapidd.service.d").mkdir()
        shutil.copy(UNITS / "rapidd-amd.conf", here / "rapidd.service.d" / "amd.conf")
    shutil.copytree(HOST_UNITS, root / "usr/lib/systemd/system", symlinks=True)
    for command in ("usr/bin/rapidd", "usr/bin/rapid-controller", "bin/kill"):
        path = root / command
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o755)
    return root


def exposure(root: Path, name: str) -> tuple[bool, str]:
    """Whether systemd-analyze finds the unit to be exposed no more than that, and what it says."""
    threshold = f"--threshold={round(MOST_EXPOSED * 10)}"
    done = analyze("security", "--offline=true", "--no-pager", threshold, f"--root={root}", name)
    assert "Overall exposure level" in done.stdout, done.stderr
    return done.returncode == 0, done.stdout.splitlines()[-1]


def settings(name: str) -> dict[str, list[str]]:
    """Every value of every key, in order."""
    found: dict[str, list[str]] = {}
    for line in (UNITS / name).read_text().splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def seconds(text: str) -> float:
    number = text.rstrip("mins")
    return float(number) * {"ms": 0.001, "s": 1, "min": 60}[text[len(number) :]]


# ---- what systemd-analyze says ----


@needs_systemd
@pytest.mark.parametrize(("name", "amd"), [(NAMES[0], False), (NAMES[0], True), (NAMES[1], False)])
def test_no_unit_is_more_exposed_than_it_may_be(tmp_path: Path, name: str, amd: bool) -> None:
    fine, told = exposure(installed(tmp_path, amd=amd), name)
    assert fine, told


@needs_systemd
@pytest.mark.parametrize("weaker", ["SystemCallFilter", "CapabilityBoundingSet"])
def test_a_unit_that_drops_a_guard_is_caught(tmp_path: Path, weaker: str) -> None:
    unit = installed(tmp_path) / "etc/systemd/system" / NAMES[0]
    kept = [line for line in unit.read_text().splitlines() if not line.startswith(f"{weaker}=")]
    unit.write_text("\n".join(kept))
    fine, told = exposure(tmp_path, NAMES[0])
    assert not fine, told


@needs_systemd
def test_the_units_are_free_of_mistakes(tmp_path: Path) -> None:
    done = analyze("verify", f"--root={installed(tmp_path, amd=True)}", *NAMES)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
def test_a_mistake_in_a_unit_is_found(tmp_path: Path) -> None:
    unit = installed(tmp_path) / "etc/systemd/system" / NAMES[0]
    unit.write_text(unit.read_text().replace("WatchdogSec=", "WatchdogSeconds="))
    assert "'WatchdogSeconds'" in analyze("verify", f"--root={tmp_path}", *NAMES).stderr


@needs_systemd
@pytest.mark.parametrize("name", NAMES)
def test_every_guard_that_is_left_open_is_argued_in_a_comment(name: str) -> None:
    done = analyze("security", "--offline=true", "--json=short", str(UNITS / name))
    left_open = [check["name"] for check in json.loads(done.stdout) if float(check["exposure"] or 0)]
    assert left_open, "nothing is perfect"
    text = (UNITS / name).read_text()
    comments = " ".join(line for line in text.splitlines() if line.startswith("#"))
    for check in left_open:
        key, _, value = check.partition("=")
        word = value.lstrip("~") if value.startswith("~CAP_") and "(" not in value else key
        assert word.split("/")[0].rstrip("=") in comments, f"{check} is left open, and no comment says why"


@needs_systemd
@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="systemd-sysusers is not here")
def test_users_and_folders_can_be_made(tmp_path: Path) -> None:
    users = UNITS / "sysusers.d" / "rapid.conf"
    done = subprocess.run(
        ["systemd-sysusers", "--dry-run", f"--root={tmp_path}", str(users)], capture_output=True, text=True, check=True
    )
    made = done.stdout + done.stderr
    for name in NAMES:
        assert f"Creating user '{settings(name)['User'][0]}'" in made
    folders = UNITS / "tmpfiles.d" / "rapid.conf"
    command = ["systemd-tmpfiles", "--create", f"--root={tmp_path}", str(folders)]
    subprocess.run(command, capture_output=True, check=True)
    for name in NAMES:
        keys = Path(settings(name)["LoadCredential"][0].partition(":")[2])
        assert (tmp_path / keys.relative_to("/")).stat().st_mode & 0o777 == 0o700


# ---- units and daemons agree ----


def test_engines_wait_for_rapidd_and_rapidd_for_the_driver() -> None:
    unit = settings("rapidd.service")
    assert "nvidia-persistenced.service" in unit["After"][0].split()
    before = " ".join(unit["Before"]).split()
    assert {"containerd.service", "docker.service", "kubelet.service", "slurmd.service", "vllm.service"} <= {*before}
    assert unit["Type"] == ["notify"]


def test_rapidd_has_time_to_land_before_it_is_killed() -> None:
    unit = settings("rapidd.service")
    assert seconds(unit["TimeoutStopSec"][0]) > agent.LAND_S + start.WORKER_STOP_S + 2
    assert unit["TimeoutStartSec"] == ["infinity"]


def test_the_watchdog_leaves_the_loop_many_turns() -> None:
    assert seconds(settings("rapidd.service")["WatchdogSec"][0]) / 2 >= 4 * agent.TURN_S


def test_what_starting_again_cannot_help_is_not_started_again() -> None:
    assert settings("rapidd.service")["RestartPreventExitStatus"] == ["2"]
    assert settings("rapid-controller.service")["RestartPreventExitStatus"] == [f"{USAGE} {STEPPED_DOWN}"]


def test_the_folders_of_the_units_are_those_of_the_configurations() -> None:
    rapidd, controller = settings(NAMES[0]), settings(NAMES[1])
    assert Path("/var/lib", *rapidd["StateDirectory"]) == NodeTable("h1").state_dir
    assert Path("/run", *rapidd["RuntimeDirectory"]) == Path(ListenTable().load_socket).parent
    assert Path("/var/lib", *controller["StateDirectory"]) == JournalTable().path.parent
    assert str(CONFIG) in (UNITS.parent / "README.md").read_text()


@pytest.mark.parametrize(("name", "example"), [(NAMES[0], "rapidd.toml"), (NAMES[1], "controller.toml")])
def test_the_keys_are_handed_over_from_the_folder_that_the_example_names(name: str, example: str) -> None:
    handle, _, folder = settings(name)["LoadCredential"][0].partition(":")
    assert handle == Path(folder).name, "rapid.tls finds the copy by the name of the folder"
    named = [line for line in (ETC / example).read_text().splitlines() if line.startswith(("# ca", "# cert", "# key"))]
    assert len(named) >= 3, "[tls] names three; the bus has its own"
    assert all(f'"{folder}/' in line for line in named)
