"""What a saga hears of what it asked other sagas for: calls, and keys of locks."""

from __future__ import annotations

from orchestrator.model import attempts, calls, locks
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.state import Step, StepStatus
from orchestrator.model.turn import Turn


def called(turn: Turn, input: msg.Called) -> None:
    step = turn.state.steps.get(input.sequence)
    if step is None or step.kind not in (ev.StepKind.CALL, ev.StepKind.LOCK):
        turn.absorb(input, f"the saga has no call {input.sequence}")
    elif step.kind is ev.StepKind.LOCK:
        locks.taken(turn, step, input)
    else:
        _call_ended(turn, step, input)
    turn.advance()


def _call_ended(turn: Turn, step: Step, input: msg.Called) -> None:
    """What came of a call, or of its undo."""
    failed = input.error_type != ""
    words = f"{input.error_type} {input.error_message}".strip()
    if step.status in (StepStatus.RUNNING, StepStatus.PARKED):
        _do_ended(turn, step, input)
    elif step.status is StepStatus.UNKNOWN and step.undo_command is not None:
        turn.emit(ev.CallRefused(step.sequence) if failed else ev.CallDone(step.sequence))
    elif step.status is StepStatus.UNDOING:
        turn.emit(
            ev.UndoParked(step.sequence, f"the undo was refused: {words}")
            if failed
            else ev.UndoSucceeded(step.sequence, step.undo_attempt)
        )
    else:
        turn.absorb(input, f"late: the step is {step.status}", step.sequence)


def _do_ended(turn: Turn, step: Step, input: msg.Called) -> None:
    if not input.error_type:
        attempts.succeed(turn, step, step.attempt, input.payload)
    elif step.status is StepStatus.PARKED:
        turn.absorb(input, f"{calls.REFUSED_LATE}{input.error_type} {input.error_message}", step.sequence)
    elif turn.state.pivot_done:
        turn.emit(ev.StepParked(step.sequence, f"{calls.REFUSED_LATE}{input.error_type} {input.error_message}"))
    else:
        turn.emit(ev.StepRefused(step.sequence, step.attempt, input.error_type, input.error_message))
