"""Choose the backend that the configuration names."""

from collections.abc import Callable
from pathlib import Path

from rapid.core.errors import ConfigInvalid
from rapidd.device.base import Backend


def open_backend(kind: str, *, sim_dir: Path | None = None, clock: Callable[[], float] | None = None) -> Backend:
    """Open every GPU of this host through the backend named `kind`, "nvml", "amdsmi" or "sim".

    "sim" needs `sim_dir`, the folder of its state files, and `clock`, the time in seconds that the simulated engines
    go by. Raises ConfigInvalid for what is wrong in the configuration, DeviceError for what is wrong on the host.
    """
    # Each backend is imported when it is chosen: a node pays for one only.
    if kind == "nvml":
        from rapidd.device.nvml import NvmlBackend

        return NvmlBackend()
    if kind == "amdsmi":
        from rapidd.device.amdsmi import AmdSmiBackend

        return AmdSmiBackend()
    if kind == "sim":
        from rapidd.device.sim import SimBackend

        if sim_dir is None:
            raise ConfigInvalid("device.path", 'is needed with backend "sim": the folder of its *.gpu files')
        assert clock is not None
        return SimBackend(sim_dir, clock)
    raise ConfigInvalid("device.backend", f"no backend named {kind!r} (known: nvml, amdsmi, sim)")
