"""One simulated host: the real guard's duties are done, late as in the world, and the controller hears of it."""

import itertools
from random import Random

import pytest

from rapid.core.cluster import GrantBatch, Greeting, Mark, NodeReport, Renewal, Role
from rapid.core.guard import Guard
from rapid.sim.cluster import Cluster
from rapid.sim.model.requests import Request
from rapid.sim.world import build
from rapid.sim.world.agenda import Agenda
from rapid.sim.world.node import SimGpu, SimNode
from rapid.sim.world.scenario import Scenario, Silence, WorldSettings
from tests.sim.sites import scenario

GREETING = Greeting(1, "test")


class Host:
    """The node, with everything that it tells the world written down."""

    def __init__(self, mine: Scenario | None = None, seed: int = 1) -> None:
        mine = mine or scenario()
        self.world = mine.world
        self.agenda = Agenda()
        self.cluster = Cluster(mine.profile, build.plans(mine))
        dice = Random(seed)
        gpus = build.gpus(mine, "node0", dice, SimGpu)
        self.node = SimNode("node0", gpus, mine, self.agenda, self.cluster, dice, self, guard=Guard)
        self.readied: list[float] = []
        self.changes: list[tuple[float, str, int]] = []
        self.reports: list[tuple[float, NodeReport]] = []

    def ready(self, node: str, at_s: float) -> None:
        assert node == "node0"
        self.readied.append(at_s)

    def limited(self, gpu: SimGpu, at_s: float) -> None:
        self.changes.append((at_s, gpu.name, gpu.limit_mw))

    def heard(self, report: NodeReport, at_s: float) -> None:
        self.reports.append((at_s, report))

    def live(self, until_s: float) -> None:
        while self.agenda.next_s <= until_s:
            self.cluster.run_until(self.agenda.next_s)
            self.agenda.act()
        self.cluster.run_until(until_s)

    def greeted(self, at_s: float = 1.0) -> "Host":
        """Booted, and greeted at at_s."""
        self.node.begin(0.0)
        self.live(at_s)
        self.node.greet(GREETING, at_s)
        return self

    def grant(self, at_s: float, seq: int = 1, lease_s: float = 5.0, **limits_w: int) -> None:
        limits_mw = tuple((f"node0-{gpu}", limit_w * 1000) for gpu, limit_w in limits_w.items())
        batch = GrantBatch("node0", self.node.guard.incarnation, "test", Mark(1, seq), at_s + lease_s, limits_mw)
        self.node.grant(batch, at_s)

    def limit_w(self, gpu: str) -> float:
        return self.node.gpus[f"node0-{gpu}"].limit_mw / 1000


def test_a_host_boots_at_its_ceilings_and_is_ready_once_it_has_landed() -> None:
    host = Host()
    assert {gpu.limit_mw for gpu in host.node.gpus.values()} == {750_000}
    host.node.begin(0.0)
    assert not host.readied
    host.live(1.0)
    low_s, high_s = host.world.write_s
    assert {limit_mw for _, _, limit_mw in host.changes} == {600_000}
    assert all(low_s <= at_s <= high_s for at_s, _, _ in host.changes)
    assert host.readied == [max(at_s for at_s, _, _ in host.changes)]
    assert not host.reports, "nobody has asked for any"


def test_a_grant_is_a_write_that_takes_its_time_and_reaches_the_engine_later() -> None:
    host = Host().greeted(1.0)
    host.live(2.0)
    host.cluster.offer(Request(0, 2.0, 8000, 400))
    host.grant(2.0, gpu0=700, gpu7=500)
    assert (host.limit_w("gpu0"), host.limit_w("gpu7")) == (600, 600)
    host.live(2.0 + host.world.write_s[1])
    assert (host.limit_w("gpu0"), host.limit_w("gpu7")) == (700, 500)
    host.live(2.5)
    heard = {answer.gpu: answer.verdict for _, report in host.reports for answer in report.answers}
    assert heard == {"node0-gpu0": "applied", "node0-gpu7": "applied"}


def test_a_new_limit_slows_the_engine_down_with_the_delay_of_its_device() -> None:
    def seconds(limit_w: int | None) -> float:
        """How long a prompt takes that comes a second after the limit was granted."""
        host = Host().greeted(1.0)
        if limit_w is not None:
            host.grant(2.0, gpu0=limit_w, gpu1=limit_w, gpu2=limit_w, gpu3=limit_w)
        host.live(5.0)
        host.cluster.offer(Request(0, 5.0, 8000, 1))
        host.live(8.0)
        return host.cluster.finished[0].ttft_s

    assert seconds(750) < seconds(None) < seconds(400)


def test_reports_come_at_their_interval_and_at_once_when_there_is_news() -> None:
    host = Host().greeted(1.0)
    host.live(6.0)
    calm = [report.node_time_s for _, report in host.reports if report.node_time_s > 2.5]
    assert [later - sooner for sooner, later in itertools.pairwise(calm)] == pytest.approx([0.5] * (len(calm) - 1))
    before = len(host.reports)
    host.grant(6.0, gpu0=650)
    host.live(6.0 + 0.03)
    news = [report.node_time_s for _, report in host.reports[before:]]
    assert len(news) >= 2, "one that shows the mark, one that shows the limit"
    assert news[0] == 6.0
    assert all(later - sooner >= host.world.report_gap_s - 1e-9 for sooner, later in itertools.pairwise(news))
    assert [report.report_seq for _, report in host.reports] == list(range(1, len(host.reports) + 1)), "in order"
    low_s, high_s = host.world.network_s
    assert all(low_s <= at_s - report.node_time_s <= 2 * high_s for at_s, report in host.reports)


def test_reports_carry_the_loads_of_the_engines() -> None:
    host = Host().greeted(1.0)
    host.live(2.0)
    for number in range(40):
        host.cluster.offer(Request(number, 2.0, 4000, 50))
    host.live(2.6)
    loads = host.reports[-1][1].loads
    assert [load.instance for load in loads] == [f"node0-{number}" for number in range(8)]
    assert [load.role for load in loads] == [Role.PREFILL] * 4 + [Role.DECODE] * 4
    assert sum(load.arrived for load in loads[:4]) == 40
    assert all(host.reports[-1][1].node_time_s - load.at_s <= host.world.load_interval_s for load in loads)


def test_the_draw_of_a_report_is_a_reading_of_late() -> None:
    host = Host().greeted(1.0)
    host.live(2.0)
    for number in range(100):
        host.cluster.offer(Request(number, 2.0, 8000, 50))
    host.live(6.0)
    for _, report in host.reports:
        if report.node_time_s > 1.5:
            assert all(0 < report.node_time_s - gpu.draw_at_s < 0.3 for gpu in report.gpus), report.node_time_s
    busy = host.reports[-1][1].gpus[0]
    assert busy.draw_mw is not None
    assert busy.draw_mw == pytest.approx(600_000, rel=0.12)
    assert busy.energy_mj is not None
    drawn_mj = host.cluster.instances["node0-0"].energy_mj(6.0)
    assert drawn_mj - 0.8 * 650_000 < busy.energy_mj <= drawn_mj


def test_a_cut_is_shown_by_a_reading_soon_after_it() -> None:
    host = Host().greeted(1.0)
    host.live(4.0)
    host.grant(4.0, gpu0=450)
    host.live(5.0)
    written_s = next(at_s for at_s, gpu, limit_mw in host.changes if (gpu, limit_mw) == ("node0-gpu0", 450_000))
    shown = [
        (heard_s, report.gpus[0].draw_mw) for heard_s, report in host.reports if report.gpus[0].draw_at_s >= written_s
    ]
    assert shown[0][0] - written_s < 0.25, "at most a period, a box, and the way"
    assert (shown[0][1] or 0) == pytest.approx(140_000, rel=0.2), "it idles"


def test_the_draw_comes_down_to_a_cut_as_the_device_follows() -> None:
    host = Host().greeted(1.0)
    host.live(1.5)
    for number in range(200):
        host.cluster.offer(Request(number, 1.5, 8000, 50))
    host.live(4.0)
    host.grant(4.0, gpu0=450)
    host.live(7.0)
    draws = [report.gpus[0].draw_mw or 0 for _, report in host.reports if report.node_time_s > 6.0]
    assert max(draws) < 450_000 * 1.12


def test_a_node_without_renewals_lands_when_its_lease_is_over() -> None:
    host = Host().greeted(1.0)
    host.grant(1.5, gpu0=700)
    host.live(4.0)
    host.node.renew(Renewal("node0", host.node.guard.incarnation, "test", 1, 9.0), 4.0)
    host.live(8.9)
    assert host.limit_w("gpu0") == 700
    host.live(9.2)
    assert host.limit_w("gpu0") == 600


def test_a_silent_node_is_not_heard_and_goes_on() -> None:
    quiet = Silence("node0", -8.0, -6.0)  # of the trace's time: 2 to 4 s of the node's
    host = Host(scenario(world=WorldSettings(silences=(quiet,)))).greeted(1.0)
    host.live(8.0)
    heard = [report.node_time_s for _, report in host.reports]
    assert not [at_s for at_s in heard if 2.0 <= at_s < 4.0]
    assert [at_s for at_s in heard if at_s < 2.0]
    assert [at_s for at_s in heard if at_s > 4.0]
    assert not Host().node.silent(3.0)


def test_a_slow_driver_changes_nothing_before_the_greeting() -> None:
    host = Host(scenario(world=WorldSettings(write_s=(0.5, 0.9))))
    host.node.begin(0.0)
    host.live(2.0)
    assert 0.5 <= host.readied[0] <= 0.9
