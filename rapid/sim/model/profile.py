"""What one engine running one model can do: times, draws and speeds, with the source of every number.

Times and draws of Llama-3.1 in bf16 are composed from measured operators (ai-dynamo/aiconfigurator at 095f58a5,
Apache-2.0) and fitted linearly; the fits are 1 to 4 % off on average (tests/sim/test_tables.py). Every other number
carries its source beside it, or says that it is assumed.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import lru_cache
from math import log2
from typing import TypeVar

from rapid.core.errors import NotFound, UsageError
from rapid.sim.model.board import A100, B200, H100, H200, MI300X, Board
from rapid.sim.model.curves import PowerLaw, QuadraticKnee, SpeedCurve
from rapid.sim.model.paper_profile import paper_profile
from rapid.sim.model.power import Lag

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


_Corner = TypeVar("_Corner", PrefillCorner, DecodeCorner)

# By limit / natural draw. Gentle: measured on RTX PRO 6000, 1.0 at .8, .955 at .7, .87 at .6, .75 at .52. Sharp: on
# B200.
_DECODE_CURVES: dict[DecodeCorner, SpeedCurve] = {
    DecodeCorner.GENTLE: QuadraticKnee(knee=0.80, gain=3.3, measured_from=0.50),
    DecodeCorner.SHARP: QuadraticKnee(knee=0.62, gain=30.0, measured_from=0.50),
    DecodeCorner.PESSIMISTIC: PowerLaw(0.4),
}


@dataclass(frozen=True, slots=True)
class Profile:
    """One engine on `gpus` GPUs with one model. A batch of T tokens with prompts L takes, without a limit, in ms:

    prefill        prefill_ms + prefill_token_ms T + prefill_square_ms sum L^2
    decode step    decode_ms + decode_sequence_ms B + decode_context_ms C        (B sequences, C tokens of context)
                   and the host's host_ms + host_sequence_ms B, which no limit slows down

    Limits and draws are per GPU; times and KV capacity are the engine's. Limits are taken to be equal on all its GPUs:
    who gives them unequal ones passes the least.
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
    gpus: int = 1  # tensor parallel degree
    kv_bytes_per_token: int = 131_072  # of all GPUs together
    transfer_s: float = 0.0005  # RoCE 8x400; assumed for every link
    host_ms: float = 1.1  # .7 to 1.5: half of the excess of ML.ENERGY's H100 ITL over composed kernels
    host_sequence_ms: float = 0.01
    front_s: float = 0.040  # 35 to 45 ms of TTFT in front of the engine (vLLM P/D on H800)
    switch_s: float = 1.0  # assumed; with its drain a role change then takes the paper's 2 to 5 s
    prefill_corner: PrefillCorner = PrefillCorner.SHALLOW
    decode_corner: DecodeCorner = DecodeCorner.GENTLE
    prefill_curve: SpeedCurve = field(init=False, repr=False, compare=False)  # speed by limit / ceiling
    decode_curve: SpeedCurve = field(init=False, repr=False, compare=False)  # speed by limit / natural draw
    _decode_draws_mw: tuple[int, ...] = field(init=False, repr=False, compare=False)  # by batch, up to the last point

    def __post_init__(self) -> None:
        # Chosen once: every simulated step asks for them.
        prefill_curve = self.steep if self.prefill_corner is PrefillCorner.STEEP else self.shallow
        object.__setattr__(self, "prefill_curve", prefill_curve)
        object.__setattr__(self, "decode_curve", _DECODE_CURVES[self.decode_corner])
        object.__setattr__(self, "_decode_draws_mw", _draw_table_mw(self.decode_natural_mw))

    def with_corners(self, prefill: PrefillCorner, decode: DecodeCorner) -> "Profile":
        """The same engine, with speeds at other ends of the bands."""
        return replace(self, prefill_corner=prefill, decode_corner=decode)

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
        return self.prefill_curve.speed(limit_mw / self.ceiling_mw)

    def decode_speed(self, limit_mw: float, batch: int) -> float:
        return self.decode_curve.speed(limit_mw / self.decode_draw_mw(batch))

    def decode_draw_mw(self, batch: int) -> int:
        """The draw of a decode step that no limit holds back."""
        draws_mw = self._decode_draws_mw
        return draws_mw[batch] if batch < len(draws_mw) else draws_mw[-1]

    def pull_s(self, prompt_tokens: int, *, remote: bool = False) -> float:
        """Seconds to move the KV cache of a prompt from a prefill to a decode instance; remote: to another node.

        Every GPU moves its own share over its own link.
        """
        bytes_per_s = _REMOTE_BYTES_PER_S if remote else self.transfer_bytes_per_s
        return self.transfer_s + prompt_tokens * self.kv_bytes_per_token / (self.gpus * bytes_per_s)


def corners(text: str) -> tuple[PrefillCorner, DecodeCorner]:
    """Reads "steep,sharp"; raises UsageError, which names the part that is wrong and what is allowed."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2:
        raise UsageError(
            f"corner {text!r}: want PREFILL,DECODE with {_listed(PrefillCorner)} and {_listed(DecodeCorner)}"
        )
    return _corner(PrefillCorner, "prefill", parts[0]), _corner(DecodeCorner, "decode", parts[1])


def _corner(kind: type[_Corner], phase: str, name: str) -> _Corner:
    try:
        return kind(name)
    except ValueError:
        raise UsageError(f"{phase} corner {name!r}: must be {_listed(kind)}") from None


def _listed(kind: type[Enum]) -> str:
    return " or ".join(corner.value for corner in kind)


@lru_cache(maxsize=256)
def _draw_table_mw(points: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    """The draw by batch size, from 0 to the last point's."""
    batches, draws_mw = zip(*points, strict=True)
    logs = [log2(batch) for batch in batches]
    return tuple(round(_interpolated(logs, draws_mw, log2(max(1, batch)))) for batch in range(batches[-1] + 1))


def _interpolated(xs: Sequence[float], ys: Sequence[float], x: float) -> float:
    """Linear between the points (xs rising), constant beyond them."""
    right = bisect_left(xs, x)
    if right in (0, len(xs)):
        return ys[min(right, len(ys) - 1)]
    share = (x - xs[right - 1]) / (xs[right] - xs[right - 1])
    return ys[right - 1] + (ys[right] - ys[right - 1]) * share


@dataclass(frozen=True, slots=True)
class _Model:
    """What a model weighs, all GPUs of an instance together."""

    weight_bytes: float
    kv_bytes_per_token: int


def _profile(
    name: str,
    board: Board,
    model: _Model,
    *,
    gpus: int = 1,
    prefill: tuple[float, float, float],
    decode: tuple[float, float, float],
    prefill_natural_mw: int,
    decode_natural_mw: tuple[tuple[int, int], ...],
) -> Profile:
    kv_bytes = gpus * board.memory_bytes * 0.9 - model.weight_bytes  # 90 % of the memory (assumed)
    return Profile(
        name=name,
        floor_mw=board.floor_mw,
        ceiling_mw=board.ceiling_mw,
        idle_mw=board.idle_mw,
        prefill_ms=prefill[0],
        prefill_token_ms=prefill[1],
        prefill_square_ms=prefill[2],
        decode_ms=decode[0],
        decode_sequence_ms=decode[1],
        decode_context_ms=decode[2],
        prefill_natural_mw=prefill_natural_mw,
        decode_natural_mw=decode_natural_mw,
        steep=board.steep,
        shallow=board.shallow,
        kv_capacity_tokens=int(kv_bytes / model.kv_bytes_per_token) // 1000 * 1000,
        transfer_bytes_per_s=board.link_bytes_per_s,
        lag=board.lag,
        gpus=gpus,
        kv_bytes_per_token=model.kv_bytes_per_token,
    )


# KV bytes per token: layers x 8 heads x 128 x 2 (key, value) x 2 bytes.
_8B = _Model(weight_bytes=16e9, kv_bytes_per_token=32 * 8 * 128 * 2 * 2)
_70B = _Model(weight_bytes=141e9, kv_bytes_per_token=80 * 8 * 128 * 2 * 2)

_H200_70B_DRAWS_MW = ((1, 453_500), (8, 534_000), (32, 564_500), (64, 581_500), (128, 591_000), (256, 606_000))

# a, b, c and draws: the fits of the composed table, but where said.
_PROFILES = (
    # A stand-in (assumed): the H200's times x 1.3, its draw by fraction of the ceiling. The paper's node has eight.
    _profile(
        "mi300x-8b",
        MI300X,
        _8B,
        prefill=(1.16 * 1.3, 0.0222 * 1.3, 3.97e-7 * 1.3),
        decode=(4.55 * 1.3, 0.0129 * 1.3, 2.94e-5 * 1.3),
        prefill_natural_mw=735_000,
        decode_natural_mw=((1, 374_000), (8, 580_000), (32, 617_000), (64, 617_000), (128, 633_000), (256, 655_000)),
    ),
    _profile(
        "h200-8b",
        H200,
        _8B,
        prefill=(1.16, 0.0222, 3.97e-7),
        decode=(4.55, 0.0129, 2.94e-5),
        prefill_natural_mw=685_000,
        decode_natural_mw=((1, 349_000), (8, 542_000), (32, 576_000), (64, 576_000), (128, 591_000), (256, 611_000)),
    ),
    _profile(
        "h100-8b",
        H100,
        _8B,
        prefill=(0.57, 0.0205, 4.59e-7),
        decode=(6.31, 0.0108, 4.41e-5),
        prefill_natural_mw=685_000,  # the H200's (assumed): no power was measured with the H100's operators
        decode_natural_mw=((1, 335_000), (128, 661_200)),  # 335 + 46.6 log2 B for 8..128; below 8 assumed
    ),
    _profile(
        "b200-8b",
        B200,
        _8B,
        prefill=(0.723, 0.01073, 2.376e-7),
        decode=(3.242, 0.004624, 1.787e-5),
        prefill_natural_mw=988_000,
        decode_natural_mw=((1, 679_000), (8, 724_500), (32, 765_000), (64, 790_000), (128, 816_500), (256, 867_000)),
    ),
    _profile(
        "a100-8b",
        A100,
        _8B,
        prefill=(4.50, 0.0559, 1.534e-6),
        decode=(11.05, 0.0290, 8.07e-5),
        prefill_natural_mw=400_000,  # the ceiling (assumed): Llama-2-70B prompts peak there (Splitwise, MIT)
        decode_natural_mw=((1, 296_000),),  # .74 of the ceiling: Llama-2-70B, same source (assumed for 8B)
    ),
    _profile(
        "h100-70b-tp4",
        H100,
        _70B,
        gpus=4,
        prefill=(1.393, 0.06387, 4.066e-7),
        decode=(15.11, 0.03122, 2.855e-5),
        prefill_natural_mw=668_500,  # the H200's, also in decode (assumed): their ceilings are equal
        decode_natural_mw=_H200_70B_DRAWS_MW,
    ),
    _profile(
        "h200-70b-tp4",
        H200,
        _70B,
        gpus=4,
        prefill=(7.316, 0.06355, 3.984e-7),
        decode=(11.26, 0.03967, 1.819e-5),
        prefill_natural_mw=668_500,
        decode_natural_mw=_H200_70B_DRAWS_MW,
    ),
    _profile(
        "b200-70b-tp2",
        B200,
        _70B,
        gpus=2,
        prefill=(3.721, 0.05680, 4.066e-7),
        decode=(13.83, 0.03501, 2.240e-5),
        prefill_natural_mw=988_500,
        decode_natural_mw=((1, 706_500), (8, 765_000), (32, 833_000), (64, 837_000), (128, 854_500), (256, 913_000)),
    ),
)

_PAPER = paper_profile(_PROFILES[0], DecodeCorner.PESSIMISTIC)
PROFILES = {profile.name: profile for profile in (*_PROFILES, _PAPER)}


def profile_named(name: str) -> Profile:
    """The profile of that name; raises NotFound, which lists the names there are."""
    if name not in PROFILES:
        raise NotFound("profile", name, tuple(sorted(PROFILES)))
    return PROFILES[name]
