"""Writes the JSON Schemas of the facility's bus below the folder given: `facility_schemas.py docs/facility/schemas`."""

import json
import sys
from pathlib import Path

from rapidctl.controller.facility.messages import IN, OUT, schema_of


def generate(out: Path) -> None:
    """One file per message, named as the message."""
    out.mkdir(parents=True, exist_ok=True)
    for kind in (*IN, *OUT):
        name = "".join(f"-{each.lower()}" if each.isupper() else each for each in kind.__name__).strip("-")
        (out / f"{name}.json").write_text(json.dumps(schema_of(kind), indent=2) + "\n")


if __name__ == "__main__":
    generate(Path(sys.argv[1]))
