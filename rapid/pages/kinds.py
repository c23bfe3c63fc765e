"""The kinds of engines whose metrics are understood, as [[engine]] names them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rapid.core.errors import ScrapeFailed, ScrapeFault
from rapid.core.scraped import Scraped
from rapid.pages import dynamo, sglang, vllm
from rapid.pages.page import Page, Picker


@dataclass(frozen=True, slots=True)
class Kind:
    """Which series count, what a whole page of them says, and how its metrics' names begin."""

    picker: Picker
    read: Callable[[Page], Scraped]
    names: str


KINDS: Mapping[str, Kind] = {
    "vllm": Kind(vllm.PICKER, vllm.read, "vllm"),
    "sglang": Kind(sglang.PICKER, sglang.read, "sglang"),
    "dynamo": Kind(dynamo.PICKER, dynamo.read, "dynamo_component"),
}
_THESE_ARE = {
    "vllm": "metrics of vLLM",
    "sglang": "metrics of SGLang",
    "smg": "metrics of an SGLang router, which has no GPU",
    "dynamo_frontend": "metrics of a Dynamo frontend; a worker's are on its system port",
    "dynamo_component": "metrics of a Dynamo worker",
}


def read(kind: str, page: Page) -> Scraped:
    """What the page says. Raises ScrapeFailed, and says so where the page is another engine's."""
    one = KINDS[kind]
    try:
        return one.read(page)
    except ScrapeFailed as wrong:
        if page.engine in ("", one.names):
            raise
        others = f"{wrong}; these are {_THESE_ARE[page.engine]}, kind is {kind}"
        raise ScrapeFailed(others, ScrapeFault.KIND) from wrong
