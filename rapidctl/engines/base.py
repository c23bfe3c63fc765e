"""What an adapter's file offers: options, and an engine that lasts as long as it is open."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct

from rapid.core.cluster import Role
from rapid.core.findings.base import Finding
from rapid.engine import Engine

Say = Callable[[str], None]  # one line for the log


@dataclass(frozen=True, slots=True)
class Place:
    """Who is attached, whatever its kind: what the controller is to know it by.

    role         the role to start in; None: the engine, or its router, tells
    reports_load the adapter's `load` is asked for; otherwise nobody needs to read the engine's metrics here
    """

    instance: str
    node: str
    gpus: tuple[str, ...]
    role: Role | None = None
    reports_load: bool = False


class Adapter(Engine, Protocol):
    """An engine under rapid.engine (which says what each step promises), and what `attach` must know beside that.

    Whatever else it can do it shows as rapid.engine says: ReadsRole, SeesOthers, Reconciles.
    """

    @property
    def product(self) -> str:
        """Name and version of engine and router, for people; known after `begin`."""

    @property
    def roles(self) -> Sequence[Role]:
        """Every role that it can take."""

    @property
    def switch_s(self) -> float:
        """How long a switch takes, drain apart (a guess that policies weigh)."""

    async def begin(self) -> Role:
        """The role in which it serves from now on, found out, not assumed; it takes requests in it on return.

        An adapter may be started anew in the middle of a change of which it knows nothing: what engine and router say
        counts, not what was configured. Raises RapidError while that cannot be told: it is called again.
        """

    async def findings(self) -> list[Finding]:
        """What a look at engine and router shows, for `--check`. Changes nothing, raises nothing of the world's."""


@runtime_checkable
class SeesEnd(Protocol):
    """An adapter that notices when the process of its engine ends, so that the next one is another incarnation."""

    async def ended(self) -> str:
        """Wait until the engine has ended by itself, and say how. It is gone until `begin` is over, which is called
        again."""


@runtime_checkable
class Parent(SeesEnd, Protocol):
    """An adapter that starts and ends its engine itself, so that the engine stops when it stops. Its `begin` raises
    SwitchFailed when the engine is not to be started any more."""

    @property
    def switch_within_s(self) -> float:
        """A switch that takes longer is taken for one of unknown outcome."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of engine. Its module has it as KIND.

    options   what is asked for, as command-line options and as a table of the file alike (see options.py)
    open      makes the adapter; raises ConfigInvalid (its key is the field's name) for options that cannot be used
    about     what it drives and how, for --help
    examples  whole command lines, for --help
    """

    name: str
    options: type[Struct]
    open: Callable[[Place, Any, Say], AbstractAsyncContextManager[Adapter]]
    about: str
    examples: str
