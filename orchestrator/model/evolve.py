"""From event to state: the only code that changes a `SagaState`. Replay calls nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.model import events as ev
from orchestrator.model import evolve_steps, evolve_waits
from orchestrator.model.messages import Leaving, ParentLeft, Signal
from orchestrator.model.state import (
    FINAL,
    GOES_ON,
    UNSTARTED,
    Pause,
    SagaState,
)
from orchestrator.model.upkeep import BrokenHistory as BrokenHistory
from orchestrator.model.upkeep import earliest, enter, keep_old_due, set_due
from orchestrator.model.upkeep import transition_of as transition_of

AFTER_THE_END = frozenset(
    {
        *(ev.WaiterAdded, ev.UpdateAsked, ev.AttachRefused, ev.InputAbsorbed, ev.InputAnswered),
        *(ev.RunFollows, ev.CircuitOpened, ev.CircuitClosed, ev.StepEndedUnknown, ev.CallDone, ev.CallRefused),
        *(ev.InputSent, ev.UndoAsked, ev.CompensationStarted, ev.ChildCanceled, ev.ContinueDue, ev.Continued),
        *(ev.SagaForked, ev.ParentGone, ev.SagaForgotten),
    }
)
"""What may still happen to a run that has ended."""
BEFORE_THE_START = frozenset(
    {ev.SagaStarted, ev.SignalBuffered, ev.SignalDropped, ev.AttachRefused, ev.InputSent, ev.SagaForgotten}
)
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
    state.began_ms = event.began_ms or at_ms
    state.traceparent = event.traceparent
    state.previous_run = event.previous_run
    state.baggage = event.baggage
    if event.following in (None, ev.Following.REUSED):
        state.note = event.note
    state.version, state.pinned, state.ballast = event.version, event.pinned, event.ballast
    state.parent = event.parent
    if event.reply_to is not None:
        state.waiters.append(event.reply_to)
    state.timeout_ms, state.run_timeout_ms = event.timeout_ms, event.run_timeout_ms
    state.begin_ms = state.not_begun_ms = event.begin_ms
    set_due(state, 0, _run_due(state) if event.begin_ms is None else event.begin_ms)


def _run_due(state: SagaState) -> int | None:
    """When the run's time is up, or that of all runs."""
    run_due_ms = None if state.run_timeout_ms is None else state.started_at_ms + state.run_timeout_ms
    return earliest(state.execution_due_ms, run_due_ms)


def _begin_moved(state: SagaState, event: ev.BeginMoved, at_ms: int) -> None:
    state.begin_ms = state.not_begun_ms = event.begin_ms
    set_due(state, 0, event.begin_ms)


def _begun(state: SagaState, event: ev.SagaBegun, at_ms: int) -> None:
    enter(state, event)
    state.begin_ms = state.not_begun_ms = None
    state.started_at_ms = state.began_ms = at_ms
    set_due(state, 0, _run_due(state))


def _run_follows(state: SagaState, event: ev.RunFollows, at_ms: int) -> None:
    keep_old_due(state, 0)
    if event.cause is ev.Following.CONTINUED:
        state.stays = state.stays or state.pivot_done or any(step.needs_undo for step in state.steps.values())
    state.follows = event
    state.continue_due = True


def _waiter_added(state: SagaState, event: ev.WaiterAdded, at_ms: int) -> None:
    if not state.ended and event.reply_to not in state.waiters:
        state.waiters.append(event.reply_to)


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
    state.forced, state.undo_stack, state.keep = event.forced_by != "", None, event.keep
    state.error_type, state.error_message = event.error_type, event.error_message
    state.parked.pop(0, None)
    if event.cause is not ev.Cause.RESET:
        state.signals.clear()
        state.promises.clear()
    state.begin_ms = None
    set_due(state, 0, None)


def _saga_parked(state: SagaState, event: ev.SagaParked, at_ms: int) -> None:
    state.parked[0] = f"{event.reason}: {event.detail}" if event.detail else event.reason


def _version_changed(state: SagaState, event: ev.VersionChanged, at_ms: int) -> None:
    if not event.migrates:
        state.migrates_from = 0
    elif not state.migrates_from:
        state.migrates_from = state.version
    state.version, state.pinned = event.version, event.pinned


def _saga_unparked(state: SagaState, event: ev.SagaUnparked, at_ms: int) -> None:
    state.parked.pop(0, None)


def _saga_paused(state: SagaState, event: ev.SagaPaused, at_ms: int) -> None:
    state.paused = Pause(event.rule, event.by, event.reason, at_ms)


def _saga_resumed(state: SagaState, event: ev.SagaResumed, at_ms: int) -> None:
    state.paused = None
    # What came due meanwhile was passed over: whoever keeps the timers takes them all again.
    state.new_due.extend(state.timed)


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
    if not state.continue_due and state.due_ms is not None:
        state.new_due.append(0)  # whoever keeps the timers has seen only that the saga goes on at once


def _ended(state: SagaState, event: ev.SagaEnded, at_ms: int) -> None:
    enter(state, event)
    state.ended_at_ms = at_ms
    state.undone = event.undone
    state.result = event.payload
    state.error_type, state.error_message = event.error_type, event.error_message
    state.parked.clear()
    state.paused = None
    state.mailbox.clear()
    if event.status not in GOES_ON:
        state.signals.clear()
        state.promises.clear()
    state.local.clear()
    set_due(state, 0, event.forget_at_ms)
    state.continue_due = False
    state.begin_ms = None
    for sequence in [*state.open, *state.undo_open]:
        set_due(state, sequence, None)
        state.changed.add(sequence)


def _undo_asked(state: SagaState, event: ev.UndoAsked, at_ms: int) -> None:
    state.undo_asked = True


def _parent_gone(state: SagaState, event: ev.ParentGone, at_ms: int) -> None:
    state.parent_gone = True
    if state.ended:
        set_due(state, 0, event.forget_at_ms)


def _forgotten(state: SagaState, event: ev.SagaForgotten, at_ms: int) -> None:
    if not (state.ended or state.phase is ev.Status.NOT_STARTED):
        raise BrokenHistory(f"{state.saga_id}: SagaForgotten in {state.phase}")
    set_due(state, 0, None)
    state.forgotten = True


def _absorbed(state: SagaState, event: ev.InputAbsorbed, at_ms: int) -> None:
    """Of a call that is parked, since its time was up, it is known now what came of it."""
    if event.kind == "Called" and event.sequence and event.sequence in state.parked:
        state.parked[event.sequence] = event.reason


def _sent(state: SagaState, event: ev.InputSent, at_ms: int) -> None:
    """A keeper of a key is told by a mere signal only that the saga listens no longer."""
    if isinstance(event.input, Signal):
        state.keys.discard(event.input.saga_id)
    elif isinstance(event.input, ParentLeft) and event.input.how is Leaving.GONE:
        state.released = event.input.parent.sequence


def _nothing(state: SagaState, event: ev.Event, at_ms: int) -> None:
    """Recorded for its effect or for the audit only."""


_APPLY: dict[type, Callable[[SagaState, Any, int], None]] = {
    **evolve_steps.APPLY,
    **evolve_waits.APPLY,
    ev.SagaStarted: _started,
    ev.RunFollows: _run_follows,
    ev.BeginMoved: _begin_moved,
    ev.SagaBegun: _begun,
    ev.WaiterAdded: _waiter_added,
    ev.CircuitOpened: _nothing,
    ev.CircuitClosed: _nothing,
    ev.CancelRequested: _cancel_requested,
    ev.CancelRaised: _cancel_raised,
    ev.CompensationStarted: _compensation_started,
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
    ev.InputAbsorbed: _absorbed,
    ev.SagaEnded: _ended,
    ev.AttachRefused: _nothing,
    ev.InputForwarded: _nothing,
    ev.InputSent: _sent,
    ev.SagaForked: _nothing,
    ev.UndoAsked: _undo_asked,
    ev.ParentGone: _parent_gone,
    ev.SagaForgotten: _forgotten,
}
