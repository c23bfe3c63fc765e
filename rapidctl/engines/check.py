"""`rapidctl attach --check`: whether an adapter would work, without changing anything."""

from collections.abc import Sequence

from rapid.core.cluster import NodeHealth, Phase
from rapid.core.errors import ConfigInvalid, RapidError
from rapid.core.findings.base import Finding, green, red, yellow
from rapid.core.status import Status
from rapidctl.client import Client
from rapidctl.engines.base import Place, Say
from rapidctl.engines.run import Sidecar

SERVED_S = 5.0  # how long the controller may take to answer


async def examine(sidecar: Sidecar, say: Say) -> list[Finding]:
    """The controller, then engine and router. Raises ConfigInvalid for options that can never work."""
    findings = await _controller(sidecar)
    async with sidecar.kind.open(sidecar.place, sidecar.options, say) as adapter:
        return findings + await adapter.findings()


def site_findings(place: Place, status: Status) -> list[Finding]:
    """What the controller would say to the hello of this instance."""
    node = next((node for node in status.nodes if node.node == place.node), None)
    if node is None:
        known = ", ".join(each.node for each in status.nodes[:8])
        todo = f"say --node with one of: {known}" if known else "add the node to the controller's configuration"
        return [red("node", f"the controller knows no node {place.node}", todo)]
    found: list[Finding] = []
    if node.health is not NodeHealth.REPORTING:
        what = f"node {place.node} is {node.health.value}, so its GPUs are not known for sure"
        found.append(yellow("node", what, "there: systemctl status rapidd, rapidd --check"))
    else:
        found.append(green("node", f"{place.node} reports"))
    has = [gpu.gpu for gpu in node.gpus]
    if missing := [gpu for gpu in place.gpus if gpu not in has]:
        todo = f"say --gpu with those of its engine; the node has: {', '.join(has) or 'none'}"
        found.append(red("gpus", f"node {place.node} has no GPU {', '.join(missing)}", todo))
    else:
        found.append(green("gpus", f"{', '.join(place.gpus)} on {place.node}"))
    return [*found, *_taken(place, status)]


def _taken(place: Place, status: Status) -> Sequence[Finding]:
    living = [one for one in status.instances if one.phase is not Phase.GONE]
    for one in living:
        if one.instance == place.instance:
            what = f"an instance {one.instance} is attached already, as {one.role.value}"
            return [yellow("instance", what, "stop the one before you start another; or it is this one, at work")]
    for one in living:
        if both := sorted(set(one.gpus) & set(place.gpus)):
            what = f"GPU {', '.join(both)} belongs to instance {one.instance}, which lives"
            return [red("instance", what, "stop that one, or give this one other GPUs")]
    return [green("instance", f"{place.instance} is free")]


async def _controller(sidecar: Sidecar) -> list[Finding]:
    try:
        async with Client(sidecar.address, tls=sidecar.tls, timeout_s=SERVED_S) as client:
            status = await client.status()
    except ConfigInvalid:
        raise
    except RapidError as error:
        return [red("controller", str(error), "start it, or say --address")]
    return [green("controller", f"answers at {sidecar.address}"), *site_findings(sidecar.place, status)]
