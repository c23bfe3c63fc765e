"""Which phase of a role change may follow which, as the controller hears of them: the table of rapid.core.roles.

News may be doubled, late or out of order. Within one order an engine only ever goes on, so a step that is not in the
table is old, and ignored.
"""

from collections.abc import Mapping

from rapid.core.cluster import Phase

SETTLED = frozenset({Phase.SERVING, Phase.PARKED, Phase.FAILED})
_END = SETTLED | {Phase.UNCERTAIN}
_BACK = _END | {Phase.ROLLING_BACK}

NEXT_PHASES: Mapping[Phase, frozenset[Phase]] = {
    Phase.SERVING: frozenset({Phase.SERVING, Phase.FAILED}),
    Phase.PARKED: frozenset({Phase.PARKED, Phase.FAILED}),
    Phase.DRAINING: _BACK | {Phase.DRAINING, Phase.SWITCHING, Phase.WARMING},
    Phase.SWITCHING: _BACK | {Phase.SWITCHING, Phase.WARMING},
    Phase.WARMING: _BACK | {Phase.WARMING},
    Phase.ROLLING_BACK: _BACK,
    # Its role is not known again before it has come to rest: that it tries to get there changes nothing.
    Phase.UNCERTAIN: _END,
    Phase.FAILED: frozenset({Phase.FAILED, Phase.SERVING, Phase.PARKED}),
    Phase.GONE: frozenset(),
}
