"""`rapidctl sim-gpus`: simulated GPUs for trying the real daemons."""

import json
from pathlib import Path

from click.testing import CliRunner

from rapid.simgpu import SimGpu
from rapidctl.__main__ import cli


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli, ["sim-gpus", *arguments], prog_name="rapidctl")
    return result.exit_code, result.stdout, result.stderr


def test_it_makes_gpus_at_their_factory_limit(tmp_path: Path) -> None:
    folder = tmp_path / "gpus"
    code, out, _ = run(str(folder), "--count", "2", "--node", "h7", "--json")
    made = json.loads(out)
    assert code == 0
    assert [gpu["gpu"] for gpu in made["gpus"]] == ["SIM-h7-0", "SIM-h7-1"]
    for each in made["gpus"]:
        with SimGpu.open(Path(each["file"])) as gpu:
            assert gpu.read_limit().enforced_mw == each["ceiling_w"] * 1000 == 750_000


def test_it_never_touches_gpus_that_are_there(tmp_path: Path) -> None:
    folder = tmp_path / "gpus"
    run(str(folder), "--count", "1")
    before = (folder / "0.gpu").read_bytes()
    code, out, err = run(str(folder), "--count", "1")
    assert (code, out) == (1, "")
    assert err == f"rapidctl: cannot make GPUs in {folder}: file exists\n"
    assert (folder / "0.gpu").read_bytes() == before


def test_an_unknown_profile_is_named(tmp_path: Path) -> None:
    code, _, err = run(str(tmp_path / "gpus"), "--profile", "v100")
    assert code != 0
    assert "v100" in err
    assert not (tmp_path / "gpus").exists()
