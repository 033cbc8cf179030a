"""What the services of the use cases have in common: each keeps a book in a SQLite file.

Whatever a service does is a line in its table `book`, written in the transaction that also keeps the idempotency key:
so a command that comes twice is in the book once. The files are in the folder that SHOP_BOOKS names, `.saga/shop` by
default; `:memory:` is for tests.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from orchestrator.connectors.sql import SqlInbox
from orchestrator.participant import HandlerContext, Participant
from orchestrator.service import Service


def bookkeeper(service: type[Service], *, fsync: bool = False) -> Participant:
    """A participant of the service that remembers what it has answered in its own book's file.

    `fsync`: what is committed is on the disk, so that the book outlives the machine too.
    """
    return Participant(service, inbox=SqlInbox(connecting(service.name, fsync=fsync)))


def connecting(service: str, *, fsync: bool = False) -> Callable[[], sqlite3.Connection]:
    """For `SqlInbox`: makes connections to a service's book, which is created if it is not there."""

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(book_of(service), timeout=30, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        # NORMAL outlives the process, not the machine: enough for most.
        connection.execute(f"PRAGMA synchronous={'FULL' if fsync else 'NORMAL'}")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS book (number INTEGER PRIMARY KEY, key TEXT, saga_id TEXT, run TEXT,"
            " step INTEGER, direction TEXT, entry TEXT)"
        )
        return connection

    return connect


def book_of(service: str) -> Path | str:
    """The SQLite file of one service."""
    folder = Path(os.environ.get("SHOP_BOOKS", ".saga/shop"))
    if str(folder) == ":memory:":
        return ":memory:"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{service}.db"


def enter(context: HandlerContext, entry: str) -> None:
    """Writes one line into the book, in the handler's transaction."""
    context.connection.execute(
        "INSERT INTO book (key, saga_id, run, step, direction, entry) VALUES (?, ?, ?, ?, ?, ?)",
        (context.idempotency_key, context.saga_id, context.run, context.step, context.direction, entry),
    )


def times(context: HandlerContext, entry: str) -> int:
    """How often a line stands in the book, as the handler's transaction sees it."""
    (count,) = context.connection.execute("SELECT count(*) FROM book WHERE entry = ?", (entry,)).fetchone()
    return int(count)


def read(service: str, saga_id: str) -> list[str]:
    """The lines of one saga in a service's book, in order."""
    connection = connecting(service)()
    try:
        rows = connection.execute("SELECT entry FROM book WHERE saga_id = ? ORDER BY number", (saga_id,))
        return [entry for (entry,) in rows]
    finally:
        connection.close()
