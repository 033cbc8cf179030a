"""The inbox table and its statements, as SQLite (from 3.24) and PostgreSQL both take them.

One row for each idempotency key. Who wants to run a command first *takes* its row: by inserting it, or by raising the
attempt of one that ended without success. Both lock the row until the transaction ends, so a second taker waits, and
then finds it taken. A taken row already says `retry`, "Interrupted": if a handler commits on its own and dies, that is
what was known of it. A row that says `pending` is not taken again: it is completed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Protocol

from orchestrator.errors import ConfigurationError

_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}(\.[A-Za-z_][A-Za-z0-9_]{0,62})?")


class Connection(Protocol):
    """As much of a DB-API 2.0 connection as is used."""

    def cursor(self) -> Any: ...

    def commit(self) -> Any: ...

    def rollback(self) -> Any: ...

    def close(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class Statements:
    """SQL for one table and one parameter style."""

    create: str
    probe: str
    take: str
    mark_undone: str
    unsure: str
    read: str
    keep: str
    ask_again: str
    complete: str
    purge: str


def write_statements(table: str, *, placeholder: str, bytes_type: str) -> Statements:
    """The statements; `placeholder` is `?` or `%s`. Raises `ConfigurationError` for a name that needs quoting."""
    if not _TABLE.fullmatch(table):
        raise ConfigurationError(
            f"inbox table {table!r}: letters, digits and _ only, with a schema before it if need be"
        )
    columns = (
        "idempotency_key, saga_id, run, step, direction, attempt, payload, created_at, "
        "outcome, error_type, error_message, retry_after_ms, unsure, undone"
    )
    given = ", ".join([placeholder] * 8)
    insert = f"INSERT INTO {table} AS known ({columns}) VALUES ({given}"
    return Statements(
        create=(
            f"CREATE TABLE IF NOT EXISTS {table} ("
            "idempotency_key TEXT PRIMARY KEY, "
            "saga_id TEXT NOT NULL, "
            "run TEXT NOT NULL, "
            "step BIGINT NOT NULL, "
            "direction TEXT NOT NULL, "
            "attempt BIGINT NOT NULL, "
            "outcome TEXT NOT NULL, "
            f"payload {bytes_type} NOT NULL, "
            "error_type TEXT NOT NULL, "
            "error_message TEXT NOT NULL, "
            "retry_after_ms BIGINT, "
            "unsure BOOLEAN NOT NULL, "
            "undone BOOLEAN NOT NULL, "
            "created_at BIGINT NOT NULL)"
        ),
        probe=f"SELECT 1 FROM {table} WHERE 1 = 0",
        take=(
            f"{insert}, 'retry', 'Interrupted', '', NULL, FALSE, FALSE) "
            "ON CONFLICT (idempotency_key) DO UPDATE SET "
            "attempt = excluded.attempt, payload = excluded.payload, created_at = excluded.created_at, "
            "unsure = (known.unsure OR known.outcome = 'retry'), "
            "outcome = 'retry', error_type = 'Interrupted', error_message = '', retry_after_ms = NULL "
            "WHERE known.outcome NOT IN ('success', 'pending') AND known.attempt < excluded.attempt "
            "AND NOT known.undone"
        ),
        mark_undone=(
            f"{insert}, 'retry', 'Undone', '', NULL, FALSE, TRUE) "
            "ON CONFLICT (idempotency_key) DO UPDATE SET undone = TRUE, created_at = excluded.created_at"
        ),
        unsure=f"SELECT unsure FROM {table} WHERE idempotency_key = {placeholder}",
        read=(
            "SELECT direction, attempt, outcome, payload, error_type, error_message, retry_after_ms, undone "
            f"FROM {table} WHERE idempotency_key IN ({placeholder}, {placeholder})"
        ),
        keep=(
            f"UPDATE {table} SET outcome = {placeholder}, payload = {placeholder}, error_type = {placeholder}, "
            f"error_message = {placeholder}, retry_after_ms = {placeholder} WHERE idempotency_key = {placeholder}"
        ),
        ask_again=(
            f"UPDATE {table} SET attempt = {placeholder} WHERE idempotency_key = {placeholder} AND outcome = 'pending'"
        ),
        complete=(
            f"UPDATE {table} SET outcome = {placeholder}, payload = {placeholder}, error_type = {placeholder}, "
            f"error_message = {placeholder} "
            f"WHERE idempotency_key = {placeholder} AND outcome = 'pending' AND attempt = {placeholder}"
        ),
        purge=f"DELETE FROM {table} WHERE created_at < {placeholder}",
    )
