"""What is red in a status. One list decides the exit code of `status`, the colours and the JSON field `troubles`."""

from rapid.core.cluster import GpuHealth, NodeHealth
from rapid.core.errors import watts
from rapid.core.status import DomainStatus, GpuStatus, InstanceStatus, NodeStatus, Status
from rapidctl.commands._words import ago, gpu_label


def troubles(status: Status) -> list[str]:
    """One line per red thing, worst scope first: domain over budget, node silent, or drawing more than it may, GPU not
    obeying, instance failed or of an uncertain role.

    The GPUs of a node that does not report are not named one by one: nothing is known of them but that.
    """
    found = [_domain_trouble(domain) for domain in status.domains if domain.over_budget]
    found += [_node_trouble(node) for node in status.nodes if node.unheard]
    for node in status.nodes:
        if node.health is NodeHealth.REPORTING:
            if node.watch.excursion:
                found.append(f"node {node.node}: excursion: {node.watch.excursion}")
            found += [_gpu_trouble(node.node, gpu) for gpu in node.gpus if gpu.disobeys]
    return found + [_instance_trouble(instance) for instance in status.instances if instance.needs_person]


def _domain_trouble(domain: DomainStatus) -> str:
    booked = f"held {watts(domain.held_mw)} + reserved {watts(domain.reserved_mw)}"
    return _with(f"domain {domain.domain}: over budget, {booked} > {watts(domain.budget_mw)}", domain.advice)


def _node_trouble(node: NodeStatus) -> str:
    held = watts(sum(gpu.held_mw for gpu in node.gpus))
    if node.health is NodeHealth.NEVER_HEARD:
        return _with(f"node {node.node}: never heard, booked at its ceilings", node.problem)
    return _with(f"node {node.node}: silent for {ago(node.age_s)}, still booked for {held}", node.problem)


def _gpu_trouble(node: str, gpu: GpuStatus) -> str:
    what = "" if gpu.managed else f"not managed, booked at {watts(gpu.held_mw)}"
    health = "" if gpu.health is GpuHealth.OK else gpu.health.value
    return _with(f"gpu {gpu_label(node, gpu)} {gpu.gpu}: {', '.join(filter(None, (what, health)))}", gpu.problem)


def _instance_trouble(instance: InstanceStatus) -> str:
    return _with(f"instance {instance.instance}: {instance.phase.value}", instance.problem)


def _with(what: str, why: str) -> str:
    return f"{what}: {why}" if why else what
