"""What a saga tells of itself for lists and searches: attributes, a memo, a summary. As JSON in starts and histories.

    {"attributes": {"customer": ["Keyword", "ann"], "amount": ["Double", 9.5]}, "memo": {...}, "summary": "..."}

Everything may be left out; an attribute or a part of the memo that is null is taken away. A `Datetime` is milliseconds
since 1970.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

KINDS = ("Bool", "Datetime", "Double", "Int", "Keyword", "KeywordList", "Text")
NUMBERS = ("Bool", "Datetime", "Double", "Int")
"""Kinds that are compared as numbers; the others are text."""
MAX_NOTE_BYTES = 16 * 1024
MAX_ATTRIBUTES = 100
MAX_KEYWORD_CHARACTERS = 255


@dataclass(frozen=True, slots=True)
class Note:
    """What changes. `attributes` maps a name to its kind and value (None: taken away); a summary of None stays."""

    attributes: dict[str, tuple[str, Any]] = field(default_factory=dict)
    memo: dict[str, Any] = field(default_factory=dict)
    summary: str | None = None


def write_note(note: Note) -> bytes:
    """Raises `ValueError` for what no list can hold."""
    said: dict[str, Any] = {}
    if note.attributes:
        said["attributes"] = note.attributes
    if note.memo:
        said["memo"] = note.memo
    if note.summary is not None:
        said["summary"] = note.summary
    try:
        data = orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError as error:
        raise ValueError(f"the memo is no JSON: {error}") from None
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
    return Note({name: _attribute(name, given) for name, given in attributes.items()}, memo, summary)


def _attribute(name: str, given: Any) -> tuple[str, Any]:
    if not name.isidentifier():
        raise ValueError(f"attribute {name[:40]!r}: a name has letters, digits and underscores")
    if not isinstance(given, list) or len(given) != 2 or given[0] not in KINDS:
        raise ValueError(f"attribute {name}: it is [KIND, VALUE], KIND one of {', '.join(KINDS)}")
    kind, value = given
    if not _fits(kind, value):
        raise ValueError(f"attribute {name}: {str(value)[:40]!r} is no {kind}")
    return kind, value


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
