"""Requests that a simulated engine makes up for itself, to be tried without a front end."""

from random import Random

from rapid.core.cluster import Role
from rapid.sim.model.requests import Backlog, Finished, PrefillDone, Pulled, Request
from rapidctl.demo.engine import Engine

# Near the means of Azure's chat service of 2023 (1,246 and 204 tokens).
INPUT_TOKENS, OUTPUT_TOKENS = 1024, 256


class OwnLoad:
    """Poisson arrivals of equal requests, always for the role that is served now; answers go nowhere."""

    def __init__(self, rate_rps: float, dice: Random, start_s: float) -> None:
        assert rate_rps > 0
        self._rate_rps, self._dice = rate_rps, dice
        self._number = 0
        self.next_s = start_s + dice.expovariate(rate_rps)  # when the next request arrives

    def arrive(self, engine: Engine, now_s: float) -> None:
        """Everything that has arrived by now_s. While the engine takes none, requests go elsewhere, so to say."""
        while self.next_s <= now_s:
            arrival_s, self.next_s = self.next_s, self.next_s + self._dice.expovariate(self._rate_rps)
            self._number += 1
            request = Request(self._number, arrival_s, INPUT_TOKENS, OUTPUT_TOKENS)
            if engine.role is Role.PREFILL:
                engine.prompt(request, now_s)
            else:
                engine.kv(PrefillDone(request, arrival_s, ttft_s=0.0, source=""), now_s)

    # ---- Clients ----

    def prefilled(self, done: PrefillDone) -> bool:
        return False  # nobody decodes it

    def pulled(self, pulled: Pulled) -> None:
        pass

    def finished(self, finished: Finished) -> None:
        pass

    def closed(self) -> bool:
        return False  # arrive() runs between two steps of the engine: nothing is ever on its way

    def opened(self, role: Role) -> None:
        pass

    def hand_back(self, backlog: Backlog) -> None:
        pass
