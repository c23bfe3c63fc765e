"""What was last seen of one instance, and how it differs from the model of all."""

from rapid.core.cluster import GpuView, InstanceView, Phase, PhaseLoad, Role

LONGEST_S = 5.0  # an interval between two loads that is longer says too little
LEAST, GREATEST = 0.7, 1.4  # a GPU outside is not what the model describes
_MEMORY_S = 60.0  # of work
_FIRST_S = 10.0  # of work as predicted, that nobody did
_NOISE = {Role.PREFILL: 0.15, Role.DECODE: 0.015}  # a difference this small may be none (seen in the simulator)

SeenState = tuple[str | float | None, ...]


class Seen:
    """The last load of an instance, and kappa: the time it takes by what the model says, apart for each role."""

    __slots__ = (
        "at_s",
        "changed_s",
        "decode_s",
        "decode_said_s",
        "firsts",
        "full",
        "heard_s",
        "lasts",
        "limit",
        "misfit_since_s",
        "output_tokens",
        "prefill_s",
        "prefill_said_s",
        "prompt_tokens",
        "role",
        "running",
        "waiting",
    )

    def __init__(self) -> None:
        self.role = ""  # of the last load, while it serves that role; else empty
        self.at_s = self.heard_s = 0.0  # of the last load: its own clock, and the view's
        self.changed_s = 0.0  # when another limit or role was first seen
        self.limit = 0.0  # by ceiling; the least of its GPUs, for which the others wait
        self.running = self.waiting = 0
        self.full = 0.0  # KV used
        self.prompt_tokens = self.output_tokens = self.firsts = self.lasts = 0
        self.prefill_s = self.prefill_said_s = self.decode_s = self.decode_said_s = _FIRST_S
        self.misfit_since_s: float | None = None

    def look(self, one: InstanceView, gpus: list[GpuView], at_s: float) -> None:
        """Limits and roles, whether or not there is a load."""
        limit = min([gpu.limit_mw / gpu.ceiling_mw for gpu in gpus], default=0.0)
        new_role = self.role and self.role != one.role.value
        if limit != self.limit or one.phase is not Phase.SERVING or new_role:
            self.limit, self.changed_s = limit, at_s

    def follows(self, load: PhaseLoad, firsts: int, lasts: int) -> bool:
        """The load continues the last one: same role, same life of the engine, and not too long after it."""
        return (
            self.role == load.role.value
            and 0.0 < load.at_s - self.at_s <= LONGEST_S
            and load.prompt_tokens >= self.prompt_tokens
            and load.output_tokens >= self.output_tokens
            and firsts >= self.firsts
            and lasts >= self.lasts
        )

    def take(self, load: PhaseLoad, firsts: int, lasts: int, at_s: float) -> None:
        """This is the last load now. firsts, lasts: first tokens and last tokens so far."""
        self.role, self.at_s, self.heard_s = load.role.value, load.at_s, at_s
        self.running, self.waiting, self.full = load.running_requests, load.waiting_requests, load.kv_used_fraction
        self.prompt_tokens, self.output_tokens = load.prompt_tokens, load.output_tokens
        self.firsts, self.lasts = firsts, lasts

    def worked(self, role: Role, taken_s: float, said_s: float) -> None:
        """A ratio of sums, since in a single interval of prefill there may be no token at all."""
        keep = max(0.0, 1.0 - said_s / _MEMORY_S)
        if role is Role.PREFILL:
            self.prefill_s = self.prefill_s * keep + taken_s
            self.prefill_said_s = self.prefill_said_s * keep + said_s
        else:
            self.decode_s = self.decode_s * keep + taken_s
            self.decode_said_s = self.decode_said_s * keep + said_s

    def kappa(self, role: Role) -> float:
        """As measured, with its noise."""
        if role is Role.PREFILL:
            return self.prefill_s / self.prefill_said_s
        return self.decode_s / self.decode_said_s

    def factor(self, role: Role) -> float:
        """Kappa as it is believed: most dies are alike, so a small difference is noise, and a large one is real."""
        off = self.kappa(role) - 1.0
        return 1.0 + off * (off * off) / (off * off + _NOISE.get(role, 1.0) ** 2)

    def judge(self, role: Role, at_s: float) -> None:
        """Since when it has not been what the model describes."""
        if role is Role.MIXED or LEAST <= self.kappa(role) <= GREATEST:
            self.misfit_since_s = None
        elif self.misfit_since_s is None:
            self.misfit_since_s = at_s

    def state(self) -> SeenState:
        return tuple([getattr(self, field) for field in self.__slots__])

    def restore(self, state: SeenState) -> None:
        for field, value in zip(self.__slots__, state, strict=True):
            setattr(self, field, value)
