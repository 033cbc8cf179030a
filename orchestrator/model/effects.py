"""What goes outside, derived from events: nothing is sent that no journaled event asked for."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.model import events as ev
from orchestrator.model.ids import Direction
from orchestrator.model.messages import ReplyAddress
from orchestrator.model.state import SagaState, StepStatus


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
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
    if isinstance(event, ev.InputForwarded):
        return (Forward(event.target, event.counter, event.topic, saga_id, event.value, event.headers),)
    if isinstance(event, ev.AttachRefused):
        return (Answer(saga_id, "", event.reply_to, "REFUSED", b"", "NotFound", event.reason),)
    if state is None:
        return ()
    if isinstance(event, ev.StepScheduled | ev.StepAttempted | ev.UndoScheduled | ev.UndoAttempted):
        return _command(event, state)
    if isinstance(event, ev.SagaEnded) and state.ended:
        return tuple(_answer(state, waiter) for waiter in state.waiters)
    if isinstance(event, ev.WaiterAdded) and state.ended:
        return (_answer(state, event.reply_to),)
    return ()


def _command(
    event: ev.StepScheduled | ev.StepAttempted | ev.UndoScheduled | ev.UndoAttempted, state: SagaState
) -> tuple[Effect, ...]:
    """A `do` while its step has no outcome, an `undo` while it has none; an attempt that a later one follows is not."""
    step = state.steps[event.sequence]
    undo = isinstance(event, ev.UndoScheduled | ev.UndoAttempted)
    attempt = getattr(event, "attempt", 1)
    if state.ended:
        return ()
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
