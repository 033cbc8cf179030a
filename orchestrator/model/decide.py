"""From one input to the events it causes. What a reply, a timer or a person's word means is said only here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.model import (
    answers,
    attempts,
    calls,
    checks,
    children,
    locks,
    migrations,
    operations,
    resets,
    starts,
    told,
    undoing,
)
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.checks import InputRejected as InputRejected
from orchestrator.model.definition import Definition
from orchestrator.model.events import Cause, Status
from orchestrator.model.ids import run_id
from orchestrator.model.messages import Outcome
from orchestrator.model.state import SagaState
from orchestrator.model.turn import Execution, Moment, Turn
from orchestrator.model.updates import UpdateRejected
from orchestrator.model.versions import of_run, of_start


def decide(
    execution: Execution | None, definition: Definition | None, input: msg.Input, moment: Moment
) -> tuple[Execution | None, tuple[ev.Event, ...], str]:
    """Decides one input: the execution it belongs to, the events (applied already; maybe none) and the run's id.

    `execution` is None where the saga id is not known, `definition` where this owner lacks the code. Raises
    `InputRejected`, having changed nothing.
    """
    try:
        return _decide(execution, definition, input, moment)
    except InputRejected as rejected:
        if isinstance(input, msg.Start) and input.parent is not None:
            return starts.refuse_child(execution, input, str(rejected), moment)
        raise


def _decide(
    execution: Execution | None, definition: Definition | None, input: msg.Input, moment: Moment
) -> tuple[Execution | None, tuple[ev.Event, ...], str]:
    if execution is None or execution.state.phase is Status.NOT_STARTED:
        return _decide_unknown(execution, definition, input, moment)
    state = execution.state
    if state.ended and state.continue_due and isinstance(input, msg.Continue | msg.TimerDue) and input.run == state.run:
        return starts.after_the_end(execution, definition, moment)
    newest, definition = definition, of_run(definition, state)
    turn = Turn(execution, definition, moment)
    turn.newest = newest
    if not isinstance(input, _JOINING) and input.run is not None and not _is_for(input, state):
        silent = isinstance(input, msg.Reply) and input.outcome is Outcome.HEARTBEAT
        if isinstance(input, msg.Reply) and input.run != state.previous_run and not silent:
            raise InputRejected(f"it is for run {input.run}, the saga's run is {state.run}")
        turn.absorb(input, f"it is for run {input.run}")
        operations.answer(turn, input)
        return execution, tuple(turn.events), state.run
    if isinstance(input, _CHECKED):
        checks.check_step(input, state)
    elif isinstance(input, msg.Signal):
        checks.check_signal(input.name, input.payload, state, definition)
    elif isinstance(input, msg.Settle):
        checks.check_settle(input, state, definition)
    elif isinstance(input, msg.Restart | msg.Redrive):
        checks.check_another_input(input, of_start(newest, state.saga_id))
    elif isinstance(input, msg.Start) and input.saga_type == state.saga_type:
        if starts.may_start_anew(input, state):
            checks.check_start(input, state, of_start(newest, state.saga_id))
        else:
            checks.check_signal_along(input, state, definition)
    if definition is None and state.phase in _NEEDING_CODE and _needs_code(input, state):
        if state.phase is Status.RUNNING:
            execution.detach()
            turn.emit(ev.CodeMissing())
        if not isinstance(input, msg.TimerDue) or input not in state.mailbox:  # each owner hears of a timer anew
            turn.emit(ev.InputHeld(input))
    elif newest is not None and newest.lasting and _would_take_back(input, state):
        turn.absorb(input, _instead(state))
    elif state.ended and not isinstance(input, _ALSO_ENDED):
        _after_end(turn, input)
    else:
        _DECIDE[type(input)](turn, input)
        if state.mailbox and state.phase is not Status.WAITING_FOR_CODE:
            _take_held(turn)  # there is code, or it turned to undoing, which needs none
    operations.answer(turn, input)
    return execution, tuple(turn.events), state.run


def _decide_unknown(
    execution: Execution | None, definition: Definition | None, input: msg.Input, moment: Moment
) -> tuple[Execution | None, tuple[ev.Event, ...], str]:
    """Of an id that nobody has started. `execution`: there are signals for it, which are kept under its coming run."""
    known = execution is not None
    execution = execution or Execution(SagaState(input.saga_id, run_id(moment.incarnation, moment.offset, 0)))
    state = execution.state
    turn = Turn(execution, of_start(definition, input.saga_id), moment)
    if isinstance(input, msg.Attach):
        refusal = ev.AttachRefused(input.reply_to, ev.Refusal.NOT_FOUND, "there is no such saga")
        if not known:
            return None, (refusal,), ""
        turn.emit(refusal)
    elif isinstance(input, msg.Update) and input.saga_type:
        starts.begin_with(turn, input)
    elif isinstance(input, msg.Update):
        raise UpdateRejected(input, ev.Refusal.NOT_FOUND, "there is no such saga")
    elif isinstance(input, msg.Signal) and input.run is None:
        checks.check_signal(input.name, input.payload, state, None)
        until_ms = moment.now_ms + moment.signal_ttl_ms
        turn.emit(ev.SignalBuffered(input.name, input.payload, until_ms, input.by))
    elif isinstance(input, msg.Start):
        starts.begin(turn, input)
    elif isinstance(input, msg.UndoChild):
        children.undo_unknown(turn, input)
        return (execution, tuple(turn.events), state.run) if known else (None, tuple(turn.events), "")
    elif isinstance(input, msg.ParentLeft | msg.ChildEnded | msg.Called):  # it may be forgotten by now
        return (execution if known else None), (), ""
    elif isinstance(input, msg.TimerDue):
        if state.due_of(0) == input.due_ms and moment.now_ms >= input.due_ms:
            turn.drop_signals(lambda name, payload: "nobody started the saga")
            turn.emit(ev.SagaForgotten())
    else:
        reason = f"there is no saga {input.saga_id!r}"
        raise InputRejected(reason, getattr(input, "reply_to", None), ev.Refusal.NOT_FOUND)
    return execution, tuple(turn.events), state.run


def _is_for(input: msg.Input, state: SagaState) -> bool:
    """Whether an input that names a run is for this one, or for a step that it inherited from that run."""
    run: str = input.run  # type: ignore[union-attr, assignment]
    if isinstance(input, msg.Settle):
        return run == state.run or any(step.run == run for step in state.steps.values())
    return state.is_own(run, getattr(input, "sequence", 0))


_NEEDING_CODE = (Status.RUNNING, Status.WAITING_FOR_CODE)


def _needs_code(input: msg.Input, state: SagaState) -> bool:
    if isinstance(input, msg.Cancel):
        return state.sequence > 0
    if isinstance(input, msg.Reply) and input.outcome is Outcome.HEARTBEAT:
        return False
    if isinstance(input, msg.Update):
        return input.saga_type == state.saga_type and input.reply_to is None
    return isinstance(input, _FOR_CODE)


_FOR_CODE = (
    *(msg.Reply, msg.TimerDue, msg.SendFailed, msg.Unpark),
    *(msg.Signal, msg.Settle, msg.ChildEnded, msg.Called),
)
_TAKING_BACK = (msg.Cancel, msg.Compensate, msg.Reset, msg.Fork, msg.Restart)
_JOINING = (msg.Start, msg.Attach, msg.UndoChild, msg.ParentLeft, msg.Update)
"""Inputs that name no run of this saga, and that one which has ended may answer."""
_ALSO_ENDED = (*_JOINING, msg.Restart, msg.Redrive, msg.Reset, msg.Fork)
_CHECKED = (msg.Reply, msg.SendFailed, msg.Unpark)


def _would_take_back(input: msg.Input, state: SagaState) -> bool:
    """Whether it would undo or repeat what the saga did for others."""
    return isinstance(input, _TAKING_BACK) or (isinstance(input, msg.Redrive) and state.ended)


def _instead(state: SagaState) -> str:
    """What to do with what is not undone or run again."""
    if state.saga_type == locks.LOCK:
        key = state.saga_id.removeprefix(locks.saga_of(""))
        return f"a lock is not undone or run again: `saga locks release {key}` hands the key to the next who waits"
    return "an entity is not undone or run again: delete it, or terminate it"


def _after_end(turn: Turn, input: msg.Input) -> None:
    """What comes after the end is only recorded; the engine's own inputs not even that."""
    if isinstance(input, msg.Reply) and input.outcome is Outcome.HEARTBEAT:
        return
    if isinstance(input, msg.Reply):
        turn.absorb(input, "the saga has ended", input.sequence, input.attempt)
    elif isinstance(input, msg.Called):
        undoing.called_after_end(turn, input.sequence, refused=input.error_type != "")
    elif isinstance(input, msg.TimerDue):
        starts.forget(turn)
    elif isinstance(input, msg.EXTERNAL):
        turn.absorb(input, "the saga has ended")


def _cancel(turn: Turn, input: msg.Cancel) -> None:
    state = turn.state
    # A person's word reaches further than the clock's, and than code that could not even clean up.
    timed_out_while_parked = state.parked and state.cancel is Cause.TIMED_OUT and not state.cancel_resolved
    again = timed_out_while_parked or 0 in state.parked
    if state.stopping and (state.phase is Status.COMPENSATING or not again):
        turn.absorb(input, f"the saga is stopping already{_held_by(state)}")
        return
    turn.cancel(Cause.CANCELED, input.reason, input.by)
    turn.advance()


def _held_by(state: SagaState) -> str:
    if state.paused is None:
        return ""
    return f", and is paused by the rule {state.paused.rule}" if state.paused.rule else ", and is paused: resume it"


def _reschedule(turn: Turn, input: msg.Reschedule) -> None:
    begin_ms = turn.moment.due_ms(input.begin_at_ms, input.begin_after_ms)
    if turn.state.begin_ms is None or begin_ms is None:
        turn.absorb(input, "the saga has begun already")
    else:
        turn.emit(ev.BeginMoved(begin_ms, input.by))


def _timer(turn: Turn, input: msg.TimerDue) -> None:
    """A timer that was moved or cleared since says nothing."""
    state = turn.state
    if state.due_of(input.sequence) != input.due_ms or turn.moment.now_ms < input.due_ms or turn.held():
        return  # once the saga goes on again, its timers come again
    if input.sequence:
        attempts.time_is_up(turn, state.steps[input.sequence])
        turn.advance()
    elif state.continue_due:
        _go_on(turn)
    elif state.begin_ms is not None:
        turn.emit(ev.SagaBegun())
        turn.advance()
    else:
        saga = state.execution_due_ms is not None and turn.moment.now_ms >= state.execution_due_ms
        turn.cancel(Cause.TIMED_OUT, "the saga's time is up" if saga else "the run's time is up", "")
        turn.advance()
    _set_again(turn, input)


def _set_again(turn: Turn, fired: msg.TimerDue) -> None:
    """A timer that is due once more at the very time at which it fired is a new one for whoever keeps the timers."""
    state = turn.state
    goes_on = fired.sequence == 0 and state.continue_due
    if turn.events and not goes_on and state.due_of(fired.sequence) == fired.due_ms:
        state.new_due.append(fired.sequence)


def _continue(turn: Turn, input: msg.Continue) -> None:
    if turn.state.continue_due:
        _go_on(turn)


def _go_on(turn: Turn) -> None:
    """The next part of what did not fit into one decision."""
    turn.emit(ev.Continued())
    if turn.definition is None and turn.state.phase is Status.RUNNING:
        turn.emit(ev.CodeMissing())
        return
    # Only a cancellation has the code go on beside a parked step, which it is about to let go of.
    turn.past_parked = turn.state.cancel_resolved > 0
    turn.advance()
    _take_held(turn)


def _code_arrived(turn: Turn, input: msg.CodeArrived | msg.MoveVersion) -> None:
    if turn.state.phase is Status.WAITING_FOR_CODE and turn.definition is not None and not turn.held():
        turn.find_code()
        turn.advance()
        _take_held(turn)


def _move_version(turn: Turn, input: msg.MoveVersion) -> None:
    state = turn.state
    if state.phase is Status.COMPENSATING:
        turn.absorb(input, "the saga is compensating: its code has had its last word")
        return
    followed = of_start(turn.newest, state.saga_id)
    version = input.version or (state.version if followed is None else followed.version)
    target = next((d for d in _versions(turn.newest) if d.version == version), None)
    if target is None and turn.newest is not None and input.version:
        known = ", ".join(str(each.version) for each in _versions(turn.newest))
        turn.absorb(input, f"the saga's worker has no version {version} of {state.saga_type}, but {known}")
        return
    turn.execution.detach()
    migrates = target is not None and migrations.migrates(target, state)
    turn.emit(ev.VersionChanged(version, input.version > 0, input.by, input.reason, migrates))
    if 0 in state.parked:
        turn.emit(ev.SagaUnparked(input.by, input.reason))
    turn.definition = of_run(turn.newest, state)
    if state.phase is Status.WAITING_FOR_CODE:
        _code_arrived(turn, input)
    elif turn.definition is None:
        turn.emit(ev.CodeMissing())
    else:
        turn.advance()


def _versions(newest: Definition | None) -> tuple[Definition, ...]:
    return () if newest is None else (newest, *newest.older)


def _take_held(turn: Turn) -> None:
    """Takes the held inputs in the order they came, as far as the budget goes."""
    state = turn.state
    while state.mailbox and not state.continue_due:
        held = state.mailbox[0]
        if isinstance(held, msg.Update) and state.phase is Status.RUNNING and not calls.is_ready(turn):
            return
        if not turn.fits(size=len(getattr(held, "payload", None) or b"")):
            return
        turn.emit(ev.HeldInputTaken())
        if (problem := checks.problem_of_held(held, turn.definition)) is not None:
            turn.absorb(held, problem)
        else:
            _DECIDE[type(held)](turn, held)


_DECIDE: dict[type, Callable[[Turn, Any], None]] = {
    msg.Start: starts.start,
    msg.Attach: starts.attach,
    msg.Cancel: _cancel,
    msg.Reply: attempts.reply,
    msg.TimerDue: _timer,
    msg.Continue: _continue,
    msg.CodeArrived: _code_arrived,
    msg.MoveVersion: _move_version,
    msg.SendFailed: attempts.send_failed,
    msg.Terminate: operations.terminate,
    msg.Unpark: operations.unpark,
    msg.Signal: told.signal,
    msg.Reschedule: _reschedule,
    msg.Pause: operations.pause,
    msg.Resume: operations.resume,
    msg.Compensate: operations.compensate,
    msg.Restart: resets.restart,
    msg.Redrive: resets.redrive,
    msg.Reset: resets.reset,
    msg.Fork: resets.fork,
    msg.Released: operations.released,
    msg.ChildEnded: children.child_ended,
    msg.UndoChild: children.undo_child,
    msg.ParentLeft: children.parent_left,
    msg.Settle: told.settle,
    msg.Update: calls.update,
    msg.Called: answers.called,
}
