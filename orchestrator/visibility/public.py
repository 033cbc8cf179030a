"""The public event stream: which events are told to everybody, and as what JSON.

Payloads stay inside: a subscriber learns what happened to which saga, not with what data. Names and fields here are a
contract with subscribers: they are added to, never changed.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson

from orchestrator.model import events as ev
from orchestrator.wire import headers as h

EVENT_ID = "event-id"
EVENT_TYPE = "event-type"

Fields = dict[str, str | int | None]


class Told:
    """What later events of a run do not say again: its type, and each step's service and commands."""

    __slots__ = ("saga_type", "steps")

    def __init__(self) -> None:
        self.saga_type = ""
        self.steps: dict[int, tuple[str, str, str]] = {}

    def note(self, event: ev.Event) -> None:
        """Takes any event, in order."""
        if isinstance(event, ev.SagaStarted):
            self.saga_type = event.saga_type
        elif isinstance(event, ev.StepScheduled):
            self.steps[event.sequence] = (event.service, event.command, event.undo_command or "")

    def of(self, sequence: int, *, undo: bool = False) -> Fields:
        """A step's number, service and command."""
        service, command, undo_command = self.steps[sequence]
        return {"step": sequence, "service": service, "command": undo_command if undo else command}


def is_public(event: ev.Event) -> bool:
    """Whether everybody is told of it."""
    return type(event) in _PUBLIC


def public_record(
    decision: ev.Decision, partition: int, offset: int, index: int, told: Told
) -> tuple[bytes, list[tuple[str, bytes]]] | None:
    """The value and headers of one event of a decision; None if it is not a public one."""
    event = decision.events[index]
    write = _PUBLIC.get(type(event))
    if write is None:
        return None
    name, more = write(event, told)
    event_id = f"{partition}-{offset}-{index}"
    fields: dict[str, Any] = {
        "event": name,
        "event_id": event_id,
        "saga_id": decision.saga_id,
        "run": decision.run,
        "saga_type": told.saga_type,
        "at": datetime.fromtimestamp(decision.at_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        **{name: value for name, value in more.items() if value not in ("", None)},
    }
    headers = {
        EVENT_ID: event_id,
        EVENT_TYPE: name,
        h.SAGA_ID: decision.saga_id,
        h.SAGA_RUN: decision.run,
        h.SAGA_TYPE: told.saga_type,
        h.CONTENT_TYPE: "application/json",
    }
    return orjson.dumps(fields), h.write_headers(headers)


def _error(event: Any) -> Fields:
    return {"error_type": event.error_type, "error_message": event.error_message}


def _started(event: ev.SagaStarted, told: Told) -> tuple[str, Fields]:
    return "started", {"traceparent": event.traceparent}


def _done(event: ev.StepSucceeded, told: Told) -> tuple[str, Fields]:
    return "step-done", {**told.of(event.sequence), "attempt": event.attempt, "by": event.by}


def _refused(event: ev.StepRefused, told: Told) -> tuple[str, Fields]:
    return "step-refused", {**told.of(event.sequence), "attempt": event.attempt, **_error(event)}


def _unknown(event: ev.StepEndedUnknown, told: Told) -> tuple[str, Fields]:
    return "step-unknown", {**told.of(event.sequence), "cause": str(event.cause), **_error(event)}


def _compensating(event: ev.CompensationStarted, told: Told) -> tuple[str, Fields]:
    return "compensating", {"cause": str(event.cause), **_error(event)}


def _undone(event: ev.UndoSucceeded, told: Told) -> tuple[str, Fields]:
    return "step-undone", {**told.of(event.sequence, undo=True), "attempt": event.attempt, "by": event.by}


def _skipped(event: ev.UndoSkipped, told: Told) -> tuple[str, Fields]:
    return "undo-skipped", {**told.of(event.sequence, undo=True), "reason": event.reason, "by": event.by}


def _step_parked(event: ev.StepParked, told: Told) -> tuple[str, Fields]:
    return "parked", {**told.of(event.sequence), "reason": event.reason}


def _undo_parked(event: ev.UndoParked, told: Told) -> tuple[str, Fields]:
    return "parked", {**told.of(event.sequence, undo=True), "reason": event.reason}


def _saga_parked(event: ev.SagaParked, told: Told) -> tuple[str, Fields]:
    # The detail is a traceback: for operators, in the history.
    return "parked", {"reason": event.reason}


def _ended(event: ev.SagaEnded, told: Told) -> tuple[str, Fields]:
    return "ended", {"status": str(event.status), "undone": str(event.undone), **_error(event), "by": event.by}


_PUBLIC: dict[type, Callable[[Any, Told], tuple[str, Fields]]] = {
    ev.SagaStarted: _started,
    ev.StepSucceeded: _done,
    ev.StepRefused: _refused,
    ev.StepEndedUnknown: _unknown,
    ev.CompensationStarted: _compensating,
    ev.UndoSucceeded: _undone,
    ev.UndoSkipped: _skipped,
    ev.StepParked: _step_parked,
    ev.UndoParked: _undo_parked,
    ev.SagaParked: _saga_parked,
    ev.SagaEnded: _ended,
}
"""By event: how it is told. The rest is the orchestrator's own business."""
