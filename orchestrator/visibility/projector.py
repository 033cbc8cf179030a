"""From journal records to rows: each partition under rule R, a batch of all of them in one transaction."""

from __future__ import annotations

import sqlite3
from hashlib import sha256

from orchestrator.log.base import Record
from orchestrator.model.rule import JournalHalted, Kind
from orchestrator.visibility.database import Moved, Position, load_position, save_position, transaction
from orchestrator.visibility.projection import COLUMNS, Row, read_row
from orchestrator.wire.journal import Envelope, read_decision, read_envelope

MAX_ROWS = 20_000
"""Runs kept in memory between batches, some 20 MiB."""

_SELECT = f"SELECT {', '.join(COLUMNS)} FROM runs WHERE saga_id = ? AND run = ?"
_REPLACE = f"INSERT OR REPLACE INTO runs VALUES ({', '.join('?' * len(COLUMNS))})"


class StaleRows(Exception):
    """The rows of a partition do not come from the journal as it now stands."""

    def __init__(self, partition: int, message: str) -> None:
        super().__init__(message)
        self.partition = partition


class Projector:
    """Feeds one connection. `positions` is what is in memory; `write` makes the file follow or takes it all back."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._rows: dict[tuple[str, str], Row] = {}
        self._dirty: dict[tuple[str, str], Row] = {}
        self._decisions: list[tuple[int, int, str, str, bytes]] = []
        self._nonces: list[tuple[int, bytes]] = []
        self._positions: dict[int, Position] = {}
        self._written: dict[int, int] = {}

    def position(self, partition: int) -> Position:
        """Up to where a partition is read, whether written yet or not. Not to be changed."""
        if partition not in self._positions:
            self._positions[partition] = load_position(self._database, partition)
        return self._positions[partition]

    def verify(self, record: Record) -> None:
        """Looks again at the record that was read last. Raises `StaleRows`."""
        position = self.position(record.partition)
        if record.offset != position.last_offset or sha256(record.value or b"").digest() != position.record_hash:
            raise StaleRows(
                record.partition, f"the record at offset {record.offset} is not the one that was read before"
            )

    def feed(self, record: Record) -> None:
        """Takes the next record of a partition. Raises `JournalHalted`, `UnreadableRecord`, `BrokenHistory`."""
        partition, offset, value = record.partition, record.offset, record.value or b""
        position = self.position(partition)
        if offset <= position.last_offset:
            raise JournalHalted(f"offset {offset} came after {position.last_offset}: the journal went back")
        rule = position.rule
        before = (rule.nonce, rule.claim_offset, rule.expected_seq, rule.chain)
        envelope = read_envelope(value)
        try:
            counts = rule.accept(envelope.kind, envelope.nonce, envelope.seq, envelope.prev_hash, offset, value)
            if counts and envelope.kind == Kind.DECISION:
                self._project(envelope, partition, offset)
        except Exception:
            # What came before it in this batch is right and will be written.
            rule.nonce, rule.claim_offset, rule.expected_seq, rule.chain = before
            raise
        if counts and envelope.kind == Kind.CLAIM:
            self._nonces.append((partition, envelope.nonce))
        self._written.setdefault(partition, position.last_offset)
        self._positions[partition] = Position(offset, sha256(value).digest(), rule)

    def _project(self, envelope: Envelope, partition: int, offset: int) -> None:
        decision = read_decision(envelope)
        if decision is not None and decision.run:
            key = (decision.saga_id, decision.run)
            row = self._row(key, partition, offset)
            row.apply(decision, offset)
            self._dirty[key] = row
            self._decisions.append((partition, offset, *key, envelope.body))

    def write(self) -> bool:
        """Writes what was fed since. False if another process wrote it: all is read from its positions on.

        Raises `sqlite3.Error`; then too nothing that was not written is kept.
        """
        if not self._written:
            return True
        database = self._database
        try:
            with transaction(database):
                for partition, before in self._written.items():
                    save_position(database, partition, before, self._positions[partition])
                database.executemany("INSERT INTO nonces VALUES (?, ?)", self._nonces)
                database.executemany("INSERT INTO decisions VALUES (?, ?, ?, ?, ?)", self._decisions)
                database.executemany(_REPLACE, (row.values() for row in self._dirty.values()))
        except (Moved, sqlite3.Error) as error:
            self.forget()
            if isinstance(error, Moved):
                return False
            raise
        self._clear_batch()
        if len(self._rows) > MAX_ROWS:
            self._rows.clear()
        return True

    def forget(self) -> None:
        """Drops all that is in memory; the file says where to go on."""
        self._clear_batch()
        self._rows.clear()
        self._positions.clear()

    def _clear_batch(self) -> None:
        self._dirty.clear()
        self._decisions.clear()
        self._nonces.clear()
        self._written.clear()

    def _row(self, key: tuple[str, str], partition: int, offset: int) -> Row:
        row = self._rows.get(key)
        if row is None:
            values = self._database.execute(_SELECT, key).fetchone()
            row = self._rows[key] = Row(*key, partition, offset) if values is None else read_row(values)
        return row
