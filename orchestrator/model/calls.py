"""Sagas that have other sagas do something, and hear what came of it; the saga that is asked is started if need be.

A call is a step: an update of the other saga (`messages.Update` with a `caller`), which answers by `Called`. Both go by
`Turn.send`, in order and exactly once, so nothing is tried again. What cannot be taken at once is held until it can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model import updates
from orchestrator.model.budget import MAX_BYTES
from orchestrator.model.events import Following, Status
from orchestrator.model.ids import Direction, idempotency_key
from orchestrator.model.messages import Parent
from orchestrator.model.state import SagaState, Step, StepStatus

if TYPE_CHECKING:
    from orchestrator.model.turn import Turn

REFUSED_LATE = "refused after the pivot: "
"""How the reason of a parked call begins whose answer is known."""
DEADLOCK = "Deadlock"
"""The error of a call that would wait for who makes it."""
MAX_CALLS = 500
"""Updates of one run that other sagas wait for; of half of `MAX_BYTES` together, for the next run may get them all."""


def type_of(saga_id: str) -> str:
    """The type of a saga that is started when it is first asked for something: its id begins with that."""
    return saga_id.partition("/")[0]


# -- the side of who asks


def ask(turn: Turn, step: Step) -> None:
    """Has the other saga do it."""
    _send(turn, step, "do", step.attempt, step.command, step.payload)


def ask_undo(turn: Turn, step: Step) -> None:
    """Has the other saga undo it. Only what is known to have been done is: the answer is waited for before."""
    payload = step.payload if step.undo_payload is None else step.undo_payload
    _send(turn, step, "undo", step.undo_attempt, step.undo_command or "", payload)


def _send(turn: Turn, step: Step, direction: Direction, attempt: int, name: str, payload: bytes) -> None:
    state = turn.state
    key = idempotency_key(state.saga_id, state.run_of(step), step.sequence, direction)
    update_id = f"{key}/{attempt}"
    saga_type, caller = type_of(step.service), state.asker(step)
    turn.send(msg.Update(step.service, update_id, update_id, name, payload, None, saga_type, caller))


def is_undo(update: msg.Update) -> bool:
    """Whether a call is to reverse another one. No operation waits for that: it is over when its undo begins."""
    return update.update_id.rsplit("/", 2)[1:2] == ["undo"]


def awaits_answer(step: Step) -> bool:
    """Whether it must be heard first whether there is anything to undo."""
    return step.kind is ev.StepKind.CALL and step.status is StepStatus.UNKNOWN


def is_refused_late(state: SagaState, sequence: int) -> bool:
    """Whether a call is parked because it was refused, so that nothing of it is to be undone."""
    step = state.steps.get(sequence)
    reason = state.parked.get(sequence, "")
    return step is not None and step.kind is ev.StepKind.CALL and reason.startswith(REFUSED_LATE)


# -- the side of who is asked


def update(turn: Turn, input: msg.Update) -> None:
    """Takes an update. What nobody waits for by an address is held where it cannot be taken at once.

    Raises `UpdateRejected`, having changed nothing.
    """
    state = turn.state
    if not input.saga_type:
        updates.update(turn, input)
    elif input.saga_type != state.saga_type:
        _refuse(turn, input, ev.Refusal.OTHER_TYPE, f"the id belongs to a saga of type {state.saga_type}")
    elif state.ended and input.update_id not in state.updates:
        traced, carried = state.traceparent, state.baggage
        turn.emit(
            ev.RunFollows(Following.REUSED, b"null", input.message_id, None, traced, baggage=carried, update=input)
        )
    elif input.reply_to is not None:
        updates.update(turn, input)
    elif state.ended:
        turn.absorb(input, "it was carried out before")  # as a key that a run gives back at each of its ends
    elif state.phase is Status.COMPENSATING:
        _refuse(turn, input, ev.Refusal.REJECTED, f"the saga is {state.status}")
    elif input.caller is not None and not is_undo(input) and (problem := _why_never(state, input, input.caller)):
        answer(turn, input.caller, b"", DEADLOCK, problem)
    elif not is_ready(turn) or turn.warm() is None:
        turn.emit(ev.InputHeld(input))
    elif problem := _why_too_much(state, input):
        _refuse(turn, input, ev.Refusal.NOT_NOW, problem)
    elif input.update_id not in state.updates:
        sequence, given = state.sequence + 1, (input.update_id, input.name, input.payload)
        turn.emit(ev.UpdateAccepted(sequence, *given, None, input.caller))
        turn.advance()


def _why_never(state: SagaState, input: msg.Update, caller: Parent) -> str:
    """Why the update would never be answered: who asks for it is waited for by the saga itself, and nothing else is.

    Whatever else is waited for, such as a pause in the same group, may come first and have the saga go on without.
    """
    asked = f"{caller.saga_id} asks {state.saga_id} for {input.name}"
    if caller.saga_id == state.saga_id:
        return f"{asked}: it would wait for the operation that asks; call the method instead"
    waited_for = [step for s in state.open if (step := state.steps[s]).kind is not ev.StepKind.UPDATE]
    if len(waited_for) == 1:
        (step,) = waited_for
        if step.kind is ev.StepKind.CALL and step.service == caller.saga_id and step.due_ms is None:
            return f"{asked}, which waits for {caller.saga_id} to answer {step.command}: neither would go on"
    return ""


def _why_too_much(state: SagaState, input: msg.Update) -> str:
    size = len(input.payload) + sum(len(state.steps[sequence].payload) for sequence in state.asked)
    if len(state.asked) < MAX_CALLS and size <= MAX_BYTES // 2:
        return ""
    return f"{len(state.asked)} updates of the saga are under way; at most {MAX_CALLS} and {MAX_BYTES // 2} bytes are"


def _refuse(turn: Turn, input: msg.Update, kind: ev.Refusal, reason: str) -> None:
    if input.reply_to is not None:
        raise updates.UpdateRejected(input, kind, reason)
    if input.caller is None:
        turn.absorb(input, reason)
    else:
        answer(turn, input.caller, b"", str(kind), reason)


def answer(turn: Turn, caller: Parent, payload: bytes, error_type: str, error_message: str) -> None:
    """Tells the saga that waits for an update what came of it."""
    turn.send(msg.Called(caller.saga_id, caller.run, caller.sequence, payload, error_type, error_message))


def is_ready(turn: Turn) -> bool:
    """Whether the saga could take an update now."""
    state = turn.state
    held = state.parked or state.paused is not None or state.begin_ms is not None or state.continue_due
    return state.phase is Status.RUNNING and turn.definition is not None and not held


def refuse_held(turn: Turn, reason: str) -> None:
    """The run ends: who waits for something that is held is told."""
    for held in turn.state.mailbox:
        if isinstance(held, msg.Update) and held.caller is not None:
            answer(turn, held.caller, b"", "SagaEnded", reason)


def deliver(turn: Turn, input: msg.Update) -> None:
    """An update that a run gets as it begins: with its start, or from the run before."""
    try:
        update(turn, input)
    except updates.UpdateRejected as rejected:
        if input.reply_to is not None:
            turn.emit(ev.AttachRefused(input.reply_to, rejected.kind, rejected.reason))


def left_open(old: SagaState) -> list[msg.Update]:
    """The updates that a run handed on when it continued as new, the oldest first."""
    found = []
    for sequence in sorted(old.asked):
        step, waiters = old.steps[sequence], old.asked[sequence]
        reply_to, caller = waiters[0] if waiters else None, old.callers.get(sequence)
        given = step.service, step.service, step.command, step.payload
        found.append(msg.Update(old.saga_id, *given, reply_to, old.saga_type, caller))
    return found
