"""docs/facility.md says what really crosses the bus, and the schemas beside it are those of the messages."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from msgspec import Struct

from rapid.config.controller import parse_controller_config
from rapid.core.facility.nouns import Outcome, Why
from rapidctl.controller.facility import messages
from tests.controller.process import CONFIG, ROOT, USUAL
from tests.facility.broker import needs_mosquitto
from tests.facility.examples import PAGE, on_the_page, steady, story
from tests.facility.plant import Plant

KINDS: dict[str, type[Struct]] = {
    "status": messages.SiteStatus,
    "order": messages.SetBudget,
    "signed": messages.SignedSet,
    "domain": messages.DomainState,
    "node": messages.NodeState,
    "event": messages.Event,
}
SCHEMAS = ROOT / "docs" / "facility" / "schemas"


@pytest.mark.e2e
@needs_mosquitto
def test_the_examples_are_those_of_a_real_run(tmp_path: Path) -> None:
    shown = on_the_page()
    with Plant(tmp_path) as plant:
        plant.broker.start()
        plant.start()
        found = story(plant, plant.client())
    assert shown.keys() == found.keys()
    for name, message in found.items():
        assert steady(name, shown[name]) == steady(name, message), name


def test_the_examples_obey_their_schemas() -> None:
    for name, message in on_the_page().items():
        schema = messages.schema_of(KINDS.get(name, messages.Result))
        jsonschema.validate(message, schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**message, "time": 1, "issued": 1, "jws": 1}, schema)


def test_the_schemas_are_what_the_messages_say(tmp_path: Path) -> None:
    script = ROOT / "scripts" / "facility_schemas.py"
    subprocess.run([sys.executable, str(script), str(tmp_path)], cwd=ROOT, check=True, timeout=60)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_text() for path in SCHEMAS.iterdir()}, f"run {script.name} {SCHEMAS}"
    for text in made.values():
        jsonschema.Draft202012Validator.check_schema(json.loads(text))


def test_the_ten_lines_are_a_configuration(tmp_path: Path) -> None:
    (lines,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(lines.splitlines()) == 10
    config = parse_controller_config(CONFIG.format(**USUAL | {"more": lines}), path=tmp_path / "c.toml")
    assert config.mqtt is not None
    assert config.settings.facility.sources[0].name == "bms"


def test_every_outcome_and_every_reason_is_explained() -> None:
    text = PAGE.read_text()
    shell = {"bad_signature", "malformed", "oversized", "wrong_address"}
    for word in {each.value for each in (*Outcome, *Why)} | shell:
        assert f"`{word}`" in text, word
