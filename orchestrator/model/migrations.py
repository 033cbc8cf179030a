"""A run whose newer code takes over what it came to, instead of repeating it: in another run, with an input made of it.

Nothing may be in flight then. What was done stays to be undone with the new run: it is its ballast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.errors import BUGS
from orchestrator.model import events as ev
from orchestrator.model import undoing
from orchestrator.model.budget import MAX_BYTES
from orchestrator.model.definition import Definition
from orchestrator.model.inheritance import MAX_INHERITED, heir, size_of
from orchestrator.model.state import SagaState, Step, StepStatus

if TYPE_CHECKING:
    from orchestrator.model.turn import Turn


def migrates(definition: Definition, state: SagaState) -> bool:
    """Whether this code takes over what an older version did."""
    return definition.migrate is not None and 0 < state.version < definition.version and state.sequence > 0


def take_over(turn: Turn) -> bool:
    """Ends the run so that another one goes on with its newer code; not while something is in flight.

    True: the code has it repeat what was done, so it is to be run.
    """
    state, definition = turn.state, turn.definition
    if definition is None or definition.migrate is None:
        return definition is not None
    if state.cancel is not None:
        turn.stop_without_code(state.cancel, state.error_message)
        return False
    undoing.undo(turn, state.undo_now)
    if state.undo_open or state.undo_now or any(state.steps[s].status is not StepStatus.WAITING for s in state.open):
        return False
    try:
        payload = definition.migrate(state.migrates_from, state.payload, results_of(state))
    except BUGS as bug:
        turn.park_for_bug(bug, "the migration")
        return False
    if payload is None:
        turn.emit(ev.VersionChanged(state.version, state.pinned))
        return True
    if problem := _problem(state, payload):
        turn.park("the saga is too large to be migrated", problem)
    elif turn.fits(size=len(payload)):
        follows = turn.following(ev.Following.MIGRATED, payload, until=state.sequence + 1)
        turn.end(ev.SagaEnded(ev.Status.CONTINUED_AS_NEW, ev.Undone.NONE), follows)
    return False


def ballast(old: SagaState) -> list[ev.StepInherited]:
    """All steps of a run, without what is only of use to its code. What it published is kept if it is not too much."""
    steps = [old.steps[sequence] for sequence in range(1, old.sequence + 1)]
    published = sum(len(step.result) for step in steps if step.kind is ev.StepKind.STREAM)
    return [_heir(old, step, published=published <= MAX_BYTES // 2) for step in steps]


def _heir(old: SagaState, step: Step, *, published: bool) -> ev.StepInherited:
    status = StepStatus.WAIT_CANCELED if step.status is StepStatus.WAITING else step.status
    payload = step.payload if step.needs_undo and step.undo_payload is None else b""
    result = step.result if published and step.kind is ev.StepKind.STREAM else b""
    return heir(step, old.run_of(step), step.seed, owned=True, status=status, payload=payload, result=result)


def results_of(state: SagaState) -> tuple[tuple[str, str, bytes], ...]:
    done = (state.steps[sequence] for sequence in range(1, state.sequence + 1))
    return tuple((step.service, step.command, step.result) for step in done if step.status is StepStatus.DONE)


def _problem(state: SagaState, payload: bytes) -> str:
    if state.sequence > MAX_INHERITED:
        return f"it has {state.sequence} steps, at most {MAX_INHERITED} can be taken over"
    size = len(payload) + sum(size_of(step) for step in ballast(state))
    size += sum(len(kept) for _, kept in state.signals) + sum(len(kept) for kept, _, _ in state.promises.values())
    return f"{size} bytes, at most {2 * MAX_BYTES} can be taken over" if size > 2 * MAX_BYTES else ""
