"""What `evolve` does again and again: a step through its table, a timer, an outcome, and what follows from them."""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Any

from orchestrator.model import events as ev
from orchestrator.model.state import (
    OPEN,
    SAGA_TRANSITIONS,
    STEP_TRANSITIONS,
    TO_UNDO,
    UNDO_NOW,
    UNDO_OPEN,
    SagaState,
    Step,
    StepStatus,
)


class BrokenHistory(Exception):
    """An event that the transition table does not allow: the journal was not written by this state machine."""


def transition_of(event: ev.Event) -> str:
    """The event's name in the transition tables."""
    if isinstance(event, ev.SagaEnded):
        return f"SagaEnded.{event.status}"
    return type(event).__name__


def enter(state: SagaState, event: ev.Event) -> None:
    try:
        state.phase = SAGA_TRANSITIONS[state.phase, transition_of(event)]
    except KeyError:
        raise BrokenHistory(f"{state.saga_id}: {transition_of(event)} in {state.phase}") from None


def keep_old_due(state: SagaState, sequence: int) -> None:
    if sequence not in state.old_due:
        state.old_due[sequence] = state.due_of(sequence)


def set_due(state: SagaState, sequence: int, due_ms: int | None) -> None:
    owner: SagaState | Step = state.steps[sequence] if sequence else state
    if owner.due_ms == due_ms:
        return
    keep_old_due(state, sequence)
    owner.due_ms = due_ms
    if due_ms is not None:
        state.new_due.append(sequence)


def move(state: SagaState, event: Any, due_ms: int | None = None) -> Step:
    """Takes the event's step through the table and keeps the derived sets, its timer and its parking right."""
    sequence: int = event.sequence
    step = state.steps.get(sequence)
    if step is None:
        raise BrokenHistory(f"{state.saga_id}: {type(event).__name__} for step {sequence}, which does not exist")
    try:
        status = STEP_TRANSITIONS[step.status, type(event).__name__]
    except KeyError:
        raise BrokenHistory(f"{state.saga_id}: {type(event).__name__} in {step.status} of step {sequence}") from None
    was, step.status = step.status, status
    if was in OPEN and status not in OPEN:
        state.open.discard(sequence)
    if status in UNDO_OPEN:
        state.undo_open.add(sequence)
    elif was in UNDO_OPEN:
        state.undo_open.discard(sequence)
    if was in UNDO_NOW:
        take_out(state.undo_now, sequence)
    if status in UNDO_NOW and step.undo_command is not None:
        insort(state.undo_now, sequence)
    if step.is_called:
        state.local.add(sequence)
    else:
        state.local.discard(sequence)
    state.undos_done += status is StepStatus.UNDONE
    state.undos_skipped += status is StepStatus.UNDO_SKIPPED
    if state.undo_stack is not None:
        if was in TO_UNDO:
            take_out(state.undo_stack, sequence)
        if state.must_undo(step):
            insort(state.undo_stack, sequence)
    state.parked.pop(sequence, None)
    set_due(state, sequence, due_ms)
    state.changed.add(sequence)
    return step


def add(state: SagaState, step: Step, event: Any) -> None:
    if step.sequence != state.sequence + 1:
        raise BrokenHistory(f"{state.saga_id}: step {step.sequence} after {state.sequence}")
    due, step.due_ms = step.due_ms, None
    state.sequence = step.sequence
    state.steps[step.sequence] = step
    if step.status in OPEN:
        state.open.add(step.sequence)
    if step.is_called:
        state.local.add(step.sequence)
    set_due(state, step.sequence, due)
    state.changed.add(step.sequence)


def take_out(stack: list[int], sequence: int) -> None:
    """Undone from the end, but for those that could not wait."""
    at = bisect_left(stack, sequence)
    if stack[at : at + 1] == [sequence]:
        del stack[at]


def resolve(state: SagaState, step: Step, at_ms: int) -> None:
    state.outcomes.append(step.sequence)
    step.resolved = step.ended = len(state.outcomes)
    step.resolved_at_ms = at_ms


def attempt_due(step: Step, at_ms: int) -> int | None:
    """When an attempt that is scheduled now runs out of time, unless its beginning is heard of first."""
    limit_ms = step.start_to_close_ms if step.schedule_to_start_ms is None else step.schedule_to_start_ms
    return earliest(step.deadline_ms, None if limit_ms is None else at_ms + limit_ms)


def earliest(*times: int | None) -> int | None:
    return min([time for time in times if time is not None], default=None)
