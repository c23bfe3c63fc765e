"""`rapidctl demo` as its users run it."""

import json
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from rapid.simgpu import SimGpu
from tests.e2e.demo import running_demo
from tests.wait import wait_for

HOST_KEYS = {
    *("attainment", "ttft_attainment", "tpot_attainment", "goodput_rps", "requests", "joules_per_output_token"),
    *("role_moves", "watts_moved", "over_budget_s"),
}
SOON_S = 20.0

pytestmark = pytest.mark.timeout(240)


def test_last_line_is_the_contract_and_the_budget_holds() -> None:
    with running_demo("--seconds", "8", "--json") as demo:
        assert demo.wait_end() == 0, demo.talk
        document = demo.document()
        assert list(document["hosts"]) == ["uniform", "predictive"]
        for host in document["hosts"].values():
            assert set(host) >= HOST_KEYS
            assert host["over_budget_s"] == 0
            assert host["requests"] == document["hosts"]["uniform"]["requests"] > 0
            assert 0 < host["attainment"] <= min(host["ttft_attainment"], host["tpot_attainment"]) <= 1
            assert host["goodput_rps"] == pytest.approx(host["attainment"] * host["requests"] / 8)
            assert host["joules_per_output_token"] > 0
        assert (document["budget_w"], document["over_budget_s"]) == (4800, 0)
        assert document["hosts"]["uniform"]["watts_moved"] == document["hosts"]["uniform"]["role_moves"] == 0
        picture = (demo.folder.parent / "demo-out" / "azure-predictive.png").resolve()
        assert document["picture"] == str(picture)
        assert picture.read_bytes().startswith(b"\x89PNG")
        # A busy machine may delay news; the model itself does not slow down with it.
        assert abs(document["hosts"]["uniform"]["attainment"] - document["predicted_attainment"]) < 0.15
        assert demo.left_behind() == []


def test_write_behind_the_daemons_back_is_found_and_makes_the_exit_code_1() -> None:
    with running_demo("--policy", "rapid", "--seconds", "4", "--rate-scale", "2", "--json") as demo:
        demo.wait_ready()
        with SimGpu.open(demo.folder / "rapid" / "gpus" / "5.gpu") as gpu:
            gpu.set_limit(750_000, time.monotonic())
            wait_for(lambda: gpu.read_limit().enforced_mw <= 600_000, SOON_S, "rapidd has put the limit back")
        assert demo.wait_end() == 1
        document = demo.document()
        assert document["hosts"]["rapid"]["over_budget_s"] > 0
        assert document["hosts"]["rapid"]["highest_limits_w"] == 4950
        assert document["hosts"]["uniform"]["over_budget_s"] == 0
        assert document["over_budget_s"] == document["hosts"]["rapid"]["over_budget_s"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_demo_leaves_no_process(number: signal.Signals, code: int) -> None:
    with running_demo("--rate-scale", "2") as demo:
        demo.wait_ready()
        assert len(demo.programs()) == 20
        demo.process.send_signal(number)
        assert demo.wait_end() == code
        assert demo.left_behind() == []
        assert demo.talk.endswith("stopped; no process is left\n")


def test_killed_demo_leaves_no_process() -> None:
    with running_demo("--rate-scale", "2") as demo:
        demo.wait_ready()
        demo.process.kill()
        demo.process.wait()
        wait_for(lambda: demo.left_behind() == [], SOON_S, "every process is gone")


def test_keep_goes_on_for_the_other_verbs_until_it_is_interrupted() -> None:
    with running_demo("--seconds", "2", "--rate-scale", "2", "--keep", "--policy", "power") as demo:
        demo.wait_ready()
        wait_for(lambda: "export RAPID_ADDRESS=" in demo.talk, 60.0, "the hints are there")
        address = demo.talk.partition("export RAPID_ADDRESS=")[2].split()[0]
        assert address == f"unix:{demo.folder}/power/ctl.sock"
        assert _verb(address, "status", "--json")["policy"] == "power"
        assert "SLO attainment" in demo.words
        demo.process.send_signal(signal.SIGINT)
        assert demo.wait_end() == 0
        assert demo.left_behind() == []


def _verb(address: str, *words: str) -> Any:
    argv = [sys.executable, "-m", "rapidctl", "--address", address, *words]
    return json.loads(subprocess.run(argv, capture_output=True, check=True, timeout=SOON_S).stdout)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--workload", "nowhere.csv"), "rapidctl: trace nowhere.csv: No such file or directory"),
        (("--rate-scale", "900"), "rapidctl: trace azure: at rate scale 900 it is over before 60 s"),
        (("--folder", "/tmp/" + "x" * 100), "sockets in it allow 67: choose a shorter one"),
    ],
)
def test_what_cannot_be_run_is_said_in_one_line(words: tuple[str, ...], message: str) -> None:
    with running_demo(*words) as demo:
        assert demo.wait_end() in (1, 2)
        assert message in demo.talk
        assert demo.talk.count("\n") == 1
        assert demo.words == ""
