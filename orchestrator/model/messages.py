"""Inputs: everything the engine reacts to, as frozen values. `wire.inputs` makes them from records.

Payloads are bytes that the core never opens. Each input names the saga it is for. `run` is None where the sender may
not know it (then the current run is meant); an input that names another run than the current one is absorbed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """What a participant answers: `FAILURE` asserts that there was no effect, `RETRY` asserts nothing."""

    SUCCESS = "success"
    FAILURE = "failure"
    RETRY = "retry"


@dataclass(frozen=True, slots=True)
class ReplyAddress:
    """Where a client waits for an answer: a topic, its partition, and the client's own correlation id."""

    topic: str
    partition: int
    correlation_id: str


@dataclass(frozen=True, slots=True)
class Start:
    """Start a saga. On an id that exists it starts nothing: the sender is attached to what is there."""

    saga_id: str
    message_id: str
    saga_type: str
    payload: bytes
    reply_to: ReplyAddress | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Attach:
    """Answer this address when the saga ends; at once if it has ended, or if there is no such saga."""

    saga_id: str
    message_id: str
    reply_to: ReplyAddress


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop going forward and undo. The code may clean up first."""

    saga_id: str
    message_id: str
    run: str | None = None
    reason: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """A participant's answer to attempt `attempt` of one step's `do` or `undo`."""

    saga_id: str
    run: str
    sequence: int
    undo: bool
    attempt: int
    outcome: Outcome
    payload: bytes = b""
    error_type: str = ""
    error_message: str = ""
    retry_after_ms: int | None = None


@dataclass(frozen=True, slots=True)
class TimerDue:
    """A timer of the saga reached its time. Sequence 0 is the saga's own timer, others are a step's."""

    saga_id: str
    run: str
    sequence: int
    due_ms: int


@dataclass(frozen=True, slots=True)
class Continue:
    """Go on where the last decision of this saga had used up its budget."""

    saga_id: str
    run: str


@dataclass(frozen=True, slots=True)
class CodeArrived:
    """This owner has the code that a waiting saga needs."""

    saga_id: str
    run: str


@dataclass(frozen=True, slots=True)
class SendFailed:
    """A command could not be handed to Kafka for good: its topic is missing or may not be written."""

    saga_id: str
    run: str
    sequence: int
    undo: bool
    attempt: int
    error_message: str


@dataclass(frozen=True, slots=True)
class Terminate:
    """An operator ends the saga at once; nothing is undone."""

    saga_id: str
    message_id: str
    run: str | None = None
    reason: str = ""
    by: str = ""


class Override(StrEnum):
    """What a person may do about a parked saga."""

    RETRY = "retry"
    SKIP = "skip"
    SET_RESULT = "set-result"


@dataclass(frozen=True, slots=True)
class Unpark:
    """A person decides about a parked saga. `sequence` 0: whatever it is parked at."""

    saga_id: str
    message_id: str
    action: Override
    sequence: int = 0
    payload: bytes | None = None
    run: str | None = None
    reason: str = ""
    by: str = ""


Input = Start | Attach | Cancel | Reply | TimerDue | Continue | CodeArrived | SendFailed | Terminate | Unpark
External = Start | Attach | Cancel | Terminate | Unpark
"""Inputs that come from outside with a `message_id` and are remembered by it."""
