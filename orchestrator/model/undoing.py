"""Undoing what a saga did, the latest first, and how it ends by that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.model import calls, children, requests
from orchestrator.model import events as ev
from orchestrator.model.state import OPEN, STOPPED

if TYPE_CHECKING:
    from orchestrator.model.turn import Turn


def compensate(turn: Turn) -> None:
    """Lets go of what is open where the code was not asked, and undoes; at last it ends."""
    state = turn.state
    for sequence in sorted(state.open):
        if not requests.release(turn, sequence, len(state.outcomes), stopped=True):
            return
    if state.parked:
        return
    undo(turn, state.to_undo())
    if not state.undo_open and not state.to_undo():
        follows = None
        if state.cause is ev.Cause.RESET:
            follows = turn.following(ev.Following.RESET, state.payload, reason=state.error_message, until=state.keep)
        turn.end(_ending(turn), follows)


def undo(turn: Turn, stack: list[int]) -> None:
    """Issues every undo of a stack whose turn it is, the latest first, and takes it off by that.

    A step waits for the undo of all that was scheduled after its end.
    """
    if not stack:
        return
    undo_open, steps = turn.state.undo_open, turn.state.steps
    # `after` never falls from one step to the next: the latest undo under way decides.
    latest = steps[max(undo_open)].after if undo_open else -1
    while stack:
        step = steps[stack[-1]]
        if latest >= step.ended or calls.awaits_answer(step) or not _schedule_undo(turn, step.sequence):
            return
        latest = max(latest, step.after)


def called_after_end(turn: Turn, sequence: int, *, refused: bool) -> None:
    """The run was terminated: what came of a call is kept, for whoever sets the run back undoes it by that.

    In any case, however full the decision is: it has no effects, and nothing else says it later.
    """
    step = turn.state.steps.get(sequence)
    if step is None or step.kind is not ev.StepKind.CALL or step.undo_command is None:
        return
    if step.status in OPEN:
        after = len(turn.state.outcomes)
        turn.emit(ev.StepEndedUnknown(sequence, ev.UnknownCause.CANCELED, STOPPED, "", after))
    if calls.awaits_answer(step):
        turn.emit(ev.CallRefused(sequence) if refused else ev.CallDone(sequence))


def _schedule_undo(turn: Turn, sequence: int) -> bool:
    step = turn.state.steps[sequence]
    child = step.kind is ev.StepKind.CHILD
    if (not child and turn.holds_back(step.service, step.undo_command or "")) or not turn.fits(effects=1):
        return False
    turn.emit(ev.UndoScheduled(sequence), effects=1)
    if child:
        children.ask_undo(turn, step)
    elif step.kind is ev.StepKind.CALL:
        calls.ask_undo(turn, step)
    elif step.service in turn.moment.open_circuits:
        turn.emit(ev.UndoHeld(sequence))
    return True


def _ending(turn: Turn) -> ev.SagaEnded:
    state = turn.state
    if state.undos_skipped or (state.pivot_done and state.undos_done):
        undone = ev.Undone.PARTIAL
    else:
        undone = ev.Undone.ALL if state.undos_done else ev.Undone.NONE
    if state.cause is ev.Cause.RESET:
        status = ev.Status.RESET
    elif state.cause is ev.Cause.CANCELED:
        status = ev.Status.CANCELED
    elif state.cause is ev.Cause.TIMED_OUT:
        status = ev.Status.TIMED_OUT
    elif state.cause is ev.Cause.UNDONE:
        status = ev.Status.COMPENSATED
    else:
        status = ev.Status.FAILED if undone is ev.Undone.NONE else ev.Status.COMPENSATED
    return ev.SagaEnded(status, undone, b"", state.error_type, state.error_message)
