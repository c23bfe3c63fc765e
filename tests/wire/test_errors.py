"""An error crosses gRPC as what it is, and what never was one of ours becomes the class that fits."""

import inspect
from collections.abc import Iterable

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import ErrorInfo  # type: ignore[import-untyped]  # ships no annotations
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # ships no annotations
from hypothesis import given
from hypothesis import strategies as st

from rapid.core import errors
from rapid.core.errors import ConfigInvalid, LimitRefused, NotFound, RapidError, Refused, Unreachable, WireInvalid
from rapid.wire.errors import DETAILS_KEY, MESSAGE_MAX_BYTES, classes, error_named, error_of, status_of

Code = grpc.StatusCode
KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, RapidError)]

# The codes that the tables in proto/rapid/v1 promise.
PROMISED = [
    (NotFound("node", "h9"), Code.NOT_FOUND),
    (errors.BudgetRefused("x"), Code.FAILED_PRECONDITION),
    (errors.RoleRefused("x"), Code.FAILED_PRECONDITION),
    (errors.Stale("x"), Code.FAILED_PRECONDITION),
    (errors.EngineRefused("x"), Code.FAILED_PRECONDITION),
    (errors.EngineTaken("x"), Code.ALREADY_EXISTS),
    (WireInvalid("load.role", "missing"), Code.INVALID_ARGUMENT),
    (Unreachable("x"), Code.UNAVAILABLE),
]


class Failure:
    """A failed call, as rapid.wire.errors.RpcFailure asks of it."""

    def __init__(
        self,
        code: grpc.StatusCode | None,
        details: str | None = "",
        trailers: Iterable[tuple[str, str | bytes]] | None = (),
        debug: str | None = "",
    ) -> None:
        self._code, self._details, self._trailers, self._debug = code, details, trailers, debug

    def code(self) -> grpc.StatusCode | None:
        return self._code

    def details(self) -> str | None:
        return self._details

    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        return self._trailers

    def debug_error_string(self) -> str | None:
        return self._debug


def crossed(error: RapidError) -> RapidError:
    status = status_of(error)
    return error_of(Failure(status.code, status.message, status.trailers), address="h1:1")


def test_every_class_of_the_tree_is_known() -> None:
    assert set(classes().values()) == set(KINDS)
    assert len(KINDS) > 15


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_arrives_as_the_class_that_it_was(kind: type[RapidError]) -> None:
    arrived = crossed(error_named(kind.__name__, "gpu 3: out of reach"))
    assert type(arrived) is kind
    assert str(arrived) == "gpu 3: out of reach"


def test_an_error_arrives_with_what_it_names() -> None:
    for error, name in [
        (ConfigInvalid("control.lease", "is too short"), "key"),
        (LimitRefused("GPU-3", asked_mw=90_000, floor_mw=100_000, ceiling_mw=700_000), "gpu"),
        (WireInvalid("report.gpus[3].limit_mw", "missing"), "field"),
    ]:
        arrived = crossed(error)
        assert str(arrived) == str(error)
        assert getattr(arrived, name) == getattr(error, name)


@pytest.mark.parametrize(("error", "code"), PROMISED, ids=lambda value: str(value))
def test_the_code_is_the_one_that_the_protocol_promises(error: RapidError, code: grpc.StatusCode) -> None:
    assert status_of(error).code is code


def test_a_table_of_the_protocol_may_ask_for_another_code() -> None:
    status = status_of(errors.Stale("a newer stream took over"), Code.ABORTED)
    assert status.code is Code.ABORTED
    assert type(error_of(Failure(status.code, status.message, status.trailers), address="h1:1")) is errors.Stale


def test_other_languages_can_read_the_details() -> None:
    status = Status.FromString(status_of(NotFound("node", "h9")).trailers[0][1])
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (status.code, status.message) == (Code.NOT_FOUND.value[0], "no node named 'h9'")
    assert (info.reason, info.domain) == ("NotFound", "rapid.v1")


@given(st.text(st.characters(exclude_categories=[])))
def test_any_text_can_be_sent_in_one_line(text: str) -> None:
    arrived = str(crossed(RapidError(text)))
    assert arrived.isprintable()
    if text.isprintable():
        assert arrived == text


@pytest.mark.parametrize("letter", ["x", "é", "€", "😀"])
def test_a_long_text_is_cut_to_what_trailers_hold(letter: str) -> None:
    fits = letter * (MESSAGE_MAX_BYTES // len(letter.encode()))
    assert str(crossed(RapidError(fits))) == fits
    cut = str(crossed(WireInvalid(fits, fits)))
    assert cut.endswith("...")
    assert len(cut.encode()) <= MESSAGE_MAX_BYTES
    status = status_of(WireInvalid(fits, fits))
    # gRPC writes a byte that is no ASCII as three, and the details in base 64.
    assert 3 * len(status.message.encode()) + 4 / 3 * len(status.trailers[0][1]) < 8192


@pytest.mark.parametrize(
    ("failure", "kind", "text"),
    [
        (Failure(Code.UNAVAILABLE, "x Connection refused"), Unreachable, "cannot reach h1:1: nobody listens there"),
        (Failure(Code.UNAVAILABLE, "", debug="No such file"), Unreachable, "cannot reach h1:1: nobody listens there"),
        (Failure(Code.UNAVAILABLE, "shutting down"), Unreachable, "cannot reach h1:1: shutting down"),
        (Failure(Code.UNAVAILABLE, None, None, None), Unreachable, "cannot reach h1:1: no reason given"),
        (Failure(Code.DEADLINE_EXCEEDED, "Deadline"), Unreachable, "h1:1 did not answer in time"),
        (Failure(Code.INVALID_ARGUMENT, "no\nhello"), Refused, "h1:1 refused: no hello"),
        (Failure(Code.RESOURCE_EXHAUSTED), Refused, "h1:1 refused: RESOURCE_EXHAUSTED"),
        (Failure(Code.INTERNAL, "bug"), RapidError, "h1:1 failed with INTERNAL: bug"),
        (Failure(None), RapidError, "h1:1 failed with UNKNOWN: no reason given"),
    ],
)
def test_what_was_no_error_of_ours_becomes_the_class_that_fits(
    failure: Failure, kind: type[RapidError], text: str
) -> None:
    error = error_of(failure, address="h1:1")
    assert type(error) is kind
    assert str(error) == text


def details(reason: str, domain: str) -> bytes:
    detail = Any()
    detail.Pack(ErrorInfo(reason=reason, domain=domain))
    data: bytes = Status(details=[detail]).SerializeToString()
    return data


@pytest.mark.parametrize(
    "data", [b"\xff", b"", details("Nothing", "rapid.v1"), details("NotFound", "elsewhere"), details("str", "rapid.v1")]
)
def test_details_that_are_not_ours_are_passed_over(data: bytes) -> None:
    error = error_of(Failure(Code.NOT_FOUND, "x", ((DETAILS_KEY, data),)), address="h1:1")
    assert type(error) is Refused


@given(st.binary(max_size=60))
def test_any_details_give_an_error(data: bytes) -> None:
    assert isinstance(error_of(Failure(Code.UNKNOWN, "x", ((DETAILS_KEY, data),)), address="h1:1"), RapidError)


def test_an_answer_of_an_unknown_kind_is_a_refusal() -> None:
    assert type(error_named("NoSuchClass", "x")) is Refused
