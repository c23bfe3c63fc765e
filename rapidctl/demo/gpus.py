"""Makes the state files of simulated GPUs, which rapidd's sim backend and simulated engines share like hardware."""

from collections.abc import Sequence
from pathlib import Path

from rapid.sim.model.profile import Profile
from rapid.sim.model.requests import Die
from rapid.simgpu import SimGpu, SimGpuSpec


def make_gpus(folder: Path, node: str, profile: Profile, dies: Sequence[Die], at_s: float) -> list[Path]:
    """One GPU per die in a new folder, fresh from the factory at at_s; their files in index order.

    Raises FileExistsError if the folder is there already: nobody's GPUs are overwritten.
    """
    folder.mkdir(parents=True)
    files = []
    for index, die in enumerate(dies):
        file = folder / f"{index}.gpu"
        spec = SimGpuSpec(
            gpu=f"SIM-{node}-{index}",
            index=index,
            name=f"simulated {profile.name}",
            floor_mw=profile.floor_mw,
            ceiling_mw=profile.ceiling_mw,
            idle_mw=round(profile.idle_mw * die.idle),
            lag=profile.lag,
        )
        SimGpu.create(file, spec, at_s).close()
        files.append(file)
    return files
