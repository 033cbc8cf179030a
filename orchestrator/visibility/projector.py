"""From journal records to rows: each partition under rule R, a batch of all of them in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256

from orchestrator.log.base import Record
from orchestrator.model.events import PauseRuleSet
from orchestrator.model.rule import JournalHalted, Kind
from orchestrator.visibility.database import Moved, Position, load_position, save_position, transaction
from orchestrator.visibility.projection import COLUMNS, Row, carried_on, read_row
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
    """Feeds one connection. What is in memory is what the file says, and within a batch what comes next."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._rows: dict[tuple[str, str], Row] = {}
        self._dirty: dict[tuple[str, str], Row] = {}
        self._decisions: list[tuple[int, int, str, str, bytes]] = []
        self._nonces: list[tuple[int, bytes]] = []
        self._rules: list[tuple[int, int, PauseRuleSet]] = []
        self._positions: dict[int, Position] = {}
        self._moved: set[int] = set()

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
        self._moved.add(partition)
        self._positions[partition] = Position(offset, sha256(value).digest(), rule)

    def _project(self, envelope: Envelope, partition: int, offset: int) -> None:
        decision = read_decision(envelope)
        if decision is not None and decision.run:
            key = (decision.saga_id, decision.run)
            row = self._row(key, partition, offset)
            if (before := carried_on(decision)) is not None:
                row.carry_on(self._row((decision.saga_id, before), partition, offset))
            row.apply(decision, offset)
            self._rows[key] = self._dirty[key] = row
            self._decisions.append((partition, offset, *key, envelope.body))
        elif decision is not None:
            self._rules += [
                (partition, decision.at_ms, event) for event in decision.events if isinstance(event, PauseRuleSet)
            ]

    @contextmanager
    def batch(self) -> Iterator[None]:
        """One transaction around `verify` and `feed`: rows and positions are read and written with nobody between.

        Raises `Moved` at its begin if another process was faster, `sqlite3.Error`. After any error nothing is kept in
        memory, and the file says where to go on.
        """
        try:
            with transaction(self._database):
                self._check_positions()
                yield
                self._write()
        except BaseException:
            self.forget()
            raise
        self._clear_batch()
        if len(self._rows) > MAX_ROWS:
            self._rows.clear()

    def forget(self) -> None:
        """Drops all that is in memory."""
        self._clear_batch()
        self._rows.clear()
        self._positions.clear()

    def _check_positions(self) -> None:
        found = dict(self._database.execute("SELECT partition, last_offset FROM positions").fetchall())
        for partition, position in self._positions.items():
            if found.get(partition, -1) != position.last_offset:
                raise Moved

    def _write(self) -> None:
        database = self._database
        for partition in self._moved:
            save_position(database, partition, self._positions[partition])
        database.executemany("INSERT INTO nonces VALUES (?, ?)", self._nonces)
        database.executemany("INSERT INTO decisions VALUES (?, ?, ?, ?, ?)", self._decisions)
        for partition, at_ms, event in self._rules:
            database.execute("DELETE FROM pauses WHERE partition = ? AND rule = ?", (partition, event.rule))
            if event.standing:
                values = (partition, event.rule, event.by, event.reason, at_ms)
                database.execute("INSERT INTO pauses VALUES (?, ?, ?, ?, ?)", values)
        for (saga_id, run), row in self._dirty.items():
            if row.attributes_changed:
                row.attributes_changed = False
                database.execute("DELETE FROM attributes WHERE saga_id = ? AND run = ?", (saga_id, run))
                database.executemany("INSERT INTO attributes VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row.attribute_rows())
        database.executemany(_REPLACE, (row.values() for row in self._dirty.values()))

    def _clear_batch(self) -> None:
        self._dirty.clear()
        self._decisions.clear()
        self._nonces.clear()
        self._rules.clear()
        self._moved.clear()

    def _row(self, key: tuple[str, str], partition: int, offset: int) -> Row:
        row = self._rows.get(key)
        if row is None:
            values = self._database.execute(_SELECT, key).fetchone()
            row = Row(*key, partition, offset) if values is None else read_row(values)
        return row
