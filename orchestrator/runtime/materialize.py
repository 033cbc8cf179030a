"""From states to the store's entries and back: one place, so that owner, replica and rebuild write the same bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from zlib import crc32

from orchestrator.model.events import Decision, Event, Following, RunFollows, SagaStarted, Status
from orchestrator.model.messages import KEPT_MESSAGES, Input, Update, memory_of
from orchestrator.model.state import SagaState
from orchestrator.runtime.progress import Progress
from orchestrator.runtime.timers import Timer
from orchestrator.store import keys
from orchestrator.store.base import Change, Store
from orchestrator.wire.stored import read_run, read_step, write_run, write_step

COUNTED_EVERY = 1_000
"""So many inputs of a saga lie, on average, between two times at which all are counted."""

_OFFSET = 8
_BEGAN = b"b"
"""Stands behind the offset of an input that had a run begin."""


def _begins(event: Event) -> bool:
    """Whether it makes a first run begin, or another one because somebody wants it."""
    return isinstance(event, SagaStarted) or (isinstance(event, RunFollows) and event.cause is Following.REUSED)


def begins_run(decision: Decision) -> bool:
    """Whether the input that it took is one of those that had a run begin: they are counted apart from the others."""
    return any(map(_begins, decision.events))


def are_counted(offset: int) -> bool:
    """Whether a saga's inputs are counted after the one taken at `offset`: a matter of the journal alone, so that all
    who read it forget the same, and of no pattern that its offsets may have."""
    return crc32(keys.number(offset)) % COUNTED_EVERY == 0


def _beyond_newest(known: Mapping[bytes, bytes], last: bytes) -> Iterator[bytes]:
    """The keys of inputs that need not be known any more, of one saga's up to the offset `last`."""
    for kind in (b"", _BEGAN):
        alike = [(value, key) for key, value in known.items() if value[_OFFSET:] == kind and value[:_OFFSET] <= last]
        yield from (key for _, key in sorted(alike)[:-KEPT_MESSAGES])


def changes_of(state: SagaState) -> list[Change]:
    """The entries that are out of date since the last call."""
    saga_id = state.saga_id
    changes: list[Change] = []
    if state.dropped_steps or state.dropped_timers:
        changes += [(keys.step(saga_id, sequence), None) for sequence in range(1, state.dropped_steps + 1)]
        changes += [(keys.timer(due, saga_id, sequence), None) for due, sequence in sorted(state.dropped_timers)]
        state.dropped_steps, state.dropped_timers = 0, set()
    if state.forgotten:
        changes.append((keys.run(saga_id), None))
        changes += [(keys.step(saga_id, sequence), None) for sequence in state.steps]
    else:
        changes.append((keys.run(saga_id), write_run(state)))
    if state.changed and not state.forgotten:
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
        state.old_due.clear()
    state.new_due.clear()
    waits = state.phase is Status.WAITING_FOR_CODE
    if waits != state.stored_waiting:
        state.stored_waiting = waits
        changes.append((keys.waiting(saga_id), b"" if waits else None))
    calls = bool(state.local)
    if calls != state.stored_local:
        state.stored_local = calls
        changes.append((keys.local(saga_id), b"" if calls else None))
    rule = "" if state.paused is None else state.paused.rule
    if rule != state.stored_paused:
        state.stored_paused = rule
        changes.append((keys.paused(saga_id), rule.encode() or None))
    return changes


def load_state(store: Store, saga_id: str) -> SagaState | None:
    """A run from the store, None if there is none. Raises `StoreBroken`, `UnreadableRecord`."""
    data = store.get(keys.run(saga_id))
    if data is None:
        return None
    prefix = keys.steps(saga_id)
    steps = [read_step(int.from_bytes(key[len(prefix) :], "big"), value) for key, value in store.scan(prefix)]
    state = read_run(saga_id, data, steps)
    state.stored_waiting = state.phase is Status.WAITING_FOR_CODE
    state.stored_local = bool(state.local)
    state.stored_paused = "" if state.paused is None else state.paused.rule
    return state


class Gathered:
    """What decisions changed since a store was written: runs as they stand, and which external inputs were taken."""

    def __init__(self) -> None:
        self.runs: dict[str, SagaState] = {}
        self._messages: dict[tuple[str, str], tuple[int, bool]] = {}
        self._counted: dict[str, int] = {}
        self._forgotten: dict[str, tuple[SagaState, int]] = {}

    def __len__(self) -> int:
        return len(self.runs) + len(self._messages) + len(self._forgotten)

    def run(self, state: SagaState, offset: int) -> None:
        """The decision at `offset` changed a run, or had it forgotten."""
        saga_id = state.saga_id
        if not state.forgotten:
            self.runs[saga_id] = state
            return
        self.runs.pop(saga_id, None)
        # Where its id was forgotten before, it is the run of then that the store may have.
        stored, _ = self._forgotten.get(saga_id, (state, 0))
        self._forgotten[saga_id] = stored, offset

    def message(self, decision: Decision, offset: int) -> None:
        """The decision at `offset` took an external input."""
        self._messages[decision.saga_id, decision.message_id] = offset, begins_run(decision)
        if are_counted(offset):
            self._counted[decision.saga_id] = offset

    def forgot(self, saga_id: str) -> bool:
        """Whether what the store has of this id is not true any more."""
        return saga_id in self._forgotten

    def knows(self, saga_id: str, message_id: str) -> bool | None:
        """Whether an external input was taken; None where the store knows."""
        taken = self._messages.get((saga_id, message_id))
        if saga_id not in self._forgotten:
            return None if taken is None else True
        return taken is not None and self._lives(saga_id, taken[0])

    def changes(self, store: Store) -> list[Change]:
        """All of it as changes of this store, in their order. Raises `StoreBroken`."""
        changes: list[Change] = []
        for saga_id, (state, _) in self._forgotten.items():
            changes.extend(changes_of(state))
            changes.extend((key, None) for key, _ in store.scan(keys.messages(saga_id)))
        for state in self.runs.values():
            changes.extend(changes_of(state))
        taken = {
            keys.message(saga_id, message_id): keys.number(taken_at) + (_BEGAN if began else b"")
            for (saga_id, message_id), (taken_at, began) in self._messages.items()
            if self._lives(saga_id, taken_at)
        }
        changes.extend(taken.items())
        for saga_id, counted_at in self._counted.items():
            known = {} if saga_id in self._forgotten else dict(store.scan(keys.messages(saga_id)))
            known |= {key: value for key, value in taken.items() if key.startswith(keys.messages(saga_id))}
            changes.extend((key, None) for key in _beyond_newest(known, keys.number(counted_at)))
        return changes

    def _lives(self, saga_id: str, taken_at: int) -> bool:
        """Whether an id was not forgotten after an input."""
        return saga_id not in self._forgotten or taken_at > self._forgotten[saga_id][1]


class Materializer:
    """What an owner's decisions changed, on its way to the store.

    Changes are gathered, so that a saga which moves on every few milliseconds is encoded once and not at each of its
    decisions. `cut` encodes them as they stand after the decision at some journal offset; the store gets them in one
    write once that decision is confirmed (`confirmed`). Until then the store is a little behind, at an older offset.
    """

    def __init__(self, store: Store, progress: Progress) -> None:
        self._store = store
        self._progress = progress
        self._new = Gathered()
        self._stored_at = progress.at.offset
        self._cut_at: int | None = None
        self._cut: list[Change] = []
        self._under_way = Gathered()
        """What the cut was made of."""

    @property
    def gathered(self) -> int:
        """Runs and message ids that no cut has taken yet."""
        return len(self._new)

    @property
    def behind(self) -> bool:
        """Whether a cut would take something: the store is behind, and no cut waits for its turn."""
        if self._cut_at is not None:
            return False
        return bool(self._new) or self._stored_at != self._progress.at.offset

    def run(self, state: SagaState, offset: int) -> None:
        """A run has changed. Until it is cut, its live state must not be dropped: `holds` tells."""
        self._new.run(state, offset)

    def message(self, decision: Decision, offset: int) -> None:
        """The decision at `offset` took an external input."""
        self._new.message(decision, offset)

    def holds(self, saga_id: str) -> bool:
        return saga_id in self._new.runs or saga_id in self._under_way.runs

    def forgot(self, saga_id: str) -> bool:
        """Whether the store still has an id that is forgotten."""
        return self._new.forgot(saga_id) or self._under_way.forgot(saga_id)

    def timers(self) -> Iterator[Timer]:
        """Those of all runs that are ahead of the store; it may have some of them."""
        for state in {**self._under_way.runs, **self._new.runs}.values():
            for sequence in state.timed:
                due_ms = state.due_of(sequence)
                if due_ms is not None:
                    yield due_ms, state.saga_id, sequence

    def knows(self, saga_id: str, message_id: str) -> bool:
        """Whether an external input was taken, confirmed or not; nothing is not. Raises `StoreBroken`."""
        if not message_id:
            return False
        for gathered in (self._new, self._under_way):
            known = gathered.knows(saga_id, message_id)
            if known is not None:
                return known
        return self._store.get(keys.message(saga_id, message_id)) is not None

    def new_memory(self, given: Input) -> str:
        """By what an input that is decided is to be remembered; empty where it is already. Raises `StoreBroken`."""
        memory = memory_of(given)
        return "" if isinstance(given, Update) and self.knows(given.saga_id, memory) else memory

    def cut(self, offset: int) -> None:
        """Encodes what is gathered: the decision at `offset` was the last. Nothing while a cut waits for its turn."""
        if self._cut_at is not None or offset == self._stored_at:
            return
        self._cut = self._new.changes(self._store)
        self._under_way, self._new = self._new, Gathered()
        self._cut_at = offset
        if offset == self._progress.at.offset:
            self.confirmed(offset)

    def confirmed(self, offset: int) -> None:
        """Writes the cut whose turn it is; `progress` has just moved over `offset`. Raises `StoreBroken`."""
        if offset != self._cut_at:
            return
        self._store.write([*self._cut, *self._progress.changes()])
        self._stored_at, self._cut_at, self._cut = offset, None, []
        self._under_way = Gathered()
