"""How long prompts and answers are, from counters: what loads do not say of the sequences that run."""

LengthsState = tuple[float, ...]

_PROMPT_S, _ANSWER_S = 20.0, 60.0  # memory; answers take long to finish (assumed)
_FIRST_PROMPT, _FIRST_ANSWER = 1000.0, 200.0  # tokens, before any was seen (assumed)
_FIRST_SPREAD, _SPREAD_WEIGHT = 1.5, 10.0  # likewise, and so many prompts that is worth
_SPREAD_KEEP = 0.998  # per look at an instance
_MOST_SPREAD = 5.0


class Lengths:
    """Means with exponential forgetting. A sum starts with one prompt, one answer, that nobody sent."""

    def __init__(self) -> None:
        self._prompt_tokens, self._prompts = _FIRST_PROMPT, 1.0
        self._answer_tokens, self._answers = _FIRST_ANSWER, 1.0
        self._variance = _SPREAD_WEIGHT * (_FIRST_SPREAD - 1.0)
        self._variance_weight = _SPREAD_WEIGHT

    def add_prompts(self, tokens: int, prompts: int) -> None:
        """What one instance has processed since the last look."""
        mean = self.prompt_tokens
        off = (tokens - prompts * mean) / mean
        self._variance = self._variance * _SPREAD_KEEP + off * off
        self._variance_weight = self._variance_weight * _SPREAD_KEEP + prompts
        self._prompt_tokens += tokens
        self._prompts += prompts

    def add_answers(self, tokens: int, answers: int) -> None:
        """What one instance has made and finished since the last look."""
        self._answer_tokens += tokens
        self._answers += answers

    def forget(self, lived_s: float) -> None:
        """So much time has gone by, far less than the memory is long."""
        if self._prompts > 1.0:  # through a quiet night the last prompt stays
            keep = 1.0 - lived_s / _PROMPT_S
            self._prompt_tokens *= keep
            self._prompts *= keep
        if self._answers > 1.0:
            keep = 1.0 - lived_s / _ANSWER_S
            self._answer_tokens *= keep
            self._answers *= keep

    @property
    def prompt_tokens(self) -> float:
        """The mean prompt."""
        return self._prompt_tokens / self._prompts

    @property
    def spread(self) -> float:
        """Mean square of the lengths of prompts by their squared mean."""
        return min(_MOST_SPREAD, 1.0 + self._variance / self._variance_weight)

    @property
    def context_tokens(self) -> float:
        """What a running sequence holds on average: its prompt and half of its answer."""
        return self.prompt_tokens + 0.5 * self._answer_tokens / self._answers

    def state(self) -> LengthsState:
        prompts = (self._prompt_tokens, self._prompts, self._variance, self._variance_weight)
        return (*prompts, self._answer_tokens, self._answers)

    def restore(self, state: LengthsState) -> None:
        self._prompt_tokens, self._prompts, self._variance, self._variance_weight = state[:4]
        self._answer_tokens, self._answers = state[4:]
