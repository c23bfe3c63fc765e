"""How long prompts and answers are, from counters: what loads do not say of the sequences that run."""

LengthsState = tuple[float, ...]

_PROMPT_S, _ANSWER_S = 20.0, 60.0  # memory; answers take long to finish (assumed)
_FIRST_PROMPT, _FIRST_ANSWER = 1000.0, 200.0  # tokens, before any was seen (assumed)
_FIRST_SPREAD = 1.5  # of lengths, likewise


class Lengths:
    """Means with exponential forgetting. A sum starts with one prompt, one answer, that nobody sent."""

    def __init__(self) -> None:
        self._prompt_tokens, self._prompts = _FIRST_PROMPT, 1.0
        self._answer_tokens, self._answers = _FIRST_ANSWER, 1.0
        self._squares, self._square_weight = 10 * _FIRST_SPREAD, 10.0

    def add(self, prompt_tokens: float, prompts: float, answer_tokens: float, answers: float, lived_s: float) -> None:
        """What all instances have processed and finished in lived_s."""
        keep = max(0.0, 1.0 - lived_s / _PROMPT_S)
        if prompts > 0:
            mean = self.prompt_tokens
            self._squares = self._squares * 0.99 + ((prompt_tokens - prompts * mean) / mean) ** 2 / prompts + 1.0
            self._square_weight = self._square_weight * 0.99 + 1.0
        self._prompt_tokens = self._prompt_tokens * keep + prompt_tokens
        self._prompts = self._prompts * keep + prompts
        keep = max(0.0, 1.0 - lived_s / _ANSWER_S)
        self._answer_tokens = self._answer_tokens * keep + answer_tokens
        self._answers = self._answers * keep + answers

    @property
    def prompt_tokens(self) -> float:
        """The mean prompt."""
        return self._prompt_tokens / self._prompts if self._prompts > 1e-6 else _FIRST_PROMPT

    @property
    def spread(self) -> float:
        """Mean square of the lengths of prompts by their squared mean, at least 1."""
        return min(5.0, self._squares / self._square_weight)

    @property
    def context_tokens(self) -> float:
        """What a running sequence holds on average: its prompt and half of its answer."""
        return self.prompt_tokens + 0.5 * self._answer_tokens / max(1.0, self._answers)

    def state(self) -> LengthsState:
        return (
            self._prompt_tokens,
            self._prompts,
            self._answer_tokens,
            self._answers,
            self._squares,
            self._square_weight,
        )

    def restore(self, state: LengthsState) -> None:
        self._prompt_tokens, self._prompts, self._answer_tokens, self._answers = state[:4]
        self._squares, self._square_weight = state[4:]
