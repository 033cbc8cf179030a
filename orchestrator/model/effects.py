"""What goes outside, derived from events: nothing is sent that no journaled event asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.model import events as ev
from orchestrator.model.frozen import frozen
from orchestrator.model.ids import Direction
from orchestrator.model.messages import ReplyAddress
from orchestrator.model.state import SagaState, StepStatus


@frozen
class Command:
    """Ask a service to do or undo one step: to `<service>.commands`, on the step's own partition."""

    saga_id: str
    run: str
    saga_type: str
    sequence: int
    direction: Direction
    attempt: int
    service: str
    command: str
    partition: int
    payload: bytes
    deadline_ms: int | None
    traceparent: str | None


@frozen
class Answer:
    """Tell a client how its saga ended, or that there is none. `status` is a `Status` or REFUSED, `undone` as in it."""

    saga_id: str
    run: str
    reply_to: ReplyAddress
    status: str
    payload: bytes
    error_type: str = ""
    error_message: str = ""
    undone: str = ""


@frozen
class Forward:
    """Hand an input to the partition that owns its saga, by `saga.internal`."""

    target: int
    counter: int
    topic: str
    saga_id: str
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


Effect = Command | Answer | Forward


def effects(event: ev.Event, saga_id: str, state: SagaState | None) -> tuple[Effect, ...]:
    """The outward acts of one accepted event, as they stand in `state` now: none where the step is no longer open.

    `state` is the saga's state at or after the event; None only for events that need none.
    """
    find = _EFFECTS.get(type(event))
    return () if find is None else find(event, saga_id, state)


def effects_of(decision: ev.Decision, state: SagaState | None) -> list[tuple[int, Effect]]:
    """The outward acts of a whole decision, each with the index of its event."""
    return [
        (index, effect)
        for index, event in enumerate(decision.events)
        for effect in effects(event, decision.saga_id, state)
    ]


def _forward(event: ev.InputForwarded, saga_id: str, state: SagaState | None) -> tuple[Effect, ...]:
    return (Forward(event.target, event.counter, event.topic, saga_id, event.value, event.headers),)


def _refusal(event: ev.AttachRefused, saga_id: str, state: SagaState | None) -> tuple[Effect, ...]:
    return (Answer(saga_id, "", event.reply_to, "REFUSED", b"", event.kind, event.reason),)


def _endings(event: ev.SagaEnded, saga_id: str, state: SagaState | None) -> tuple[Effect, ...]:
    if event.status is ev.Status.CONTINUED_AS_NEW:
        return ()  # who waits, waits for the next run's end
    return tuple([_answer(state, waiter) for waiter in state.waiters]) if state is not None and state.ended else ()


def _ending(event: ev.WaiterAdded, saga_id: str, state: SagaState | None) -> tuple[Effect, ...]:
    return (_answer(state, event.reply_to),) if state is not None and state.ended else ()


def _command(
    event: ev.StepScheduled | ev.StepAttempted | ev.UndoScheduled | ev.UndoAttempted,
    saga_id: str,
    state: SagaState | None,
) -> tuple[Effect, ...]:
    """A `do` while its step has no outcome, an `undo` while it has none; an attempt that a later one follows is not."""
    if state is None or state.ended:
        return ()
    step = state.steps[event.sequence]
    undo = type(event) in _UNDOS
    attempt = getattr(event, "attempt", 1)
    if undo:
        if step.status is not StepStatus.UNDOING or step.undo_attempt != attempt:
            return ()
        payload = step.payload if step.undo_payload is None else step.undo_payload
        command = step.undo_command or ""
    else:
        if step.status is not StepStatus.RUNNING or step.attempt != attempt:
            return ()
        payload, command = step.payload, step.command
    return (
        Command(
            state.saga_id,
            state.run,
            state.saga_type,
            step.sequence,
            "undo" if undo else "do",
            attempt,
            step.service,
            command,
            step.partition,
            payload,
            step.due_ms,
            state.traceparent,
        ),
    )


def _answer(state: SagaState, waiter: ReplyAddress) -> Answer:
    return Answer(
        state.saga_id,
        state.run,
        waiter,
        str(state.phase),
        state.result,
        state.error_type,
        state.error_message,
        state.undone or "",
    )


_UNDOS = frozenset({ev.UndoScheduled, ev.UndoAttempted})
_EFFECTS: dict[type, Callable[[Any, str, SagaState | None], tuple[Effect, ...]]] = {
    ev.StepScheduled: _command,
    ev.StepAttempted: _command,
    ev.UndoScheduled: _command,
    ev.UndoAttempted: _command,
    ev.SagaEnded: _endings,
    ev.WaiterAdded: _ending,
    ev.AttachRefused: _refusal,
    ev.InputForwarded: _forward,
}
