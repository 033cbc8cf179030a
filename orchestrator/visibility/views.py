"""Questions to the file: lists by page, one run with its steps and its history, counts."""

from __future__ import annotations

import base64
import dataclasses
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import orjson

from orchestrator.errors import InvalidRequest
from orchestrator.model.events import Decision, Event, SagaStarted, Status, StepKind
from orchestrator.model.evolve import evolve
from orchestrator.model.locks import saga_of
from orchestrator.model.state import SagaState, Step
from orchestrator.visibility.database import decode
from orchestrator.visibility.projection import COLUMNS, read_row
from orchestrator.visibility.query import Condition, fold, read_filter, read_order, value_of
from orchestrator.visibility.tasks import Task, tasks_of
from orchestrator.visibility.why import Trace, Why, awaited_keys, holder_of, why

MAX_LIMIT = 1_000

_RUNS = f"SELECT {', '.join(COLUMNS)} FROM runs"
_BEFORE = "(started_at_ms, saga_id, run) < (?, ?, ?)"
_LATEST_FIRST = " ORDER BY started_at_ms DESC, saga_id DESC, run DESC LIMIT ?"


@dataclass(frozen=True, slots=True)
class Run:
    """One run as a list shows it. Times in milliseconds since 1970; `parked_reason` is the first of them, if any.

    `paused` says by whom, or by what rule. An attribute of the kind Datetime is in milliseconds, too.
    """

    saga_id: str
    run: str
    saga_type: str
    status: str
    started_at_ms: int
    updated_at_ms: int
    ended_at_ms: int | None
    undone: str | None
    cause: str | None
    error_type: str
    error_message: str
    parked_reason: str | None
    paused: str | None
    attributes: dict[str, Any]
    memo: dict[str, Any]
    summary: str | None
    partition: int
    first_offset: int
    last_offset: int
    events: int
    version: int = 1
    pinned: bool = False
    tasks: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What it waits for people to do, by the task's key."""


@dataclass(frozen=True, slots=True)
class VersionCount:
    """Runs of one version of a type: a version whose `open` is 0 is drained. Version 0: they never had any code."""

    saga_type: str
    version: int
    pinned: bool
    open: int
    parked: int
    total: int


@dataclass(frozen=True, slots=True)
class Page:
    """Runs, the latest first. `next` asks for the page after it; None: there is none."""

    runs: tuple[Run, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class StepView:
    """A step or, without a command, a sleep. `due_ms`: when it times out, is tried again or wakes."""

    sequence: int
    status: str
    service: str
    command: str
    attempt: int
    pivot: bool
    undo_command: str | None
    undo_attempt: int
    error_type: str
    error_message: str
    parked_reason: str | None
    due_ms: int | None
    resolved_at_ms: int | None
    payload: bytes
    result: bytes
    held: bool = False
    """It waits for its service's circuit to close."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One event of a history, and where it stands in the journal."""

    at_ms: int
    offset: int
    index: int
    source: str
    event: Event


@dataclass(frozen=True, slots=True)
class Details:
    """One run. `history` is its latest entries in order, of `run.events` in all."""

    run: Run
    input: bytes
    result: bytes
    steps: tuple[StepView, ...]
    history: tuple[Entry, ...]
    published: dict[str, bytes] = dataclasses.field(default_factory=dict)
    """What it has published last, by the stream's name."""
    previous_run: str = ""
    following: str = ""
    """Why there is another run after the previous one: `continued`, `reused`, `migrated`, `restarted`, `reset`."""


class Views:
    """Reads by one connection, for one thread."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.create_function("folded", 1, fold, deterministic=True)

    @classmethod
    def open(cls, path: Path) -> Views:
        """A connection of its own that cannot write, for another thread or process. Raises `sqlite3.Error`."""
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        return cls(database)

    def close(self) -> None:
        self._database.close()

    def list(
        self,
        *,
        status: str | None = None,
        type: str | None = None,
        version: int | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> Page:
        """See `Visibility.list`."""
        _check_limit(limit)
        if status is not None and status not in Status._value2member_map_:
            raise InvalidRequest(f"there is no status {status!r}; the statuses are {', '.join(Status)}")
        before = () if after is None else _read_cursor(after)
        statuses = (status,) if status is not None or type is None else tuple(Status)
        # A type's runs are indexed by status first: the page is the best of a page of each.
        query, arguments = "", []
        for one in statuses:
            conditions = {"saga_type = ?": (type,), "status = ?": (one,), "version = ?": (version,), _BEFORE: before}
            given = {text: values for text, values in conditions.items() if values and values[0] is not None}
            where = f" WHERE {' AND '.join(given)}" if given else ""
            query += f"{' UNION ALL ' if query else ''}SELECT * FROM ({_RUNS}{where}{_LATEST_FIRST})"
            arguments += [*(value for values in given.values() for value in values), limit + 1]
        rows = self._database.execute(query + _LATEST_FIRST, (*arguments, limit + 1)).fetchall()
        runs = tuple(_run(row) for row in rows[:limit])
        return Page(runs, _cursor(runs[-1]) if len(rows) > limit else None)

    def find(self, where: str | None, order_by: str | None = None, limit: int = 50) -> tuple[Run, ...]:
        """See `Visibility.find`."""
        _check_limit(limit)
        wanted = Condition("1") if not where else read_filter(where)
        order = read_order(order_by or "started desc")
        query = f"{_RUNS} WHERE {wanted.sql} ORDER BY {order.sql} LIMIT ?"
        rows = self._database.execute(query, (*wanted.arguments, *order.arguments, limit))
        return tuple(_run(row) for row in rows)

    def matching(self, where: str | None) -> frozenset[tuple[str, str]]:
        """See `Visibility.matching`."""
        wanted = Condition("1") if not where else read_filter(where)
        return frozenset(self._database.execute(f"SELECT saga_id, run FROM runs WHERE {wanted.sql}", wanted.arguments))

    def tasks(self, saga_id: str | None = None) -> tuple[Task, ...]:
        """See `Visibility.tasks`."""
        named, arguments = ("", ()) if saga_id is None else (" AND saga_id = ?", (saga_id,))
        rows = self._database.execute(f"{_RUNS} WHERE tasks != ''{named}", arguments)
        return tasks_of(_run(row) for row in rows)

    def count(self, where: str | None = None, group_by: str | None = None) -> dict[Any, int]:
        """See `Visibility.count`."""
        wanted = Condition("1") if not where else read_filter(where)
        group = Condition("NULL") if group_by is None else value_of(group_by)
        query = f"SELECT {group.sql} AS value, COUNT(*) FROM runs WHERE {wanted.sql} GROUP BY value"
        rows = self._database.execute(query, (*group.arguments, *wanted.arguments)).fetchall()
        return dict(rows) or ({None: 0} if group_by is None else {})

    def show(self, saga_id: str, run: str | None = None, *, history: int = 200) -> Details | None:
        """See `Visibility.show`."""
        found = self._find(saga_id, run)
        if found is None:
            return None
        state = SagaState(found.saga_id, found.run)
        entries: list[Entry] = []
        following = ""
        for offset, decision in self.decisions(found.saga_id, found.run, until=found.last_offset):
            for index, event in enumerate(decision.events):
                evolve(state, event, decision.at_ms)
                if isinstance(event, SagaStarted):
                    following = str(event.following or "")
                entries.append(Entry(decision.at_ms, offset, index, decision.source, event))
            del entries[: max(0, len(entries) - history)]
        steps = tuple(_step(state, step) for _, step in sorted(state.steps.items()))
        told = {step.command: step.result for _, step in sorted(state.steps.items()) if step.kind is StepKind.STREAM}
        before = state.previous_run, following
        return Details(found, state.payload, state.result, steps, tuple(entries), told, *before)

    def why(self, saga_id: str, run: str | None = None) -> Why | None:
        """See `Visibility.why`."""
        found = self._find(saga_id, run)
        if found is None:
            return None
        state, trace = self._replayed(found)
        rules = self._database.execute("SELECT rule FROM pauses WHERE partition = ?", (found.partition,))
        holders = {key: self._holder(key) for key in awaited_keys(state)}
        return why(state, trace, [rule for (rule,) in rules], holders)

    def _replayed(self, run: Run) -> tuple[SagaState, Trace]:
        state, trace = SagaState(run.saga_id, run.run), Trace()
        for _, decision in self.decisions(run.saga_id, run.run, until=run.last_offset):
            for event in decision.events:
                evolve(state, event, decision.at_ms)
                trace.note(event, decision.at_ms)
        return state, trace

    def _holder(self, key: str) -> str:
        """The saga that holds a key, empty if none does."""
        lock = self._find(saga_of(key), None)
        return "" if lock is None or lock.ended_at_ms is not None else holder_of(self._replayed(lock)[0])

    def _find(self, saga_id: str, run: str | None) -> Run | None:
        named = "saga_id = ?" if run is None else "saga_id = ? AND run = ?"
        arguments = (saga_id,) if run is None else (saga_id, run)
        order = " ORDER BY started_at_ms DESC, first_offset DESC LIMIT 1"
        row = self._database.execute(f"{_RUNS} WHERE {named}{order}", arguments).fetchone()
        return None if row is None else _run(row)

    def counts(self, *, type: str | None = None) -> dict[str, int]:
        """See `Visibility.counts`."""
        where, arguments = ("", ()) if type is None else (" WHERE saga_type = ?", (type,))
        rows = self._database.execute(f"SELECT status, COUNT(*) FROM runs{where} GROUP BY status", arguments)
        return dict(rows.fetchall())

    def versions(self, *, type: str | None = None) -> tuple[VersionCount, ...]:
        """See `Visibility.versions`."""
        where, arguments = (" WHERE saga_type != ''", ()) if type is None else (" WHERE saga_type = ?", (type,))
        rows = self._database.execute(
            "SELECT saga_type, version, pinned, SUM(ended_at_ms IS NULL), SUM(status = 'PARKED'), COUNT(*)"
            f" FROM runs{where} GROUP BY 1, 2, 3 ORDER BY 1, 2 DESC, 3",
            arguments,
        )
        return tuple(
            VersionCount(saga_type, version, bool(pinned), open_, parked, total)
            for saga_type, version, pinned, open_, parked, total in rows
        )

    def decisions(self, saga_id: str, run: str, *, until: int) -> Iterator[tuple[int, Decision]]:
        """A run's decisions up to and with the one at offset `until`, in order."""
        rows = self._database.execute(
            "SELECT offset, body FROM decisions WHERE saga_id = ? AND run = ? AND offset <= ? ORDER BY offset",
            (saga_id, run, until),
        )
        for offset, body in rows:
            yield offset, decode(body)


def _check_limit(limit: int) -> None:
    if limit not in range(1, MAX_LIMIT + 1):
        raise InvalidRequest(f"a page has 1 to {MAX_LIMIT} runs, a whole number, not {limit}")


def event_data(event: Event) -> dict[str, Any]:
    """An event for people and programs: its fields, payloads as what their JSON says or, where they are none, as text.

    What has its default is left out.
    """
    data: dict[str, Any] = {}
    for field in fields(event):
        value = getattr(event, field.name)
        if value != field.default:
            data[field.name] = _plain(value)
    return data


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        try:
            return orjson.loads(value) if value else None
        except orjson.JSONDecodeError:
            return value.decode(errors="replace")
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {"type": type(value).__name__, **event_data(value)}
    return value


def _run(values: tuple[Any, ...]) -> Run:
    row = read_row(values)
    parked = row.parked[min(row.parked)] if row.parked else None
    attributes = {name: value for name, (_, value) in row.attributes.items()}
    given: dict[str, Any] = {"status": str(row.status), "parked_reason": parked, "attributes": attributes}
    names = (field.name for field in fields(Run))
    return Run(**{name: given[name] if name in given else getattr(row, name) for name in names})


def _step(state: SagaState, step: Step) -> StepView:
    return StepView(
        step.sequence,
        str(step.status),
        step.service,
        step.command,
        step.attempt,
        step.pivot,
        step.undo_command,
        step.undo_attempt,
        step.error_type,
        step.error_message,
        state.parked.get(step.sequence),
        step.due_ms,
        step.resolved_at_ms or None,
        step.payload,
        step.result,
        step.held,
    )


def _cursor(run: Run) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([run.started_at_ms, run.saga_id, run.run])).decode()


def _read_cursor(text: str) -> tuple[int, str, str]:
    try:
        started_at_ms, saga_id, run = orjson.loads(base64.urlsafe_b64decode(text))
        return int(started_at_ms), str(saga_id), str(run)
    except (ValueError, TypeError):
        raise InvalidRequest("`after` is not the `next` of a page") from None
