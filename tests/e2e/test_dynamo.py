"""NVIDIA Dynamo under RAPID: roles change under streaming traffic, and every request is answered whole."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rapid.core.cluster import Phase, Role
from tests.engines.dynamo_cluster import MISSING, WITHIN_S, Cluster
from tests.engines.dynamo_site import Site
from tests.engines.dynamo_traffic import Traffic, steady
from tests.wait import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(bool(MISSING), reason=MISSING)]

PREFILL, DECODE = Role.PREFILL, Role.DECODE
ROLES = (PREFILL, PREFILL, DECODE, DECODE)
COMPONENTS = {PREFILL: "prefill", DECODE: "backend"}  # by which a worker counts its own requests
ROUNDS = 6


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path / "dynamo", ROLES) as cluster:
        yield cluster


@pytest.fixture
def site(tmp_path: Path, cluster: Cluster) -> Iterator[Site]:
    with Site(tmp_path, cluster) as site:
        yield site


def test_no_request_is_lost_while_roles_change_under_traffic(site: Site, cluster: Cluster) -> None:
    flips = 0
    with Traffic(cluster.url, steady(12.0, 300, 24)) as traffic:
        wait_for(lambda: len(traffic.served) > 10, WITHIN_S, "traffic")
        for _ in range(ROUNDS):
            for name, role in (("w0", DECODE), ("w0", PREFILL), ("w2", PREFILL), ("w2", DECODE)):
                worker = cluster.workers[int(name[1:])]
                site.set_role(name, role)
                site.becomes(name, Phase.SERVING, role)
                assert cluster.role_of(worker) is role, "as the frontend's own metric has it"
                assert worker.component() == COMPONENTS[role], "as the engine's own page has it"
                flips += 1

    assert flips >= 20
    assert traffic.lost == []
    assert len(traffic.served) == traffic.sent > 50
    assert site.worst_mw() <= site.budget_mw, "promise 1: the budget holds at every instant"
