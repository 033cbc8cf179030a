"""Run as a process: takes the charge of order-7, has its effect, says so, and holds the transaction until it is killed.

Arguments: the database, as `Database.connect` takes it.
"""

from __future__ import annotations

import sys
from typing import Any

from orchestrator.connectors.sql import SqlInbox
from orchestrator.model.messages import Outcome
from orchestrator.wire.commands import ReplyMessage

from .databases import Database, command


def hold(connection: Any, unsure: bool) -> ReplyMessage:
    database.charge(connection, "zombie")
    print("holds", flush=True)
    sys.stdin.readline()
    return ReplyMessage(Outcome.SUCCESS, b'"zombie"')


if __name__ == "__main__":
    database = Database(*sys.argv[1:])
    reply, ran = SqlInbox(database.connect).process(command(), 0, hold)
    print(reply.payload.decode(), ran, flush=True)
