"""From states to the store's entries and back: one place, so that owner, replica and rebuild write the same bytes."""

from __future__ import annotations

from orchestrator.model.events import Status
from orchestrator.model.state import SagaState
from orchestrator.store import keys
from orchestrator.store.base import Change, Store
from orchestrator.wire.stored import read_run, read_step, write_run, write_step

Timer = tuple[int, str, int]
"""(due in milliseconds, saga id, sequence)."""


def changes_of(state: SagaState) -> tuple[list[Change], list[Timer]]:
    """The entries that are out of date since the last call, and the timers newly set."""
    saga_id = state.saga_id
    changes: list[Change] = [(keys.run(saga_id), write_run(state))]
    timers: list[Timer] = []
    if state.changed:
        for sequence in sorted(state.changed):
            changes.append((keys.step(saga_id, sequence), write_step(state.steps[sequence])))
        state.changed.clear()
    if state.old_due:
        for sequence in sorted(state.old_due):
            was, due = state.old_due[sequence], state.due_of(sequence)
            if was == due:
                continue
            if was is not None:
                changes.append((keys.timer(was, saga_id, sequence), None))
            if due is not None:
                changes.append((keys.timer(due, saga_id, sequence), state.run.encode()))
                timers.append((due, saga_id, sequence))
        state.old_due.clear()
    waits = state.phase is Status.WAITING_FOR_CODE
    if waits != state.stored_waiting:
        state.stored_waiting = waits
        changes.append((keys.waiting(saga_id), b"" if waits else None))
    return changes, timers


def load_state(store: Store, saga_id: str) -> SagaState | None:
    """A run from the store, None if there is none. Raises `StoreBroken`, `UnreadableRecord`."""
    data = store.get(keys.run(saga_id))
    if data is None:
        return None
    prefix = keys.steps(saga_id)
    steps = [read_step(int.from_bytes(key[len(prefix) :], "big"), value) for key, value in store.scan(prefix)]
    state = read_run(saga_id, data, steps)
    state.stored_waiting = state.phase is Status.WAITING_FOR_CODE
    return state
