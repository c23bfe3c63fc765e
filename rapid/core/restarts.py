"""When an engine that has died is started again, and when it is given up."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0  # before it is started again; doubles (assumed)
SETTLED_S = 60.0  # an engine that served for so long was well; its next death is counted as the first (assumed)
MOST = 5  # deaths in a row; after the next one, starting again does not help (assumed)


class Restarts:
    """Follows the deaths of one engine. Times are of any one clock, in seconds."""

    def __init__(self, most: int = MOST) -> None:
        assert most >= 0, "an engine cannot be started less than never"
        self.most = most
        self.deaths = 0  # in a row, none of them after a life of SETTLED_S

    def died(self, *, served_s: float) -> float | None:
        """It served for so long and died, or could not be started (0 s): the pause before it is started again, or
        None when it is not."""
        self.deaths = 1 if served_s >= SETTLED_S else self.deaths + 1
        if self.deaths > self.most:
            return None
        return float(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self.deaths - 1, 16)))
