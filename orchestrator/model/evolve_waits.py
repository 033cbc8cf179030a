"""From event to state: waits, signals, promises, updates and recorded values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.model import events as ev
from orchestrator.model.state import STEP_TRANSITIONS, STOPPED, SagaState, Step
from orchestrator.model.upkeep import BrokenHistory, add, enter, move, resolve, set_due


def _wait_scheduled(state: SagaState, event: ev.WaitScheduled, at_ms: int) -> None:
    status = STEP_TRANSITIONS[None, "WaitScheduled"]
    step = Step(event.sequence, status, event.after, kind=event.kind, command=event.name, due_ms=event.due_ms)
    add(state, step, event)


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
    add(state, step, event)
    resolve(state, step, at_ms)
    state.updates[event.update_id] = event.sequence
    state.asked[event.sequence] = [] if event.reply_to is None else [event.reply_to]
    if event.caller is not None:
        state.callers[event.sequence] = event.caller


def _update_asked(state: SagaState, event: ev.UpdateAsked, at_ms: int) -> None:
    if event.sequence in state.asked and not state.ended:
        state.asked[event.sequence].append(event.reply_to)


def _update_ended(state: SagaState, event: ev.UpdateEnded, at_ms: int) -> None:
    step = move(state, event)
    step.result, step.error_type, step.error_message = event.payload, event.error_type, event.error_message
    del state.asked[event.sequence]
    state.callers.pop(event.sequence, None)


def _lock_taken(state: SagaState, event: ev.LockTaken, at_ms: int) -> None:
    step = move(state, event)
    step.result = b"%d" % step.sequence
    state.locks.add(step.sequence)
    resolve(state, step, at_ms)


def _lock_refused(state: SagaState, event: ev.LockRefused, at_ms: int) -> None:
    step = move(state, event)
    step.error_type, step.error_message = event.error_type, event.error_message
    resolve(state, step, at_ms)


def _lock_released(state: SagaState, event: ev.LockReleased, at_ms: int) -> None:
    move(state, event).ended = len(state.outcomes)  # whoever is set back to before that takes it anew
    state.locks.discard(event.sequence)


def _recorded(state: SagaState, event: ev.Recorded, at_ms: int) -> None:
    step = Step(event.sequence, STEP_TRANSITIONS[None, "Recorded"], event.after, kind=event.kind, command=event.name)
    step.result = event.payload
    add(state, step, event)
    if step.keeper:
        state.keys.add(step.keeper)


def _wait_canceled(state: SagaState, event: ev.WaitCanceled, at_ms: int) -> None:
    step = move(state, event)
    step.ended = len(state.outcomes)
    step.error_type = STOPPED if event.stopped else ""


APPLY: dict[type, Callable[[SagaState, Any, int], None]] = {
    ev.WaitScheduled: _wait_scheduled,
    ev.WaitExpired: _wait_expired,
    ev.SignalReceived: _signal_received,
    ev.SignalBuffered: _signal_buffered,
    ev.SignalDropped: _signal_dropped,
    ev.SignalTaken: _signal_taken,
    ev.LockTaken: _lock_taken,
    ev.LockRefused: _lock_refused,
    ev.LockReleased: _lock_released,
    ev.PromiseSettled: _promise_settled,
    ev.PromiseKept: _promise_told,
    ev.PromiseBroken: _promise_told,
    ev.UpdateAccepted: _update_accepted,
    ev.UpdateAsked: _update_asked,
    ev.UpdateEnded: _update_ended,
    ev.Recorded: _recorded,
    ev.WaitCanceled: _wait_canceled,
}
