"""What comes in, looked at as it is read off the socket: only orders with a good signature get any further.

The event loop reads one packet a turn, so a flood is worked off between the loop's other work and never before it, and
what is not genuine takes no room.
"""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from rapid.core.facility.nouns import BudgetOrder
from rapidctl.controller.facility.keys import BadSignature, KeyRing
from rapidctl.controller.facility.messages import PAYLOAD_MAX, Result, signed_decoder
from rapidctl.controller.facility.topics import Topics
from rapidctl.controller.facility.words import Malformed, order_of, refusal

ANSWERS_BURST, ANSWERS_PER_S = 50.0, 10.0  # refusals that are said; the others are only counted


@dataclass(slots=True)
class Allowance:
    """So many at once, and so many a second."""

    clock: Callable[[], float]
    left: float = ANSWERS_BURST
    at_s: float = 0.0

    def take(self) -> bool:
        now_s = self.clock()
        self.left = min(ANSWERS_BURST, self.left + (now_s - self.at_s) * ANSWERS_PER_S)
        self.at_s = now_s
        if self.left < 1:
            return False
        self.left -= 1
        return True


class Sieve:
    """For one site. `unsigned` is the source of orders without a signature; empty: they are refused."""

    def __init__(
        self,
        site: str,
        keys: KeyRing,
        unsigned: str,
        *,
        answer: Callable[[str, Result], None],
        wall_s: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._site, self._keys, self._unsigned = site, keys, unsigned
        self._topics = Topics(site)
        self._answer, self._wall_s = answer, wall_s
        self._allowance = Allowance(clock)
        self.refused = 0
        self.untold = 0  # of them, those that were not answered

    def order(self, topic: str, payload: bytes, *, retained: bool) -> BudgetOrder | None:
        """The order that a message on a set topic carries; None: it was refused, or is none of ours."""
        level = self._topics.level_of_set(topic)
        if level is None:
            return None
        if retained:
            # It may have hung there for ever. One who publishes it anew is heard, whether it is retained or not.
            self.refused += 1
            return None
        if len(payload) > PAYLOAD_MAX:
            text = f"the message has {len(payload)} bytes, at most {PAYLOAD_MAX} are looked at"
            self._refuse(topic, level, "oversized", text)
            return None
        try:
            said, source = self._read(payload)
            order, site = order_of(said, source)
        except BadSignature as error:
            self._refuse(topic, level, "bad_signature", f"the message {error}")
            return None
        except Malformed as error:
            self._refuse(topic, level, "malformed", str(error))
            return None
        if site != self._site or self._topics.set(order.domain) != topic:
            text = f"it is for domain {order.domain} of site {site}, and came on the topic of another"
            self._refuse(topic, level, "wrong_address", text, by=(order.id, source))
            return None
        return order

    def _read(self, payload: bytes) -> tuple[bytes, str]:
        """What was said, and by whom."""
        try:
            return self._keys.read(signed_decoder.decode(payload).jws)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if self._unsigned:
                return payload, self._unsigned
            raise BadSignature("is no object with the one member jws, and orders must be signed") from error

    def _refuse(self, topic: str, level: str, why: str, text: str, *, by: tuple[str, str] | None = None) -> None:
        self.refused += 1
        if not self._allowance.take():
            self.untold += 1
            return
        result = refusal(self._site, level, why, text, self._wall_s(), by=by)
        self._answer(topic.removesuffix("set") + "result", result)
