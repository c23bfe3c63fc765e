"""When the draw has followed a lower limit: the rule that the ledger and the guard share."""


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
    the error of the sensor. Without a sensor (None) the settle time alone decides. Times are of one clock."""
    waited = now_s - limit_since_s >= settle_s
    if draw_mw is None:
        return waited
    if draw_at_s < limit_since_s:
        return False
    return draw_mw <= limit_mw or (waited and draw_mw <= limit_mw * (1 + draw_tolerance))
