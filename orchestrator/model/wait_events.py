"""Events of waits: for time, for signals; and of values that the code recorded."""

from __future__ import annotations

from orchestrator.model.frozen import frozen
from orchestrator.model.kinds import StepKind


@frozen
class WaitScheduled:
    """The code waits for what comes from outside, by `name`, or for a time; `due_ms` is when it waits no longer."""

    sequence: int
    after: int
    kind: StepKind
    name: str = ""
    due_ms: int | None = None


@frozen
class WaitExpired:
    """The time of a wait is up, which is how a sleep ends."""

    sequence: int


@frozen
class WaitCanceled:
    """The code let go of a wait; or it was `stopped`: the saga turned to undoing without its code."""

    sequence: int
    stopped: bool = False


@frozen
class SignalReceived:
    """A signal is kept until the code asks for one of its name."""

    name: str
    payload: bytes
    by: str = ""


@frozen
class SignalBuffered:
    """A signal for an id that nobody has started; kept until `until_ms`, or longer if another one comes."""

    name: str
    payload: bytes
    until_ms: int
    by: str = ""


@frozen
class SignalDropped:
    """The signal that is kept at this place (from 0) will never be asked for."""

    place: int
    name: str
    reason: str


@frozen
class SignalTaken:
    """The oldest kept signal of the wait's name goes to the code."""

    sequence: int


@frozen
class LockTaken:
    """The saga holds the key that the wait was for."""

    sequence: int


@frozen
class LockRefused:
    """It cannot have the key."""

    sequence: int
    error_type: str
    error_message: str = ""


@frozen
class LockReleased:
    """The code gave the key back."""

    sequence: int


@frozen
class Recorded:
    """A value that the code made or decided once; every replay gives it back."""

    sequence: int
    after: int
    kind: StepKind
    name: str
    payload: bytes
