"""What a list shows of a run, kept up event by event: of what `evolve` keeps, only that which has a column."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from orchestrator.model import events as ev
from orchestrator.model.evolve import BrokenHistory, transition_of
from orchestrator.model.state import FINAL, SAGA_TRANSITIONS
from orchestrator.wire.notes import NUMBERS, note_in, read_note, take_tasks

COLUMNS = (
    "saga_id",
    "run",
    "saga_type",
    "version",
    "pinned",
    "status",
    "phase",
    "parked",
    "paused",
    "started_at_ms",
    "updated_at_ms",
    "ended_at_ms",
    "undone",
    "cause",
    "error_type",
    "error_message",
    "attributes",
    "memo",
    "summary",
    "tasks",
    "partition",
    "first_offset",
    "last_offset",
    "events",
)
"""Of the table `runs`, in its order."""


class Row:
    """One run. `parked` maps a step's sequence (0: the saga itself) to the reason.

    `paused` says by whom, or by what rule.
    """

    __slots__ = (*(name for name in COLUMNS if name != "status"), "attributes_changed")

    def __init__(self, saga_id: str, run: str, partition: int, offset: int) -> None:
        self.saga_id = saga_id
        self.run = run
        self.saga_type = ""
        self.version = 0
        self.pinned = False
        self.phase: ev.Status | None = None
        self.parked: dict[int, str] = {}
        self.paused: str | None = None
        self.started_at_ms = 0
        self.updated_at_ms = 0
        self.ended_at_ms: int | None = None
        self.undone: str | None = None
        self.cause: str | None = None
        self.error_type = ""
        self.error_message = ""
        self.attributes: dict[str, tuple[str, Any]] = {}
        self.memo: dict[str, Any] = {}
        self.summary: str | None = None
        self.tasks: dict[str, dict[str, Any]] = {}
        self.attributes_changed = False
        self.partition = partition
        self.first_offset = offset
        self.last_offset = offset
        self.events = 0

    @property
    def status(self) -> ev.Status:
        """What a user sees."""
        assert self.phase is not None
        if self.phase in FINAL or not (self.parked or self.paused):
            return self.phase
        return ev.Status.PARKED if self.parked else ev.Status.PAUSED

    def apply(self, decision: ev.Decision, offset: int) -> None:
        """Takes one decision. Raises `BrokenHistory`, having changed nothing."""
        self.phase = self._phase_after(decision)
        for event in decision.events:
            kind = type(event)
            if kind in _STEP_MOVES:
                self.parked.pop(event.sequence, None)  # type: ignore[union-attr]
            change = _CHANGES.get(kind)
            if change is not None:
                change(self, event, decision.at_ms)
        self.events += len(decision.events)
        if ev.SagaForgotten() not in decision.events:  # nothing has happened to the saga
            self.updated_at_ms = decision.at_ms
        self.last_offset = offset

    def values(self) -> tuple[Any, ...]:
        """For the table, in the order of `COLUMNS`."""
        parked = orjson.dumps([*self.parked.items()]).decode() if self.parked else ""
        given = {"parked": parked, "status": str(self.status), "phase": str(self.phase)}
        given["attributes"] = orjson.dumps(self.attributes).decode() if self.attributes else ""
        given["tasks"] = orjson.dumps(self.tasks).decode() if self.tasks else ""
        given["memo"] = orjson.dumps(self.memo).decode() if self.memo else ""
        return tuple(given[name] if name in given else getattr(self, name) for name in COLUMNS)

    def attribute_rows(self) -> list[tuple[Any, ...]]:
        """For the table `attributes`: a row for each value."""
        rows: list[tuple[Any, ...]] = []
        for name, (kind, value) in self.attributes.items():
            for position, one in enumerate(value if isinstance(value, list) else [value]):
                text, number = (None, one) if kind in NUMBERS else (one, None)
                rows.append((self.partition, self.saga_id, self.run, name, position, kind, text, number))
        return rows

    def carry_on(self, before: Row) -> None:
        """Takes over what the run before had told of itself."""
        self.attributes, self.memo, self.summary = dict(before.attributes), dict(before.memo), before.summary
        self.attributes_changed = bool(self.attributes)

    def _take_note(self, data: bytes) -> None:
        note = read_note(data)
        for name, (kind, value) in note.attributes.items():
            self.attributes_changed = True
            self.attributes.pop(name, None)
            if value is not None:
                self.attributes[name] = (kind, value)
        self.memo = {name: value for name, value in (self.memo | note.memo).items() if value is not None}
        self.summary = self.summary if note.summary is None else note.summary

        take_tasks(self.tasks, note)

    def _phase_after(self, decision: ev.Decision) -> ev.Status:
        phase = self.phase
        for event in decision.events:
            if type(event) in _PHASES:
                try:
                    phase = SAGA_TRANSITIONS[phase, transition_of(event)]
                except KeyError:
                    raise BrokenHistory(f"{self.saga_id}: {transition_of(event)} in {phase}") from None
        if phase is None:
            raise BrokenHistory(f"{self.saga_id}: run {self.run} was never started")
        return phase


def carried_on(decision: ev.Decision) -> str | None:
    """The run whose work the decision's run carries on, if it begins with it."""
    first = decision.events[0] if decision.events else None
    if not isinstance(first, ev.SagaStarted) or first.following in (None, ev.Following.REUSED):
        return None
    return first.previous_run


def read_row(values: tuple[Any, ...]) -> Row:
    """A row as the table holds it."""
    named = dict(zip(COLUMNS, values, strict=True))
    row = Row(named["saga_id"], named["run"], named["partition"], named["first_offset"])
    for name in Row.__slots__:
        if name in named:
            setattr(row, name, named[name])
    row.phase = ev.Status(named["phase"])
    row.pinned = bool(named["pinned"])
    row.parked = dict(orjson.loads(named["parked"])) if named["parked"] else {}
    row.attributes = orjson.loads(named["attributes"]) if named["attributes"] else {}
    row.tasks = orjson.loads(named["tasks"]) if named["tasks"] else {}
    row.memo = orjson.loads(named["memo"]) if named["memo"] else {}
    return row


def _buffered(row: Row, event: ev.SignalBuffered, at_ms: int) -> None:
    row.started_at_ms = row.started_at_ms or at_ms


def _started(row: Row, event: ev.SagaStarted, at_ms: int) -> None:
    row.saga_type = event.saga_type
    row.version, row.pinned = event.version, event.pinned
    row.started_at_ms = at_ms
    if event.note:
        row._take_note(event.note)


def _told(row: Row, event: ev.Recorded | ev.StepInherited, at_ms: int) -> None:
    if note := note_in(event):
        row._take_note(note)


def _version_changed(row: Row, event: ev.VersionChanged, at_ms: int) -> None:
    row.version, row.pinned = event.version, event.pinned


def _step_parked(row: Row, event: ev.StepParked | ev.UndoParked, at_ms: int) -> None:
    row.parked[event.sequence] = event.reason


def _saga_parked(row: Row, event: ev.SagaParked, at_ms: int) -> None:
    row.parked[0] = event.reason


def _saga_unparked(row: Row, event: ev.SagaUnparked, at_ms: int) -> None:
    row.parked.pop(0, None)


def _paused(row: Row, event: ev.SagaPaused, at_ms: int) -> None:
    who = f"by the rule {event.rule}" if event.rule else f"by {event.by or 'a person'}"
    row.paused = f"paused {who}: {event.reason}" if event.reason else f"paused {who}"


def _resumed(row: Row, event: ev.SagaResumed, at_ms: int) -> None:
    row.paused = None


def _cancel_requested(row: Row, event: ev.CancelRequested, at_ms: int) -> None:
    row.error_message = event.reason


def _compensation_started(row: Row, event: ev.CompensationStarted, at_ms: int) -> None:
    row.parked.pop(0, None)
    row.tasks.clear()
    row.cause = str(event.cause)
    row.error_type, row.error_message = event.error_type, event.error_message


def _ended(row: Row, event: ev.SagaEnded, at_ms: int) -> None:
    row.parked.clear()
    row.tasks.clear()
    row.paused = None
    row.ended_at_ms = at_ms
    row.undone = str(event.undone)
    row.error_type, row.error_message = event.error_type, event.error_message


_PHASES = {ev.SignalBuffered, ev.SagaStarted, ev.CodeMissing, ev.CodeFound, ev.CompensationStarted, ev.SagaEnded}
_STEP_MOVES = {
    ev.StepBackedOff,
    ev.StepAttempted,
    ev.StepSucceeded,
    ev.StepRefused,
    ev.StepEndedUnknown,
    ev.UndoScheduled,
    ev.UndoBackedOff,
    ev.UndoAttempted,
    ev.UndoSucceeded,
    ev.UndoSkipped,
}
"""Events after which their step is no longer parked."""

_CHANGES: dict[type, Callable[[Row, Any, int], None]] = {
    ev.SignalBuffered: _buffered,
    ev.SagaStarted: _started,
    ev.VersionChanged: _version_changed,
    ev.StepParked: _step_parked,
    ev.UndoParked: _step_parked,
    ev.SagaParked: _saga_parked,
    ev.SagaUnparked: _saga_unparked,
    ev.Recorded: _told,
    ev.StepInherited: _told,
    ev.SagaPaused: _paused,
    ev.SagaResumed: _resumed,
    ev.CancelRequested: _cancel_requested,
    ev.CompensationStarted: _compensation_started,
    ev.SagaEnded: _ended,
}
