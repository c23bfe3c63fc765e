"""The simulated engine against a clock that the test holds."""

from dataclasses import dataclass, field

from rapid.core.cluster import Mark, Phase, Role, RoleProgress
from rapid.core.role_change import RoleChange
from rapid.sim.model.instance import Instance
from rapid.sim.model.power import LimitCurve
from rapid.sim.model.profile import profile_named
from rapid.sim.model.requests import Backlog, EngineSettings, Finished, PrefillDone, Pulled, Request
from rapidctl.demo.engine import Engine

PROFILE = profile_named("mi300x-8b")


@dataclass
class FakeClients:
    """Remembers what it is told. `unsure`: requests may be on their way when the engine closes.

    `pulls`: somebody pulls the KV caches, when the test says so; otherwise nobody ever does.
    """

    unsure: bool = False
    pulls: bool = False
    pulled_here: list[int] = field(default_factory=list)
    done: list[PrefillDone] = field(default_factory=list)
    ended: list[Finished] = field(default_factory=list)
    back: list[int] = field(default_factory=list)
    doors: list[str] = field(default_factory=list)

    def prefilled(self, done: PrefillDone) -> bool:
        self.done.append(done)
        return self.pulls

    def pulled(self, pulled: Pulled) -> None:
        self.pulled_here.append(pulled.done.request.request_id)

    def finished(self, finished: Finished) -> None:
        self.ended.append(finished)

    def closed(self) -> bool:
        self.doors.append("closed")
        return self.unsure

    def opened(self, role: Role) -> None:
        self.doors.append(role.value)

    def hand_back(self, backlog: Backlog) -> None:
        self.back += [request.request_id for request in backlog.requests]
        self.back += [done.request.request_id for done in backlog.kvs]


@dataclass
class FakeController:
    heard: list[RoleProgress] = field(default_factory=list)

    def tell(self, progress: RoleProgress) -> None:
        self.heard.append(progress)

    @property
    def phases(self) -> list[Phase]:
        return [progress.phase for progress in self.heard]


def engine(
    role: Role = Role.PREFILL, *, unsure: bool = False, pulls: bool = False, settings: EngineSettings | None = None
) -> tuple[Engine, FakeClients, FakeController]:
    clients, controller = FakeClients(unsure, pulls), FakeController()
    curve = LimitCurve.constant(600_000, PROFILE.lag)
    change = RoleChange(instance="p0", incarnation="i1", role=role, roles=(Role.PREFILL, Role.DECODE))
    instance = Instance("p0", role, PROFILE, curve, start_s=0.0, settings=settings or EngineSettings())
    made = Engine(instance, change, clients, controller, PROFILE.switch_s)
    return made, clients, controller


def request(number: int, at_s: float = 0.0, tokens: int = 1000, output: int = 10) -> Request:
    return Request(number, at_s, tokens, output)


def order(target: Engine, role: Role, now_s: float, *, seq: int = 1, drain_s: float = 5.0) -> None:
    target.order(incarnation="i1", mark=Mark(1, seq), role=role, drain_s=drain_s, not_after_s=now_s + 1, now_s=now_s)


def run_until(target: Engine, end_s: float) -> None:
    while (at_s := target.next_s()) <= end_s:
        target.wake(at_s)
    target.wake(end_s)


def test_prompt_comes_out_processed_at_the_time_of_the_model() -> None:
    made, clients, _ = engine()
    made.prompt(request(1), 0.0)
    due_s = made.next_s()
    made.wake(due_s + 0.25)  # the process was late; the model was not
    assert clients.done[0].at_s == due_s
    assert (made.lateness.events, made.lateness.max_s) == (1, 0.25)


def test_role_change_gives_back_what_waits_and_finishes_what_runs() -> None:
    made, clients, controller = engine()
    for number in range(12):  # 12,000 tokens: a batch holds 8,192
        made.prompt(request(number), 0.0)
    first_batch_s = made.next_s()
    order(made, Role.DECODE, first_batch_s / 2)
    assert clients.doors == ["closed"]
    running = 12 - len(clients.back)
    assert 0 < running < 12
    made.prompt(request(99), first_batch_s / 2)  # it was on its way
    assert clients.back[-1] == 99
    run_until(made, 10.0)
    assert len(clients.done) == running
    assert clients.doors == ["closed", "decode"]
    assert controller.phases == [Phase.DRAINING, Phase.SWITCHING, Phase.WARMING, Phase.SERVING]
    assert controller.heard[-1].role is Role.DECODE
    made.kv(PrefillDone(request(3), 10.0, 0.5, "p9"), 10.0)
    run_until(made, 20.0)
    assert [finished.request.request_id for finished in clients.ended] == [3]


def test_switch_takes_as_long_as_the_profile_says() -> None:
    made, clients, _ = engine()
    order(made, Role.DECODE, 2.0)
    assert made.next_s() == 2.0 + PROFILE.switch_s
    made.wake(2.0 + PROFILE.switch_s)
    assert clients.doors == ["closed", "decode"]


def test_drain_is_not_over_while_a_request_may_be_on_its_way() -> None:
    made, _, controller = engine(unsure=True)
    order(made, Role.DECODE, 2.0)
    made.wake(2.5)
    assert controller.phases == [Phase.DRAINING]
    made.quiet(2.6)
    assert controller.phases == [Phase.DRAINING, Phase.SWITCHING]


def test_drain_that_takes_too_long_serves_on_in_the_old_role() -> None:
    made, clients, controller = engine(Role.DECODE)
    made.kv(PrefillDone(request(1, output=2000), 0.0, 0.1, "p9"), 0.0)
    made.wake(0.5)
    order(made, Role.PREFILL, 0.5, drain_s=1.0)
    run_until(made, 1.5)
    assert controller.phases[-2:] == [Phase.ROLLING_BACK, Phase.SERVING]
    assert "drain took longer than 1 s, 1 requests left" in controller.heard[-1].error
    assert clients.doors == ["closed", "decode"]
    made.kv(PrefillDone(request(2), 1.5, 0.1, "p9"), 1.5)
    assert clients.back == []


def test_cancel_reopens_and_a_later_order_can_drain_again() -> None:
    made, clients, controller = engine(Role.DECODE)
    made.kv(PrefillDone(request(1, output=100), 0.0, 0.1, "p9"), 0.0)
    order(made, Role.PREFILL, 0.5)
    made.cancel(incarnation="i1", mark=Mark(1, 1), now_s=0.6)
    order(made, Role.PREFILL, 0.7, seq=2)
    run_until(made, 5.0)
    assert clients.doors == ["closed", "decode", "closed", "prefill"]
    assert len(clients.ended) == 1
    assert controller.heard[-1] == RoleProgress("p0", "i1", Mark(1, 2), Phase.SERVING, Role.PREFILL)


def test_lower_limit_slows_the_next_batch() -> None:
    fast, fast_clients, _ = engine()
    slow, slow_clients, _ = engine()
    slow.limit_curve(LimitCurve.constant(400_000, PROFILE.lag), 0.0)
    for made in (fast, slow):
        made.prompt(request(1, tokens=8000), 0.0)
        run_until(made, 5.0)
    assert slow_clients.done[0].at_s > 1.1 * fast_clients.done[0].at_s


def test_hello_tells_phase_and_mark_in_the_middle_of_a_change() -> None:
    made, _, _ = engine()
    order(made, Role.DECODE, 2.0)
    hello = made.hello("h1", ("GPU-1",), "sim", 2.5)
    assert (hello.phase, hello.mark, hello.role) == (Phase.SWITCHING, Mark(1, 1), Role.DECODE)
    assert (hello.engine_time_s, hello.switch_s) == (2.5, PROFILE.switch_s)


def test_full_ring_stops_prefill_until_a_cache_is_released() -> None:
    made, clients, _ = engine(pulls=True, settings=EngineSettings(max_batch_requests=1, ring_tokens=1500))
    for number in (1, 2):
        made.prompt(request(number), 0.0)
    run_until(made, 5.0)
    (first,) = clients.done
    made.release(first, 5.0)
    run_until(made, 10.0)
    assert [done.request.request_id for done in clients.done] == [1, 2]
    assert clients.done[1].at_s > 5.0


def test_release_of_another_lifes_cache_is_ignored() -> None:
    made, clients, _ = engine(pulls=True, settings=EngineSettings(ring_tokens=1500))
    made.release(PrefillDone(request(1), 0.1, 0.1, "p0"), 0.2)
    made.prompt(request(1), 0.2)
    run_until(made, 5.0)
    made.release(PrefillDone(request(1), 0.1, 0.1, "p0"), 5.0)
    assert made.instance.unpulled == tuple(clients.done)


def test_prefill_is_not_drained_while_a_cache_is_not_pulled() -> None:
    made, clients, controller = engine(pulls=True)
    made.prompt(request(1), 0.0)
    order(made, Role.DECODE, 0.0)
    run_until(made, 2.0)
    assert controller.phases == [Phase.DRAINING]
    made.release(clients.done[0], 2.0)
    run_until(made, 2.0 + PROFILE.switch_s)
    assert controller.phases == [Phase.DRAINING, Phase.SWITCHING, Phase.WARMING, Phase.SERVING]


def test_clients_that_leave_leave_nothing_in_the_ring() -> None:
    made, clients, _ = engine(pulls=True, settings=EngineSettings(max_batch_requests=1, ring_tokens=1500))
    for number in (1, 2):
        made.prompt(request(number), 0.0)
    run_until(made, 5.0)
    clients.pulls = False  # the connection is gone
    made.forsaken(5.0)
    run_until(made, 10.0)
    assert (len(clients.done), made.instance.unpulled) == (2, ())


def test_decode_tells_when_it_has_pulled() -> None:
    made, clients, _ = engine(Role.DECODE)
    made.kv(PrefillDone(request(1), 0.0, 0.1, "p9"), 0.0)
    run_until(made, PROFILE.pull_s(1000))
    assert (clients.pulled_here, clients.ended) == ([1], [])
