"""What a saga under test has sent, and what is on its way to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from orchestrator.model import messages as msg
from orchestrator.model.effects import Command as CommandEffect
from orchestrator.model.events import Recorded, WaitScheduled
from orchestrator.model.ids import Direction
from orchestrator.model.messages import Outcome
from orchestrator.service import Command


@dataclass(slots=True)
class Sent:
    """A command as its service saw it. `at`: seconds since the start. `outcome` None: it was not answered (yet).

    `asked` and `answered` are the numbers of the decisions that sent it and that its answer caused.
    """

    command: Command[..., Any, Any]
    request: Any
    direction: Direction
    sequence: int
    attempt: int
    key: str
    at: float
    asked: int
    effect: CommandEffect = field(repr=False)
    outcome: Outcome | None = None
    error: str = ""
    answered: int | None = None

    def __repr__(self) -> str:
        attempt = f", attempt {self.attempt}" if self.attempt > 1 else ""
        return f"{self.command!r}{attempt}"


Happening = Sent | WaitScheduled | Recorded
"""What a saga has begun to wait for: a command's outcome, or a signal or a time."""


@dataclass(slots=True)
class Flight:
    """Something on its way to the saga. Of what is due at one time the lowest `rank` arrives first, then the oldest.

    `repeat`: it answers a command that was sent again. `own`: the saga tells it itself.
    """

    due_ms: int
    rank: int
    input: msg.Input
    sent: Sent | None = None
    repeat: bool = False
    own: bool = False


PERSON, SERVICE, TIMER = 0, 1, 2
"""Ranks: answers that are there count before a time that is up, as in production."""
