"""Further runs that people ask for: from the beginning, from the step that failed, from any step, under another id.

A run that is set back to step N undoes what it did from N on, and ends; the next one inherits the steps before N with
their results and undoes them if it comes to that. So each step has one run that answers for its undo.
"""

from __future__ import annotations

from orchestrator.model import events as ev
from orchestrator.model import inheritance, operations
from orchestrator.model import messages as msg
from orchestrator.model.events import Cause, Following, Status
from orchestrator.model.messages import Conflict, Override, Reuse
from orchestrator.model.state import GOES_ON, SagaState, StepStatus
from orchestrator.model.turn import Turn


def restart(turn: Turn, input: msg.Restart) -> None:
    """Runs a saga that has ended again, from its beginning; nothing of what it did is undone."""
    state = turn.state
    if state.follows is not None:
        turn.absorb(input, "another run follows already")
    elif not state.ended:
        turn.absorb(input, "it has not ended: reset it to step 1, or cancel or terminate it first")
    elif state.has_parent:
        turn.absorb(input, _whose_child(state))
    else:
        payload = state.payload if input.payload is None else input.payload
        turn.emit(turn.following(Following.RESTARTED, payload, by=input.by, reason=input.reason))


def redrive(turn: Turn, input: msg.Redrive) -> None:
    """Has a saga that failed go on: what is parked is tried again, one that has ended goes on where it still stands.

    Its code then sees the input that came along, and has to ask for what still stands as it did before.
    """
    state = turn.state
    if not state.ended and state.parked and input.payload is not None:
        turn.absorb(input, "it is parked, and keeps its input: retry the step with another request, or reset it")
    elif not state.ended and state.parked:
        retry = msg.Unpark(
            input.saga_id, input.message_id, Override.RETRY, run=input.run, reason=input.reason, by=input.by
        )
        operations.unpark(turn, retry)
    elif not state.ended:
        turn.absorb(input, "it is under way: only what is parked or has failed can be redriven")
    elif state.phase is Status.COMPLETED or state.phase in GOES_ON:
        turn.absorb(input, f"it is {state.phase}: restart it, or reset it to a step")
    else:
        _set_back(turn, input, inheritance.failed_at(state))


def reset(turn: Turn, input: msg.Reset) -> None:
    """Undoes a saga from one of its steps on, and has it go on from there."""
    _set_back(turn, input, input.to)


def fork(turn: Turn, input: msg.Fork) -> None:
    """Starts another saga with the results of this one's steps before some step; their undo stays here."""
    state = turn.state
    until, problem = inheritance.point(state, input.to, fork=True)
    if input.target == state.saga_id:
        problem = "a fork is another saga: give it an id of its own"
    if problem:
        turn.absorb(input, problem)
        return
    turn.emit(ev.SagaForked(input.target, until, input.by, input.reason))
    steps = inheritance.before(state, until)
    turn.send(
        msg.Start(
            input.target,
            input.message_id,
            state.saga_type,
            state.payload,
            reuse=Reuse.REJECT_DUPLICATE,
            conflict=Conflict.FAIL,
            baggage=state.baggage,
            note=state.note,
            begin_at_ms=state.not_begun_ms,
            traceparent=state.traceparent,
            inherited=tuple(inheritance.heir(step, "", step.seed or state.seed, owned=False) for step in steps),
            ballast=state.ballast,
            began_ms=inheritance.began_ms(state, until),
        )
    )


def _set_back(turn: Turn, input: msg.Reset | msg.Redrive, to: int) -> None:
    state = turn.state
    until, problem = inheritance.point(state, to)
    if problem or (problem := _why_not(state, until)):
        turn.absorb(input, problem, to)
        return
    other = input.payload if isinstance(input, msg.Redrive) else None
    if state.ended and not _left(state, until) and state.phase is not Status.TERMINATED:
        payload = state.payload if other is None else other
        turn.emit(turn.following(Following.RESET, payload, by=input.by, reason=input.reason, until=until))
        return
    if other is not None:
        turn.absorb(input, "it was terminated: redrive it with the input it had, or restart it with another", to)
        return
    if state.paused is not None:
        turn.emit(ev.SagaResumed(input.by, "to be reset"))
    turn.compensate(Cause.RESET, "Reset", input.reason, input.by or "operator", until)
    turn.advance()


def _why_not(state: SagaState, until: int) -> str:
    """Why a run cannot be set back to step `until`, nothing where it can."""
    if state.follows is not None:
        return "another run follows already"
    if state.phase is Status.COMPENSATING:
        return "it is being undone: wait until it has ended"
    if state.ended and state.has_parent:
        return _whose_child(state)
    if state.undo_asked:
        return "its parent undoes it"
    if state.mailbox:
        return "it waits for a worker with its code, which has to take what came meanwhile"
    if state.phase is Status.TERMINATED and state.undo_open:
        return "it was terminated while it was undone, and nobody knows what of that happened: restart it"
    stays = _stays(state, until)
    return f"{stays}: {_instead(state)}" if stays else ""


def _stays(state: SagaState, until: int) -> str:
    """What from step `until` on can be neither undone nor done again, nothing where there is no such thing."""
    if state.phase in (Status.CANCELED, Status.TIMED_OUT) and _left(state, until):
        return f"what it did from step {until} on is past its pivot and stays"
    for step in inheritance.since(state, until):
        if step.pivot and step.status is not StepStatus.REFUSED:
            return f"step {step.sequence} is its pivot and cannot be undone"
    return ""


def _instead(state: SagaState) -> str:
    """What can be done where something stays: no later step can be reset to where one before the pivot was undone."""
    restart = "restart it" if state.ended else "restart it once it has ended"
    latest, problem = inheritance.point(state, state.sequence + 1)
    if problem or _stays(state, latest):
        return restart
    return f"{restart}, or reset it to a later step" if state.ended else "reset it to a later step"


def _left(state: SagaState, until: int) -> bool:
    """Whether there is anything to undo from step `until` on."""
    return any(step.needs_undo for step in inheritance.since(state, until))


def _whose_child(state: SagaState) -> str:
    assert state.parent is not None
    return f"it is a child of {state.parent.saga_id}, which knows how it ended: redrive or reset that one"
