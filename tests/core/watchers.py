"""Hosts whose devices also tell what they were asked for, for the stories about those who move limits."""

from rapid.core.cluster import GpuReport
from rapid.core.watched import Mover
from tests.core.hosts import Host, W, greeted


def teller(**options: object) -> Host:
    """A host whose devices also tell what they were asked for, with 500 W granted to each."""
    host = greeted(**options)
    for device in host.devices.values():
        device.tells = True
    host.sample()
    host.grant(1, {"g0": 500 * W, "g1": 500 * W}, lease_s=60.0)
    host.settle()
    return host


def gpu(host: Host, name: str = "g0") -> GpuReport:
    return next(each for each in host.report().gpus if each.gpu == name)


def moves(host: Host, name: str = "g0") -> dict[Mover, int]:
    return dict(gpu(host, name).watch.moves)


def fight(host: Host, rounds: int, limit_mw: int = 700 * W) -> None:
    """Somebody sets the limit of g0 again after each repair."""
    for _ in range(rounds):
        host.devices["g0"].enforce(limit_mw, host.now)
        host.sample("g0")
        host.finish()
