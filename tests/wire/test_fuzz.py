"""Whatever the bytes are, decoding gives a noun or WireInvalid, and never another error."""

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from hypothesis import event, given
from hypothesis import strategies as st

from rapid.core.cluster import NodeReport
from rapid.core.errors import WireInvalid
from tests.wire import nouns
from tests.wire.routes import ASKED, ROUTES

Decode = Callable[[Any, Any], Any]  # (message, noun or None)

DECODERS: dict[tuple[type[Message], str], Decode] = {(route.message, route.name): route.decode for route in ROUTES} | {
    (message, message.__name__): (lambda m, _, decode=decode: decode(m)) for message, decode in ASKED.items()
}
DECODER_PARAMS = [pytest.param(key[0], decode, id=key[1]) for key, decode in DECODERS.items()]

INTEGERS = {
    FieldDescriptor.TYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: st.sampled_from([0, 1, 600_000, 2**63, 2**64 - 1]),
}


def scalars(kind: int) -> st.SearchStrategy[Any]:
    """Any value that the type allows, and rather often one that the protocol allows too."""
    if kind == FieldDescriptor.TYPE_STRING:
        return st.sampled_from(["GPU-1", "", "a\nb", "x" * 2000]) | st.text(max_size=5)
    if kind == FieldDescriptor.TYPE_DOUBLE:
        return st.sampled_from([0.0, 0.5, 1.0, -1.0, float("nan"), float("inf")]) | st.floats()
    if kind == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if kind == FieldDescriptor.TYPE_ENUM:
        return st.integers(0, 5) | st.integers(-(2**31), 2**31 - 1)
    return INTEGERS[kind]


def fill(draw: Callable[[st.SearchStrategy[Any]], Any], message: Message) -> Message:
    for field in message.DESCRIPTOR.fields:
        if not draw(st.integers(0, 7)):
            continue
        repeats = draw(st.integers(0, 3)) if field.is_repeated else 1
        for _ in range(repeats):
            if field.message_type is not None:
                inner = getattr(message, field.name).add() if field.is_repeated else getattr(message, field.name)
                inner.SetInParent()
                fill(draw, inner)
            elif field.is_repeated:
                getattr(message, field.name).append(draw(scalars(field.type)))
            else:
                setattr(message, field.name, draw(scalars(field.type)))
    return message


def decoded(decode: Decode, message: Message) -> None:
    problem = ""
    try:
        decode(message, None)
    except WireInvalid as wrong:
        problem = str(wrong)
    event("refused" if problem else "taken")
    assert problem.isprintable()


@pytest.mark.parametrize(("message", "decode"), DECODER_PARAMS)
@given(data=st.data())
def test_any_fields(message: type[Message], decode: Decode, data: st.DataObject) -> None:
    decoded(decode, fill(data.draw, message()))


@pytest.mark.parametrize(("message", "decode"), DECODER_PARAMS)
@given(data=st.binary(max_size=200))
def test_any_bytes(message: type[Message], decode: Decode, data: bytes) -> None:
    try:
        parsed = message.FromString(data)
    except DecodeError:
        return
    decoded(decode, parsed)


@given(report=nouns.reports, place=st.integers(0), bit=st.integers(0, 7))
def test_one_wrong_bit_in_a_good_report(report: NodeReport, place: int, bit: int) -> None:
    route = next(route for route in ROUTES if route.name == "report")
    data = bytearray(route.encode(report).SerializeToString())
    data[place % len(data)] ^= 1 << bit
    try:
        parsed = route.message.FromString(bytes(data))
    except DecodeError:
        return
    decoded(route.decode, parsed)
