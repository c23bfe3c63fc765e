"""The limits that are wanted, and their way into force: cut to what the budgets leave, granted when they fit."""

from collections.abc import Iterable, Mapping

from rapid.core.cluster import GpuView
from rapid.core.commands import SendGrants
from rapid.core.fit import fair, fit
from rapid.core.ledger import Ledger
from rapid.core.settings import Settings

_UNSETTLED_S = 5.0  # a limit that is not in force after this long no longer holds the policy back

Change = tuple[str, int | None, int]  # GPU, target before (None: none yet), target now


class Limits:
    """Targets per GPU. A target that does not fit yet waits, and is granted as soon as the ledger has room."""

    def __init__(self, ledger: Ledger, settings: Settings, targets_mw: Iterable[tuple[str, int]] = ()) -> None:
        self.ledger = ledger
        self.targets_mw = {gpu: target_mw for gpu, target_mw in targets_mw if gpu in ledger.gpus}
        self.moved_mw = 0  # the sum of all raises
        self._settings = settings
        self._waiting: dict[str, None] = {}
        self._unsettled_s: float | None = None

    def movable(self, at_s: float) -> list[str]:
        """The GPUs that may be moved now."""
        return self.ledger.movable(at_s, self._settings.silent_after_s)

    def retarget(self, wanted_mw: Mapping[str, int], gpus: list[GpuView]) -> list[Change]:
        """Take what a policy wants for some of the movable GPUs; keep the rest; cut all to what the budgets leave."""
        rooms_mw = self.ledger.rooms_mw(gpu.gpu for gpu in gpus)
        chains = {name: node.chain for name, node in self.ledger.nodes.items()}
        asked = {gpu.gpu: self.targets_mw[gpu.gpu] for gpu in gpus if gpu.gpu in self.targets_mw} | dict(wanted_mw)
        if len(asked) < len(gpus):
            asked = fair(gpus, rooms_mw, chains) | asked  # a GPU seen for the first time gets an equal share
        limits_mw = fit(asked, gpus, rooms_mw, chains)
        changes: list[Change] = []
        for gpu, limit_mw in limits_mw.items():
            before_mw = self.targets_mw.get(gpu)
            if limit_mw != before_mw:
                changes.append((gpu, before_mw, limit_mw))
                self.moved_mw += max(0, limit_mw - (limit_mw if before_mw is None else before_mw))
                self.targets_mw[gpu] = limit_mw
                self._waiting[gpu] = None
        return changes

    def grant(self, at_s: float, also: Iterable[str] = ()) -> list[SendGrants]:
        """Send what waits (and `also`) as far as it fits now; what is in force stops waiting."""
        settings, ledger = self._settings, self.ledger
        fresh: dict[str, bool] = {}
        targets: dict[str, int] = {}
        for gpu in [*self._waiting, *also]:
            booking = ledger.gpus.get(gpu)
            if booking is None or gpu not in self.targets_mw:
                self._waiting.pop(gpu, None)
                continue
            if booking.node not in fresh:
                fresh[booking.node] = ledger.is_fresh(booking.node, at_s, settings.silent_after_s)
            if booking.managed and booking.present and fresh[booking.node]:
                targets[gpu] = self.targets_mw[gpu]
        batches = ledger.grant(targets, at_s, settings.lease_s)
        for gpu, target_mw in targets.items():
            booking = ledger.gpus[gpu]
            if booking.sent or booking.granted_mw != target_mw:
                self._waiting[gpu] = None
            else:
                self._waiting.pop(gpu, None)
        return [SendGrants(batch) for batch in batches]

    def settled(self, movable: list[str], at_s: float) -> bool:
        """Every target is in force and paid for, or has been waited for long enough. To be asked once a tick."""
        if self._in_force(movable):
            self._unsettled_s = None
        elif self._unsettled_s is None:
            self._unsettled_s = at_s
        return self._waited_for(at_s)

    def looks_settled(self, movable: list[str], at_s: float) -> bool:
        """The same for somebody who only looks."""
        return self._waited_for(at_s) if self._unsettled_s is not None else self._in_force(movable)

    def _in_force(self, movable: list[str]) -> bool:
        targets = {gpu: self.targets_mw[gpu] for gpu in movable if gpu in self.targets_mw}
        return len(targets) == len(movable) and self.ledger.settled(targets)

    def _waited_for(self, at_s: float) -> bool:
        return self._unsettled_s is None or at_s - self._unsettled_s >= _UNSETTLED_S

    def forget_released(self) -> None:
        """Drop the targets of GPUs that the ledger no longer books."""
        self.targets_mw = {gpu: mw for gpu, mw in self.targets_mw.items() if gpu in self.ledger.gpus}
