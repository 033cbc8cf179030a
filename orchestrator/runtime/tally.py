"""What a worker's decisions came to, counted for metrics once they are confirmed.

Only the engine's thread adds to it; whoever publishes reads at any time. What was confirmed for an owner that died in
the same moment is counted by nobody.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

from orchestrator.model import events as ev
from orchestrator.model.state import SagaState

BUCKETS_MS = (5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000, 3_600_000, 86_400_000)
MAX_OPEN = 100_000
"""Steps and sagas whose beginning is remembered, to tell how long they took: some 20 MB."""

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
    """Sagas by type, steps by service and command.

    A duration is known where this worker confirmed the beginning too.
    """

    def __init__(self) -> None:
        self.started: Counter[str] = Counter()
        self.ended: Counter[tuple[str, str]] = Counter()
        """By type and final status."""
        self.parked: Counter[str] = Counter()
        """Times that a saga, a step or an undo was parked."""
        self.compensating: Counter[str] = Counter()
        self.steps: Counter[tuple[str, str, str]] = Counter()
        """By service, command and outcome: success, failure, unknown, undone."""
        self.retries: Counter[tuple[str, str]] = Counter()
        self.step_durations: dict[tuple[str, str], Durations] = {}
        self.saga_durations: dict[str, Durations] = {}
        self._open: dict[tuple[str, int], int] = {}

    def confirmed(self, decision: ev.Decision, state: SagaState, saga_type: str) -> None:
        """Counts one confirmed decision; `saga_type` is the name to count it under."""
        for event in decision.events:
            count = _COUNT.get(type(event))
            if count is not None:
                count(self, event, decision, state, saga_type)

    def _begin(self, saga_id: str, sequence: int, at_ms: int) -> None:
        if len(self._open) >= MAX_OPEN:
            del self._open[next(iter(self._open))]
        self._open[saga_id, sequence] = at_ms

    def _took(self, saga_id: str, sequence: int, at_ms: int) -> int | None:
        began = self._open.pop((saga_id, sequence), None)
        return None if began is None else max(0, at_ms - began)

    def _saga_started(self, event: ev.SagaStarted, decision: ev.Decision, state: SagaState, saga_type: str) -> None:
        self.started[saga_type] += 1
        self._begin(decision.saga_id, _SAGA, decision.at_ms)

    def _saga_ended(self, event: ev.SagaEnded, decision: ev.Decision, state: SagaState, saga_type: str) -> None:
        self.ended[saga_type, event.status] += 1
        took = self._took(decision.saga_id, _SAGA, decision.at_ms)
        if took is not None:
            _add(self.saga_durations, saga_type, took)

    def _was_parked(self, event: ev.Event, decision: ev.Decision, state: SagaState, saga_type: str) -> None:
        self.parked[saga_type] += 1

    def _compensates(self, event: ev.Event, decision: ev.Decision, state: SagaState, saga_type: str) -> None:
        self.compensating[saga_type] += 1

    def _scheduled(self, event: ev.StepScheduled, decision: ev.Decision, state: SagaState, saga_type: str) -> None:
        self._begin(decision.saga_id, event.sequence, decision.at_ms)

    def _tried_again(
        self, event: ev.StepAttempted | ev.UndoAttempted, decision: ev.Decision, state: SagaState, saga_type: str
    ) -> None:
        step = state.steps.get(event.sequence)
        if step is not None:
            command = step.command if isinstance(event, ev.StepAttempted) else step.undo_command
            self.retries[step.service, command or ""] += 1

    def _step_ended(
        self,
        event: ev.StepSucceeded | ev.StepRefused | ev.StepEndedUnknown,
        decision: ev.Decision,
        state: SagaState,
        saga_type: str,
    ) -> None:
        step = state.steps.get(event.sequence)
        if step is None:
            return
        self.steps[step.service, step.command, _OUTCOMES[type(event)]] += 1
        took = self._took(decision.saga_id, event.sequence, decision.at_ms)
        if took is not None:
            _add(self.step_durations, (step.service, step.command), took)

    def _undone(self, event: ev.UndoSucceeded, decision: ev.Decision, state: SagaState, saga_type: str) -> None:
        step = state.steps.get(event.sequence)
        if step is not None:
            self.steps[step.service, step.undo_command or "", "undone"] += 1


_SAGA = -1
"""In place of a step's sequence: the saga itself."""

_OUTCOMES: dict[type, str] = {
    ev.StepSucceeded: "success",
    ev.StepRefused: "failure",
    ev.StepEndedUnknown: "unknown",
}
