"""The simulated engine against a clock that the test holds."""

from dataclasses import dataclass, field

from rapid.core.cluster import Role
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


def engine(
    role: Role = Role.PREFILL, *, unsure: bool = False, pulls: bool = False, settings: EngineSettings | None = None
) -> tuple[Engine, FakeClients]:
    clients = FakeClients(unsure, pulls)
    curve = LimitCurve.constant(600_000, PROFILE.lag)
    instance = Instance("p0", role, PROFILE, curve, start_s=0.0, settings=settings or EngineSettings())
    return Engine(instance, clients), clients


def request(number: int, at_s: float = 0.0, tokens: int = 1000, output: int = 10) -> Request:
    return Request(number, at_s, tokens, output)


def run_until(target: Engine, end_s: float) -> None:
    while (at_s := target.next_s()) <= end_s:
        target.wake(at_s)
    target.wake(end_s)


def test_prompt_comes_out_processed_at_the_time_of_the_model() -> None:
    made, clients = engine()
    made.prompt(request(1), 0.0)
    due_s = made.next_s()
    made.wake(due_s + 0.25)  # the process was late; the model was not
    assert clients.done[0].at_s == due_s
    assert (made.lateness.events, made.lateness.max_s) == (1, 0.25)


def test_role_change_gives_back_what_waits_and_finishes_what_runs() -> None:
    made, clients = engine()
    for number in range(12):  # 12,000 tokens: a batch holds 8,192
        made.prompt(request(number), 0.0)
    first_batch_s = made.next_s()
    made.close(first_batch_s / 2)
    assert (clients.doors, made.is_open) == (["closed"], False)
    running = 12 - len(clients.back)
    assert 0 < running < 12
    assert made.requests_left(first_batch_s / 2) == running
    made.prompt(request(99), first_batch_s / 2)  # it was on its way
    assert clients.back[-1] == 99
    run_until(made, 5.0)
    assert (len(clients.done), made.requests_left(5.0)) == (running, 0)
    made.switch(Role.DECODE, 5.0)
    run_until(made, 10.0)
    made.open(10.0)
    assert (clients.doors, made.role) == (["closed", "decode"], Role.DECODE)
    made.kv(PrefillDone(request(3), 10.0, 0.5, "p9"), 10.0)
    run_until(made, 20.0)
    assert [finished.request.request_id for finished in clients.ended] == [3]


def test_switch_takes_as_long_as_the_profile_says() -> None:
    made, _ = engine()
    made.close(2.0)
    made.switch(Role.DECODE, 2.0)
    assert (made.next_s(), made.has_switched) == (2.0 + PROFILE.switch_s, False)
    made.wake(2.0 + PROFILE.switch_s)
    assert made.has_switched


def test_drain_is_not_over_while_a_request_may_be_on_its_way() -> None:
    made, _ = engine(unsure=True)
    made.close(2.0)
    assert made.requests_left(2.5) == 1
    made.quiet(2.6)
    assert made.requests_left(2.6) == 0


def test_engine_that_is_opened_before_it_has_drained_serves_on_in_its_old_role() -> None:
    made, clients = engine(Role.DECODE)
    made.kv(PrefillDone(request(1, output=2000), 0.0, 0.1, "p9"), 0.0)
    made.wake(0.5)
    made.close(0.5)
    assert made.requests_left(1.5) == 1
    made.open(1.5)
    assert clients.doors == ["closed", "decode"]
    made.kv(PrefillDone(request(2), 1.5, 0.1, "p9"), 1.5)
    assert clients.back == []


def test_engine_that_was_opened_again_can_drain_again() -> None:
    made, clients = engine(Role.DECODE)
    made.kv(PrefillDone(request(1, output=100), 0.0, 0.1, "p9"), 0.0)
    made.close(0.5)
    made.open(0.6)
    made.close(0.7)
    run_until(made, 5.0)
    made.switch(Role.PREFILL, 5.0)
    run_until(made, 8.0)
    made.open(8.0)
    assert clients.doors == ["closed", "decode", "closed", "prefill"]
    assert len(clients.ended) == 1


def test_lower_limit_slows_the_next_batch() -> None:
    fast, fast_clients = engine()
    slow, slow_clients = engine()
    slow.limit_curve(LimitCurve.constant(400_000, PROFILE.lag), 0.0)
    for made in (fast, slow):
        made.prompt(request(1, tokens=8000), 0.0)
        run_until(made, 5.0)
    assert slow_clients.done[0].at_s > 1.1 * fast_clients.done[0].at_s


def test_full_ring_stops_prefill_until_a_cache_is_released() -> None:
    made, clients = engine(pulls=True, settings=EngineSettings(max_batch_requests=1, ring_tokens=1500))
    for number in (1, 2):
        made.prompt(request(number), 0.0)
    run_until(made, 5.0)
    (first,) = clients.done
    made.release(first, 5.0)
    run_until(made, 10.0)
    assert [done.request.request_id for done in clients.done] == [1, 2]
    assert clients.done[1].at_s > 5.0


def test_release_of_another_lifes_cache_is_ignored() -> None:
    made, clients = engine(pulls=True, settings=EngineSettings(ring_tokens=1500))
    made.release(PrefillDone(request(1), 0.1, 0.1, "p0"), 0.2)
    made.prompt(request(1), 0.2)
    run_until(made, 5.0)
    made.release(PrefillDone(request(1), 0.1, 0.1, "p0"), 5.0)
    assert made.instance.unpulled == tuple(clients.done)


def test_prefill_is_not_drained_while_a_cache_is_not_pulled() -> None:
    made, clients = engine(pulls=True)
    made.prompt(request(1), 0.0)
    made.close(0.0)
    run_until(made, 2.0)
    assert made.requests_left(2.0) == 1
    made.release(clients.done[0], 2.0)
    assert made.requests_left(2.0) == 0


def test_clients_that_leave_leave_nothing_in_the_ring() -> None:
    made, clients = engine(pulls=True, settings=EngineSettings(max_batch_requests=1, ring_tokens=1500))
    for number in (1, 2):
        made.prompt(request(number), 0.0)
    run_until(made, 5.0)
    clients.pulls = False  # the connection is gone
    made.forsaken(5.0)
    run_until(made, 10.0)
    assert (len(clients.done), made.instance.unpulled) == (2, ())


def test_decode_tells_when_it_has_pulled() -> None:
    made, clients = engine(Role.DECODE)
    made.kv(PrefillDone(request(1), 0.0, 0.1, "p9"), 0.0)
    run_until(made, PROFILE.pull_s(1000))
    assert (clients.pulled_here, clients.ended) == ([1], [])
