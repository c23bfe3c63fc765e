"""How a fuzz target shows that it would catch a bug."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st


def caught(strategy: st.SearchStrategy[Any], holds: Callable[[Any], None], error: type[Exception]) -> str:
    """The message of the error with which the property fails on something out of the strategy; fails if it does not."""

    @settings(max_examples=400, database=None, derandomize=True, report_multiple_bugs=False, phases=[Phase.generate])
    @given(strategy)
    def look(value: Any) -> None:
        holds(value)

    with pytest.raises(error) as found:
        look()
    return str(found.value)
