"""Who has the least to do, among many whose load changes all the time."""

from heapq import heapify, heappop, heappush, heapreplace

Entry = tuple[int, int, int]  # (load, second load, number): a tie goes to the smaller number


class LeastLoaded:
    """Members by number, least load first; every operation costs O(log members), on average over many.

    A heap in which a change of load leaves the entry from before behind. Such entries are thrown away when they come
    to the top, or all together as soon as they outnumber the members three to one.
    """

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}  # the one that counts, by member
        self._heap: list[Entry] = []

    def put(self, number: int, load: int, second: int = 0) -> None:
        """This member, new or not, has this load from now on; `second` decides between equal loads."""
        before = self._entries.get(number)
        self._entries[number] = entry = (load, second, number)
        if before is not None and self._heap[0] is before:
            heapreplace(self._heap, entry)
        else:
            heappush(self._heap, entry)
            self._tidy()

    def drop(self, number: int) -> None:
        """No member any more, if it was one."""
        self._entries.pop(number, None)
        self._tidy()

    def least(self) -> int | None:
        """The member with the least load. None: there is none."""
        while self._heap:
            entry = self._heap[0]
            if self._entries.get(entry[2]) is entry:
                return entry[2]
            heappop(self._heap)
        return None

    def copy(self) -> "LeastLoaded":
        """An independent copy."""
        other = LeastLoaded()
        other._entries, other._heap = self._entries.copy(), self._heap.copy()
        return other

    @property
    def size(self) -> int:
        """How many entries it keeps, those left behind included."""
        return len(self._heap)

    def _tidy(self) -> None:
        if len(self._heap) > 4 * len(self._entries) + 16:
            self._heap = list(self._entries.values())
            heapify(self._heap)
