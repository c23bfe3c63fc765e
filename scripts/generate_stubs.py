"""Writes the Python stubs of proto/rapid/v1 below the folder given: `generate_stubs.py .` for rapid/v1 itself.

The versions in requirements/dev.txt decide the bytes, so the same pins give the same stubs everywhere.
"""

import sys
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"


def generate(out: Path) -> None:
    """Writes messages, services and the types of both to out/rapid/v1; exits if a proto file is wrong."""
    sources = sorted(str(path) for path in PROTO.glob("rapid/v1/*.proto"))
    well_known = Path(protoc.__file__).parent / "_proto"
    plugin = f"--plugin={Path(sys.executable).parent / 'protoc-gen-mypy_grpc'}"
    outputs = [f"--{kind}{out}" for kind in ("python_out=", "pyi_out=", "grpc_python_out=", "mypy_grpc_out=quiet:")]
    arguments = ["protoc", f"-I{PROTO}", f"-I{well_known}", plugin, *outputs, *sources]
    status = protoc.main(arguments)
    if status != 0:
        sys.exit(status)


if __name__ == "__main__":
    generate(Path(sys.argv[1]))
