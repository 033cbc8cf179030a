"""What a saga tells of itself for lists and searches: attributes, a memo, a summary, its open tasks for people.

As JSON in starts and histories:

    {"attributes": {"customer": ["Keyword", "ann"], "amount": ["Double", 9.5]}, "memo": {...}, "summary": "...",
     "tasks": {"Decision": {"title": "...", "assignee": "ann", "group": null, "due_ms": ...}}}

Everything may be left out; an attribute, a part of the memo or a task that is null is taken away, and of a task only
what changes is told. A `Datetime` is milliseconds since 1970.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from orchestrator.model import events as ev

KINDS = ("Bool", "Datetime", "Double", "Int", "Keyword", "KeywordList", "Text")
NUMBERS = ("Bool", "Datetime", "Double", "Int")
"""Kinds that are compared as numbers; the others are text."""
FIELDS: tuple[str, ...] = ("id", "run", "type", "version", "status", "started", "updated", "ended")
FIELDS += ("cause", "undone", "error", "partition", "events")
"""What every run has, by its name in a filter; an attribute of that name could not be found."""
WORDS = ("and", "or", "not", "in", "is", "null", "between", "starts", "with", "true", "false")
"""The words of filters, in whatever case; an attribute of that name could not be written there."""
MAX_NOTE_BYTES = 16 * 1024
MAX_ATTRIBUTES = 100
MAX_KEYWORD_CHARACTERS = 255


@dataclass(frozen=True, slots=True)
class Note:
    """What changes. `attributes` maps a name to its kind and value (None: taken away); a summary of None stays.

    `tasks` maps a key to what changes of the task; None: it is not open any more.
    """

    attributes: dict[str, tuple[str, Any]] = field(default_factory=dict)
    memo: dict[str, Any] = field(default_factory=dict)
    summary: str | None = None
    tasks: dict[str, dict[str, Any] | None] = field(default_factory=dict)


def write_note(note: Note) -> bytes:
    """Raises `ValueError` for what no list can hold."""
    said: dict[str, Any] = {}
    if note.attributes:
        said["attributes"] = note.attributes
    if note.memo:
        said["memo"] = note.memo
    if note.summary is not None:
        said["summary"] = note.summary
    if note.tasks:
        said["tasks"] = note.tasks
    try:
        data = orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError as error:
        raise ValueError(f"memo and tasks are no JSON: {error}") from None
    read_note(data)
    return data


def read_note(data: bytes) -> Note:
    """Raises `ValueError`, saying what is wrong."""
    if len(data) > MAX_NOTE_BYTES:
        raise ValueError(f"attributes, memo and summary have {len(data)} bytes, at most {MAX_NOTE_BYTES}")
    try:
        said = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"attributes and memo are no JSON: {error}") from None
    if not isinstance(said, dict):
        raise ValueError("attributes and memo are a JSON object")
    attributes, memo, summary = said.get("attributes", {}), said.get("memo", {}), said.get("summary")
    if not isinstance(attributes, dict) or not isinstance(memo, dict) or not isinstance(summary, str | None):
        raise ValueError("attributes and memo are objects, the summary is text")
    if len(attributes) > MAX_ATTRIBUTES:
        raise ValueError(f"{len(attributes)} attributes, at most {MAX_ATTRIBUTES}")
    tasks = said.get("tasks", {})
    if not isinstance(tasks, dict):
        raise ValueError("tasks are an object")
    changes = {key: _task(key, given) for key, given in tasks.items()}
    return Note({name: _attribute(name, given) for name, given in attributes.items()}, memo, summary, changes)


def take_tasks(tasks: dict[str, dict[str, Any]], note: Note) -> None:
    """Changes the open tasks of a run, by their keys, as a note says."""
    for key, change in note.tasks.items():
        if change is None:
            tasks.pop(key, None)
        else:
            tasks[key] = {**tasks.get(key, {}), **change}


def _attribute(name: str, given: Any) -> tuple[str, Any]:
    if not name.isidentifier():
        raise ValueError(f"attribute {name[:40]!r}: a name has letters, digits and underscores")
    if not isinstance(given, list) or len(given) != 2 or given[0] not in KINDS:
        raise ValueError(f"attribute {name}: it is [KIND, VALUE], KIND one of {', '.join(KINDS)}")
    kind, value = given
    if not _fits(kind, value):
        raise ValueError(f"attribute {name}: {str(value)[:40]!r} is no {kind}")
    return kind, value


TASK = {
    "title": str,
    "description": str,
    "assignee": str | None,
    "group": str | None,
    "due_ms": int | None,
    "opened_ms": int,
    "form": dict,
}
"""What is told of a task. `form` is a JSON schema."""


def _task(key: str, given: Any) -> dict[str, Any] | None:
    if given is None:
        return None
    if not isinstance(given, dict):
        raise ValueError(f"task {key[:40]!r}: it is an object or null")
    for name, value in given.items():
        if name not in TASK or not isinstance(value, TASK[name]):
            raise ValueError(f"task {key[:40]!r}: {name[:40]!r} is {str(value)[:40]!r}")
    return given


def _fits(kind: str, value: Any) -> bool:
    if value is None:
        return True
    if kind == "Bool":
        return isinstance(value, bool)
    if kind in ("Int", "Datetime"):
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    if kind == "Double":
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "KeywordList":
        return isinstance(value, list) and all(map(_is_keyword, value))
    return isinstance(value, str) if kind == "Text" else _is_keyword(value)


def _is_keyword(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_KEYWORD_CHARACTERS


def note_in(event: ev.Event) -> bytes:
    """The note that an event holds, also one that a run has inherited; nothing in other events."""
    if isinstance(event, ev.Recorded):
        kind, note = event.kind, event.payload
    elif isinstance(event, ev.StepInherited):
        kind, note = event.kind, event.result
    else:
        return b""
    return note if kind is ev.StepKind.NOTE else b""
