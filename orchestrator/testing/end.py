"""How a saga under test ended, and what can be asserted about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import EllipsisType
from typing import Any, Generic, Self, TypeVar

from pydantic import BaseModel

from orchestrator.model.events import Decision, Event, InputSent, Recorded, Status, StepKind, Undone
from orchestrator.model.messages import Outcome
from orchestrator.model.messages import Signal as Told
from orchestrator.service import Command
from orchestrator.signals import Signal
from orchestrator.streams import Stream
from orchestrator.testing.flights import Sent
from orchestrator.testing.histories import save

O = TypeVar("O")  # noqa: E741 - output
M = TypeVar("M", bound=BaseModel)
S = TypeVar("S")

AnyCommand = Command[..., Any, Any]

_UNDONE = (Status.COMPENSATED, Status.CANCELED, Status.TIMED_OUT)


@dataclass(slots=True, repr=False)
class End(Generic[O]):
    """How a saga ended. `effects`: the commands that had their effect, in order, `do` and undo alike.

    `reason`: why it is parked, or what made it fail; with the traceback where the saga's code raised what it must not.
    `sent`: every command that was sent, with its request, attempt and outcome. `elapsed`: seconds from start to end.
    `decisions`: the history, as the journal would hold it; `journal`: its events alone.
    """

    status: Status
    result: O | None
    effects: list[AnyCommand]
    journal: list[Event]
    undone: Undone | None = None
    reason: str = ""
    error_type: str = ""
    sent: list[Sent] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    elapsed: float = 0.0

    def __repr__(self) -> str:
        """One line, for a failed assertion: the reason without its traceback, the commands without their history."""
        first, *more = self.reason.splitlines() or [""]
        who, raised, _ = first.partition(" raised ")
        why = f"{who}{raised}{more[-1]}" if raised and more else first
        result = f" with {self.result!r}" if self.status is Status.COMPLETED else ""
        return f"<{self.status}{result}{f' ({why})' if why else ''} after {self.effects!r}>"

    @property
    def undone_commands(self) -> list[AnyCommand]:
        """The undo commands that had their effect, in order."""
        return [sent.command for sent in self._undos()]

    def requests(self, command: Command[..., M, Any]) -> list[M]:
        """What `command` was asked for, once for each step, however often it was tried."""
        first = {sent.key: sent.request for sent in reversed(self.sent) if sent.command is command}
        return list(reversed(first.values()))

    def attempts(self, command: AnyCommand) -> int:
        """How often `command` was sent, all its steps and attempts together."""
        return sum(sent.command is command for sent in self.sent)

    def published(self, stream: Stream[S]) -> list[S]:
        """What the saga has published on a stream, in order."""
        return published(self.journal, stream)

    def ran_together(self, *commands: AnyCommand) -> bool:
        """Whether all of these were under way at one time. Raises `AssertionError` for one that was never sent."""
        spans = []
        for command in commands:
            own = [_span(sent) for sent in self.sent if sent.command is command]
            if not own:
                raise AssertionError(f"{command!r} was never sent: {self!r}")
            spans.append(own)
        return any(
            all(any(begin <= at < end for begin, end in own) for own in spans) for mine in spans for at, _ in mine
        )

    def signals(self, signal: Signal[S]) -> list[tuple[str, S]]:
        """What the saga told others by this signal, in order: (saga id, value)."""
        sent = [event.input for event in self.journal if isinstance(event, InputSent)]
        return [
            (told.saga_id, signal.decode(told.payload))
            for told in sent
            if isinstance(told, Told) and told.name == signal.name
        ]

    def assert_completed(self, result: O | EllipsisType = ...) -> Self:
        """It completed, with `result` if one is given."""
        if self.status is not Status.COMPLETED:
            raise AssertionError(f"it has not completed: {self!r}")
        if result is not ... and self.result != result:
            raise AssertionError(f"it completed with {self.result!r}, expected was {result!r}")
        return self

    def assert_compensated(self, *undos: AnyCommand | set[AnyCommand]) -> Self:
        """Everything that was to be undone is undone: by exactly these commands in this order, if any are given.

        A set stands for what is undone at the same time: `assert_compensated(Payments.refund, {Hotel.free, Car.free})`.
        """
        if self.status not in _UNDONE or self.undone is not Undone.ALL:
            raise AssertionError(f"it is not undone ({self.undone or 'not ended'}): {self!r}")
        if undos:
            self._assert_order(undos)
        return self

    def assert_failed(self, error_type: str | None = None) -> Self:
        """It failed, with or without something to undo; for this reason, if one is given."""
        if self.status not in (Status.FAILED, Status.COMPENSATED):
            raise AssertionError(f"it has not failed: {self!r}")
        if error_type is not None and self.error_type != error_type:
            raise AssertionError(f"it failed with {self.error_type!r}, expected was {error_type!r}: {self!r}")
        return self

    def save(self, path: str | Path) -> Path:
        """Writes the history into a file that can be reviewed, and replayed by `check_histories`."""
        return save(self.decisions, path)

    def _assert_order(self, undos: tuple[AnyCommand | set[AnyCommand], ...]) -> None:
        done = self._undos()
        place = 0
        for expected in undos:
            group = [expected] if isinstance(expected, Command) else list(expected)
            mine = done[place : place + len(group)]
            place += len(group)
            if sorted(map(repr, group)) != sorted(repr(sent.command) for sent in mine):
                break
            if len(mine) > 1 and max(sent.asked for sent in mine) >= min(_span(sent)[1] for sent in mine):
                raise AssertionError(f"{mine!r} were undone one after the other, not at the same time")
        else:
            if place == len(done):
                return
        raise AssertionError(f"undone were {self.undone_commands!r}, expected was {list(undos)!r}")

    def _undos(self) -> list[Sent]:
        seen: dict[str, Sent] = {}
        for sent in self.sent:
            if sent.direction == "undo" and sent.outcome is Outcome.SUCCESS:
                seen.setdefault(sent.key, sent)
        return list(seen.values())


def published(journal: list[Event], stream: Stream[S]) -> list[S]:
    """What is on a stream."""
    told = [event for event in journal if isinstance(event, Recorded) and event.kind is StepKind.STREAM]
    return [stream.decode(event.payload) for event in told if event.name == stream.name]


def _span(sent: Sent) -> tuple[int, float]:
    """The decisions between which it was under way."""
    return sent.asked, float("inf") if sent.answered is None else sent.answered
