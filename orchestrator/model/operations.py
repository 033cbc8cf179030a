"""What people ask of one saga: pause, resume, undo, decide about a step; and what they are answered."""

from __future__ import annotations

from orchestrator.model import attempts, calls, children
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.events import Cause, Status
from orchestrator.model.messages import Override
from orchestrator.model.state import Step, StepStatus
from orchestrator.model.turn import Turn


def answer(turn: Turn, input: msg.Input) -> None:
    """Tells who asked for it what came of an operation."""
    if not isinstance(input, msg.OPERATIONS) or input.reply_to is None:
        return
    events, reason = turn.events, ""
    refused = [each for each in events if isinstance(each, ev.InputAbsorbed) and each.kind == type(input).__name__]
    if refused:
        reason = refused[0].reason
    elif any(isinstance(event, ev.InputHeld) for event in events):
        reason = "no worker has the saga's code: it is kept until one does"
    elif isinstance(input, msg.MoveVersion) and turn.state.phase is Status.WAITING_FOR_CODE:
        reason = f"no worker has the saga's code: it goes on with version {turn.state.version} once one does"
    turn.emit(ev.InputAnswered(input.reply_to, reason))
    if len(events) > 1 and isinstance(events[-2], ev.ContinueDue):
        events.append(events.pop(-2))  # it comes last


def pause(turn: Turn, input: msg.Pause) -> None:
    paused = turn.state.paused
    if paused is not None and not paused.rule:
        turn.absorb(input, "it is paused already")
    else:
        turn.emit(ev.SagaPaused(input.by, input.reason))


def resume(turn: Turn, input: msg.Resume) -> None:
    paused = turn.state.paused
    if paused is None:
        turn.absorb(input, "it is not paused")
    elif paused.rule in turn.moment.paused:
        turn.absorb(input, f"it is paused by the rule {paused.rule}: resume that")
    else:
        _go_on_unpaused(turn, input.by, input.reason)


def compensate(turn: Turn, input: msg.Compensate) -> None:
    state = turn.state
    pivots = [s for s in state.open if state.steps[s].pivot and s not in state.parked]
    if state.phase is Status.COMPENSATING:
        turn.absorb(input, "it is being undone already")
    elif pivots:
        reason = "its pivot is under way: wait for the outcome, or cancel the saga, which then waits for it"
        turn.absorb(input, reason, pivots[0])
    else:
        if state.paused is not None:
            turn.emit(ev.SagaResumed(input.by, "to be undone"))
        turn.compensate(Cause.FAILED, "Forced", input.reason, input.by or "operator")
        turn.advance()


def released(turn: Turn, input: msg.Released) -> None:
    paused = turn.state.paused
    if paused is not None and paused.rule and paused.rule not in turn.moment.paused:
        _go_on_unpaused(turn, "", f"{paused.rule} is resumed")


def _go_on_unpaused(turn: Turn, by: str, reason: str) -> None:
    state = turn.state
    turn.emit(ev.SagaResumed(by, reason))
    if turn.held():
        return
    if state.phase is Status.WAITING_FOR_CODE and turn.definition is not None:
        turn.find_code()
    elif state.phase is Status.RUNNING and turn.definition is None:
        turn.emit(ev.CodeMissing())
    if state.phase is not Status.WAITING_FOR_CODE:
        turn.past_parked = state.cancel_resolved > 0
        turn.advance()


_BACKING_OFF = (StepStatus.BACKING_OFF, StepStatus.UNDO_BACKING_OFF)


def unpark(turn: Turn, input: msg.Unpark) -> None:
    state = turn.state
    pausing = [s for s in sorted(state.open | state.undo_open) if state.steps[s].status in _BACKING_OFF]
    chosen = [input.sequence] if input.sequence else sorted(state.parked)
    if not chosen and input.action is Override.RETRY:
        chosen = pausing
    if not chosen or not (chosen[0] in state.parked or chosen[0] in pausing):
        turn.absorb(input, "it is neither parked nor between two attempts", input.sequence)
        return
    if 0 in chosen and input.action is not Override.RETRY:
        turn.absorb(input, f"{input.action} needs a parked step; the saga itself is parked: retry or terminate it")
        return
    if input.payload is not None and input.action is Override.RETRY and (len(chosen) > 1 or 0 in chosen):
        turn.absorb(input, "another payload is for one step: name it")
        return
    if (problem := _misfit(turn, chosen, input)) is not None:
        turn.absorb(input, problem, input.sequence)
        return
    for sequence in chosen:
        if sequence == 0:
            turn.emit(ev.SagaUnparked(input.by, input.reason))
        elif sequence in state.open:
            _override_do(turn, state.steps[sequence], input)
        else:
            _override_undo(turn, state.steps[sequence], input)
    turn.advance()


def _result(input: msg.Unpark) -> bytes:
    return input.payload if input.action is Override.SET_RESULT and input.payload is not None else b"null"


def _misfit(turn: Turn, chosen: list[int], input: msg.Unpark) -> str | None:
    """Why the code could not go on with the result that some of the steps would get."""
    driver = None if input.action is Override.RETRY else turn.warm()
    if driver is None:
        return None
    for sequence in turn.state.open.intersection(chosen):
        problem = driver.problem_of(sequence, _result(input))
        if problem is not None and input.action is Override.SKIP:
            return f"the code cannot go on without the result of step {sequence}: set one ({problem})"
        if problem is not None:
            return f"the result does not fit step {sequence}: {problem}"
    return None


def _override_do(turn: Turn, step: Step, input: msg.Unpark) -> None:
    if input.action is Override.RETRY and step.kind is ev.StepKind.CHILD:
        turn.absorb(input, f"a child is not tried again: start {step.command} anew, or set its result", step.sequence)
    elif input.action is Override.RETRY:
        turn.emit(ev.StepAttempted(step.sequence, step.attempt + 1, input.by, input.payload, input.reason))
        if step.kind is ev.StepKind.CALL:
            calls.ask(turn, step)
    else:
        attempts.succeed(turn, step, step.attempt, _result(input), input.by, input.reason)


def _override_undo(turn: Turn, step: Step, input: msg.Unpark) -> None:
    if input.action is Override.RETRY:
        payload = None if step.kind is ev.StepKind.CHILD else input.payload
        turn.emit(ev.UndoAttempted(step.sequence, step.undo_attempt + 1, input.by, payload, input.reason))
        if step.kind is ev.StepKind.CHILD:
            children.ask_undo(turn, step)
        elif step.kind is ev.StepKind.CALL:
            calls.ask_undo(turn, step)
    elif input.action is Override.SKIP:
        turn.emit(ev.UndoSkipped(step.sequence, input.reason, input.by))
    else:
        turn.emit(ev.UndoSucceeded(step.sequence, step.undo_attempt, input.by, input.reason))


def terminate(turn: Turn, input: msg.Terminate) -> None:
    turn.terminate(input.reason, input.by)
