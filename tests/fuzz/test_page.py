"""What fuzzes the pages of engines (tests/node/test_load_page.py) would catch a bug."""

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from rapid.core.errors import ScrapeFailed
from rapid.pages.page import Page
from tests.fuzz.planted import caught
from tests.node.test_load_page import PICKER, is_a_page_or_a_complaint, page, texts


class Trusting(Page):
    """Takes a number for what it says it is."""

    def requests(self, name: str, **labels: str) -> int:
        try:
            return super().requests(name, **labels)
        except ScrapeFailed as complaint:
            if "outside" in str(complaint):
                return -1
            raise


def without_a_net(text: bytes) -> Page:
    """What the parser raises comes out as it is."""
    list(text_string_to_metric_families(text.decode(errors="replace")))
    return page(text)


def without_bounds(text: bytes) -> Page:
    found = Trusting(PICKER)
    found.feed(text)
    found.end()
    return found


def without_manners(text: bytes) -> Page:
    """Tells the whole page in its complaint."""
    try:
        return page(text)
    except ScrapeFailed as complaint:
        raise ScrapeFailed(f"{complaint}: {text.decode(errors='replace')}") from complaint


@pytest.mark.parametrize(
    ("reader", "error"),
    [(without_a_net, ValueError), (without_bounds, AssertionError), (without_manners, AssertionError)],
)
def test_a_planted_bug_is_caught(reader: Callable[[bytes], Page], error: type[Exception]) -> None:
    caught(texts | st.binary(max_size=200), partial(is_a_page_or_a_complaint, reader), error)
