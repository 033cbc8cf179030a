"""From event to state: steps, their attempts and undos."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.model import events as ev
from orchestrator.model.kinds import StepKind
from orchestrator.model.state import INHERITABLE, STEP_TRANSITIONS, SagaState, Step, StepStatus
from orchestrator.model.upkeep import BrokenHistory, add, attempt_due, earliest, move, resolve, set_due


def _step_scheduled(state: SagaState, event: ev.StepScheduled, at_ms: int) -> None:
    step = Step(
        event.sequence,
        STEP_TRANSITIONS[None, "StepScheduled"],
        event.after,
        kind=event.kind,
        service=event.service,
        command=event.command,
        payload=event.payload,
        partition=event.partition,
        undo_command=event.undo_command,
        undo_payload=event.undo_payload,
        pivot=event.pivot,
        start_to_close_ms=event.start_to_close_ms,
        deadline_ms=None if event.schedule_to_close_ms is None else at_ms + event.schedule_to_close_ms,
        retry=event.retry,
        undo_retry=event.undo_retry,
        schedule_to_start_ms=event.schedule_to_start_ms,
        heartbeat_ms=event.heartbeat_ms,
    )
    step.since_ms = at_ms
    step.due_ms = attempt_due(step, at_ms)
    add(state, step, event)


def _step_inherited(state: SagaState, event: ev.StepInherited, at_ms: int) -> None:
    if event.status not in INHERITABLE:
        raise BrokenHistory(f"{state.saga_id}: step {event.sequence} is inherited in {event.status}")
    step = Step(
        event.sequence,
        event.status,
        event.after,
        kind=event.kind,
        service=event.service,
        command=event.command,
        payload=event.payload,
        partition=event.partition,
        undo_command=event.undo_command,
        undo_payload=event.undo_payload,
        pivot=event.pivot,
        start_to_close_ms=event.start_to_close_ms,
        undo_retry=event.undo_retry,
    )
    step.run, step.seed = event.run, event.seed
    step.attempt, step.result, step.cause = event.attempt, event.result, event.cause
    step.error_type, step.error_message = event.error_type, event.error_message
    step.ended, step.resolved, step.resolved_at_ms = event.ended, event.resolved, event.resolved_at_ms
    add(state, step, event)
    if step.resolved:
        missing = step.resolved - len(state.outcomes)
        state.outcomes += [0] * missing  # the others follow in the same decision
        state.outcomes[step.resolved - 1] = step.sequence
    if step.pivot and step.status is StepStatus.DONE:
        state.pivot_done = True
    if step.status is StepStatus.UNDO_SKIPPED and step.undo_command is not None:
        state.undos_skipped += 1
    if step.kind is StepKind.LOCK and step.status is StepStatus.WAITED:
        state.locks.add(step.sequence)
    if step.keeper:
        state.keys.add(step.keeper)  # to leave one that was not told anew does no harm
    if step.kind is StepKind.UPDATE:
        state.updates[step.service] = step.sequence


def _step_backed_off(state: SagaState, event: ev.StepBackedOff, at_ms: int) -> None:
    step = state.steps.get(event.sequence)
    due = event.due_ms
    if step is not None and step.deadline_ms is not None:
        due = min(due, step.deadline_ms)
    step = move(state, event, due)
    step.error_type, step.error_message = event.error_type, event.error_message


def _step_attempted(state: SagaState, event: ev.StepAttempted, at_ms: int) -> None:
    by_hand = event.by != "" and event.sequence in state.parked
    step = move(state, event)
    if by_hand:
        step.deadline_ms = None
        step.since_ms = at_ms
    set_due(state, event.sequence, attempt_due(step, at_ms))
    step.attempt = event.attempt
    if event.payload is not None:
        step.payload = event.payload
    step.started_ms = 0
    step.held = False


def _heartbeat_received(state: SagaState, event: ev.HeartbeatReceived, at_ms: int) -> None:
    step = move(state, event, state.due_of(event.sequence))
    step.started_ms = step.started_ms or at_ms
    step.details = event.payload or step.details
    close_ms = None if step.start_to_close_ms is None else step.started_ms + step.start_to_close_ms
    silent_ms = None if step.heartbeat_ms is None else at_ms + step.heartbeat_ms
    set_due(state, event.sequence, earliest(step.deadline_ms, close_ms, silent_ms))


def _is_in(state: SagaState, sequence: int, status: StepStatus) -> bool:
    step = state.steps.get(sequence)
    return step is not None and step.status is status


def _step_held(state: SagaState, event: ev.StepHeld, at_ms: int) -> None:
    fresh = _is_in(state, event.sequence, StepStatus.RUNNING)
    step = move(state, event, at_ms if fresh else state.due_of(event.sequence))
    step.attempt -= fresh
    step.held = True


def _undo_held(state: SagaState, event: ev.UndoHeld, at_ms: int) -> None:
    fresh = _is_in(state, event.sequence, StepStatus.UNDOING)
    step = move(state, event, at_ms if fresh else state.due_of(event.sequence))
    step.undo_attempt -= fresh
    step.held = True


def _step_succeeded(state: SagaState, event: ev.StepSucceeded, at_ms: int) -> None:
    step = move(state, event)
    step.result = event.payload
    step.error_type = step.error_message = ""
    if event.undo_payload is not None:
        step.undo_payload = event.undo_payload
    if step.pivot:
        state.pivot_done = True
    resolve(state, step, at_ms)


def _step_refused(state: SagaState, event: ev.StepRefused, at_ms: int) -> None:
    step = move(state, event)
    step.error_type, step.error_message = event.error_type, event.error_message
    resolve(state, step, at_ms)


def _step_unknown(state: SagaState, event: ev.StepEndedUnknown, at_ms: int) -> None:
    step = move(state, event)
    step.cause = event.cause
    step.error_type, step.error_message = event.error_type, event.error_message
    if event.cause is ev.UnknownCause.CANCELED:
        # The code itself let go of it: a replay does so again, nothing is to be delivered.
        step.ended = event.after
    else:
        resolve(state, step, at_ms)


def _parked_step(state: SagaState, event: ev.StepParked | ev.UndoParked, at_ms: int) -> None:
    move(state, event)
    state.parked[event.sequence] = event.reason


def _undo_backed_off(state: SagaState, event: ev.UndoBackedOff, at_ms: int) -> None:
    # The step's own error stays: a replay delivers it again.
    move(state, event, event.due_ms)


def _undo_started(state: SagaState, event: ev.UndoScheduled | ev.UndoAttempted, at_ms: int) -> None:
    step = move(state, event)
    if step.start_to_close_ms is not None:
        set_due(state, event.sequence, at_ms + step.start_to_close_ms)
    step.held = False
    if isinstance(event, ev.UndoScheduled):
        step.undo_attempt, step.since_ms = 1, at_ms
    else:
        step.undo_attempt = event.attempt
        if event.payload is not None:
            step.undo_payload = event.payload
        if event.by:
            step.since_ms = at_ms


def _child_canceled(state: SagaState, event: ev.ChildCanceled, at_ms: int) -> None:
    step = move(state, event)
    step.cancel_sent = True
    step.terminate_sent = step.terminate_sent or event.at_once


def _moved(state: SagaState, event: ev.Event, at_ms: int) -> None:
    move(state, event)


APPLY: dict[type, Callable[[SagaState, Any, int], None]] = {
    ev.StepScheduled: _step_scheduled,
    ev.StepInherited: _step_inherited,
    ev.HeartbeatReceived: _heartbeat_received,
    ev.StepBackedOff: _step_backed_off,
    ev.StepAttempted: _step_attempted,
    ev.StepSucceeded: _step_succeeded,
    ev.StepRefused: _step_refused,
    ev.StepEndedUnknown: _step_unknown,
    ev.StepHeld: _step_held,
    ev.UndoHeld: _undo_held,
    ev.StepParked: _parked_step,
    ev.UndoScheduled: _undo_started,
    ev.UndoBackedOff: _undo_backed_off,
    ev.UndoAttempted: _undo_started,
    ev.UndoParked: _parked_step,
    ev.ChildCanceled: _child_canceled,
    ev.StepAbandoned: _moved,
    ev.CallDone: _moved,
    ev.CallRefused: _moved,
    ev.UndoSucceeded: _moved,
    ev.UndoSkipped: _moved,
}
