"""rapidd on AMD GPUs, from the configuration to the library call: the unmodified package on the fake library."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node.caller import DEADLINE_S, grants, greet, next_report
from tests.node.daemon import Host
from tests.wait import wait_until
from tools.fake_gpu import FakeGpus, NoBinding, NoCompiler, build

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(90)]


class AmdHost(Host):
    """A host with two fake AMD GPUs of 100..700 W, at 700 W, and a fallback of 500 W; the second is a guest's."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, gpus=0)
        self.configure(backend='"amdsmi"')
        self.fake = FakeGpus(folder, "amdsmi", gpus=2)
        self.fake.gpus[1].virtualization = 3
        self.env = self.fake.env(build(folder, "amdsmi"))
        self.names = tuple(gpu.uuid for gpu in self.fake.gpus)

    def limits_mw(self) -> tuple[int, ...]:
        return tuple(gpu.enforced_mw for gpu in self.fake.gpus)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[AmdHost]:
    try:
        with AmdHost(tmp_path) as host:
            yield host
    except (NoCompiler, NoBinding) as error:
        pytest.skip(str(error))


async def test_from_start_over_a_grant_to_the_way_out(host: AmdHost) -> None:
    daemon = host.start(env=host.env)
    assert host.limits_mw() == (500_000, 700_000)
    async with daemon.open_channel() as channel:
        call = await greet(channel, interval_s=0.1)
        batch = grants(1, 650_000, lease_s=60.0, incarnation=daemon.incarnation, gpus=host.names[:1])
        await call.write(batch)
        await wait_until(lambda: host.limits_mw()[0] == 650_000, DEADLINE_S, "the granted limit")
        report = await next_report(call)
        while report.gpus[0].limit_mw != 650_000 or report.gpus[0].energy_mj is None:
            report = await next_report(call)
        call.cancel()
    assert daemon.stop() == 0
    assert host.limits_mw() == (500_000, 700_000)
    (line,) = host.logged("gpu not managed")
    assert (line["about"], "run rapidd on the host" in str(line["detail"])) == (host.names[1], True)
    # The library's own record: the fallback, the grant, the landing, and nothing on the guest's GPU.
    mine = [(entry.gpu, entry.asked_mw) for entry in host.fake.record() if entry.pid == daemon.process.pid]
    assert mine == [(host.names[0], limit_mw) for limit_mw in (500_000, 650_000, 500_000)]
