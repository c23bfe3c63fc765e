"""Many questions, answered side by side, with a word now and then about how far they are."""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rapid.sim.world.outcome import Outcome
from rapidctl.sim.progress import Progress
from rapidctl.sim.question import Question, answer
from rapidctl.sim.workers import Workers, cores


def work(question: Question, tell: Callable[[float], None]) -> Outcome:
    """What a worker does."""
    return answer(question, tell)


class Crew:
    """Workers and their progress. Answers come in the order of the questions, whatever the number of workers."""

    def __init__(self, title: str, count: int | None = None) -> None:
        self._workers: Workers[Question, Outcome] = Workers(work, cores() if count is None else count)
        self._progress = Progress(title)
        self._answered = 0

    def __enter__(self) -> Self:
        self._workers.__enter__()
        self._progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.__exit__(kind, error, trace)
        self._workers.__exit__(kind, error, trace)

    def answers(self, questions: Sequence[Question], *, more: bool = False) -> list[Outcome]:
        """more: nobody knows how many questions will follow these. Raises what Workers.map does."""
        shares = [0.0] * len(questions)

        def heard(index: int, share: float) -> None:
            shares[index] = share
            done = sum(share >= 1 for share in shares)
            if more:
                self._progress(None, f"{self._answered + done} runs done")
            else:
                self._progress(sum(shares) / len(shares), f"{done} of {len(shares)} runs done")

        outcomes = self._workers.map(questions, str, heard)
        self._answered += len(outcomes)
        return outcomes
