"""Durable sagas on Kafka.

    from orchestrator import Retry, Saga, Service, command

What an application needs stands here, imported when it is first used: a participant does not load the client, nor a
saga's module Kafka. `orchestrator.testing` has the test kit, `orchestrator.errors` the whole tree of errors.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.client import Client, Handle
    from orchestrator.entities import Entity, operation
    from orchestrator.errors import (
        Abort,
        Canceled,
        Failure,
        Pending,
        QueryFailed,
        ResultTimeout,
        RetryLater,
        SagaAlreadyExists,
        SagaError,
        SagaFailed,
        SagaNotFound,
        StepFailed,
        UpdateFailed,
        UpdateRejected,
    )
    from orchestrator.functions import LocalContext, transactional
    from orchestrator.groups import Done
    from orchestrator.locks import IfLocked
    from orchestrator.mapping import Map, MapChange, MapJob, MapReport
    from orchestrator.migrations import PastRun
    from orchestrator.model.events import Status, Undone
    from orchestrator.model.messages import ChildCancellation, Conflict, ParentClose, Reuse
    from orchestrator.model.retries import FailedAttempt, Jitter
    from orchestrator.participant import HandlerContext, Participant, inject, per_call
    from orchestrator.plan import each, local, outcome, parallel, step, takes
    from orchestrator.promises import Promise, Promised, promise
    from orchestrator.questions import Query, Update, query, update
    from orchestrator.retry import Backoff, Retry
    from orchestrator.saga import Saga
    from orchestrator.schedules.schedule import Overlap, Schedule, ScheduleDescription
    from orchestrator.schedules.times import Calendar, Interval, ScheduleSpec
    from orchestrator.service import Service, command
    from orchestrator.signals import Signal, signal
    from orchestrator.sources import FromTopic, SourceRecord
    from orchestrator.streams import Stream, stream
    from orchestrator.tasks import HumanTask

__all__ = [
    "Abort",
    "Backoff",
    "Calendar",
    "Canceled",
    "ChildCancellation",
    "Client",
    "Conflict",
    "Done",
    "Entity",
    "FailedAttempt",
    "Failure",
    "FromTopic",
    "Handle",
    "HandlerContext",
    "HumanTask",
    "IfLocked",
    "Interval",
    "Jitter",
    "LocalContext",
    "Map",
    "MapChange",
    "MapJob",
    "MapReport",
    "Overlap",
    "ParentClose",
    "Participant",
    "PastRun",
    "Pending",
    "Promise",
    "Promised",
    "Query",
    "QueryFailed",
    "ResultTimeout",
    "Retry",
    "RetryLater",
    "Reuse",
    "Saga",
    "SagaAlreadyExists",
    "SagaError",
    "SagaFailed",
    "SagaNotFound",
    "Schedule",
    "ScheduleDescription",
    "ScheduleSpec",
    "Service",
    "Signal",
    "SourceRecord",
    "Status",
    "StepFailed",
    "Stream",
    "Undone",
    "Update",
    "UpdateFailed",
    "UpdateRejected",
    "command",
    "each",
    "inject",
    "local",
    "operation",
    "outcome",
    "parallel",
    "per_call",
    "promise",
    "query",
    "signal",
    "step",
    "stream",
    "takes",
    "transactional",
    "update",
]

_HOMES = {
    "client": ("Client", "Handle"),
    "errors": (
        "Abort",
        "Canceled",
        "Failure",
        "Pending",
        "QueryFailed",
        "ResultTimeout",
        "RetryLater",
        "SagaAlreadyExists",
        "SagaError",
        "SagaFailed",
        "SagaNotFound",
        "StepFailed",
        "UpdateFailed",
        "UpdateRejected",
    ),
    "entities": ("Entity", "operation"),
    "functions": ("LocalContext", "transactional"),
    "groups": ("Done",),
    "locks": ("IfLocked",),
    "mapping": ("Map", "MapChange", "MapJob", "MapReport"),
    "model.events": ("Status", "Undone"),
    "model.retries": ("FailedAttempt", "Jitter"),
    "migrations": ("PastRun",),
    "model.messages": ("ChildCancellation", "Conflict", "ParentClose", "Reuse"),
    "participant": ("HandlerContext", "Participant", "inject", "per_call"),
    "plan": ("each", "local", "outcome", "parallel", "step", "takes"),
    "retry": ("Backoff", "Retry"),
    "promises": ("Promise", "Promised", "promise"),
    "questions": ("Query", "Update", "query", "update"),
    "saga": ("Saga",),
    "schedules.schedule": ("Overlap", "Schedule", "ScheduleDescription"),
    "schedules.times": ("Calendar", "Interval", "ScheduleSpec"),
    "service": ("Service", "command"),
    "signals": ("Signal", "signal"),
    "sources": ("FromTopic", "SourceRecord"),
    "streams": ("Stream", "stream"),
    "tasks": ("HumanTask",),
}
_HOME = {name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
