"""What a node's draw is held against: the leave that its grants give, excursions beyond it, and measured compliance.

The leave of a GPU is what the ledger may hold for it, as far as its node can know: its grant, or what was granted
before for as long as no sample has shown that the draw came down. An unmanaged GPU is held at its ceiling.
"""

from collections.abc import Collection

from rapid.core.compliance import Compliance, Measured, Reading
from rapid.core.errors import watts
from rapid.core.excursion import Bound, Cut, Excursion, ExcursionSettings, LetGo
from rapid.core.guarded import GpuState
from rapid.core.settled import has_settled
from rapid.core.watched import NodeWatch

STALE_S = 1.0  # a draw that was read longer ago counts as the worst that it could be (assumed: ten samples of rapidd)


class Vigil:
    """One node, on its own clock. `hard_mw` is what the host may draw whatever was granted (None: no such bound)."""

    def __init__(self, settings: ExcursionSettings, hard_mw: int | None = None, *, cuts: bool = True) -> None:
        self.excursion = Excursion(settings)
        self.text = ""  # the excursion that goes on, for a person
        self._settings, self._hard_mw, self._cuts = settings, hard_mw, cuts
        self._gpus: Collection[GpuState] = ()
        self._compliance = Compliance(())
        self._leaves_mw: dict[str, int] = {}
        self._read_s: dict[str, float] = {}  # when a draw was last read
        self._round: set[str] = set()

    def begin(self, gpus: Collection[GpuState], at_s: float) -> None:
        """Until it has come down, each may draw what was in force before the daemon came; the first writes are cuts."""
        self.excursion.wait(at_s)
        self._gpus = gpus
        self._compliance = Compliance(gpu.spec.gpu for gpu in gpus)
        self._leaves_mw = {gpu.spec.gpu: gpu.limit_mw for gpu in gpus}

    def add(self, gpu: GpuState) -> None:
        """One GPU more, among those given to begin(): it may draw what is in force on it until it has come down."""
        self._compliance.add(gpu.spec.gpu)
        self._leaves_mw[gpu.spec.gpu] = gpu.limit_mw

    def granting(self, gpu: GpuState, limit_mw: int) -> None:
        """The grant is about to become limit_mw."""
        self._leaves_mw[gpu.spec.gpu] = max(self._leave_mw(gpu), limit_mw)

    def sampled(self, gpu: GpuState, reading: Reading, at_s: float) -> Cut | LetGo | None:
        """A sample was taken, and is in the GPU's state; what must be done about the node now.

        The node is looked at once in every round of samples: when all are in, or one comes round before the others.
        """
        name = gpu.spec.gpu
        if reading.draw_mw is not None:
            self._read_s[name] = at_s
        self._settle(gpu, at_s)
        self._compliance.read(name, reading, self._leave_mw(gpu), at_s)
        verdict = self._look(at_s) if name in self._round else None
        self._round.add(name)
        return verdict or (self._look(at_s) if len(self._round) == len(self._gpus) else None)

    def tick(self, at_s: float) -> None:
        self._compliance.judge(at_s, self._hard_mw)

    def draw_mw(self, at_s: float) -> int:
        """What the node draws; a GPU whose draw is not known counts as the worst that it could be."""
        return sum(self._draw_mw(gpu, at_s) for gpu in self._gpus)

    def alarms_mw(self) -> dict[str, int]:
        """By GPU, its share of what the node may draw: while none is measured above its own, neither are all together
        above theirs, and a look at them can wait a little."""
        if not self._cuts:
            return {}
        bound = self.bound
        most_mw = bound.most_mw(self._settings.draw_tolerance)
        return {gpu.spec.gpu: int(self._leave_mw(gpu) * most_mw / bound.leave_mw) for gpu in self._gpus}

    @property
    def bound(self) -> Bound:
        return Bound(sum(self._leave_mw(gpu) for gpu in self._gpus), self._hard_mw)

    def of(self, gpu: str) -> Measured:
        """What has been measured of one GPU."""
        return self._compliance.of(gpu)

    def report(self) -> NodeWatch:
        node = self._compliance.node
        times = (round(node.watched_s, 3), round(node.over_s, 3), round(node.unmeasured_s, 3))
        return NodeWatch(*times, self.excursion.count, self.text)

    def _look(self, at_s: float) -> Cut | LetGo | None:
        self._round.clear()
        if not self._cuts:
            return None
        draw_mw, bound = self.draw_mw(at_s), self.bound
        verdict = self.excursion.look(draw_mw, bound, at_s)
        if isinstance(verdict, Cut):
            told = f"draws {watts(draw_mw)}, may draw {watts(bound.budget_mw)}"
            self.text = f"{told}: limits cut to {100 * verdict.factor:.0f} %"
        elif isinstance(verdict, LetGo):
            self.text = ""
        return verdict

    def _settle(self, gpu: GpuState, at_s: float) -> None:
        """The leave comes down to the grant once the draw is shown to have followed."""
        settings = self._settings
        if gpu.limit_mw <= gpu.grant_mw and has_settled(
            gpu.limit_mw,
            gpu.limit_since_s,
            gpu.draw_mw,
            gpu.draw_at_s,
            at_s,
            settle_s=settings.settle_s,
            draw_tolerance=settings.draw_tolerance,
        ):
            self._leaves_mw[gpu.spec.gpu] = gpu.grant_mw

    def _leave_mw(self, gpu: GpuState) -> int:
        return gpu.spec.ceiling_mw if gpu.unmanaged else max(self._leaves_mw[gpu.spec.gpu], gpu.grant_mw)

    def _draw_mw(self, gpu: GpuState, at_s: float) -> int:
        fresh = at_s - self._read_s.get(gpu.spec.gpu, float("-inf")) <= STALE_S
        if gpu.draw_mw is not None and fresh:
            return gpu.draw_mw
        return max(gpu.cover_mw, gpu.draw_mw or 0)
