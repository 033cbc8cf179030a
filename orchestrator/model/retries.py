"""How often and how fast a step is tried, as it is recorded with the step."""

from __future__ import annotations

from enum import StrEnum
from hashlib import blake2b

from orchestrator.model.frozen import frozen


class Jitter(StrEnum):
    """How much of a pause is left to chance, so that who failed together does not come again together."""

    NONE = "none"
    HALF = "half"
    """Between half the interval and all of it."""
    FULL = "full"
    """Between nothing and the interval."""


@frozen
class FailedAttempt:
    """An attempt that ended without an outcome, as a retry's `predicate` is asked about it.

    `error_type` is the participant's, or the engine's: "Timeout", "HeartbeatTimeout", "SendFailed". `attempt` counts
    from 1.
    """

    command: str
    attempt: int
    error_type: str
    message: str


@frozen
class RetryRule:
    """The pace for one type of error, in place of the policy's own."""

    error_type: str
    initial_interval_ms: int
    backoff_coefficient: float
    maximum_interval_ms: int
    maximum_attempts: int
    jitter: Jitter


@frozen
class RetryPolicy:
    """How often and how fast a step is tried. Attempts 0: no limit. `park`: exhausted parks the saga.

    `retry_timeout_ms`: no attempt begins later than so long after the first. `asks`: the saga's code has a word in it.
    """

    initial_interval_ms: int = 1_000
    backoff_coefficient: float = 2.0
    maximum_interval_ms: int = 100_000
    maximum_attempts: int = 0
    non_retryable_error_types: tuple[str, ...] = ()
    park: bool = False
    jitter: Jitter = Jitter.NONE
    retry_timeout_ms: int | None = None
    asks: bool = False
    rules: tuple[RetryRule, ...] = ()

    def pace(self, error_type: str) -> RetryPolicy | RetryRule:
        """What says how fast and how often, after this error."""
        return next((rule for rule in self.rules if rule.error_type == error_type), self)

    def interval_ms(self, attempt: int, error_type: str = "", key: str = "") -> int:
        """The wait after `attempt` (from 1) has failed, in milliseconds.

        Its jitter is no chance but a function of the idempotency key and the attempt.
        """
        pace = self.pace(error_type)
        try:
            interval = pace.initial_interval_ms * pace.backoff_coefficient ** (attempt - 1)
        except OverflowError:
            interval = pace.maximum_interval_ms
        interval_ms = int(min(interval, pace.maximum_interval_ms))
        if pace.jitter is Jitter.NONE:
            return interval_ms
        least_ms = interval_ms // 2 if pace.jitter is Jitter.HALF else 0
        return least_ms + _spread(f"{key}/{attempt}", interval_ms - least_ms)

    def exhausted(self, attempt: int, error_type: str) -> bool:
        """Whether no further attempt may follow `attempt`."""
        return 0 < self.pace(error_type).maximum_attempts <= attempt or error_type in self.non_retryable_error_types


def _spread(text: str, most: int) -> int:
    """A whole number from 0 to `most` that the text decides, all of them alike."""
    return int.from_bytes(blake2b(text.encode(errors="replace"), digest_size=8).digest()) % (most + 1)


DO_POLICY = RetryPolicy()
UNDO_POLICY = RetryPolicy(maximum_attempts=10, park=True)
"""An undo that ten attempts could not bring to an end (pauses of 327 seconds) is a person's business."""
