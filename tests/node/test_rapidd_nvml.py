"""rapidd on NVIDIA GPUs, from the configuration to the driver call: the unmodified binding on the fake library."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rapid.core.cluster import GpuHealth, GrantAnswer
from rapid.v1 import node_pb2, node_pb2_grpc
from rapid.wire.node import decode_description
from tests.node.caller import DEADLINE_S, end_of, grants, greet, next_report
from tests.node.daemon import Host
from tests.wait import wait_for, wait_until
from tools.fake_gpu import NO_PERMISSION, FakeGpus, NoCompiler, build

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(90)]


class NvmlHost(Host):
    """A host with two fake NVIDIA GPUs of 100..700 W, at 700 W, and a fallback of 500 W."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, gpus=0)
        self.configure(backend='"nvml"')
        self.nvml = FakeGpus(folder, gpus=2)
        self.env = self.nvml.env(build(folder))
        self.names = tuple(gpu.uuid for gpu in self.nvml.gpus)

    def limits_mw(self) -> tuple[int, ...]:
        return tuple(gpu.enforced_mw for gpu in self.nvml.gpus)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[NvmlHost]:
    try:
        with NvmlHost(tmp_path) as host:
            yield host
    except NoCompiler as error:
        pytest.skip(str(error))


async def test_from_start_over_a_grant_to_the_way_out(host: NvmlHost) -> None:
    assert host.limits_mw() == (700_000, 700_000)
    daemon = host.start(env=host.env)
    assert host.limits_mw() == (500_000, 500_000)
    async with daemon.open_channel() as channel:
        call = await greet(channel, interval_s=0.1)
        await call.write(grants(1, 650_000, lease_s=60.0, incarnation=daemon.incarnation, gpus=host.names))
        await wait_until(lambda: host.limits_mw() == (650_000, 650_000), DEADLINE_S, "granted limits")
        report = await next_report(call)
        while not all((gpu.limit_mw, gpu.requested_mw) == (650_000, 650_000) for gpu in report.gpus):
            report = await next_report(call)
        assert all(gpu.draw_mw is not None and gpu.energy_mj is not None for gpu in report.gpus)
    assert daemon.stop() == 0
    assert host.limits_mw() == (500_000, 500_000)
    # The driver's own record: nothing but the fallback, the grant, and the landing.
    assert {(entry.gpu, entry.asked_mw) for entry in host.nvml.record()} == {
        (gpu, limit_mw) for gpu in host.names for limit_mw in (500_000, 650_000)
    }


async def test_a_grant_without_the_right_to_set_it_fails_and_says_what_is_missing(host: NvmlHost) -> None:
    daemon = host.start(env=host.env)
    host.nvml.gpus[0].answer("nvmlDeviceSetPowerManagementLimit", NO_PERMISSION)
    async with daemon.open_channel() as channel:
        call = await greet(channel, interval_s=0.1)
        await call.write(grants(1, 650_000, lease_s=60.0, incarnation=daemon.incarnation, gpus=host.names))
        answers: dict[str, GrantAnswer] = {}
        while len(answers) < 2:
            answers |= {answer.gpu: answer for answer in (await next_report(call)).answers}
    assert answers[host.names[0]].verdict == "failed"
    assert "CAP_SYS_ADMIN" in answers[host.names[0]].detail
    assert answers[host.names[1]].verdict == "applied"


async def test_a_gpu_that_falls_off_the_bus_takes_no_other_with_it(host: NvmlHost) -> None:
    daemon = host.start(env=host.env)
    host.nvml.gpus[0].lost = True
    async with daemon.open_channel() as channel:
        call = await greet(channel, interval_s=0.1)
        report = await next_report(call)
        while report.gpus[0].health is not GpuHealth.LOST:
            report = await next_report(call)
        await call.write(grants(1, 650_000, lease_s=1.0, incarnation=daemon.incarnation, gpus=host.names))
        await wait_until(lambda: host.limits_mw()[1] == 650_000, DEADLINE_S, "the healthy one")
        await wait_until(lambda: host.limits_mw()[1] == 500_000, DEADLINE_S, "the end of the lease")
        call.cancel()


async def test_a_driver_call_that_hangs_is_told_while_the_other_gpu_obeys(host: NvmlHost) -> None:
    daemon = host.start(env=host.env)
    host.nvml.gpus[0].delay_ms = 4_000
    async with daemon.open_channel() as channel:
        call = await greet(channel, interval_s=0.1)
        await call.write(grants(1, 650_000, lease_s=60.0, incarnation=daemon.incarnation, gpus=host.names))
        await wait_until(lambda: host.limits_mw()[1] == 650_000, DEADLINE_S, "the other GPU")
        report = await next_report(call)
        while "has not answered for" not in report.gpus[0].problem:
            report = await next_report(call)
        assert report.gpus[0].health is GpuHealth.LOST
        assert report.gpus[1].health is GpuHealth.OK
        host.nvml.gpus[0].delay_ms = 0
        await wait_until(lambda: host.limits_mw() == (650_000, 650_000), DEADLINE_S, "the driver came back")
        daemon.process.terminate()
        await end_of(call)
    wait_for(lambda: daemon.process.poll() == 0, DEADLINE_S, "the end")


@pytest.mark.parametrize("hanging", [0, 1])
async def test_while_a_driver_call_hangs_a_foreign_write_to_the_other_gpu_is_repaired(
    host: NvmlHost, hanging: int
) -> None:
    """Promise 3: one thread reads all GPUs, and must not be all that watches them."""
    daemon = host.start(env=host.env)
    host.nvml.gpus[hanging].delay_ms = 60_000
    other = host.nvml.gpus[1 - hanging]
    for _ in range(2):
        other.write(700_000)
        await wait_until(lambda: other.enforced_mw == 500_000, DEADLINE_S, "the repair")
    daemon.process.kill()


@pytest.mark.parametrize("named", [False, True])
async def test_a_gpu_that_is_lost_at_the_start_is_taken_care_of_when_it_is_back(host: NvmlHost, named: bool) -> None:
    """Promise 2: it goes to its floor first, and higher only by a grant."""
    if named:
        host.configure(backend='"nvml"', gpus=str(list(host.names)))
    host.nvml.gpus[1].lost = True
    daemon = host.start(env=host.env)
    async with daemon.open_channel() as channel:
        call = await greet(channel, interval_s=0.1)
        assert [gpu.gpu for gpu in (await next_report(call)).gpus] == [host.names[0]]
        await call.write(grants(1, 650_000, lease_s=60.0, incarnation=daemon.incarnation, gpus=host.names[:1]))
        await wait_until(lambda: host.limits_mw() == (650_000, 700_000), DEADLINE_S, "the grant of the other")
        host.nvml.gpus[1].lost = False
        report = await next_report(call)
        while [gpu.limit_mw for gpu in report.gpus] != [650_000, 100_000]:
            report = await next_report(call)
        assert (report.gpus[1].void, report.gpus[1].fallback_mw) == (True, 500_000)
        stub = node_pb2_grpc.NodeServiceStub(channel)
        told = decode_description(await stub.Describe(node_pb2.DescribeRequest(), timeout=DEADLINE_S))
        assert tuple(gpu.gpu for gpu in told.gpus) == host.names
        await call.write(grants(2, 600_000, lease_s=60.0, incarnation=daemon.incarnation, gpus=host.names))
        await wait_until(lambda: host.limits_mw() == (600_000, 600_000), DEADLINE_S, "granted limits")
    assert daemon.stop() == 0
    assert [entry.asked_mw for entry in host.nvml.record() if entry.gpu == host.names[1]] == [100_000, 600_000, 500_000]
    assert [line["about"] for line in host.logged("gpu found")] == [host.names[1]]


async def test_a_gpu_that_is_left_alone_stays_so_when_it_comes_later(host: NvmlHost) -> None:
    host.configure(backend='"nvml"', gpus=str([host.names[0]]))
    host.nvml.gpus[1].lost = True
    daemon = host.start(env=host.env)
    host.nvml.gpus[1].lost = False
    await wait_until(lambda: host.logged("gpu not adopted"), DEADLINE_S, "that it was found")
    assert daemon.stop() == 0
    assert {entry.gpu for entry in host.nvml.record()} == {host.names[0]}


async def test_a_gpu_that_comes_back_gets_its_limit_again(host: NvmlHost) -> None:
    daemon = host.start(env=host.env)
    async with daemon.open_channel() as channel:
        call = await greet(channel, interval_s=0.1)
        await call.write(grants(1, 650_000, lease_s=60.0, incarnation=daemon.incarnation, gpus=host.names))
        await wait_until(lambda: host.limits_mw() == (650_000, 650_000), DEADLINE_S, "granted limits")
        host.nvml.gpus[0].lost = True
        await wait_until(lambda: host.logged("gpu lost"), DEADLINE_S, "the loss in the log")
        host.nvml.gpus[0].write(700_000)  # what a reset leaves behind
        host.nvml.gpus[0].lost = False
        await wait_until(lambda: max(host.limits_mw()) <= 650_000, DEADLINE_S, "the limit again")
        report = await next_report(call)
        while report.gpus[0].health is not GpuHealth.OK:
            report = await next_report(call)
        call.cancel()
    await wait_until(lambda: host.logged("gpu back"), DEADLINE_S, "the return in the log")
    assert [line["about"] for line in host.logged("gpu back")] == [host.names[0]]
    assert max(entry.asked_mw for entry in host.nvml.record() if entry.pid == daemon.process.pid) == 650_000


async def test_a_driver_that_is_reloaded_gets_its_limits_again(host: NvmlHost) -> None:
    daemon = host.start(env=host.env)
    assert host.limits_mw() == (500_000, 500_000)
    host.nvml.unload()
    await wait_until(lambda: len(host.logged("gpu lost")) >= 2, DEADLINE_S, "the loss in the log")
    host.nvml.load()
    await wait_until(lambda: len(host.logged("gpu reloaded")) == 2, DEADLINE_S, "the reload in the log")
    await wait_until(lambda: host.limits_mw() == (500_000, 500_000), DEADLINE_S, "the fallback again")
    for gpu in host.names:
        entries = [entry for entry in host.nvml.record() if entry.gpu == gpu]
        # Ours at the start, the fresh driver's own, and ours again at once.
        limits = [(entry.enforced_mw, entry.pid) for entry in entries]
        assert limits[:3] == [(500_000, daemon.process.pid), (700_000, 0), (500_000, daemon.process.pid)]
        assert {limit_mw for limit_mw, _ in limits[3:]} <= {500_000}
    assert daemon.stop() == 0


def test_an_xid_is_in_the_log_with_its_number_and_meaning(host: NvmlHost) -> None:
    daemon = host.start(env=host.env)
    host.nvml.gpus[1].xids = (94,)
    wait_for(lambda: host.logged("gpu xid"), DEADLINE_S, "the Xid")
    (line,) = host.logged("gpu xid")
    assert (line["about"], line["detail"]) == (host.names[1], "Xid 94: contained memory error")
    assert daemon.stop() == 0


def test_a_gpu_in_mig_mode_is_left_alone(host: NvmlHost) -> None:
    host.nvml.gpus[0].mig = True
    daemon = host.start(env=host.env)
    assert host.limits_mw() == (700_000, 500_000)
    assert daemon.stop() == 0
    assert {entry.gpu for entry in host.nvml.record()} == {host.names[1]}


def test_a_driver_that_does_not_start_ends_with_3(host: NvmlHost) -> None:
    host.nvml.unload()
    process = host.launch(env=host.env)
    assert process.wait(DEADLINE_S) == 3
    assert "driver is not loaded" in host.log.read_text()
