"""Tables of transitions as a test writes them: per state a block of lines `outcome <- event, event, ...`, where a line
without an arrow goes on with the events of the one before.
"""

from collections.abc import Iterable, Mapping


def parse(block: str) -> dict[str, str]:
    """The outcome of each event. No event may be named twice."""
    told: list[tuple[str, str]] = []
    for line in filter(str.strip, block.splitlines()):
        before, arrow, after = line.partition("<-")
        if arrow:
            told.append((before.strip(), after))
        else:
            outcome, events = told.pop()
            told.append((outcome, f"{events} {line.strip()}"))
    outcomes: dict[str, str] = {}
    for outcome, events in told:
        for event in events.split(","):
            assert event.strip() not in outcomes, f"{event.strip()!r} twice"
            outcomes[event.strip()] = outcome
    return outcomes


def cases(table: Mapping[str, str], states: Iterable[str], events: Iterable[str]) -> list[tuple[str, str, str]]:
    """Every (state, event, outcome). One that is missing, or that nothing foresees, fails here."""
    told = {state: parse(block) for state, block in table.items()}
    assert set(told) == set(states), set(told) ^ set(states)
    for state, outcomes in told.items():
        assert set(outcomes) == set(events), f"{state}: {sorted(set(outcomes) ^ set(events))}"
    return [(state, event, outcome) for state, outcomes in told.items() for event, outcome in outcomes.items()]
