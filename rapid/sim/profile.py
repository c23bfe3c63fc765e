"""What one GPU running one model can do: times, draws and speeds, with the source of every number.

The H100's and H200's times and draws are composed from measured operators (ai-dynamo/aiconfigurator at 095f58a5,
Apache-2.0) of Llama-3.1-8B in bf16 on one GPU and fitted linearly; the fits are 1 to 3 % off on average. Every other
number carries its source beside it, or says that it is assumed.
"""

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from math import log2

from rapid.core.errors import NotFound
from rapid.sim.curves import PowerLaw, QuadraticKnee, Saturating, SpeedCurve
from rapid.sim.power import Lag

_REMOTE_BYTES_PER_S = 40e9  # of one GPU's NDR link between nodes (assumed)


class PrefillCorner(Enum):
    """Nothing public measures prefill alone under a limit, so claims are made at both ends of the band."""

    STEEP = "steep"
    SHALLOW = "shallow"


class DecodeCorner(Enum):
    """The same for decode; PESSIMISTIC covers result R8 of the RAPID paper (arXiv 2601.12241)."""

    GENTLE = "gentle"
    SHARP = "sharp"
    PESSIMISTIC = "pessimistic"


# MI300X: (limit / 750 W)^.63 between 600 and 750 W (result R6 of the RAPID paper); below, a band of exponents
# (assumed).
_MI300X_STEEP = PowerLaw(0.63, knee=0.8, exponent_below=0.95)
_MI300X_SHALLOW = PowerLaw(0.63, knee=0.8, exponent_below=0.60)
# Llama-3-8B training on H100 at 200..700 W (Mayr, arXiv 2603.16164), fitted as 1 - exp(-(watts - 135) / 183) and taken
# by fraction of the ceiling. Training stands in for prefill: both are bound by arithmetic (assumed).
_H100_TRAINING = Saturating(onset=135 / 700, scale=183 / 700, measured_from=200 / 700)

# By limit / natural draw. Gentle: measured on RTX PRO 6000, 1.0 at .8, .955 at .7, .87 at .6, .75 at .52. Sharp: on
# B200.
_DECODE_CURVES: dict[DecodeCorner, SpeedCurve] = {
    DecodeCorner.GENTLE: QuadraticKnee(knee=0.80, gain=3.3, measured_from=0.50),
    DecodeCorner.SHARP: QuadraticKnee(knee=0.62, gain=30.0, measured_from=0.50),
    DecodeCorner.PESSIMISTIC: PowerLaw(0.4),
}


@dataclass(frozen=True, slots=True)
class Profile:
    """One GPU with one model. A batch of T tokens with prompts L takes, without a limit, in ms:

    prefill        prefill_ms + prefill_token_ms T + prefill_square_ms sum L^2
    decode step    decode_ms + decode_sequence_ms B + decode_context_ms C        (B sequences, C tokens of context)
                   and the host's host_ms + host_sequence_ms B, which no limit slows down
    """

    name: str
    floor_mw: int
    ceiling_mw: int
    idle_mw: int
    prefill_ms: float
    prefill_token_ms: float
    prefill_square_ms: float
    decode_ms: float
    decode_sequence_ms: float
    decode_context_ms: float
    prefill_natural_mw: int
    decode_natural_mw: tuple[tuple[int, int], ...]  # (batch, draw), batch rising; read by interpolation in log2 batch
    steep: SpeedCurve
    shallow: SpeedCurve
    kv_capacity_tokens: int
    transfer_bytes_per_s: float  # of one GPU's link inside the node
    lag: Lag
    gpus: int = 1  # tensor parallel degree; limits and draws are per GPU, times and KV capacity are the instance's
    kv_bytes_per_token: int = 131_072  # Llama-3.1-8B, bf16: 32 layers x 8 heads x 128 x 2 (key, value) x 2 bytes
    transfer_s: float = 0.0005  # RoCE 8x400; assumed for every link
    host_ms: float = 1.1  # .7 to 1.5: half of the excess of ML.ENERGY's H100 ITL over composed kernels
    host_sequence_ms: float = 0.01
    front_s: float = 0.040  # 35 to 45 ms of TTFT in front of the engine (vLLM P/D on H800)
    switch_s: float = 1.0  # assumed; with its drain a role change then takes the paper's 2 to 5 s
    prefill_corner: PrefillCorner = PrefillCorner.SHALLOW
    decode_corner: DecodeCorner = DecodeCorner.GENTLE

    def prefill_s(self, tokens: int, squares: int, limit_mw: float) -> float:
        """Seconds for a prefill batch of `tokens` tokens whose squared prompt lengths sum to `squares`."""
        work_ms = self.prefill_ms + self.prefill_token_ms * tokens + self.prefill_square_ms * squares
        return work_ms / (1e3 * self.prefill_speed(limit_mw))

    def decode_step_s(self, batch: int, context_tokens: int, limit_mw: float) -> float:
        """Seconds for one decode step of `batch` sequences that hold `context_tokens` together."""
        work_ms = self.decode_ms + self.decode_sequence_ms * batch + self.decode_context_ms * context_tokens
        return work_ms / (1e3 * self.decode_speed(limit_mw, batch)) + self.host_s(batch)

    def host_s(self, batch: int) -> float:
        """The host's part of a decode step."""
        return (self.host_ms + self.host_sequence_ms * batch) / 1e3

    def prefill_speed(self, limit_mw: float) -> float:
        curve = self.steep if self.prefill_corner is PrefillCorner.STEEP else self.shallow
        return curve.speed(limit_mw / self.ceiling_mw)

    def decode_speed(self, limit_mw: float, batch: int) -> float:
        return self.decode_curve.speed(limit_mw / self.decode_draw_mw(batch))

    @property
    def decode_curve(self) -> SpeedCurve:
        """Speed by limit / natural draw."""
        return _DECODE_CURVES[self.decode_corner]

    def decode_draw_mw(self, batch: int) -> int:
        """The draw of a decode step that no limit holds back."""
        return _interpolated(self.decode_natural_mw, batch)

    def pull_s(self, prompt_tokens: int, *, remote: bool = False) -> float:
        """Seconds to move the KV cache of a prompt from a prefill to a decode instance; remote: to another node.

        Every GPU of an instance moves its own share over its own link.
        """
        bytes_per_s = _REMOTE_BYTES_PER_S if remote else self.transfer_bytes_per_s
        return self.transfer_s + prompt_tokens * self.kv_bytes_per_token / (self.gpus * bytes_per_s)


@lru_cache(maxsize=8192)
def _interpolated(points: tuple[tuple[int, int], ...], batch: int) -> int:
    low_batch, low_mw = points[0]
    for high_batch, high_mw in points[1:]:
        if batch < high_batch:
            share = log2(max(batch, low_batch) / low_batch) / log2(high_batch / low_batch)
            return round(low_mw + (high_mw - low_mw) * share)
        low_batch, low_mw = high_batch, high_mw
    return low_mw


# Limit in effect after a change: 50 to 150 ms of delay, then a first-order lag (assumed). On MI300X the lag is 300 ms.
_NVIDIA_LAG = Lag(delay_s=0.1, tau_down_s=0.1, tau_up_s=0.05)
_MI300X_LAG = Lag(delay_s=0.1, tau_down_s=0.3, tau_up_s=0.3)
_NVLINK = 300e9  # bytes/s, effective (assumed)
_XGMI = 45e9  # bytes/s (assumed)
# KV capacity: 90 % of the memory less 16 GB of weights, at 131,072 bytes a token (assumed).

_H200 = Profile(
    name="h200-8b",
    floor_mw=200_000,
    ceiling_mw=700_000,
    idle_mw=125_000,
    prefill_ms=1.16,
    prefill_token_ms=0.0222,
    prefill_square_ms=3.97e-7,
    decode_ms=4.55,
    decode_sequence_ms=0.0129,
    decode_context_ms=2.94e-5,
    prefill_natural_mw=685_000,
    decode_natural_mw=((1, 349_000), (8, 542_000), (32, 576_000), (64, 576_000), (128, 591_000), (256, 611_000)),
    steep=_MI300X_STEEP,  # assumed: the MI300X exponents, by fraction of the ceiling
    shallow=_H100_TRAINING,
    kv_capacity_tokens=846_000,
    transfer_bytes_per_s=_NVLINK,
    lag=_NVIDIA_LAG,
)

_H100 = Profile(
    name="h100-8b",
    floor_mw=200_000,
    ceiling_mw=700_000,
    idle_mw=110_000,
    prefill_ms=0.57,
    prefill_token_ms=0.0205,
    prefill_square_ms=4.59e-7,
    decode_ms=6.31,
    decode_sequence_ms=0.0108,
    decode_context_ms=4.41e-5,
    prefill_natural_mw=685_000,  # the H200's: no power was measured with the H100's operators
    decode_natural_mw=((1, 335_000), (128, 661_200)),  # 335 + 46.6 log2 B for 8..128; below 8 assumed
    steep=_MI300X_STEEP,
    shallow=_H100_TRAINING,
    kv_capacity_tokens=427_000,
    transfer_bytes_per_s=_NVLINK,
    lag=_NVIDIA_LAG,
)

# A stand-in (assumed): the H200's times x 1.3, its draw by fraction of the ceiling. The paper's node has eight of them.
_MI300X = Profile(
    name="mi300x-8b",
    floor_mw=400_000,
    ceiling_mw=750_000,
    idle_mw=140_000,
    prefill_ms=1.16 * 1.3,
    prefill_token_ms=0.0222 * 1.3,
    prefill_square_ms=3.97e-7 * 1.3,
    decode_ms=4.55 * 1.3,
    decode_sequence_ms=0.0129 * 1.3,
    decode_context_ms=2.94e-5 * 1.3,
    prefill_natural_mw=735_000,
    decode_natural_mw=((1, 374_000), (8, 580_000), (32, 617_000), (64, 617_000), (128, 633_000), (256, 655_000)),
    steep=_MI300X_STEEP,
    shallow=_MI300X_SHALLOW,
    kv_capacity_tokens=1_196_000,
    transfer_bytes_per_s=_XGMI,
    lag=_MI300X_LAG,
)

PROFILES = {profile.name: profile for profile in (_MI300X, _H200, _H100)}


def profile_named(name: str) -> Profile:
    """The profile of that name; raises NotFound, which lists the names there are."""
    if name not in PROFILES:
        raise NotFound("profile", name, tuple(sorted(PROFILES)))
    return PROFILES[name]
