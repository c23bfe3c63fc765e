"""A fake controller per test, and the command line called against it."""

import os
from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner, Result

from rapidctl.__main__ import cli
from tests.ctl.fake_controller import FakeController

Ctl = Callable[..., Result]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine reaches a test, and every clock shows UTC."""
    for name in [name for name in os.environ if name.startswith("RAPID_")] + ["NO_COLOR", "COLUMNS", "LINES"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TZ", "UTC")


@pytest.fixture
def controller() -> Iterator[FakeController]:
    """A controller that listens on a free port."""
    fake = FakeController()
    fake.start()
    yield fake
    fake.stop()


@pytest.fixture
def ctl(controller: FakeController) -> Ctl:
    """Call `rapidctl` with these arguments against the fake controller."""

    def run(*arguments: str, **settings: object) -> Result:
        environment = {"RAPID_ADDRESS": controller.address}
        return CliRunner().invoke(cli, arguments, env=environment, prog_name="rapidctl", **settings)  # type: ignore[arg-type]

    return run
