"""Times, draws and speeds against the measurements they were taken from."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid.core.errors import NotFound, UsageError
from rapid.sim.model.profile import PROFILES, DecodeCorner, PrefillCorner, Profile, corners, profile_named

H200, H100, MI300X = (profile_named(name) for name in ("h200-8b", "h100-8b", "mi300x-8b"))
FULL_MW = 10**9


def cornered(profile: Profile) -> list[Profile]:
    return [profile.with_corners(prefill, decode) for prefill in PrefillCorner for decode in DecodeCorner]


ALL_CORNERS = [corner for profile in PROFILES.values() for corner in cornered(profile)]


def test_prefill_follows_its_formula() -> None:
    # 1.16 + .0222 * 3000 + 3.97e-7 * (1000^2 + 2000^2) = 69.745 ms
    assert H200.prefill_s(3000, 5_000_000, FULL_MW) == pytest.approx(69.745e-3, rel=1e-12)


def test_a_decode_step_follows_its_formula() -> None:
    # 4.55 + .0129 * 32 + 2.94e-5 * 40,000 = 6.1388 ms, and 1.1 + .01 * 32 = 1.42 ms on the host
    assert H200.decode_step_s(32, 40_000, FULL_MW) == pytest.approx(7.5588e-3, rel=1e-12)


def test_a_limit_slows_the_gpu_and_not_the_host() -> None:
    limit_mw = 0.6 * H200.decode_draw_mw(32)
    step_s = H200.decode_step_s(32, 40_000, limit_mw)
    assert step_s == pytest.approx(6.1388e-3 / (1 - 3.3 * 0.2**2) + 1.42e-3, rel=1e-12)


@pytest.mark.parametrize(
    ("watts", "speed"), [(200, 0.320), (300, 0.594), (400, 0.821), (500, 0.915), (600, 0.966), (700, 1.0)]
)
def test_shallow_prefill_is_the_measured_training_speed(watts: int, speed: float) -> None:
    assert H100.prefill_speed(watts * 1000) == pytest.approx(speed, abs=0.04)


def test_prefill_takes_15_percent_longer_at_600_w_than_at_750_w() -> None:
    for corner in cornered(MI300X):
        longer = corner.prefill_s(4096, 4096**2, 600_000) / corner.prefill_s(4096, 4096**2, 750_000)
        assert longer == pytest.approx(1.15, abs=0.005)  # result R6 of the paper


@pytest.mark.parametrize(("share", "speed"), [(0.8, 1.0), (0.7, 0.955), (0.6, 0.87), (0.52, 0.75)])
def test_gentle_decode_is_what_was_measured(share: float, speed: float) -> None:
    assert H200.decode_speed(share * H200.decode_draw_mw(64), 64) == pytest.approx(speed, abs=0.02)


@given(st.sampled_from(ALL_CORNERS), st.floats(0.01, 1.2), st.floats(0.01, 1.2), st.integers(1, 300))
def test_speed_never_falls_as_the_limit_grows(profile: Profile, one: float, other: float, batch: int) -> None:
    low_mw, high_mw = sorted((one * profile.ceiling_mw, other * profile.ceiling_mw))
    assert 0 < profile.prefill_speed(low_mw) <= profile.prefill_speed(high_mw) <= 1
    assert 0 < profile.decode_speed(low_mw, batch) <= profile.decode_speed(high_mw, batch) <= 1


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_corners_differ_below_the_knee(name: str) -> None:
    profile = PROFILES[name]
    low_mw = 0.55 * profile.ceiling_mw
    assert replace(profile, prefill_corner=PrefillCorner.STEEP).prefill_speed(low_mw) < profile.prefill_speed(low_mw)
    at_mw = 0.55 * profile.decode_draw_mw(64)
    speeds = {corner: replace(profile, decode_corner=corner).decode_speed(at_mw, 64) for corner in DecodeCorner}
    assert len(set(speeds.values())) == len(DecodeCorner)


@pytest.mark.parametrize(("batch", "watts"), [(8, 542), (45, 576), (128, 591), (256, 611), (1000, 611)])
def test_h200_decode_draws_what_was_measured(batch: int, watts: int) -> None:
    assert H200.decode_draw_mw(batch) == pytest.approx(watts * 1000, rel=0.001)


@pytest.mark.parametrize("batch", [8, 16, 64, 128])
def test_h100_decode_draw_is_linear_in_log_batch(batch: int) -> None:
    expected_mw = 335_000 + 46_600 * (batch.bit_length() - 1)
    assert H100.decode_draw_mw(batch) == pytest.approx(expected_mw, rel=0.001)


def test_a_pull_is_latency_and_bytes_over_bandwidth() -> None:
    assert MI300X.pull_s(8192) == pytest.approx(0.0005 + 8192 * 131_072 / 45e9, rel=1e-12)


def test_a_pull_from_another_node_goes_over_the_network() -> None:
    assert H200.pull_s(8192, remote=True) == pytest.approx(0.0005 + 8192 * 131_072 / 40e9, rel=1e-12)


def test_each_gpu_of_a_tensor_parallel_instance_pulls_its_own_share() -> None:
    four = replace(H200, gpus=4)
    assert four.pull_s(8192) == pytest.approx(0.0005 + 8192 * 131_072 / (4 * 300e9), rel=1e-12)
    assert four.pull_s(8192, remote=True) == pytest.approx(0.0005 + 8192 * 131_072 / (4 * 40e9), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "gpus", "memory_gb", "weights_gb", "bytes_per_token"),
    [
        ("a100-8b", 1, 80, 16, 131_072),
        ("b200-8b", 1, 180, 16, 131_072),
        ("h100-70b-tp4", 4, 80, 141, 327_680),
        ("h200-70b-tp4", 4, 141, 141, 327_680),
        ("b200-70b-tp2", 2, 180, 141, 327_680),
    ],
)
def test_the_kv_cache_gets_what_the_weights_leave(
    name: str, gpus: int, memory_gb: int, weights_gb: int, bytes_per_token: int
) -> None:
    profile = profile_named(name)
    assert (profile.gpus, profile.kv_bytes_per_token) == (gpus, bytes_per_token)
    tokens = (gpus * memory_gb * 0.9 - weights_gb) * 1e9 / bytes_per_token
    assert tokens - 1000 < profile.kv_capacity_tokens <= tokens


@pytest.mark.parametrize("profile", PROFILES.values(), ids=list(PROFILES))
def test_every_draw_lies_between_idle_and_ceiling(profile: Profile) -> None:
    draws_mw = [profile.decode_draw_mw(batch) for batch in range(1, 600)]
    assert profile.idle_mw < min(draws_mw) <= max(draws_mw) <= profile.ceiling_mw
    assert max(draws_mw) <= profile.prefill_natural_mw <= profile.ceiling_mw
    assert draws_mw == sorted(draws_mw)


def test_corners_are_read_from_text() -> None:
    assert corners("steep,sharp") == (PrefillCorner.STEEP, DecodeCorner.SHARP)
    assert corners(" shallow, pessimistic ") == (PrefillCorner.SHALLOW, DecodeCorner.PESSIMISTIC)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steep", "corner 'steep': want PREFILL,DECODE with steep or shallow and gentle or sharp or pessimistic"),
        ("flat,sharp", "prefill corner 'flat': must be steep or shallow"),
        ("steep,steep", "decode corner 'steep': must be gentle or sharp or pessimistic"),
    ],
)
def test_a_bad_corner_is_named_with_what_is_allowed(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        corners(text)
    assert str(error.value) == message


def test_an_unknown_profile_is_named_with_those_there_are() -> None:
    with pytest.raises(NotFound, match=r"no profile named 'tpu' \(known: a100-8b, b200-70b-tp2, b200-8b, "):
        profile_named("tpu")
