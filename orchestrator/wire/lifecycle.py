"""The public event stream: which events are told to everybody, and as what JSON.

Payloads stay inside, but for what a saga publishes itself: a subscriber learns what happened to which saga, not with
what data. Names and fields here are a contract with subscribers: they are added to, never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from orchestrator.model import events as ev
from orchestrator.model.state import SagaState
from orchestrator.wire import headers as h

EVENT_ID = "event-id"
EVENT_TYPE = "event-type"

PUBLISHED = "published"
ENDED = "ended"

Fields = dict[str, Any]


def is_public(event: ev.Event) -> bool:
    """Whether everybody is told of it."""
    kind = type(event)
    return kind in _PUBLIC and (kind is not ev.Recorded or event.kind is ev.StepKind.STREAM)  # type: ignore[union-attr]


def public_records(
    decision: ev.Decision, place: tuple[int, int, int], state: SagaState | None
) -> list[tuple[bytes, list[tuple[str, bytes]]]]:
    """The value and headers of each public event of the decision at a place: incarnation, partition, journal offset.

    `state` is the run's, as of this decision or later: it says what an event does not repeat, the saga's type and a
    step's service and commands. None where the run is not known any more: then these are missing.
    """
    records: list[tuple[bytes, list[tuple[str, bytes]]]] = []
    shared: dict[str, Any] = {}
    whose: list[tuple[str, bytes]] = []
    for index, event in enumerate(decision.events):
        if not is_public(event):
            continue
        write = _PUBLIC[type(event)]
        if not whose:
            shared, whose = _shared(decision, state)
        name, more = write(event, state)
        event_id = "-".join(map(str, (*place, index)))
        fields: dict[str, Any] = {"event": name, "event_id": event_id, **shared}
        for key, value in more.items():
            if value not in ("", None):
                fields[key] = value
        headers = [(EVENT_ID, event_id.encode()), (EVENT_TYPE, name.encode()), *whose]
        records.append((orjson.dumps(fields), headers))
    return records


def place_of(headers: Sequence[tuple[str, bytes]]) -> tuple[int, int, int] | None:
    """The place that a public record tells of; None where it is none."""
    parts = next((value for name, value in headers if name == EVENT_ID), b"").split(b"-")
    if len(parts) != 4 or not all(part.isdigit() for part in parts):
        return None
    return int(parts[0]), int(parts[1]), int(parts[2])


def _shared(decision: ev.Decision, state: SagaState | None) -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
    """What all events of a decision say, in the value and in headers."""
    saga_type = None if state is None else state.saga_type
    fields = {
        "saga_id": decision.saga_id,
        "run": decision.run,
        "saga_type": saga_type,
        "at": datetime.fromtimestamp(decision.at_ms / 1000, UTC).isoformat(timespec="milliseconds"),
    }
    headers = {
        h.SAGA_ID: decision.saga_id,
        h.SAGA_RUN: decision.run,
        h.SAGA_TYPE: saga_type,
        h.CONTENT_TYPE: "application/json",
    }
    return fields, h.write_headers(headers)


def _step(state: SagaState | None, sequence: int, *, undo: bool = False) -> Fields:
    """A step's number, service and command."""
    step = None if state is None else state.steps.get(sequence)
    if step is None:
        return {"step": sequence}
    return {"step": sequence, "service": step.service, "command": step.undo_command if undo else step.command}


def _error(event: Any) -> Fields:
    return {"error_type": event.error_type, "error_message": event.error_message}


def _started(event: ev.SagaStarted, state: SagaState | None) -> tuple[str, Fields]:
    return "started", {"traceparent": event.traceparent}


def _done(event: ev.StepSucceeded, state: SagaState | None) -> tuple[str, Fields]:
    why = {"by": event.by, "reason": event.reason}
    return "step-done", {**_step(state, event.sequence), "attempt": event.attempt, **why}


def _published(event: ev.Recorded, state: SagaState | None) -> tuple[str, Fields]:
    return PUBLISHED, {"step": event.sequence, "stream": event.name, "value": orjson.Fragment(event.payload)}


def _refused(event: ev.StepRefused, state: SagaState | None) -> tuple[str, Fields]:
    return "step-refused", {**_step(state, event.sequence), "attempt": event.attempt, **_error(event)}


def _unknown(event: ev.StepEndedUnknown, state: SagaState | None) -> tuple[str, Fields]:
    return "step-unknown", {**_step(state, event.sequence), "cause": str(event.cause), **_error(event)}


def _compensating(event: ev.CompensationStarted, state: SagaState | None) -> tuple[str, Fields]:
    return "compensating", {"cause": str(event.cause), **_error(event), "by": event.forced_by}


def _undone(event: ev.UndoSucceeded, state: SagaState | None) -> tuple[str, Fields]:
    why = {"by": event.by, "reason": event.reason}
    return "step-undone", {**_step(state, event.sequence, undo=True), "attempt": event.attempt, **why}


def _skipped(event: ev.UndoSkipped, state: SagaState | None) -> tuple[str, Fields]:
    return "undo-skipped", {**_step(state, event.sequence, undo=True), "reason": event.reason, "by": event.by}


def _step_parked(event: ev.StepParked, state: SagaState | None) -> tuple[str, Fields]:
    return "parked", {**_step(state, event.sequence), "reason": event.reason}


def _undo_parked(event: ev.UndoParked, state: SagaState | None) -> tuple[str, Fields]:
    return "parked", {**_step(state, event.sequence, undo=True), "reason": event.reason}


def _saga_parked(event: ev.SagaParked, state: SagaState | None) -> tuple[str, Fields]:
    # The detail is a traceback: for operators, in the history.
    return "parked", {"reason": event.reason}


def _paused(event: ev.SagaPaused, state: SagaState | None) -> tuple[str, Fields]:
    return "paused", {"by": event.by, "reason": event.reason, "rule": event.rule}


def _resumed(event: ev.SagaResumed, state: SagaState | None) -> tuple[str, Fields]:
    return "resumed", {"by": event.by, "reason": event.reason}


def _ended(event: ev.SagaEnded, state: SagaState | None) -> tuple[str, Fields]:
    return ENDED, {"status": str(event.status), "undone": str(event.undone), **_error(event), "by": event.by}


_PUBLIC: dict[type, Callable[[Any, SagaState | None], tuple[str, Fields]]] = {
    ev.SagaStarted: _started,
    ev.StepSucceeded: _done,
    ev.Recorded: _published,
    ev.StepRefused: _refused,
    ev.StepEndedUnknown: _unknown,
    ev.CompensationStarted: _compensating,
    ev.UndoSucceeded: _undone,
    ev.UndoSkipped: _skipped,
    ev.StepParked: _step_parked,
    ev.UndoParked: _undo_parked,
    ev.SagaParked: _saga_parked,
    ev.SagaPaused: _paused,
    ev.SagaResumed: _resumed,
    ev.SagaEnded: _ended,
}
"""By event: how it is told. The rest is the orchestrator's own business."""
