"""The topics of one site. A name becomes one level of a topic, whatever is in it: no name can climb or match others."""

from urllib.parse import quote

ROOT = "rapid/v1"
LEVEL_MAX = 512  # bytes of one level that we answer on


def level(name: str) -> str:
    """A name as one level: all but letters, digits and . _ - ~ as %XX of its UTF-8."""
    return quote(name, safe="")


class Topics:
    """All under rapid/v1/<site>."""

    def __init__(self, site: str) -> None:
        self._base = f"{ROOT}/{site}"
        self.status = f"{self._base}/status"
        self.event = f"{self._base}/event"
        self.set_filter = f"{self._base}/domain/+/budget/set"

    def domain(self, name: str) -> str:
        return f"{self._base}/domain/{level(name)}"

    def node(self, name: str) -> str:
        return f"{self._base}/node/{level(name)}"

    def set(self, domain: str) -> str:
        return f"{self.domain(domain)}/budget/set"

    def result(self, domain: str) -> str:
        return f"{self.domain(domain)}/budget/result"

    def level_of_set(self, topic: str) -> str | None:
        """The domain's level in a topic that set_filter matches; None for any other, and for what is no name."""
        before, after = f"{self._base}/domain/", "/budget/set"
        if not topic.startswith(before) or not topic.endswith(after):
            return None
        found = topic[len(before) : -len(after)]
        fine = 0 < len(found.encode()) <= LEVEL_MAX and found.isascii() and found.isprintable()
        return found if fine and not set(found) & set("/+#") else None
