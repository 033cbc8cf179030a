"""Whether a journal can hold what a saga under test decided: production does not go on with what it cannot keep."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from itertools import repeat
from typing import Any, get_args, get_origin, get_type_hints

from orchestrator.model.events import Decision
from orchestrator.model.rule import Kind
from orchestrator.wire.avro import UnreadableRecord
from orchestrator.wire.journal import DECISION_FINGERPRINT, Envelope, read_decision, write_decision

_INT64 = 1 << 63
_UNWRITABLE = (ValueError, TypeError, AttributeError, LookupError, UnreadableRecord)
"""What writing a value of the wrong type, or reading it, leads to."""


def check_journaled(saga: str, decision: Decision) -> None:
    """Writes a decision for the journal and reads it back. Raises `AssertionError` that names the value."""
    try:
        body = write_decision(decision)
        again = read_decision(Envelope(Kind.DECISION, body_fingerprint=DECISION_FINGERPRINT, body=body))
        problem = "it would be read as something else"
    except _UNWRITABLE as error:
        again, problem = None, str(error)
    if again != decision:
        raise AssertionError(
            f"{saga} asks for what the journal cannot hold, so production cannot go on with it: "
            f"{_culprits(decision)} ({problem})"
        )


def _culprits(decision: Decision) -> str:
    """The values that do not fit; where none is found, the events they are in."""
    found = [
        f"{name} {value!r:.200}"
        for event in decision.events
        for name, value in _misfits(type(event).__name__, event, type(event))
    ]
    return ", ".join(found) or ", ".join(f"{event!r:.500}" for event in decision.events)


def _misfits(name: str, value: Any, hint: Any) -> Iterator[tuple[str, Any]]:
    """The parts of a value that are not of the type declared, or more than their record has room for."""
    if is_dataclass(value) and not isinstance(value, type):
        hints = _hints(type(value))
        for field in fields(value):
            yield from _misfits(f"{name}.{field.name}", getattr(value, field.name), hints[field.name])
    elif isinstance(value, tuple) and get_origin(hint) is tuple:
        inner = get_args(hint)
        for each, part in zip(value, repeat(inner[0]) if inner[-1] is ... else inner, strict=False):
            yield from _misfits(name, each, part)
    elif not any(_fits(value, each) for each in get_args(hint) or (hint,)):
        yield name, value


def _fits(value: Any, hint: Any) -> bool:
    if not isinstance(hint, type):
        return True
    if issubclass(hint, Enum):
        return value in list(hint)
    if isinstance(value, str):
        return hint is str and value.encode(errors="replace").decode() == value
    if isinstance(value, int):
        return hint in (bool, float) or (hint is int and -_INT64 <= value < _INT64)
    return isinstance(value, hint)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
