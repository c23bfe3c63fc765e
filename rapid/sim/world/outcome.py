"""What came of a run, as people compare it and as programs read it: the fields of Outcome are the keys of the JSON.

Only wall_s differs between two runs of the same scenario and requests; the caller fills it in, as there is no clock
here.
"""

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Spot:
    """Quantiles by nearest rank, in seconds, to within 0.25 %. None: nothing was measured."""

    p50: float | None
    p90: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class PerRole:
    """A mean per role; None where no instance had the role."""

    prefill: float | None
    decode: float | None
    mixed: float | None


@dataclass(frozen=True, slots=True)
class Missed:
    """Shares of all requests: those that missed one target and met the other, missed both, or never finished.

    Together with the attainment they make 1.
    """

    ttft_only: float
    tpot_only: float
    both: float
    unfinished: float


@dataclass(frozen=True, slots=True)
class Why:
    """Where the watts and the time went, from the trace's time 0 to its last arrival.

    limit_w     mean limit of a GPU while its instance had the role
    instances   mean number of instances in the role; to the end of its drain an instance has the old one
    changing    mean number of instances on their way from one role to the next
    busy        share of their time that instances of the role had work
    missed      how the requests that did not attain their SLO missed it
    errors      how often the controller said that something is wrong (a GPU that does not obey, a budget broken), to
                the end of the run
    """

    limit_w: PerRole
    instances: PerRole
    changing: float
    busy: PerRole
    missed: Missed
    errors: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run. The window is from the trace's time 0 to its last arrival, at least 1 s.

    policy, profile, seed     as in the scenario
    requests                  that arrived
    attainment                share of all requests that met both targets
    ttft_attainment           share of all requests that met the TTFT target; tpot_attainment: the TPOT target
    goodput_rps               requests that met both targets, per second of the window
    ttft_s, tpot_s            of the requests that finished (TPOT: of those with two output tokens or more)
    energy_j                  all GPUs, from time 0 to the end
    joules_per_output_token   by output tokens of finished requests. None: there are none
    qps_per_budget_watt       finished requests per second of the window, by the budget
    qps_per_drawn_watt        finished requests by energy_j, which is the same as per second and mean watt
    role_moves                role changes that were committed
    watts_moved               the sum of all raises, in watts
    over_budget_s             time, from when all nodes were ready, during which the limits that devices enforced summed
                              to more than the budget; by a checker that knows neither controller nor guard
    unfinished                requests that had not finished at the end: turned away, or out of time
    sim_s                     simulated seconds from time 0 to the end: the last request finished, or the drain took too
                              long
    wall_s                    what the run took
    control_steps             events that the controller handled
    why                       means that explain the rest
    """

    policy: str
    profile: str
    seed: int
    requests: int
    attainment: float
    ttft_attainment: float
    tpot_attainment: float
    goodput_rps: float
    ttft_s: Spot
    tpot_s: Spot
    energy_j: float
    joules_per_output_token: float | None
    qps_per_budget_watt: float
    qps_per_drawn_watt: float
    role_moves: int
    watts_moved: float
    over_budget_s: float
    unfinished: int
    sim_s: float
    wall_s: float
    control_steps: int
    why: Why


def to_document(outcome: Outcome) -> dict[str, object]:
    """The outcome as JSON has it."""
    return asdict(outcome)
