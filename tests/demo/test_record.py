"""The record of requests: who counts as having met what, while they run and at the end."""

from rapid.core.cluster import SloTargets
from rapid.sim.model.requests import Finished, Request
from rapidctl.demo.record import RECENT, Record


def request(number: int, at_s: float = 0.0, output: int = 11) -> Request:
    return Request(number, at_s, 100, output)


def finished(asked: Request, *, ttft_s: float = 0.5, tpot_s: float | None = 0.03) -> Finished:
    return Finished(asked, asked.arrival_s + ttft_s + 1.0, ttft_s, tpot_s)


def offered(*requests: Request) -> Record:
    record = Record(SloTargets(ttft_s=1.0, tpot_s=0.040))
    for each in requests:
        record.offer(each)
    return record


def test_nothing_is_judged_before_anything_is_known() -> None:
    shares = offered(request(1)).so_far(0.5)
    assert (shares.both, shares.ttft, shares.tpot, shares.recent) == (None, None, None, None)


def test_request_that_waits_too_long_has_missed_before_it_has_finished() -> None:
    record = offered(request(1), request(2))
    record.first_token(2, 0.4)
    record.end(finished(request(2)))
    shares = record.so_far(1.5)
    assert (shares.both, shares.ttft, shares.tpot) == (0.5, 0.5, 1.0)


def test_late_first_token_counts_as_missed_while_it_decodes_and_after() -> None:
    record = offered(request(1), request(2))
    record.first_token(1, 1.2)
    record.end(finished(request(2)))
    assert record.so_far(1.3).both == 0.5
    record.end(finished(request(1), ttft_s=1.2))
    assert record.so_far(9.0).both == 0.5


def test_targets_are_met_on_their_bound() -> None:
    record = offered(request(1), request(2))
    record.end(finished(request(1), ttft_s=1.0, tpot_s=0.040))
    record.end(finished(request(2), ttft_s=1.0, tpot_s=0.0401))
    shares = record.so_far(9.0)
    assert (shares.both, shares.ttft, shares.tpot) == (0.5, 1.0, 0.5)


def test_request_of_one_token_has_no_tpot_to_miss() -> None:
    record = offered(request(1, output=1))
    record.end(finished(request(1, output=1), tpot_s=None))
    assert record.so_far(9.0).both == 1.0


def test_request_that_runs_again_counts_by_its_last_first_token() -> None:
    record = offered(request(1))
    record.first_token(1, 0.3)
    record.first_token(1, 2.0)
    assert record.so_far(3.0).ttft == 0.0


def test_recent_forgets_what_is_long_ago() -> None:
    asked = [request(number) for number in range(RECENT + 50)]
    record = offered(*asked)
    for each in asked:
        record.end(finished(each, ttft_s=2.0 if each.request_id < 50 else 0.5))
    shares = record.so_far(9.0)
    assert shares.recent == 1.0
    assert shares.both == RECENT / (RECENT + 50)


def test_rate_of_arrivals_is_that_of_the_last_seconds() -> None:
    record = offered(*(request(number, at_s=float(number)) for number in range(20)))
    assert record.arriving_rps(19.5) == 1.0


def test_record_begun_anew_keeps_what_still_runs() -> None:
    record = offered(request(1), request(2))
    record.end(finished(request(1)))
    anew = record.anew()
    assert (list(anew.offered), anew.finished) == ([2], {})
    anew.end(finished(request(2)))
    assert anew.unfinished == 0
