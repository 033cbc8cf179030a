"""The words that events and states are made of."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """A run's status as users see it. The last eight are final."""

    RUNNING = "RUNNING"
    COMPENSATING = "COMPENSATING"
    PAUSED = "PAUSED"
    PARKED = "PARKED"
    WAITING_FOR_CODE = "WAITING_FOR_CODE"
    NOT_STARTED = "NOT_STARTED"
    """Signals came before the start: they are kept under the run that it will have."""
    COMPLETED = "COMPLETED"
    COMPENSATED = "COMPENSATED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"
    TIMED_OUT = "TIMED_OUT"
    TERMINATED = "TERMINATED"
    CONTINUED_AS_NEW = "CONTINUED_AS_NEW"
    """Its saga goes on in the next run, which has the rest of the work."""
    RESET = "RESET"
    """A person set it back: its saga goes on in the next run from an earlier point."""


class Following(StrEnum):
    """Why a saga id gets another run."""

    CONTINUED = "continued"
    """Its code asked for it."""
    REUSED = "reused"
    """Another start came, which may use an id again."""
    MIGRATED = "migrated"
    """It has newer code, which took over what the run had come to."""
    RESTARTED = "restarted"
    """A person has it run again from its beginning."""
    RESET = "reset"
    """A person has it go on from an earlier point, with the results up to there."""


class StepKind(StrEnum):
    """What stands under one sequence number of a run."""

    SERVICE = "service"
    """A command to a service."""
    CHILD = "child"
    """Another saga; its id is the command, its type the service."""
    LOCAL = "local"
    """A function that the owner itself calls."""
    CALL = "call"
    """Something that another saga does, and answers; its id is the service."""
    SLEEP = "sleep"
    LOCK = "lock"
    """The right to a key, which is the command; held until it is given back or the run has ended."""
    SIGNAL = "signal"
    PROMISE = "promise"
    UPDATE = "update"
    VALUE = "value"
    """The result of something that would be another one at each replay."""
    SENT = "sent"
    """A signal for another saga; the name says which, and to whom."""
    NOTE = "note"
    """What the saga tells of itself to whoever lists and searches: `wire.notes`."""
    STREAM = "stream"
    """What the saga tells everybody about its progress."""
    PATCH = "patch"
    """The code took the changed way here."""


class Undone(StrEnum):
    """How much of an ended run's undo set was undone."""

    ALL = "all"
    NONE = "none"
    PARTIAL = "partial"


class Cause(StrEnum):
    """Why a run turned to compensation."""

    FAILED = "failed"
    CANCELED = "canceled"
    TIMED_OUT = "timed_out"
    UNDONE = "undone"
    """It had completed, and its parent undoes it."""
    RESET = "reset"
    """A person set it back: what it did from some step on is undone."""


class UnknownCause(StrEnum):
    """Why nobody can say whether a step had its effect."""

    TIMEOUT = "timeout"
    EXHAUSTED = "exhausted"
    CANCELED = "canceled"


class Refusal(StrEnum):
    """Why somebody who waits for an outcome will never get one; the error type of their answer."""

    NOT_FOUND = "NotFound"
    OTHER_TYPE = "OtherType"
    REJECTED = "Rejected"
    ALREADY_EXISTS = "AlreadyExists"
    NO_CODE = "NoCode"
    QUERY_FAILED = "QueryFailed"
    NOT_NOW = "NotNow"
