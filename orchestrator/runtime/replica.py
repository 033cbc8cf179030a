"""A reader of one journal partition: applies what counts under rule R to a store.

Every take-over, rebuild, projection and check reads through this. It begins a little before where the store stands: at
the record the store can be checked against, and where effects may be open that were never acknowledged.
"""

from __future__ import annotations

from hashlib import sha256

from orchestrator.model import events as ev
from orchestrator.model.evolve import BrokenHistory, evolve
from orchestrator.model.rule import JournalHalted, Kind
from orchestrator.model.state import SagaState
from orchestrator.model.turn import Execution
from orchestrator.runtime.materialize import Gathered, load_state
from orchestrator.runtime.progress import Progress
from orchestrator.store import keys
from orchestrator.store.base import Change, Store
from orchestrator.wire.journal import Envelope, read_decision, read_envelope, read_genesis

EFFECTFUL = (
    ev.StepScheduled,
    ev.StepAttempted,
    ev.UndoScheduled,
    ev.UndoAttempted,
    ev.SagaEnded,
    ev.WaiterAdded,
    ev.AttachRefused,
    ev.InputAnswered,
    ev.InputForwarded,
    ev.InputSent,
    ev.UpdateAccepted,
    ev.UpdateAsked,
    ev.UpdateEnded,
)
"""Events that may have an effect."""

FLUSH_ENTRIES = 2_000
"""Entries gathered before a write: big batches while catching up, bounded memory."""
MAX_WARM = 20_000
"""Runs kept in memory while reading."""

OpenEffect = tuple[int, int, str, str, ev.Event]
"""(journal offset, event index, saga id, run, event)."""


class StoreStale(Exception):
    """The store does not belong to this journal as it now stands: wipe it and rebuild."""


class Replica:
    """One partition's journal, materialized in `store`. Feed it every record from `first_offset` on, in order."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.progress = Progress(store)
        self.first_offset = self.progress.at.first_offset
        self.next_offset = self.first_offset
        self.executions: dict[str, Execution] = {}
        self.open_effects: list[OpenEffect] = []
        self.decisions = 0
        self._mark_rule = self.progress.rule_at_mark()
        self._exceptions = set(self.progress.at.effects_open)
        self._changes: list[Change] = []
        self._gathered = Gathered()

    def feed(self, offset: int, timestamp_ms: int, value: bytes | None) -> tuple[Envelope, ev.Decision | None] | None:
        """Takes the next record; gives what it says if it counts and is new to the store.

        Raises `JournalHalted`, `UnreadableRecord` (`UnknownRecord` for newer software's), `StoreStale`, `StoreBroken`.
        """
        if offset < self.next_offset:
            raise JournalHalted(f"offset {offset} came after {self.next_offset - 1}: the journal went back")
        self.next_offset = offset + 1
        data = value or b""
        envelope = read_envelope(data)
        at = self.progress.at
        if offset <= at.offset:
            self._look_for_effects(offset, data, envelope)
            return None
        rule = self.progress.rule
        if not rule.accept(envelope.kind, envelope.nonce, envelope.seq, envelope.prev_hash, offset, data):
            return None
        decision = read_decision(envelope) if envelope.kind == Kind.DECISION else None
        if envelope.kind == Kind.GENESIS:
            at.incarnation = read_genesis(envelope).incarnation
            self._changes.append((keys.GENESIS, data))
        if decision is not None:
            self.decisions += 1
            self._apply(offset, decision)
        self.progress.step(offset, timestamp_ms, data, envelope, decision)
        if len(self._changes) + len(self._gathered) >= FLUSH_ENTRIES:
            self.flush()
        return envelope, decision

    def flush(self) -> None:
        """Writes what was read to the store. Afterwards the store stands at the last record fed that counts."""
        self._changes.extend(self._gathered.changes(self.store))
        self._gathered = Gathered()
        if self.progress.at.offset >= 0 and self.next_offset > self.first_offset:
            self._changes.extend(self.progress.changes())
            self.store.write(self._changes)
        self._changes = []
        at = self.progress.at
        stuck = set(at.effects_open)
        self.open_effects = [open_ for open_ in self.open_effects if open_[0] > at.effects_sent or open_[:2] in stuck]
        if len(self.executions) > MAX_WARM:
            self.executions.clear()

    def state(self, saga_id: str) -> SagaState | None:
        """A run as of the last record fed."""
        execution = self.executions.get(saga_id)
        if execution is None:
            state = None if self._gathered.forgot(saga_id) else load_state(self.store, saga_id)
            if state is None:
                return None
            execution = self.executions[saga_id] = Execution(state)
        return execution.state

    def _apply(self, offset: int, decision: ev.Decision) -> None:
        for index, event in enumerate(decision.events):
            if isinstance(event, EFFECTFUL):
                self.open_effects.append((offset, index, decision.saga_id, decision.run, event))
        if decision.message_id:
            self._gathered.message(decision, offset)
        if not decision.run:
            return
        state = self.state(decision.saga_id)
        if state is None or state.run != decision.run:
            state = SagaState(decision.saga_id, decision.run) if state is None else state.successor(decision.run)
            self.executions[decision.saga_id] = Execution(state)
        try:
            for event in decision.events:
                evolve(state, event, decision.at_ms)
        except BrokenHistory as broken:
            raise JournalHalted(f"the decision at offset {offset} cannot follow what was read: {broken}") from None
        self._gathered.run(state, offset)
        if state.forgotten:
            del self.executions[decision.saga_id]

    def _look_for_effects(self, offset: int, value: bytes, envelope: Envelope) -> None:
        """A record the store has: it is read for effects that may be open, and to check the store."""
        at, rule = self.progress.at, self._mark_rule
        if offset == at.offset and sha256(value).digest() != at.record_hash:
            raise StoreStale(f"the record at offset {offset} is not the one the store was built from")
        beyond = offset > at.effects_sent
        if beyond:
            counts = rule.accept(envelope.kind, envelope.nonce, envelope.seq, rule.chain, offset, value)
            if counts:
                self.progress.trail.append((offset, rule.nonce, rule.claim_offset, rule.expected_seq))
        else:
            counts = True
        if counts and envelope.kind == Kind.DECISION:
            decision = read_decision(envelope)
            for index, event in enumerate(decision.events if decision is not None else ()):
                if isinstance(event, EFFECTFUL) and (beyond or (offset, index) in self._exceptions):
                    assert decision is not None
                    self.open_effects.append((offset, index, decision.saga_id, decision.run, event))
        if offset == at.offset and beyond and (rule.nonce, rule.expected_seq) != (at.nonce, at.expected_seq):
            raise StoreStale(f"rule R at offset {offset} differs from the store's")
