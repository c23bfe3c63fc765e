"""[policy] of controller.toml: the settings and the start profile of a policy, whose names only the policy knows."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from rapid.config import parse_controller_config
from rapid.core.errors import ConfigInvalid

CLUSTER = """
[[domain]]
name = "host"
budget = "600W"
[[node]]
name = "h1"
address = "127.0.0.1:7601"
domain = "host"
gpus = 1
floor = "400W"
ceiling = "750W"
fallback = "400W"
"""


def settings(policy: str) -> Mapping[str, float]:
    """The policy's settings as the core gets them."""
    return parse_controller_config(CLUSTER + policy, path=Path("controller.toml")).settings.policy_settings


def test_a_setting_gets_the_name_that_the_core_has_for_its_unit() -> None:
    text = '[policy.settings]\nstep = "25W"\ncooldown = "500ms"\nslack = 1\nstep2_mw = 3000'

    found = settings(text)

    assert found == {"step_mw": 25_000.0, "cooldown_s": 0.5, "slack": 1.0, "step2_mw": 3000.0}
    assert {type(value) for value in found.values()} == {float}, (
        "a journal must not depend on the configuration's types"
    )


def test_a_start_profile_goes_with_the_settings_by_names_of_its_own() -> None:
    found = settings("[policy.settings]\nslack = 0.5\n[policy.start]\ndecode_ms = 12\nprefill_token_ms = 0.03")

    assert found == {"slack": 0.5, "start_decode_ms": 12.0, "start_prefill_token_ms": 0.03}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[policy.settings]\nstep = "3V"',
            "policy.settings.step: '3V' is no setting; write a number, a power as in '50W', or a duration",
        ),
        ("[policy.settings]\nstep = true", "policy.settings.step: True is no setting; write a number"),
        ("[policy.settings]\nstep = inf", "policy.settings.step: inf is no setting; write a number"),
        ('[policy.settings]\nstep = "3W"\nstep_mw = 3000', "policy.settings.step_mw: is given twice: step_mw as well"),
        ('[policy.start]\ndecode_ms = "12ms"', "policy.start.decode_ms: '12ms' is no number; its unit is in its name"),
        ("[policy.start]\ndecode_ms = true", "policy.start.decode_ms: True is no number"),
        ("[policy.start]\ndecode_ms = nan", "policy.start.decode_ms: nan is no number"),
        (
            "[policy.settings]\nstart_a = 1\n[policy.start]\na = 1",
            "policy.start.a: is given twice: policy.settings.start_a as well",
        ),
        ("[policy.begin]\na = 1", "policy.begin: is unknown; known are name, settings, start"),
    ],
)
def test_what_is_no_setting_is_refused_by_its_key(text: str, message: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        settings(text)

    assert str(caught.value).startswith(f"config key {message}")
