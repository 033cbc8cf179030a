"""What both styles of saga are compiled to: a name and a coroutine that asks for steps."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from orchestrator.model.events import RetryPolicy
from orchestrator.model.frozen import frozen


class Context(Protocol):
    """What a saga's code may know besides its input: everything in it is a function of the history."""

    @property
    def saga_id(self) -> str: ...

    @property
    def run(self) -> str: ...

    @property
    def now_ms(self) -> int:
        """The partition's clock when the outcome that woke the code was recorded."""

    @property
    def replaying(self) -> bool:
        """Whether the code is being brought to where it was: for logs that should be written once."""


UndoPayload = Callable[[bytes | None], bytes]
"""The undo's payload from the step's reply, or from None where the outcome is unknown."""


@frozen
class StepRequest:
    """A step that code asks for. `undo_payload`: None sends the step's own payload again."""

    service: str
    command: str
    payload: bytes
    undo_command: str | None = None
    undo_payload: bytes | UndoPayload | None = None
    pivot: bool = False
    start_to_close_ms: int | None = None
    schedule_to_close_ms: int | None = None
    retry: RetryPolicy | None = None
    undo_retry: RetryPolicy | None = None
    spread: bool = False


@frozen
class SleepRequest:
    """A durable pause of the code."""

    duration_ms: int


Request = StepRequest | SleepRequest

Body = Callable[[Context, bytes], Coroutine[Any, Any, bytes]]


@frozen
class Definition:
    """One saga type. `body` is started with a context and the start's payload; its return value is the result.

    `check_input` says what is wrong with a start's payload, None if nothing is; it is asked once, before the start.

    `commands` names every (service, command) of the static graph where there is one: for pictures, not for running.
    """

    name: str
    body: Body
    check_input: Callable[[bytes], str | None] = lambda payload: None
    execution_timeout_ms: int | None = None
    commands: tuple[tuple[str, str], ...] = ()
