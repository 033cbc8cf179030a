"""The databases that the inbox is held to, the commands, and a table of effects."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import psycopg

from orchestrator.model.effects import Command
from orchestrator.model.ids import Direction
from orchestrator.wire.commands import CommandMessage, command_headers, read_command

NOW_MS = 1_700_000_000_000


@dataclass(frozen=True)
class Database:
    """`kind`: sqlite, sqlite-auto (autocommit mode), postgres, postgres-auto or postgres-serializable."""

    kind: str
    place: str

    def connect(self) -> Any:
        if self.kind.startswith("sqlite"):
            level = None if self.kind == "sqlite-auto" else ""
            return sqlite3.connect(self.place, timeout=20, isolation_level=level, check_same_thread=False)
        connection = psycopg.connect(self.place, autocommit=self.kind == "postgres-auto")
        if self.kind == "postgres-serializable":
            connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        return connection

    def execute(self, statement: str, *parameters: Any) -> list[Any]:
        """One statement in a transaction of its own; its rows."""
        with closing(self.connect()) as connection:
            cursor = connection.execute(self.sql(statement), parameters)
            rows = cursor.fetchall() if cursor.description else []
            connection.commit()
        return rows

    def sql(self, statement: str) -> str:
        return statement if self.kind.startswith("sqlite") else statement.replace("?", "%s")

    def charge(self, connection: Any, by: str) -> None:
        """The effect: a row, with no key to keep a second one out."""
        connection.execute(self.sql("INSERT INTO charges (by_whom) VALUES (?)"), (by,))

    def charges(self) -> list[str]:
        return [row[0] for row in self.execute("SELECT by_whom FROM charges ORDER BY by_whom")]

    def clear(self) -> None:
        self.execute("DROP TABLE IF EXISTS charges")
        self.execute("DROP TABLE IF EXISTS saga_inbox")
        self.execute("CREATE TABLE charges (by_whom TEXT)")


def command(
    direction: Direction = "do",
    attempt: int = 1,
    *,
    saga_id: str = "order-7",
    sent_at_ms: int = NOW_MS,
    deadline_ms: int | None = None,
) -> CommandMessage:
    message = Command(
        saga_id, "1-10-0", "Order", 1, direction, attempt, "payments", "charge", 0, b"{}", deadline_ms, None
    )
    headers = command_headers(
        message, epoch=1, reply_to="saga.replies", reply_partition=0, token="k.0", sent_at_ms=sent_at_ms
    )
    return read_command(headers, b"{}")
