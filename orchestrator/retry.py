"""How a step is tried again, as a saga's author writes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from inspect import iscoroutinefunction
from typing import Any, Literal

from orchestrator.choices import chosen
from orchestrator.durations import Duration, milliseconds
from orchestrator.errors import DefinitionError
from orchestrator.model.retries import FailedAttempt, Jitter, RetryPolicy, RetryRule


@dataclass(frozen=True, slots=True)
class Backoff:
    """The pace of attempts. Durations in seconds or timedelta; `maximum_attempts=0`: no limit.

    `maximum_interval` defaults to 100 times the first. `jitter`: `Jitter.FULL` takes any pause up to the interval,
    `HALF` one of at least half of it; always the same one for the same attempt of the same step.
    """

    initial_interval: Duration = 1.0
    backoff_coefficient: float = 2.0
    maximum_interval: Duration | None = None
    maximum_attempts: int = 0
    jitter: Jitter = field(default=Jitter.NONE, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "jitter", chosen(Jitter, self.jitter, "jitter"))
        if not 1 <= self.backoff_coefficient < float("inf"):
            raise DefinitionError(f"backoff_coefficient is a number from 1 on, not {self.backoff_coefficient!r}")
        attempts: object = self.maximum_attempts
        if not isinstance(attempts, int) or not 0 <= attempts < 1 << 31:
            raise DefinitionError(f"maximum_attempts is a whole number, 0 for no limit, not {attempts!r}")
        self._pace()

    def _pace(self) -> tuple[int, float, int, int]:
        initial = milliseconds(self.initial_interval)
        maximum = 100 * initial if self.maximum_interval is None else milliseconds(self.maximum_interval)
        return initial, float(self.backoff_coefficient), maximum, self.maximum_attempts


@dataclass(frozen=True, slots=True)
class Retry(Backoff):
    """How a step is tried again; the pace is a `Backoff`'s.

    `exhausted`: what happens after the last attempt: "fail" raises `StepFailed` in the saga with an unknown outcome,
    "park" sets the saga aside for a person. `retry_timeout`: no attempt begins later than so long after the first.
    `rules`: another pace for some error types; attempts are counted over all types. `predicate`: asked about each
    failed attempt that another would follow, once and by no replay; False ends the step as its last attempt would. It
    only looks at what it is given.
    """

    non_retryable_error_types: tuple[str, ...] = ()
    exhausted: Literal["fail", "park"] = "fail"
    retry_timeout: Duration | None = field(default=None, kw_only=True)
    rules: Mapping[str, Backoff] = field(default_factory=dict, kw_only=True, hash=False)
    predicate: Callable[[FailedAttempt], bool] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        Backoff.__post_init__(self)
        types: object = self.non_retryable_error_types
        if isinstance(types, str):
            raise DefinitionError(f"non_retryable_error_types are several: write ({types!r},)")
        object.__setattr__(self, "non_retryable_error_types", tuple(self.non_retryable_error_types))
        if self.exhausted not in ("fail", "park"):
            raise DefinitionError(f"exhausted is 'fail' or 'park', not {self.exhausted!r}")
        if self.retry_timeout is not None:
            milliseconds(self.retry_timeout)
        if iscoroutinefunction(self.predicate):
            raise DefinitionError("a retry's predicate only looks at the failed attempt: it is no `async def`")
        rules: Mapping[Any, Any] = self.rules
        for error_type, pace in rules.items():
            if not isinstance(error_type, str) or type(pace) is not Backoff:
                raise DefinitionError(
                    f"the rule for {error_type!r}: an error's type and a Backoff, the pace alone; it is {pace!r}"
                )

    @lru_cache(maxsize=256)  # noqa: B019 - they are few, small and alike
    def policy(self, *, undo: bool = False) -> RetryPolicy:
        """As the engine records it with the step. Raises `DefinitionError`."""
        if undo and self.predicate is not None:
            raise DefinitionError("an undo's retries have no predicate: an undo needs no code of the saga")
        return RetryPolicy(
            *self._pace(),
            tuple(self.non_retryable_error_types),
            self.exhausted == "park",
            self.jitter,
            None if self.retry_timeout is None else milliseconds(self.retry_timeout),
            self.predicate is not None,
            tuple([_rule(error_type, pace) for error_type, pace in self.rules.items()]),
        )


def _rule(error_type: str, pace: Backoff) -> RetryRule:
    return RetryRule(error_type, *pace._pace(), pace.jitter)
