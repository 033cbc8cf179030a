"""What a person decides about a parked saga or step, always with a name."""

from __future__ import annotations

from orchestrator.model import attempts
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.messages import Override
from orchestrator.model.state import Step, StepStatus
from orchestrator.model.turn import Turn


def unpark(turn: Turn, input: msg.Unpark) -> None:
    state = turn.state
    chosen = [input.sequence] if input.sequence else sorted(state.parked)
    if not chosen or chosen[0] not in state.parked:
        turn.absorb(input, "it is not parked", input.sequence)
        return
    if 0 in chosen and input.action is not Override.RETRY:
        turn.absorb(input, f"{input.action} needs a parked step; the saga itself is parked: retry or terminate it")
        return
    for sequence in chosen:
        if sequence == 0:
            turn.emit(ev.SagaUnparked(input.by, input.reason))
        elif state.steps[sequence].status is StepStatus.PARKED:
            _override_do(turn, state.steps[sequence], input)
        else:
            _override_undo(turn, state.steps[sequence], input)
    turn.advance()


def _override_do(turn: Turn, step: Step, input: msg.Unpark) -> None:
    if input.action is Override.RETRY:
        turn.emit(ev.StepAttempted(step.sequence, step.attempt + 1, input.by))
    else:
        payload = input.payload if input.action is Override.SET_RESULT and input.payload is not None else b"null"
        attempts.succeed(turn, step, step.attempt, payload, input.by)


def _override_undo(turn: Turn, step: Step, input: msg.Unpark) -> None:
    if input.action is Override.RETRY:
        turn.emit(ev.UndoAttempted(step.sequence, step.undo_attempt + 1, input.by))
    elif input.action is Override.SKIP:
        turn.emit(ev.UndoSkipped(step.sequence, input.reason, input.by))
    else:
        turn.emit(ev.UndoSucceeded(step.sequence, step.undo_attempt, input.by))
