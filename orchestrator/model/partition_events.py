"""Events of a partition rather than of a run: its rules and circuits, what it hands on, and what it answers."""

from __future__ import annotations

from dataclasses import field

from orchestrator.model.frozen import frozen
from orchestrator.model.kinds import Refusal
from orchestrator.model.messages import ReplyAddress


@frozen
class AttachRefused:
    """Somebody asked for the outcome of a saga that does not exist, is of another type, or whose start was rejected."""

    reply_to: ReplyAddress
    kind: Refusal
    reason: str


@frozen
class InputAnswered:
    """Who asked for something hears what came of it: it was done or, with a reason, it changed nothing."""

    reply_to: ReplyAddress
    reason: str = ""


@frozen
class PauseRuleSet:
    """A rule of the partition from here on or, not `standing`, no longer one."""

    rule: str
    standing: bool
    by: str
    reason: str


@frozen
class InputForwarded:
    """An input came in on a partition that does not own its saga; it goes to the right one by `saga.internal`."""

    target: int
    counter: int
    topic: str
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = field(default=())


@frozen
class CircuitOpened:
    """So many attempts in a row ended without an answer: the partition holds back what goes to this service."""

    service: str
    failures: int


@frozen
class CircuitClosed:
    """The service has answered again."""

    service: str
