"""The whole loop on NVIDIA Dynamo: a trace swings from prompts to answers, and RAPID moves workers after it by itself,
from what Dynamo's metrics say. How much that brings is measured by bench.dynamo_loop; here only what always holds.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engines import dynamo_swing as swing
from tests.engines.dynamo_cluster import MISSING
from tests.seen import SEEN

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(bool(MISSING), reason=MISSING)]

SWING_S = 40.0  # once to prompts and once to answers


def test_roles_follow_what_is_asked_for(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    outcome = swing.under_rapid(tmp_path, swing.SPLIT, swing.trace(SWING_S, 1, SWING_S))

    record_property(
        SEEN,
        f"a swing from prompts to answers on Dynamo: {outcome.prefilling(0.0, SWING_S)} of {len(swing.SPLIT)} workers "
        f"prefilled, {outcome.attainment:.0%} of {len(outcome.served)} requests attained, {outcome.lost} lost",
    )
    most = max(outcome.prefilling(0.0, SWING_S / 2))
    least = min(outcome.prefilling(SWING_S / 2, SWING_S))
    assert most >= 4 > least, f"more to prefill while prompts came, fewer when answers did: {outcome.changes}"
    assert outcome.lost == 0
    assert outcome.worst_mw <= outcome.budget_mw, "promise 1: the budget holds at every instant"
