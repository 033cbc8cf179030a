"""Events of what is said to a saga from outside: promises and updates. Part of `model.events`."""

from __future__ import annotations

from orchestrator.model.frozen import frozen
from orchestrator.model.messages import Parent, ReplyAddress


@frozen
class PromiseSettled:
    """A promise was kept from outside, or with an error type broken; it is so from now on for all who wait for it."""

    name: str
    payload: bytes = b""
    error_type: str = ""
    error_message: str = ""
    by: str = ""


@frozen
class PromiseKept:
    """The settled promise of the wait's name gives the code its result."""

    sequence: int


@frozen
class PromiseBroken:
    """It raises its error in the code."""

    sequence: int


@frozen
class UpdateAccepted:
    """An update passed the saga's validator: its handler begins, as an outcome among the others."""

    sequence: int
    update_id: str
    name: str
    payload: bytes
    reply_to: ReplyAddress | None = None
    caller: Parent | None = None


@frozen
class UpdateAsked:
    """Somebody asks again for what became of an update."""

    sequence: int
    reply_to: ReplyAddress


@frozen
class UpdateEnded:
    """The handler gave a result, or with an error type failed. `waiters` are told."""

    sequence: int
    payload: bytes = b""
    error_type: str = ""
    error_message: str = ""
    waiters: tuple[ReplyAddress, ...] = ()
