"""What a worker's decisions came to, counted for metrics once they are confirmed.

Only the engine's thread adds to it; whoever publishes metrics reads it at any time. What was confirmed for an owner
that died in the same moment is counted by nobody.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from typing import Any

from orchestrator.model import events as ev
from orchestrator.model.state import SagaState

BUCKETS_MS = (5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000, 3_600_000, 86_400_000)
MAX_OPEN = 100_000
"""Open steps whose beginning is remembered, to tell how long they took: some 20 MB."""
UNKNOWN_TYPE = "(unknown)"
"""Stands for the types of sagas that this worker has no code for, which anybody may make up."""


class Durations:
    """A histogram; `counts` has one more than `BUCKETS_MS`, for what took longer than all of them."""

    __slots__ = ("counts", "sum_ms")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_MS) + 1)
        self.sum_ms = 0

    def add(self, ms: int) -> None:
        self.counts[bisect_left(BUCKETS_MS, ms)] += 1
        self.sum_ms += ms


class Tally:
    """Sagas by type, steps by service and command. How long a step took is known where this worker began it."""

    def __init__(self) -> None:
        self.started: Counter[str] = Counter()
        self.compensating: Counter[str] = Counter()
        self.parked: Counter[str] = Counter()
        """Times that a saga, a step or an undo was parked."""
        self.ended: Counter[tuple[str, str]] = Counter()
        """By type and final status."""
        self.steps: Counter[tuple[str, str, str]] = Counter()
        """By service, command and outcome: success, failure, unknown; of undos success and skipped."""
        self.retries: Counter[tuple[str, str]] = Counter()
        self.step_durations: dict[tuple[str, str], Durations] = {}
        self.saga_durations: dict[tuple[str, str], Durations] = {}
        """By type and final status."""
        self._open: dict[tuple[str, int], int] = {}

    def confirmed(self, decision: ev.Decision, state: SagaState, saga_type: str) -> None:
        """Counts one confirmed decision; `saga_type` is the name to count its saga under."""
        for event in decision.events:
            count = _COUNT.get(type(event))
            if count is not None:
                count(self, event, decision.at_ms, state, saga_type)

    def began(self, saga_id: str, sequence: int, at_ms: int) -> None:
        """Remembers when a step was scheduled; of too many the oldest is forgotten."""
        if len(self._open) >= MAX_OPEN:
            del self._open[next(iter(self._open))]
        self._open[saga_id, sequence] = at_ms

    def took(self, saga_id: str, sequence: int, at_ms: int) -> int | None:
        """How long an ended step took, if its beginning is remembered."""
        began = self._open.pop((saga_id, sequence), None)
        return None if began is None else max(0, at_ms - began)


def _started(tally: Tally, event: ev.SagaStarted, at_ms: int, state: SagaState, saga_type: str) -> None:
    tally.started[saga_type] += 1


def _compensates(tally: Tally, event: ev.CompensationStarted, at_ms: int, state: SagaState, saga_type: str) -> None:
    tally.compensating[saga_type] += 1


def _parked(tally: Tally, event: ev.Event, at_ms: int, state: SagaState, saga_type: str) -> None:
    tally.parked[saga_type] += 1


def _ended(tally: Tally, event: ev.SagaEnded, at_ms: int, state: SagaState, saga_type: str) -> None:
    status = event.status.value
    tally.ended[saga_type, status] += 1
    _add(tally.saga_durations, (saga_type, status), max(0, at_ms - state.started_at_ms))


def _scheduled(tally: Tally, event: ev.StepScheduled, at_ms: int, state: SagaState, saga_type: str) -> None:
    tally.began(state.saga_id, event.sequence, at_ms)


def _attempted(
    tally: Tally, event: ev.StepAttempted | ev.UndoAttempted, at_ms: int, state: SagaState, saga_type: str
) -> None:
    step = state.steps.get(event.sequence)
    if step is not None:
        command = step.undo_command or "" if type(event) is ev.UndoAttempted else step.command
        tally.retries[step.service, command] += 1


_Outcome = ev.StepSucceeded | ev.StepRefused | ev.StepEndedUnknown


def _step_ended(tally: Tally, event: _Outcome, at_ms: int, state: SagaState, saga_type: str) -> None:
    step = state.steps.get(event.sequence)
    if step is None:
        return
    tally.steps[step.service, step.command, _OUTCOMES[type(event)]] += 1
    took = tally.took(state.saga_id, event.sequence, at_ms)
    if took is not None:
        _add(tally.step_durations, (step.service, step.command), took)


def _undone(
    tally: Tally, event: ev.UndoSucceeded | ev.UndoSkipped, at_ms: int, state: SagaState, saga_type: str
) -> None:
    step = state.steps.get(event.sequence)
    if step is not None:
        tally.steps[step.service, step.undo_command or "", _OUTCOMES[type(event)]] += 1


def _add(durations: dict[tuple[str, str], Durations], key: tuple[str, str], ms: int) -> None:
    found = durations.get(key)
    if found is None:
        found = durations[key] = Durations()
    found.add(ms)


_OUTCOMES: dict[type, str] = {
    ev.StepSucceeded: "success",
    ev.StepRefused: "failure",
    ev.StepEndedUnknown: "unknown",
    ev.UndoSucceeded: "success",
    ev.UndoSkipped: "skipped",
}
_COUNT: dict[type, Callable[[Tally, Any, int, SagaState, str], None]] = {
    ev.SagaStarted: _started,
    ev.CompensationStarted: _compensates,
    ev.SagaParked: _parked,
    ev.StepParked: _parked,
    ev.UndoParked: _parked,
    ev.SagaEnded: _ended,
    ev.StepScheduled: _scheduled,
    ev.StepAttempted: _attempted,
    ev.UndoAttempted: _attempted,
    ev.StepSucceeded: _step_ended,
    ev.StepRefused: _step_ended,
    ev.StepEndedUnknown: _step_ended,
    ev.UndoSucceeded: _undone,
    ev.UndoSkipped: _undone,
}
