"""How long prompts and answers are, and what running sequences hold: what loads do not say, from what they do."""

LengthsState = tuple[float, ...]
ContextsState = tuple[float, float, float, float]

_PROMPT_S, _ANSWER_S = 20.0, 60.0  # memory; answers take long to finish (assumed)
_FIRST_PROMPT, _FIRST_ANSWER = 1000.0, 200.0  # tokens, before any was seen (assumed)
_FIRST_SPREAD, _SPREAD_WEIGHT = 1.5, 10.0  # likewise, and so many prompts that is worth
_SPREAD_KEEP = 0.998  # per look at an instance
_NEAR_PROMPTS = 16.0  # the mean of so many is what the next are held against, so that a new mix is no spread
_MOST_OFF = 16.0  # by which one look counts at most: its difference squared, by its prompts
_MOST_SPREAD = 5.0
_CAPACITY_S, _NOW_S = 240.0, 2.0  # memory (assumed)
_LEAST_USED = 0.05  # of KV, added up, before the capacity is believed
_FAR = 4.0  # by how much a context may differ from the mean one


class Lengths:
    """Means with exponential forgetting. A sum starts with one prompt, one answer, that nobody sent."""

    def __init__(self) -> None:
        self._prompt_tokens, self._prompts = _FIRST_PROMPT, 1.0
        self._answer_tokens, self._answers = _FIRST_ANSWER, 1.0
        self._variance = _SPREAD_WEIGHT * (_FIRST_SPREAD - 1.0)
        self._variance_weight = _SPREAD_WEIGHT
        self._near_tokens = 0.0  # the mean of the last few prompts; 0: none yet

    def add_prompts(self, tokens: int, prompts: int) -> None:
        """What one instance has processed since the last look."""
        if tokens <= 0:  # an engine that does not count them
            return
        near = self._near_tokens or tokens / prompts
        near += (tokens - prompts * near) / (prompts + _NEAR_PROMPTS)
        # By the mean with them, so that a new mix is soon no news; what they have moved it by is given back, and what
        # the mean itself is off by taken out.
        off = (tokens / near - prompts) * (1.0 + prompts / _NEAR_PROMPTS)
        square = off * off / (1.0 + prompts / (2.0 * _NEAR_PROMPTS))
        self._variance = self._variance * _SPREAD_KEEP + min(square, _MOST_OFF * prompts)
        self._variance_weight = self._variance_weight * _SPREAD_KEEP + prompts
        self._near_tokens = near
        self._prompt_tokens += tokens
        self._prompts += prompts

    def add_answers(self, tokens: int, answers: int, joined: int) -> None:
        """What one instance has made and finished since the last look, and how many more it runs now: half of what
        those will make counts as made, or long answers would look endless until the first has finished."""
        self._answer_tokens += tokens
        self._answers += max(0.0, answers + max(joined, -answers) / 2)

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
        prompts = (self._prompt_tokens, self._prompts, self._near_tokens, self._variance, self._variance_weight)
        return (*prompts, self._answer_tokens, self._answers)

    def restore(self, state: LengthsState) -> None:
        self._prompt_tokens, self._prompts, self._near_tokens, self._variance, self._variance_weight = state[:5]
        self._answer_tokens, self._answers = state[5:]


class Contexts:
    """What the sequences of one instance hold, by how full its KV cache is.

    Its capacity in tokens is not told, but in the long run full by capacity is what the lengths say. So when the mix
    changes, the long sequences that still run are seen for what they are.
    """

    def __init__(self) -> None:
        self._tokens = self._used = 0.0  # their ratio is the capacity
        self._now_tokens = self._now_batch = 0.0

    def add(self, batch: float, used: float, mean_tokens: float) -> float:
        """The tokens that each of `batch` sequences holds on average. used: share of the KV cache; 0: not told.

        mean_tokens: what a sequence holds by the lengths of prompts and answers.
        """
        if used > 0.0:
            self._tokens += batch * mean_tokens
            self._used += used
        context_tokens = mean_tokens
        if used > 0.0 and self._used > _LEAST_USED:
            seen_tokens = used * self._tokens / (self._used * batch)
            context_tokens = min(_FAR * mean_tokens, max(mean_tokens / _FAR, seen_tokens))
        self._now_tokens += batch * context_tokens
        self._now_batch += batch
        return context_tokens

    def forget(self, lived_s: float) -> None:
        """So much time has gone by."""
        keep, keep_now = 1.0 - lived_s / _CAPACITY_S, max(0.1, 1.0 - lived_s / _NOW_S)
        self._tokens *= keep
        self._used *= keep
        self._now_tokens *= keep_now
        self._now_batch *= keep_now

    def now(self, mean_tokens: float) -> float:
        """What a sequence holds on average over all instances; mean_tokens when none runs."""
        return self._now_tokens / self._now_batch if self._now_batch > 1e-3 else mean_tokens

    def state(self) -> ContextsState:
        return self._tokens, self._used, self._now_tokens, self._now_batch

    def restore(self, state: ContextsState) -> None:
        self._tokens, self._used, self._now_tokens, self._now_batch = state
