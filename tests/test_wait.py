import itertools

import pytest

from tests.wait import wait_for, wait_until


def test_wait_hands_back_the_first_true_value() -> None:
    counter = itertools.count()

    assert wait_for(lambda: next(counter), deadline_s=60, what="the counter moves") == 1


def test_wait_names_what_did_not_come_true() -> None:
    with pytest.raises(TimeoutError, match=r"the limit falls: not within 0 s, last seen \[\]"):
        wait_for(list, deadline_s=0, what="the limit falls")


async def test_wait_until_lets_the_loop_run() -> None:
    counter = itertools.count()

    assert await wait_until(lambda: next(counter), deadline_s=60, what="the counter moves") == 1
    with pytest.raises(TimeoutError, match="the node reports"):
        await wait_until(lambda: None, deadline_s=0, what="the node reports")
