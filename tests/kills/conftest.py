"""What every kill needs: the compiled libraries, and a host for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kills.host import KillHost, Libraries, build_libraries
from tools.fake_gpu import NoCompiler


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Libraries:
    try:
        return build_libraries(tmp_path_factory.mktemp("kills"))
    except NoCompiler as error:
        pytest.skip(str(error))


@pytest.fixture
def host(tmp_path: Path, libraries: Libraries) -> Iterator[KillHost]:
    with KillHost(tmp_path, libraries) as host:
        yield host
