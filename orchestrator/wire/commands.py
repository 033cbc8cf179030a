"""Commands and replies as records, seen from both sides."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from orchestrator.model.effects import Command
from orchestrator.model.ids import Direction, idempotency_key
from orchestrator.model.messages import Outcome
from orchestrator.wire import headers as h
from orchestrator.wire.headers import MalformedMessage


@dataclass(frozen=True, slots=True)
class CommandMessage:
    """A command as a participant reads it. `sent_at_ms` and `deadline_ms` are milliseconds since 1970.

    `headers` holds all headers as text, for the handler's context and for the reply to echo.
    """

    saga_id: str
    run: str
    saga_type: str
    command_type: str
    sequence: int
    direction: Direction
    attempt: int
    idempotency_key: str
    payload: bytes
    reply_to: str
    reply_partition: int
    sent_at_ms: int
    deadline_ms: int | None
    headers: dict[str, str]

    @property
    def unit(self) -> tuple[str, str, int]:
        """The unit of order: (saga id, run, sequence), its `do` before its `undo`."""
        return self.saga_id, self.run, self.sequence


@dataclass(frozen=True, slots=True)
class ReplyMessage:
    """What a participant answers, before it is addressed."""

    outcome: Outcome
    payload: bytes = b""
    error_type: str = ""
    error_message: str = ""
    retry_after_ms: int | None = None


def command_headers(
    command: Command, *, epoch: int, reply_to: str, reply_partition: int, token: str, sent_at_ms: int
) -> list[tuple[str, bytes]]:
    """The headers of a command record; its key is the saga id, its value the payload as it is."""
    key = idempotency_key(command.saga_id, command.run, command.sequence, command.direction)
    return h.write_headers(
        {
            h.SAGA_ID: command.saga_id,
            h.SAGA_RUN: command.run,
            h.SAGA_TYPE: command.saga_type,
            h.COMMAND_TYPE: command.command,
            h.STEP: command.sequence,
            h.DIRECTION: command.direction,
            h.IDEMPOTENCY_KEY: key,
            h.ATTEMPT: command.attempt,
            h.REPLY_TO: reply_to,
            h.REPLY_PARTITION: reply_partition,
            h.REPLY_TOKEN: token,
            h.DEADLINE: command.deadline_ms,
            h.SENT_AT: sent_at_ms,
            h.EPOCH: epoch,
            h.TRACEPARENT: command.traceparent,
        }
    )


def read_command(headers: Iterable[tuple[str, bytes | None]], value: bytes | None) -> CommandMessage:
    """A command from its record. Raises `MalformedMessage`."""
    found = h.read_headers(headers)
    direction = found.get(h.DIRECTION, "do")
    if direction not in ("do", "undo"):
        raise MalformedMessage(f"header {h.DIRECTION!r} must be do or undo, not {direction[:40]!r}")
    return CommandMessage(
        h.need(found, h.SAGA_ID),
        h.need(found, h.SAGA_RUN),
        found.get(h.SAGA_TYPE, ""),
        h.need(found, h.COMMAND_TYPE),
        h.whole_number(found, h.STEP),
        cast(Direction, direction),
        h.whole_number(found, h.ATTEMPT, 1),
        h.need(found, h.IDEMPOTENCY_KEY),
        value or b"",
        h.need(found, h.REPLY_TO),
        h.whole_number(found, h.REPLY_PARTITION),
        h.whole_number(found, h.SENT_AT, 0),
        h.whole_number(found, h.DEADLINE) if found.get(h.DEADLINE) else None,
        found,
    )


def reply_headers(command: CommandMessage, reply: ReplyMessage) -> list[tuple[str, bytes]]:
    """The headers of a reply: those of the command that a reply echoes, and the outcome."""
    values: dict[str, str | int | None] = {name: command.headers.get(name) for name in h.ECHOED}
    values[h.OUTCOME] = reply.outcome.value
    if reply.error_type:
        values[h.ERROR_TYPE] = h.shorten(reply.error_type, 256)
    if reply.error_message:
        values[h.ERROR_MESSAGE] = h.shorten(reply.error_message)
    values[h.RETRY_AFTER_MS] = reply.retry_after_ms
    return h.write_headers(values)
