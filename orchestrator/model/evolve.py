"""From event to state: the only code that changes a `SagaState`. Replay calls nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.model import events as ev
from orchestrator.model.state import (
    FINAL,
    OPEN,
    STEP_TRANSITIONS,
    UNSTARTED,
    Pause,
    SagaState,
    Step,
    StepStatus,
)
from orchestrator.model.upkeep import BrokenHistory as BrokenHistory
from orchestrator.model.upkeep import attempt_due, earliest, enter, keep_old_due, move, resolve, set_due
from orchestrator.model.upkeep import transition_of as transition_of

AFTER_THE_END = frozenset(
    {
        *(ev.WaiterAdded, ev.UpdateAsked, ev.AttachRefused, ev.InputAbsorbed, ev.InputAnswered),
        *(ev.RunFollows, ev.CircuitOpened, ev.CircuitClosed),
        *(ev.InputSent, ev.UndoAsked, ev.CompensationStarted),
    }
)
"""What may still happen to a run that has ended."""
BEFORE_THE_START = frozenset({ev.SagaStarted, ev.SignalBuffered, ev.SignalDropped, ev.AttachRefused, ev.InputSent})
"""What may happen to a run that has not begun."""
_BEGINNING = frozenset({ev.SagaStarted, ev.SignalBuffered})
"""What happens to no other."""


def evolve(state: SagaState, event: ev.Event, at_ms: int) -> None:
    """Applies one event that was decided at `at_ms`. Raises `BrokenHistory` where the table forbids it."""
    kind = type(event)
    if state.phase in UNSTARTED:
        wrong = kind not in BEFORE_THE_START
    else:
        wrong = kind in _BEGINNING or (state.phase in FINAL and kind not in AFTER_THE_END)
    if wrong:
        raise BrokenHistory(f"{state.saga_id}: {kind.__name__} in {state.phase}")
    _APPLY[kind](state, event, at_ms)


def _started(state: SagaState, event: ev.SagaStarted, at_ms: int) -> None:
    enter(state, event)
    state.saga_type = event.saga_type
    state.payload = event.payload
    state.started_by = event.started_by
    state.started_at_ms = at_ms
    state.traceparent = event.traceparent
    state.previous_run = event.previous_run
    state.baggage = event.baggage
    state.version, state.pinned = event.version, event.pinned
    state.parent = event.parent
    if event.reply_to is not None:
        state.waiters.append(event.reply_to)
    state.timeout_ms, state.run_timeout_ms = event.timeout_ms, event.run_timeout_ms
    state.begin_ms = event.begin_ms
    set_due(state, 0, _run_due(state) if event.begin_ms is None else event.begin_ms)


def _run_due(state: SagaState) -> int | None:
    """When the run's time is up, or that of all runs."""
    run_due_ms = None if state.run_timeout_ms is None else state.started_at_ms + state.run_timeout_ms
    return earliest(state.execution_due_ms, run_due_ms)


def _begin_moved(state: SagaState, event: ev.BeginMoved, at_ms: int) -> None:
    state.begin_ms = event.begin_ms
    set_due(state, 0, event.begin_ms)


def _begun(state: SagaState, event: ev.SagaBegun, at_ms: int) -> None:
    enter(state, event)
    state.begin_ms = None
    state.started_at_ms = at_ms
    set_due(state, 0, _run_due(state))


def _run_follows(state: SagaState, event: ev.RunFollows, at_ms: int) -> None:
    keep_old_due(state, 0)
    state.follows = event
    state.continue_due = True


def _waiter_added(state: SagaState, event: ev.WaiterAdded, at_ms: int) -> None:
    if not state.ended and event.reply_to not in state.waiters:
        state.waiters.append(event.reply_to)


def _add(state: SagaState, step: Step, event: Any) -> None:
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
    _add(state, step, event)


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


def _wait_scheduled(state: SagaState, event: ev.WaitScheduled, at_ms: int) -> None:
    status = STEP_TRANSITIONS[None, "WaitScheduled"]
    step = Step(event.sequence, status, event.after, kind=event.kind, command=event.name, due_ms=event.due_ms)
    _add(state, step, event)


def _wait_expired(state: SagaState, event: ev.WaitExpired, at_ms: int) -> None:
    resolve(state, move(state, event), at_ms)


def _signal_received(state: SagaState, event: ev.SignalReceived, at_ms: int) -> None:
    state.signals.append((event.name, event.payload))


def _signal_buffered(state: SagaState, event: ev.SignalBuffered, at_ms: int) -> None:
    enter(state, event)
    state.signals.append((event.name, event.payload))
    set_due(state, 0, event.until_ms)


def _signal_dropped(state: SagaState, event: ev.SignalDropped, at_ms: int) -> None:
    if not 0 <= event.place < len(state.signals):
        raise BrokenHistory(f"{state.saga_id}: SignalDropped at {event.place} of {len(state.signals)}")
    del state.signals[event.place]
    if state.phase is ev.Status.NOT_STARTED and not state.signals:
        set_due(state, 0, None)


def _signal_taken(state: SagaState, event: ev.SignalTaken, at_ms: int) -> None:
    step = move(state, event)
    for at, (name, payload) in enumerate(state.signals):
        if name == step.command:
            del state.signals[at]
            step.result = payload
            resolve(state, step, at_ms)
            return
    raise BrokenHistory(f"{state.saga_id}: SignalTaken by step {step.sequence}, but there is no {step.command!r}")


def _promise_settled(state: SagaState, event: ev.PromiseSettled, at_ms: int) -> None:
    state.promises.setdefault(event.name, (event.payload, event.error_type, event.error_message))


def _promise_told(state: SagaState, event: ev.PromiseKept | ev.PromiseBroken, at_ms: int) -> None:
    step = move(state, event)
    settled = state.promises.get(step.command)
    if settled is None:
        raise BrokenHistory(f"{state.saga_id}: step {step.sequence} waits for {step.command!r}, which is not settled")
    step.result, step.error_type, step.error_message = settled
    resolve(state, step, at_ms)


def _update_accepted(state: SagaState, event: ev.UpdateAccepted, at_ms: int) -> None:
    step = Step(
        event.sequence,
        STEP_TRANSITIONS[None, "UpdateAccepted"],
        len(state.outcomes),
        kind=ev.StepKind.UPDATE,
        service=event.update_id,
        command=event.name,
        payload=event.payload,
    )
    _add(state, step, event)
    resolve(state, step, at_ms)
    state.updates[event.update_id] = event.sequence
    state.asked[event.sequence] = [] if event.reply_to is None else [event.reply_to]


def _update_asked(state: SagaState, event: ev.UpdateAsked, at_ms: int) -> None:
    if event.sequence in state.asked and not state.ended:
        state.asked[event.sequence].append(event.reply_to)


def _update_ended(state: SagaState, event: ev.UpdateEnded, at_ms: int) -> None:
    step = move(state, event)
    step.result, step.error_type, step.error_message = event.payload, event.error_type, event.error_message
    del state.asked[event.sequence]


def _recorded(state: SagaState, event: ev.Recorded, at_ms: int) -> None:
    step = Step(event.sequence, STEP_TRANSITIONS[None, "Recorded"], event.after, kind=event.kind, command=event.name)
    step.result = event.payload
    _add(state, step, event)


def _moved(state: SagaState, event: ev.Event, at_ms: int) -> None:
    move(state, event)


def _cancel_requested(state: SagaState, event: ev.CancelRequested, at_ms: int) -> None:
    state.cancel = event.cause
    state.error_message = event.reason
    set_due(state, 0, None)


def _cancel_raised(state: SagaState, event: ev.CancelRaised, at_ms: int) -> None:
    state.outcomes.append(0)
    state.cancel_resolved = len(state.outcomes)
    state.cancel_at_ms = at_ms


def _compensation_started(state: SagaState, event: ev.CompensationStarted, at_ms: int) -> None:
    if state.ended:
        state.waiters.clear()  # they were told how it had ended
    enter(state, event)
    state.cause = event.cause
    if event.forced_by:
        state.forced, state.undo_stack = True, None
    state.error_type, state.error_message = event.error_type, event.error_message
    state.parked.pop(0, None)
    state.signals.clear()
    state.promises.clear()
    state.begin_ms = None
    set_due(state, 0, None)


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
        if event.by:
            step.since_ms = at_ms


def _saga_parked(state: SagaState, event: ev.SagaParked, at_ms: int) -> None:
    state.parked[0] = f"{event.reason}: {event.detail}" if event.detail else event.reason


def _version_changed(state: SagaState, event: ev.VersionChanged, at_ms: int) -> None:
    state.version, state.pinned = event.version, event.pinned


def _saga_unparked(state: SagaState, event: ev.SagaUnparked, at_ms: int) -> None:
    state.parked.pop(0, None)


def _saga_paused(state: SagaState, event: ev.SagaPaused, at_ms: int) -> None:
    state.paused = Pause(event.rule, event.by, event.reason, at_ms)


def _saga_resumed(state: SagaState, event: ev.SagaResumed, at_ms: int) -> None:
    state.paused = None
    # What came due meanwhile was passed over: whoever keeps the timers takes them all again.
    state.new_due.extend(s for s in (0, *state.open, *state.undo_open) if state.due_of(s) is not None)


def _code(state: SagaState, event: ev.CodeMissing | ev.CodeFound, at_ms: int) -> None:
    enter(state, event)


def _input_held(state: SagaState, event: ev.InputHeld, at_ms: int) -> None:
    state.mailbox.append(event.input)


def _held_taken(state: SagaState, event: ev.HeldInputTaken, at_ms: int) -> None:
    if not state.mailbox:
        raise BrokenHistory(f"{state.saga_id}: HeldInputTaken of an empty mailbox")
    del state.mailbox[0]


def _continue(state: SagaState, event: ev.ContinueDue | ev.Continued, at_ms: int) -> None:
    keep_old_due(state, 0)
    state.continue_due = isinstance(event, ev.ContinueDue)


def _ended(state: SagaState, event: ev.SagaEnded, at_ms: int) -> None:
    enter(state, event)
    state.ended_at_ms = at_ms
    state.undone = event.undone
    state.result = event.payload
    state.error_type, state.error_message = event.error_type, event.error_message
    state.parked.clear()
    state.paused = None
    state.mailbox.clear()
    if event.status is not ev.Status.CONTINUED_AS_NEW:
        state.signals.clear()
    state.local.clear()
    state.promises.clear()
    set_due(state, 0, None)
    state.continue_due = False
    state.begin_ms = None
    for sequence in [*state.open, *state.undo_open]:
        set_due(state, sequence, None)
        state.changed.add(sequence)


def _child_canceled(state: SagaState, event: ev.ChildCanceled, at_ms: int) -> None:
    move(state, event).cancel_sent = True


def _undo_asked(state: SagaState, event: ev.UndoAsked, at_ms: int) -> None:
    state.undo_asked = True


def _nothing(state: SagaState, event: ev.Event, at_ms: int) -> None:
    """Recorded for its effect or for the audit only."""


_APPLY: dict[type, Callable[[SagaState, Any, int], None]] = {
    ev.SagaStarted: _started,
    ev.RunFollows: _run_follows,
    ev.BeginMoved: _begin_moved,
    ev.SagaBegun: _begun,
    ev.WaiterAdded: _waiter_added,
    ev.StepScheduled: _step_scheduled,
    ev.HeartbeatReceived: _heartbeat_received,
    ev.StepBackedOff: _step_backed_off,
    ev.StepAttempted: _step_attempted,
    ev.StepSucceeded: _step_succeeded,
    ev.StepRefused: _step_refused,
    ev.StepEndedUnknown: _step_unknown,
    ev.StepAbandoned: _moved,
    ev.StepHeld: _step_held,
    ev.UndoHeld: _undo_held,
    ev.CircuitOpened: _nothing,
    ev.CircuitClosed: _nothing,
    ev.StepParked: _parked_step,
    ev.WaitScheduled: _wait_scheduled,
    ev.WaitExpired: _wait_expired,
    ev.WaitCanceled: _moved,
    ev.SignalReceived: _signal_received,
    ev.SignalBuffered: _signal_buffered,
    ev.SignalDropped: _signal_dropped,
    ev.SignalTaken: _signal_taken,
    ev.PromiseSettled: _promise_settled,
    ev.PromiseKept: _promise_told,
    ev.PromiseBroken: _promise_told,
    ev.UpdateAccepted: _update_accepted,
    ev.UpdateAsked: _update_asked,
    ev.UpdateEnded: _update_ended,
    ev.Recorded: _recorded,
    ev.CancelRequested: _cancel_requested,
    ev.CancelRaised: _cancel_raised,
    ev.CompensationStarted: _compensation_started,
    ev.UndoScheduled: _undo_started,
    ev.UndoBackedOff: _undo_backed_off,
    ev.UndoAttempted: _undo_started,
    ev.UndoSucceeded: _moved,
    ev.UndoParked: _parked_step,
    ev.UndoSkipped: _moved,
    ev.SagaParked: _saga_parked,
    ev.SagaUnparked: _saga_unparked,
    ev.VersionChanged: _version_changed,
    ev.SagaPaused: _saga_paused,
    ev.SagaResumed: _saga_resumed,
    ev.PauseRuleSet: _nothing,
    ev.InputAnswered: _nothing,
    ev.CodeMissing: _code,
    ev.CodeFound: _code,
    ev.InputHeld: _input_held,
    ev.HeldInputTaken: _held_taken,
    ev.ContinueDue: _continue,
    ev.Continued: _continue,
    ev.InputAbsorbed: _nothing,
    ev.SagaEnded: _ended,
    ev.AttachRefused: _nothing,
    ev.InputForwarded: _nothing,
    ev.InputSent: _nothing,
    ev.ChildCanceled: _child_canceled,
    ev.UndoAsked: _undo_asked,
}
