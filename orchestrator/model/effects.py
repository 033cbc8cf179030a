"""What goes outside, derived from events: nothing is sent that no journaled event asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.model import events as ev
from orchestrator.model.events import StepKind
from orchestrator.model.frozen import frozen
from orchestrator.model.ids import Direction
from orchestrator.model.messages import Input, Outcome, Reply, ReplyAddress
from orchestrator.model.state import GOES_ON, SagaState, Step, StepStatus

REFUSED, APPLIED, ABSORBED = "REFUSED", "APPLIED", "ABSORBED"
ANSWERED, UPDATE_FAILED = "ANSWERED", "UPDATE_FAILED"
"""What an answer says where it does not say how a saga ended."""


@frozen
class Command:
    """Ask a service to do or undo one step: to `<service>.commands`, on the step's own partition.

    `heartbeat_ms`: how often the saga wants to hear of the work, 0: once, when it begins. `details`: what the last
    heartbeat of an earlier attempt said.
    """

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
    heartbeat_ms: int | None = None
    details: bytes = b""
    baggage: str | None = None


@frozen
class LocalCall:
    """Call a function in the owner's own process. Nobody acknowledges it: the next owner calls again.

    `since_ms`: the partition's clock when the first attempt was decided.
    """

    saga_id: str
    run: str
    saga_type: str
    sequence: int
    direction: Direction
    attempt: int
    function: str
    payload: bytes
    deadline_ms: int | None
    since_ms: int = 0

    @property
    def unit(self) -> tuple[str, str, int]:
        """The unit of order: (saga id, run, sequence), one call at a time."""
        return self.saga_id, self.run, self.sequence


@frozen
class Answer:
    """Tell a client how its saga ended, that there is none, or what came of what it asked for.

    `status` is a `Status`, REFUSED, APPLIED or ABSORBED; `undone` as in the state.
    """

    saga_id: str
    run: str
    reply_to: ReplyAddress
    status: str
    payload: bytes
    error_type: str = ""
    error_message: str = ""
    undone: str = ""


@frozen
class Message:
    """Tell another saga something, by `saga.internal`. `counter` numbers what this partition sends to `target`."""

    target: int
    counter: int
    input: Input

    @property
    def saga_id(self) -> str:
        return self.input.saga_id


@frozen
class Forward:
    """Hand an input to the partition that owns its saga, by `saga.internal`."""

    target: int
    counter: int
    topic: str
    saga_id: str
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


Outward = Command | Answer | Forward | Message
"""What a topic takes."""
Effect = Outward | LocalCall


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


def _message(event: ev.InputSent, saga_id: str, state: SagaState | None) -> tuple[Effect, ...]:
    return (Message(event.target, event.counter, event.input),)


def _refusal(event: ev.AttachRefused, saga_id: str, state: SagaState | None) -> tuple[Effect, ...]:
    return (Answer(saga_id, "", event.reply_to, REFUSED, b"", event.kind, event.reason),)


def _answered(event: ev.InputAnswered, saga_id: str, state: SagaState | None) -> tuple[Effect, ...]:
    status = ABSORBED if event.reason else APPLIED
    return (Answer(saga_id, "" if state is None else state.run, event.reply_to, status, b"", "", event.reason),)


def _endings(event: ev.SagaEnded, saga_id: str, state: SagaState | None) -> tuple[Effect, ...]:
    if event.status in GOES_ON:
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
    if step.kind in (StepKind.CHILD, StepKind.CALL):
        return ()  # what it says goes by events of its own
    undo = type(event) in _UNDOS
    attempt = getattr(event, "attempt", 1)
    if undo:
        if step.status is not StepStatus.UNDOING or step.undo_attempt != attempt:
            return ()
    elif step.status is not StepStatus.RUNNING or step.attempt != attempt:
        return ()
    if step.kind is StepKind.LOCAL:
        return (local_call(state, step),)
    direction, attempt, command, payload = _said(step)
    return (
        Command(
            state.saga_id,
            state.run_of(step),
            state.saga_type,
            step.sequence,
            direction,
            attempt,
            step.service,
            command,
            step.partition,
            payload,
            step.due_ms,
            state.traceparent,
            None if undo else _heartbeat_ms(step),
            b"" if undo else step.details,
            state.baggage,
        ),
    )


def _said(step: Step) -> tuple[Direction, int, str, bytes]:
    """Direction, attempt, command and payload of what is under way for the step now."""
    if step.status is StepStatus.UNDOING:
        payload = step.payload if step.undo_payload is None else step.undo_payload
        return "undo", step.undo_attempt, step.undo_command or "", payload
    return "do", step.attempt, step.command, step.payload


def local_call(state: SagaState, step: Step) -> LocalCall:
    """What is to be called for a local step (`Step.is_called`) now."""
    direction, attempt, function, payload = _said(step)
    return LocalCall(
        state.saga_id,
        state.run_of(step),
        state.saga_type,
        step.sequence,
        direction,
        attempt,
        function,
        payload,
        step.due_ms,
        step.since_ms,
    )


def reply_of(
    call: LocalCall,
    outcome: Outcome,
    payload: bytes = b"",
    error_type: str = "",
    error_message: str = "",
    retry_after_ms: int | None = None,
) -> Reply:
    """What came of a call, as the input that its step takes."""
    undo = call.direction == "undo"
    said = (outcome, payload, error_type, error_message, retry_after_ms)
    return Reply(call.saga_id, call.run, call.sequence, undo, call.attempt, *said)


def local_calls(state: SagaState) -> list[LocalCall]:
    """All that is to be called for a run now, in the order of its steps."""
    return [local_call(state, state.steps[sequence]) for sequence in sorted(state.local)]


def _heartbeat_ms(step: Step) -> int | None:
    """How often the saga wants to hear of the work: 0 is once, when it begins; None is not at all."""
    return 0 if step.heartbeat_ms is None and step.schedule_to_start_ms is not None else step.heartbeat_ms


def _accepted(event: ev.UpdateAccepted, saga_id: str, state: SagaState | None) -> tuple[Effect, ...]:
    if event.reply_to is None or state is None:
        return ()
    return (Answer(saga_id, state.run, accepted_address(event.reply_to), ANSWERED, b""),)


def _asked_again(event: ev.UpdateAsked, saga_id: str, state: SagaState | None) -> tuple[Effect, ...]:
    if state is None:
        return ()
    step = state.steps[event.sequence]
    accepted = Answer(saga_id, state.run, accepted_address(event.reply_to), ANSWERED, b"")
    if event.sequence in state.asked:
        return (accepted,)
    status = UPDATE_FAILED if step.error_type else ANSWERED
    return (
        accepted,
        Answer(saga_id, state.run, event.reply_to, status, step.result, step.error_type, step.error_message),
    )


def _update_ended(event: ev.UpdateEnded, saga_id: str, state: SagaState | None) -> tuple[Effect, ...]:
    run = "" if state is None else state.run
    status = UPDATE_FAILED if event.error_type else ANSWERED
    return tuple(
        Answer(saga_id, run, waiter, status, event.payload, event.error_type, event.error_message)
        for waiter in event.waiters
    )


def accepted_address(waiter: ReplyAddress) -> ReplyAddress:
    """Where the same client hears that its update was accepted."""
    return ReplyAddress(waiter.topic, waiter.partition, f"{waiter.correlation_id}/accepted")


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
    ev.InputAnswered: _answered,
    ev.InputForwarded: _forward,
    ev.InputSent: _message,
    ev.UpdateAccepted: _accepted,
    ev.UpdateAsked: _asked_again,
    ev.UpdateEnded: _update_ended,
}
