"""Every error that RAPID raises on purpose, one class per thing a caller can do about it.

RapidError                     the world's fault; str(error) is one line for a person
|-- ConfigInvalid              fix the configuration (names the key)
|-- UsageError                 fix the command line
|-- Refused                    the request is understood and not granted; ask for something else
|   |-- LimitRefused           outside the device's floor..ceiling
|   |-- BudgetRefused          a budget that floors, or a bound, do not allow
|   |-- RoleRefused            a role change that may not start
|   |-- EngineRefused          an engine that may not attach as it says it is: check its GPUs
|   |   `-- EngineTaken        its id or a GPU of it belongs to a live instance: stop that one, or rename
|   |-- NotFound               no such domain, node, GPU, instance or decision
|   `-- Stale                  an older epoch or seq, another incarnation, or past its time
|-- DeviceError                give up on this device for now, report it
|   |-- DeviceDenied           ask for rights (CAP_SYS_ADMIN)
|   |-- DeviceLost             the GPU has fallen off the bus, or the driver is gone
|   `-- DeviceMismatch         the device read back another limit than was set
|-- JournalCorrupt             keep the file, start fresh safely
|-- TraceInvalid               fix the trace (names file and line)
|-- ScrapeFailed               metrics that give no load this time: report it, look again at the next
`-- Unreachable                retry later; nobody listens, or the peer did not answer in time
"""

from enum import Enum


def watts(power_mw: int) -> str:
    """The power for a person's eye: "600 W", "612.5 W"."""
    whole, rest = divmod(power_mw, 1000)
    return f"{whole} W" if rest == 0 else f"{power_mw / 1000:.1f} W"


def _one_line(text: str) -> str:
    """A file may hold what breaks a line or steers a terminal, in a quoted key for example: that is shown escaped."""
    return text if text.isprintable() else "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


class RapidError(Exception):
    """The world's fault. The message is one line that names the thing, the value and the bound."""


class ConfigInvalid(RapidError):
    """A configuration that cannot be used; `key` is the key to fix."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(_one_line(f"config key {key}: {problem}"))
        self.key = key


class ConfigUnreadable(ConfigInvalid):
    """A configuration file that cannot be read at all; `key` is empty."""

    def __init__(self, path: str, problem: str) -> None:
        RapidError.__init__(self, _one_line(f"config file {path}: {problem}"))
        self.key = ""


class UsageError(RapidError):
    """A command line that makes no sense."""


class Refused(RapidError):
    """The request was understood and is not granted."""


class LimitRefused(Refused):
    """A limit outside the range that the device accepts."""

    def __init__(self, gpu: str, *, asked_mw: int, floor_mw: int, ceiling_mw: int) -> None:
        bound = f"floor is {watts(floor_mw)}" if asked_mw < floor_mw else f"ceiling is {watts(ceiling_mw)}"
        super().__init__(f"gpu {gpu}: limit {watts(asked_mw)} refused, device {bound}")
        self.gpu = gpu


class BudgetRefused(Refused):
    """A budget that cannot be kept, or that is not allowed."""


class RoleRefused(Refused):
    """A role change that may not start; the message says which rule stands against it."""


class EngineRefused(Refused):
    """An engine whose hello cannot be true: GPUs that no node reports, or a role that it cannot take."""


class EngineTaken(EngineRefused):
    """An engine whose id, or one of whose GPUs, belongs to an instance that lives."""


class NotFound(Refused):
    """No such domain, node, GPU, instance or decision."""

    def __init__(self, kind: str, name: str, known: tuple[str, ...] = ()) -> None:
        hint = f" (known: {', '.join(known[:8])}{', ...' if len(known) > 8 else ''})" if known else ""
        super().__init__(f"no {kind} named {name!r}{hint}")


class Stale(Refused):
    """An order that is older than what its receiver has already seen, or meant for another life of it."""


class DeviceError(RapidError):
    """A GPU that did not do what it was asked."""

    def __init__(self, gpu: str, problem: str) -> None:
        super().__init__(f"gpu {gpu}: {problem}")
        self.gpu = gpu


class DeviceDenied(DeviceError):
    """No permission to set a limit; the daemon lacks CAP_SYS_ADMIN."""


class DeviceLost(DeviceError):
    """The GPU or its driver does not answer any more."""


class DeviceMismatch(DeviceError):
    """The limit read back is not the limit that was set."""

    def __init__(self, gpu: str, *, asked_mw: int, read_mw: int) -> None:
        super().__init__(gpu, f"limit set to {watts(asked_mw)} but the device reads back {watts(read_mw)}")


class JournalCorrupt(RapidError):
    """A journal that cannot be trusted."""


class TraceInvalid(RapidError):
    """A request trace with a bad line; the message names the file and the line."""


class WireInvalid(RapidError):
    """A message that breaks the protocol; `field` is the path to the field from the message's root."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"message field {field}: {problem}")
        self.field = field
        self.problem = problem

    def below(self, parent: str) -> "WireInvalid":
        """The same error as the message sees it that holds this one as its field `parent`."""
        return WireInvalid(f"{parent}.{self.field}" if self.field else parent, self.problem)


class ScrapeFault(Enum):
    """In what way an engine's metrics failed."""

    UNREACHABLE = "unreachable"  # nobody listens there
    SILENT = "silent"  # no whole answer in time
    ANSWER = "answer"  # an answer that is no page of metrics
    KIND = "kind"  # metrics of another kind of engine
    METRICS = "metrics"  # metrics that are missing, or cannot be


class ScrapeFailed(RapidError):
    """An engine's metrics that cannot be had, or not be used, this time."""

    def __init__(self, problem: str, fault: ScrapeFault = ScrapeFault.METRICS) -> None:
        super().__init__(problem)
        self.fault = fault


class Unreachable(RapidError):
    """Nobody listens at the address, or the peer did not answer in time."""
