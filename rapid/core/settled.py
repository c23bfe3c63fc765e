"""When the draw has followed a lower limit: the rule that the ledger and the guard share."""

# Where nothing is measured, the slowest board that is known: a limit of an MI300X takes 0.1 s until it begins to act,
# and comes near with a lag of 0.3 s, of which five make 99 % (rapid/sim/model/board.py, assumed from the RAPID paper).
UNSEEN_S = 2.0


def has_settled(
    limit_mw: int,
    limit_since_s: float,
    draw_mw: int | None,
    draw_at_s: float,
    now_s: float,
    *,
    settle_s: float,
    draw_tolerance: float,
) -> bool:
    """A sample taken after the limit was read back lies at or below it, or, once the settle time has passed, within
    the error of the sensor. Without a sensor (None) time alone decides, and then UNSEEN_S at least. Times are of one
    clock."""
    waited_s = now_s - limit_since_s
    if draw_mw is None:
        return waited_s >= max(settle_s, UNSEEN_S)
    if draw_at_s < limit_since_s:
        return False
    return draw_mw <= limit_mw or (waited_s >= settle_s and draw_mw <= limit_mw * (1 + draw_tolerance))
