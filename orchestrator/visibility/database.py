"""The SQLite file: rows and the position they were made up to, written together.

Several processes may follow the journals into one file: a transaction that finds the position moved by another is
given up, and its process goes on from there. The file is disposable; what does not fit is thrown away.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.model.events import Decision
from orchestrator.model.rule import Kind, Rule
from orchestrator.wire.avro import FORMAT
from orchestrator.wire.journal import DECISION_FINGERPRINT, Envelope, read_decision

SCHEMA = 3
_VERSION = SCHEMA * 1000 + FORMAT
BUSY_MS = 10_000
"""How long a transaction waits for another process's; its own takes some tens of milliseconds."""

_TABLES = """
CREATE TABLE source (journal TEXT NOT NULL, partitions INTEGER NOT NULL);
CREATE TABLE positions (
    partition INTEGER PRIMARY KEY, last_offset INTEGER NOT NULL, record_hash BLOB NOT NULL, nonce BLOB NOT NULL,
    claim_offset INTEGER NOT NULL, expected_seq INTEGER NOT NULL, chain BLOB NOT NULL
);
CREATE TABLE nonces (partition INTEGER NOT NULL, nonce BLOB NOT NULL, PRIMARY KEY (partition, nonce)) WITHOUT ROWID;
CREATE TABLE runs (
    saga_id TEXT NOT NULL, run TEXT NOT NULL, saga_type TEXT NOT NULL, version INTEGER NOT NULL,
    pinned INTEGER NOT NULL, status TEXT NOT NULL, phase TEXT NOT NULL, parked TEXT NOT NULL, paused TEXT,
    started_at_ms INTEGER NOT NULL, updated_at_ms INTEGER NOT NULL, ended_at_ms INTEGER,
    undone TEXT, cause TEXT, error_type TEXT NOT NULL, error_message TEXT NOT NULL,
    attributes TEXT NOT NULL, memo TEXT NOT NULL, summary TEXT, tasks TEXT NOT NULL, partition INTEGER NOT NULL,
    first_offset INTEGER NOT NULL, last_offset INTEGER NOT NULL, events INTEGER NOT NULL,
    PRIMARY KEY (saga_id, run)
) WITHOUT ROWID;
CREATE INDEX runs_by_start ON runs (started_at_ms, saga_id, run);
CREATE INDEX runs_by_status ON runs (status, started_at_ms, saga_id, run);
CREATE INDEX runs_by_type ON runs (saga_type, status, started_at_ms, saga_id, run);
CREATE INDEX runs_with_tasks ON runs (started_at_ms) WHERE tasks != '';
CREATE TABLE attributes (
    partition INTEGER NOT NULL, saga_id TEXT NOT NULL, run TEXT NOT NULL, name TEXT NOT NULL, position INTEGER NOT NULL,
    kind TEXT NOT NULL, text TEXT, number REAL, PRIMARY KEY (saga_id, run, name, position)
) WITHOUT ROWID;
CREATE INDEX attributes_by_text ON attributes (name, text);
CREATE INDEX attributes_by_number ON attributes (name, number);
CREATE TABLE pauses (
    partition INTEGER NOT NULL, rule TEXT NOT NULL, by TEXT NOT NULL, reason TEXT NOT NULL, at_ms INTEGER NOT NULL,
    PRIMARY KEY (partition, rule)
) WITHOUT ROWID;
CREATE TABLE decisions (
    partition INTEGER NOT NULL, offset INTEGER NOT NULL, saga_id TEXT NOT NULL, run TEXT NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (partition, offset)
) WITHOUT ROWID;
CREATE INDEX decisions_by_run ON decisions (saga_id, run, offset);
"""


@dataclass(frozen=True, slots=True)
class Position:
    """Up to where one partition was read: the last record, its SHA-256, and rule R after it."""

    last_offset: int = -1
    record_hash: bytes = b""
    rule: Rule = field(default_factory=Rule)


class Moved(Exception):
    """Another process has written what this one was about to write."""


def open_database(path: Path, journal: str, partitions: int) -> sqlite3.Connection:
    """The file for this journal, for one thread; emptied if it is another version's or another journal's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)  # it holds payloads
    try:
        return _open(path, journal, partitions)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        for name in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
            name.unlink(missing_ok=True)
        path.touch(mode=0o600)
        return _open(path, journal, partitions)


def _open(path: Path, journal: str, partitions: int) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=BUSY_MS / 1000, isolation_level=None)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        # A crash of the machine may lose the last transactions, never their order; they are read again.
        database.execute("PRAGMA synchronous = NORMAL")
        with transaction(database):
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version != _VERSION or _source(database) != (journal, partitions):
                _create(database, journal, partitions)
    except BaseException:
        database.close()
        raise
    return database


def _source(database: sqlite3.Connection) -> tuple[str, int] | None:
    found: tuple[str, int] | None = database.execute("SELECT journal, partitions FROM source").fetchone()
    return found


def _create(database: sqlite3.Connection, journal: str, partitions: int) -> None:
    names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    for (name,) in names.fetchall():
        database.execute(f'DROP TABLE "{name}"')
    for statement in _TABLES.split(";\n"):
        if statement.strip():
            database.execute(statement)
    database.execute("INSERT INTO source VALUES (?, ?)", (journal, partitions))
    database.execute(f"PRAGMA user_version = {_VERSION}")


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """One that writes: it waits for other writers at its begin, so that what it reads stays true until its end."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def load_position(database: sqlite3.Connection, partition: int) -> Position:
    """Where this partition was read up to."""
    row = database.execute("SELECT * FROM positions WHERE partition = ?", (partition,)).fetchone()
    if row is None:
        return Position()
    _, last_offset, record_hash, nonce, claim_offset, expected_seq, chain = row
    nonces = {nonce for (nonce,) in database.execute("SELECT nonce FROM nonces WHERE partition = ?", (partition,))}
    return Position(last_offset, record_hash, Rule(nonce, claim_offset, expected_seq, chain, nonces))


def save_position(database: sqlite3.Connection, partition: int, position: Position) -> None:
    """Within a transaction, together with the rows."""
    rule = position.rule
    database.execute(
        "INSERT OR REPLACE INTO positions VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            partition,
            position.last_offset,
            position.record_hash,
            rule.nonce,
            rule.claim_offset,
            rule.expected_seq,
            rule.chain,
        ),
    )


def wipe_partition(database: sqlite3.Connection, partition: int, last_offset: int) -> None:
    """Forgets all that came from a partition, if it still stands where it was found to be stale."""
    with transaction(database):
        row = database.execute("SELECT last_offset FROM positions WHERE partition = ?", (partition,)).fetchone()
        if row != (last_offset,):
            return
        for table in ("positions", "nonces", "runs", "attributes", "pauses", "decisions"):
            database.execute(f"DELETE FROM {table} WHERE partition = ?", (partition,))


def decode(body: bytes) -> Decision:
    """A decision as the table `decisions` holds it."""
    decision = read_decision(Envelope(Kind.DECISION, body_fingerprint=DECISION_FINGERPRINT, body=body))
    assert decision is not None
    return decision
