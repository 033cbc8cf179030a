"""Beginning and ending transactions on the user's own connections, however they were configured."""

from __future__ import annotations

from contextlib import suppress
from threading import Thread
from typing import Any

from orchestrator.connectors.sql.statements import Connection, Statements, write_statements
from orchestrator.errors import ConfigurationError

_LEGACY = -1
"""sqlite3.LEGACY_TRANSACTION_CONTROL, the only mode before Python 3.12."""


class Dialect:
    """What differs between databases."""

    placeholder = "%s"
    bytes_type = "BYTEA"

    def statements(self, table: str) -> Statements:
        return write_statements(table, placeholder=self.placeholder, bytes_type=self.bytes_type)

    def check(self, connection: Connection) -> None:
        """Raises `ConfigurationError` if the connection cannot be used."""

    def begin(self, connection: Connection) -> None:
        """Without autocommit the first statement begins the transaction."""
        if getattr(connection, "autocommit", False):
            run(connection, "BEGIN")

    def commit(self, connection: Connection) -> None:
        connection.commit()


class PostgreSQL(Dialect):
    """psycopg 3, or what behaves like it."""


class SQLite(Dialect):
    """The standard library's sqlite3, in each of its transaction modes."""

    placeholder = "?"
    bytes_type = "BLOB"

    def check(self, connection: Connection) -> None:
        failed: list[Exception] = []

        def elsewhere() -> None:
            try:
                connection.cursor().close()
            except Exception as error:
                failed.append(error)

        thread = Thread(target=elsewhere)
        thread.start()
        thread.join()
        if failed:
            raise ConfigurationError(
                "the inbox hands connections from thread to thread, one at a time: "
                "sqlite3.connect(..., check_same_thread=False)"
            ) from failed[0]

    def begin(self, connection: Connection) -> None:
        # To write is certain, and a lock that is upgraded later can fail where one that is waited for would not.
        if getattr(connection, "autocommit", _LEGACY) is not False:
            run(connection, "BEGIN IMMEDIATE")

    def commit(self, connection: Connection) -> None:
        if getattr(connection, "autocommit", _LEGACY) is True:
            run(connection, "COMMIT")
        else:
            connection.commit()


def dialect_of(connection: Connection) -> Dialect:
    """By the module that the connection's class, or a base of it, comes from. Raises `ConfigurationError`."""
    modules = {base.__module__.partition(".")[0] for base in type(connection).__mro__}
    if "sqlite3" in modules:
        return SQLite()
    if modules & {"psycopg", "psycopg2"}:
        return PostgreSQL()
    raise ConfigurationError(f"{type(connection).__module__}: the inbox knows sqlite3 and psycopg connections")


def run(connection: Connection, statement: str, parameters: tuple[Any, ...] = ()) -> int:
    """Executes one statement; the number of rows it changed."""
    cursor = connection.cursor()
    try:
        cursor.execute(statement, parameters)
        count: int = cursor.rowcount
        return count
    finally:
        cursor.close()


def fetch(connection: Connection, statement: str, parameters: tuple[Any, ...]) -> list[Any]:
    """All rows of one query."""
    cursor = connection.cursor()
    try:
        cursor.execute(statement, parameters)
        rows: list[Any] = cursor.fetchall()
        return rows
    finally:
        cursor.close()


def roll_back(connection: Connection) -> bool:
    """Whether the connection can go on being used."""
    with suppress(Exception):
        if getattr(connection, "autocommit", None) is True:
            # There rollback() is not bound to do anything; without a transaction ROLLBACK is an error or a warning.
            in_transaction = getattr(connection, "in_transaction", None)
            if in_transaction is None or in_transaction:
                run(connection, "ROLLBACK")
        else:
            connection.rollback()
        return not getattr(connection, "closed", False)
    return False
