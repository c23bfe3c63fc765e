"""Every noun comes back from the wire as it went."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid.core.cluster import PhaseLoad
from rapid.wire import common, fields
from tests.wire import nouns
from tests.wire.routes import ROUTES, Route


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
@given(data=st.data())
def test_a_noun_comes_back_as_it_went(route: Route, data: st.DataObject) -> None:
    noun = data.draw(route.nouns)
    message = route.message.FromString(route.encode(noun).SerializeToString())
    assert route.decode(message, noun) == noun


@given(nouns.loads)
def test_what_is_not_measured_is_not_sent(load: PhaseLoad) -> None:
    message = common.encode_load(load)
    assert message.HasField("ttft") == (load.ttft.bounds_s != () or load.ttft.counts != (0,))


@given(st.text(st.characters(exclude_categories=[]), max_size=2 * fields.TEXT_MAX))
def test_any_text_for_people_can_be_sent_and_is_taken(text: str) -> None:
    sent = fields.line(text)
    assert fields.text(sent, "problem") == sent
    assert sent.isprintable()
    sent.encode()  # a lone surrogate would be refused by protobuf itself
    assert len(sent) == min(len(text), fields.TEXT_MAX)
