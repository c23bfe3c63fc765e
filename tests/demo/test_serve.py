"""What a simulated engine refuses to start with."""

from pathlib import Path

import pytest

from rapid.core.cluster import Role
from rapid.core.errors import UsageError
from rapid.sim.model.profile import profile_named
from rapidctl.demo.serve import ServeOptions, serve


async def test_a_model_that_needs_several_gpus_is_refused(tmp_path: Path) -> None:
    options = ServeOptions(
        instance="e0",
        role=Role.PREFILL,
        gpu_file=tmp_path / "gpu0",
        profile=profile_named("h100-70b-tp4"),
        node="h1",
        controller="127.0.0.1:1",
        tls=None,
        load_socket=None,
        data_socket=None,
        rate_rps=1.0,
        seed=0,
        die_speed=1.0,
    )
    with pytest.raises(UsageError, match="--profile h100-70b-tp4 needs 4 GPUs, and a simulated engine has 1; choose"):
        await serve(options, print)
