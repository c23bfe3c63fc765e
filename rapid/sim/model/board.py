"""What a GPU board is without a model: its limits, memory, link, and how fast arithmetic is under a limit.

Every number carries its source beside it, or says that it is assumed.
"""

from dataclasses import dataclass

from rapid.sim.model.curves import PowerLaw, Saturating, SpeedCurve
from rapid.sim.model.power import Lag

# Limit in effect after a change: 50 to 150 ms of delay, then a first-order lag (assumed). On MI300X the lag is 300 ms.
_NVIDIA_LAG = Lag(delay_s=0.1, tau_down_s=0.1, tau_up_s=0.05)
_MI300X_LAG = Lag(delay_s=0.1, tau_down_s=0.3, tau_up_s=0.3)
_NVLINK = 300e9  # bytes/s, effective (assumed)
_XGMI = 45e9  # bytes/s (assumed)

# Prefill on MI300X: (limit / 750 W)^.63 between 600 and 750 W (result R6 of the RAPID paper, arXiv 2601.12241); below,
# a band of exponents (assumed).
_MI300X_STEEP = PowerLaw(0.63, knee=0.8, exponent_below=0.95)
_MI300X_SHALLOW = PowerLaw(0.63, knee=0.8, exponent_below=0.60)
# Llama-3-8B training on H100 at 200..700 W (Mayr, arXiv 2603.16164), fitted as 1 - exp(-(watts - 135) / 183) and taken
# by fraction of the ceiling. Training stands in for prefill: both are bound by arithmetic (assumed). At the floor the
# two corners of an NVIDIA GPU meet.
_H100_TRAINING = Saturating(onset=135 / 700, scale=183 / 700, measured_from=200 / 700)


@dataclass(frozen=True, slots=True)
class Board:
    """One GPU. steep and shallow: the ends of the band of prefill speed by limit / ceiling."""

    floor_mw: int
    ceiling_mw: int
    idle_mw: int
    memory_bytes: float
    link_bytes_per_s: float  # to its neighbours in the node
    lag: Lag
    steep: SpeedCurve = _MI300X_STEEP  # assumed for NVIDIA: the MI300X exponents, by fraction of the ceiling
    shallow: SpeedCurve = _H100_TRAINING  # assumed for all but H100


# Ceilings and memory: data sheets. Floors, and idle draws with a model loaded and nothing to do: assumed.
A100 = Board(100_000, 400_000, 55_000, 80e9, _NVLINK * 600 / 900, _NVIDIA_LAG)  # NVLink 3: 600 of NVLink 4's 900 GB/s
H100 = Board(200_000, 700_000, 110_000, 80e9, _NVLINK, _NVIDIA_LAG)
H200 = Board(200_000, 700_000, 125_000, 141e9, _NVLINK, _NVIDIA_LAG)
B200 = Board(200_000, 1_000_000, 195_000, 180e9, _NVLINK, _NVIDIA_LAG)
MI300X = Board(400_000, 750_000, 140_000, 192e9, _XGMI, _MI300X_LAG, shallow=_MI300X_SHALLOW)
