"""Sagas that other sagas start: how a parent and its children tell each other what matters to them.

A child is a step of its parent: started once, over when the child has ended, undone by undoing the child. Everything
they say goes by `Turn.send`, in order and exactly once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.definition import ChildRequest
from orchestrator.model.events import Cause, Following, Status, UnknownCause
from orchestrator.model.ids import problem_of
from orchestrator.model.messages import ChildCancellation, Leaving, Parent, ParentClose
from orchestrator.model.state import GOES_ON, SagaState, Step, StepStatus

if TYPE_CHECKING:
    from orchestrator.model.turn import Turn

REFUSED = "REFUSED"
"""The status of a child that was never started."""
_UNDONE = (Status.COMPENSATED, Status.FAILED, Status.CANCELED, Status.TIMED_OUT)


def start(turn: Turn, sequence: int, request: ChildRequest) -> None:
    """Asks the owner of the child's id to start it."""
    state = turn.state
    step = state.steps[sequence]
    parent = Parent(state.saga_id, state.run, sequence, request.parent_close, request.cancellation)
    turn.send(
        msg.Start(
            step.command,
            state.unit_of(step),
            request.saga_type,
            request.payload,
            traceparent=state.traceparent,
            reuse=request.reuse,
            baggage=request.baggage or state.baggage,
            note=request.note,
            parent=parent,
        )
    )


def ask_undo(turn: Turn, step: Step) -> None:
    """Asks a child to undo what it did; one that is under way stops first."""
    run = None if step.undo_payload is None else step.undo_payload.decode()
    turn.send(msg.UndoChild(step.command, turn.state.asker(step), run))


def leave(turn: Turn, step: Step, how: Leaving) -> None:
    """Tells an open child that its parent waits for it no longer, has ended, or wants it to stop."""
    turn.send(msg.ParentLeft(step.command, turn.state.asker(step), how))


def leave_all(turn: Turn) -> None:
    """The parent has ended: its open children do what they were started with. As far as the budget goes."""
    for step in to_leave(turn.state):
        if not turn.fits(effects=1):
            return
        turn.emit(ev.ChildCanceled(step.sequence, at_once=True))
        leave(turn, step, Leaving.CLOSED)


def release(turn: Turn) -> bool:
    """The run asks its children for nothing any more, not even for their undo. False: the budget is used up."""
    for step in to_release(turn.state):
        if not turn.fits(effects=1):
            return False
        leave(turn, step, Leaving.GONE)
    return True


def to_release(state: SagaState) -> list[Step]:
    """The children, not told yet, of a run that has ended which no next run takes over."""
    follows = state.follows
    if follows is not None and follows.cause is Following.MIGRATED:
        return []
    first = max(state.released + 1, 1 if follows is None else follows.until)
    later = (state.steps[sequence] for sequence in range(first, state.sequence + 1))
    return [step for step in later if step.kind is ev.StepKind.CHILD]


def to_leave(state: SagaState) -> list[Step]:
    """The open children of a parent that has ended which were not told yet."""
    open_ = (state.steps[sequence] for sequence in sorted(state.open))
    return [
        step
        for step in open_
        if step.kind is ev.StepKind.CHILD and step.status is StepStatus.RUNNING and not step.terminate_sent
    ]


def refusal(start: msg.Start, reason: str) -> msg.ChildEnded:
    """What a parent is told whose child could not be started."""
    assert start.parent is not None
    parent = start.parent
    return msg.ChildEnded(
        parent.saga_id, parent.run, parent.sequence, False, "", REFUSED, "", b"", "ChildRefused", reason
    )


def report(turn: Turn, parent: Parent, *, undo: bool, problem: str = "") -> None:
    """Tells the parent how its child ended, or what came of the undo it asked for."""
    state = turn.state
    status = REFUSED if problem else str(state.phase)
    if undo and state.stays and not problem:
        problem = "what it did before it continued as new stays"
    error = ("NotUndone", problem) if problem else (state.error_type, state.error_message)
    turn.send(
        msg.ChildEnded(
            parent.saga_id,
            parent.run,
            parent.sequence,
            undo,
            state.run,
            status,
            ev.Undone.PARTIAL if undo and state.stays else state.undone or "",
            b"" if undo else state.result,
            *error,
        )
    )


# -- the child's side


def is_left_over(state: SagaState, parent: Parent) -> bool:
    """Whether a saga that has ended is what a former run of the same parent started and undid: it may run again."""
    former = state.parent
    same = former is not None and former.saga_id == parent.saga_id and former.run != parent.run
    return same and state.phase is not Status.COMPLETED


def undo_child(turn: Turn, input: msg.UndoChild) -> None:
    """The parent undoes its step, which is this saga."""
    state = turn.state
    if state.parent is None or not _is_same(state.parent, input.parent):
        report(turn, input.parent, undo=True, problem=f"saga {state.saga_id} is not the parent's child any more")
        return
    if input.child_run not in (None, state.run):
        report(turn, input.parent, undo=True, problem=f"saga {state.saga_id} has another run by now")
        return
    if state.ended and (problem := _why_not(state)) is not None:
        report(turn, input.parent, undo=True, problem=problem)
        return
    if state.ended and state.phase in _UNDONE:
        report(turn, input.parent, undo=True)
        return
    turn.emit(ev.UndoAsked())
    if state.ended:
        turn.compensate(Cause.UNDONE, "Undone", "its parent undoes it")
    elif not state.stopping:
        turn.cancel(Cause.CANCELED, "its parent undoes it", state.parent.saga_id)
    turn.advance()


def undo_unknown(turn: Turn, input: msg.UndoChild) -> None:
    """Of a saga that is not there: whether it was refused, which the parent has heard then, or is forgotten."""
    parent, problem = input.parent, f"nothing is known of saga {input.saga_id} any more"
    who = parent.saga_id, parent.run, parent.sequence
    turn.send(msg.ChildEnded(*who, True, "", REFUSED, "", b"", "NotUndone", problem))


def _why_not(state: SagaState) -> str | None:
    """Why a saga that has ended cannot be undone any more."""
    if state.phase is Status.TERMINATED:
        return "it was terminated, and nothing of it was undone"
    if state.phase is Status.COMPLETED and state.pivot_done:
        return "it is past its pivot step, from where only forward is possible"
    return None


def ended(turn: Turn) -> None:
    """The run has just ended: whose child it is hears of it; one that was to be undone and completed is undone now."""
    state = turn.state
    parent = state.parent
    if parent is None or state.parent_gone or state.phase in GOES_ON:
        return
    if not state.undo_asked:
        report(turn, parent, undo=False)
    elif state.phase is Status.COMPLETED and not state.pivot_done:
        turn.compensate(Cause.UNDONE, "Undone", "its parent undoes it")
    else:
        report(turn, parent, undo=True, problem=_why_not(state) or "")


def parent_left(turn: Turn, input: msg.ParentLeft) -> None:
    """The parent waits no longer: the child goes on, stops, or ends at once, as it was started with or is told."""
    state, how = turn.state, input.how
    parent = state.parent
    if how is Leaving.GONE and parent is not None and _is_same(parent, input.parent):
        keep_ms = turn.moment.ended_keep_ms
        turn.emit(ev.ParentGone(max(turn.moment.now_ms, state.ended_at_ms + keep_ms) if state.ended else None))
    elif parent is None or not _is_same(parent, input.parent) or state.ended:
        turn.absorb(input, "the saga has ended" if state.ended else "it is not this saga's parent")
    elif how is Leaving.TERMINATE or (how is Leaving.CLOSED and parent.close is ParentClose.TERMINATE):
        turn.terminate("its parent ended" if how is Leaving.CLOSED else "its parent ends it", parent.saga_id)
    elif (how is Leaving.CLOSED and parent.close is ParentClose.ABANDON) or (
        how is Leaving.LEFT and parent.cancellation is ChildCancellation.ABANDON
    ):
        turn.absorb(input, "its parent left it to itself")
    elif state.stopping:
        turn.absorb(input, "the saga is stopping already")
    else:
        turn.cancel(Cause.CANCELED, "its parent stops", parent.saga_id)
        turn.advance()


def _is_same(one: Parent, other: Parent) -> bool:
    return (one.saga_id, one.run, one.sequence) == (other.saga_id, other.run, other.sequence)


# -- the parent's side


def child_ended(turn: Turn, input: msg.ChildEnded) -> None:
    """A child has ended, could not be started, or has undone what it did."""
    step = turn.state.steps.get(input.sequence)
    if step is None or step.kind is not ev.StepKind.CHILD:
        turn.absorb(input, f"the saga has no child {input.sequence}")
    elif input.undo:
        _undo_ended(turn, step, input)
    elif input.status == REFUSED and step.status in (StepStatus.UNDOING, StepStatus.UNDO_PARKED):
        turn.emit(ev.UndoSucceeded(step.sequence, step.undo_attempt))  # there is nothing of it
    elif step.status not in (StepStatus.RUNNING, StepStatus.PARKED):
        turn.absorb(input, f"late: the step is {step.status}", step.sequence)
    else:
        _do_ended(turn, step, input)
    turn.advance()


def _do_ended(turn: Turn, step: Step, input: msg.ChildEnded) -> None:
    error_type, message = input.error_type or input.status, input.error_message
    nothing_left = input.status == REFUSED or (input.status in _UNDONE and input.undone != ev.Undone.PARTIAL)
    if input.status == Status.COMPLETED:
        turn.emit(ev.StepSucceeded(step.sequence, 1, input.payload, input.child_run.encode()))
    elif turn.state.pivot_done:
        turn.emit(ev.StepParked(step.sequence, f"the child {step.command} ended {input.status} after the pivot"))
    elif nothing_left:
        turn.emit(ev.StepRefused(step.sequence, 1, error_type, message))
    else:
        turn.emit(ev.StepEndedUnknown(step.sequence, UnknownCause.EXHAUSTED, error_type, message))


def _undo_ended(turn: Turn, step: Step, input: msg.ChildEnded) -> None:
    if step.status not in (StepStatus.UNDOING, StepStatus.UNDO_PARKED):
        turn.absorb(input, f"late: the step is {step.status}", step.sequence)
    elif input.status in _UNDONE and input.undone != ev.Undone.PARTIAL:
        turn.emit(ev.UndoSucceeded(step.sequence, step.undo_attempt))
    elif step.status is StepStatus.UNDOING:
        words = f"{input.error_type} {input.error_message}".strip() or input.status
        turn.emit(ev.UndoParked(step.sequence, f"the child {step.command} is not undone: {words}"))


def child_id(state: SagaState, sequence: int, given: str | None) -> str:
    """The id that a child was given; without one it gets one that no other run and no other step has.

    Raises `ValueError` for one that no saga can have.
    """
    wanted = f"{state.saga_id}/{state.run}/{sequence}" if given is None else given
    if (problem := problem_of(wanted)) is not None:
        raise ValueError(f"{wanted[:80]!r} is no child's id: {problem}")
    return wanted
