"""What inputs are made of: who waits, whose child, and the policies that a sender may choose from."""

from __future__ import annotations

from enum import StrEnum

from orchestrator.model.frozen import frozen


class Outcome(StrEnum):
    """What a participant answers: `FAILURE` asserts that there was no effect, `RETRY` asserts nothing.

    `HEARTBEAT` is no answer yet: the work has begun and goes on, and the payload says how far it got.
    """

    SUCCESS = "success"
    FAILURE = "failure"
    RETRY = "retry"
    HEARTBEAT = "heartbeat"


@frozen
class ReplyAddress:
    """Where a client waits for an answer: a topic, its partition, and the client's own correlation id."""

    topic: str
    partition: int
    correlation_id: str


class Leaving(StrEnum):
    """What a child hears of its parent."""

    LEFT = "left"
    """It waits no longer; what follows is the child's `cancellation`."""
    CLOSED = "closed"
    """It has ended; what follows is the child's `close`."""
    CANCEL = "cancel"
    """It waits for the child to stop and to undo what it did, whatever it was started with."""
    TERMINATE = "terminate"
    """It waits for the child to end at once."""
    GONE = "gone"
    """It is forgotten, or another run of it has nothing to do with the child: it asks for nothing any more."""


class ParentClose(StrEnum):
    """What becomes of a child that is under way when its parent ends without waiting for it."""

    TERMINATE = "TERMINATE"
    ABANDON = "ABANDON"
    REQUEST_CANCEL = "REQUEST_CANCEL"


class ChildCancellation(StrEnum):
    """What a parent that is cancelled while it waits for a child does about it."""

    WAIT_CANCELLATION_COMPLETED = "WAIT_CANCELLATION_COMPLETED"
    """Cancels the child, and goes on when it has ended."""
    TRY_CANCEL = "TRY_CANCEL"
    """Cancels the child, and goes on at once."""
    ABANDON = "ABANDON"
    """Leaves the child to itself."""


@frozen
class Parent:
    """Whose child a saga is: the parent's step that started it, and what the child is to do when it is left."""

    saga_id: str
    run: str
    sequence: int
    close: ParentClose = ParentClose.TERMINATE
    cancellation: ChildCancellation = ChildCancellation.WAIT_CANCELLATION_COMPLETED


class Reuse(StrEnum):
    """What a start may do with an id whose saga has ended."""

    ALLOW_DUPLICATE = "ALLOW_DUPLICATE"
    """Run it again."""
    ALLOW_DUPLICATE_FAILED_ONLY = "ALLOW_DUPLICATE_FAILED_ONLY"
    """Run it again unless it completed."""
    REJECT_DUPLICATE = "REJECT_DUPLICATE"
    """Refuse."""
    TERMINATE_IF_RUNNING = "TERMINATE_IF_RUNNING"
    """Run it again, and end a run that is still under way."""


class Conflict(StrEnum):
    """What a start does with an id whose saga is under way."""

    USE_EXISTING = "USE_EXISTING"
    """Wait for that one's outcome."""
    FAIL = "FAIL"
    """Refuse."""
    TERMINATE_EXISTING = "TERMINATE_EXISTING"
    """End it and run anew."""


class Override(StrEnum):
    """What a person may do about a step that is parked or between two attempts."""

    RETRY = "retry"
    SKIP = "skip"
    SET_RESULT = "set-result"
