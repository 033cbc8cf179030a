"""A saga's history as a JSON file: for people to read and review, and for tests to replay.

Each event stands on a line of its own. A payload that is JSON is written as JSON, what has its default is left out. A
later version reads it as long as events only gain fields with defaults.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cache
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from orchestrator.model import messages as msg
from orchestrator.model.events import Decision, Event, SagaStarted

FORM = 1
_EVENTS = {kind.__name__: kind for kind in get_args(Event)}
_INPUTS = {kind.__name__: kind for kind in get_args(msg.Input)}
_HEAD = ("saga_id", "run", "at_ms", "events")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TEXT, _BASE64 = "_text", "_base64"


class UnreadableHistory(Exception):
    """A file that is no history, or one of another version. The message says where."""


def write_history(decisions: Sequence[Decision]) -> str:
    """The decisions of one saga id, the first of which started its first run, as the text of a file."""
    first = decisions[0]
    started = first.events[0]
    head = {
        "form": FORM,
        "saga_type": started.saga_type if isinstance(started, SagaStarted) else "",
        "saga_id": first.saga_id,
        "run": first.run,
    }
    lines = [f"  {_json(name)}: {_json(value)}," for name, value in head.items()]
    blocks = ",\n".join(_decision(decision, first.run) for decision in decisions)
    return "\n".join(["{", *lines, '  "decisions": [', blocks, "  ]", "}", ""])


def _decision(decision: Decision, run: str) -> str:
    rest = _plain(decision, leave_out=_HEAD)
    if decision.run != run:
        rest["run"] = decision.run
    at = (_EPOCH + timedelta(milliseconds=decision.at_ms)).isoformat(timespec="milliseconds")
    lines = [f'    {{"at": {_json(at)},']
    lines += [f"     {_json(name)}: {_json(value)}," for name, value in rest.items()]
    events = [_json({type(event).__name__: _plain(event)}) for event in decision.events]
    return "\n".join([*lines, '     "events": [', ",\n".join(f"       {event}" for event in events), "     ]}"])


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _plain(value: Any, leave_out: Sequence[str] = ()) -> dict[str, Any]:
    """A dataclass as a dict without what has its default."""
    found: dict[str, Any] = {}
    for field in fields(value):
        given = getattr(value, field.name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if field.name in leave_out or given == default:
            continue
        if isinstance(given, bytes):
            name, content = _bytes(given)
            found[field.name + name] = content
        else:
            found[field.name] = _value(given)
    return found


def _bytes(data: bytes) -> tuple[str, Any]:
    """What is added to the field's name, and its value: JSON where that gives the same bytes again."""
    try:
        text = data.decode()
        parsed = json.loads(text)
        if json.dumps(parsed, ensure_ascii=False, separators=(",", ":")) == text:
            return "", parsed
        return _TEXT, text
    except UnicodeDecodeError:
        return _BASE64, base64.b64encode(data).decode()
    except ValueError:
        return _TEXT, text


def _value(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bytes):
        name, content = _bytes(value)
        return {f"bytes{name}": content}
    if is_dataclass(value):
        plain = _plain(value)
        return {type(value).__name__: plain} if type(value).__name__ in _INPUTS else plain
    if isinstance(value, tuple):
        return [_value(each) for each in value]
    return value


def read_history(text: str) -> list[Decision]:
    """The decisions of a file. Raises `UnreadableHistory`."""
    try:
        data = json.loads(text)
        if data["form"] != FORM:
            raise UnreadableHistory(f"its form is {data['form']!r}, this software reads {FORM}")
        return [_read_decision(data, each) for each in data["decisions"]]
    except KeyError as missing:
        raise UnreadableHistory(f"{missing} is missing") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise UnreadableHistory(f"not a history: {error}") from None


def _read_decision(data: dict[str, Any], given: dict[str, Any]) -> Decision:
    at_ms = (datetime.fromisoformat(given.pop("at")) - _EPOCH) // timedelta(milliseconds=1)
    events = tuple(_read_tagged(each, _EVENTS) for each in given.pop("events"))
    rest = {"run": data["run"], **_arguments(Decision, given)}
    return Decision(saga_id=data["saga_id"], at_ms=at_ms, events=events, **rest)


def _read_tagged(given: dict[str, Any], kinds: dict[str, type]) -> Any:
    ((name, content),) = given.items()
    kind = kinds.get(name)
    if kind is None:
        raise UnreadableHistory(f"this software knows no {name!r}")
    return kind(**_arguments(kind, content))


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _arguments(kind: type, given: dict[str, Any]) -> dict[str, Any]:
    hints = _hints(kind)
    found = {}
    for key, value in given.items():
        name = key.removesuffix(_TEXT).removesuffix(_BASE64) if key not in hints else key
        if name not in hints:
            raise UnreadableHistory(f"{kind.__name__} has no field {key!r}")
        found[name] = _read_bytes(key[len(name) :], value) if _takes_bytes(hints[name]) else _read(value, hints[name])
    return found


def _takes_bytes(hint: Any) -> bool:
    return hint is bytes or bytes in get_args(hint)


def _read_bytes(ending: str, value: Any) -> bytes:
    if ending == _BASE64:
        return base64.b64decode(value)
    if ending == _TEXT:
        return str(value).encode()
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _read(value: Any, hint: Any) -> Any:
    if get_origin(hint) is tuple:
        inner = get_args(hint)
        if len(inner) == 2 and inner[1] is ...:
            return tuple(_read(each, inner[0]) for each in value)
        return tuple(_read(each, part) for each, part in zip(value, inner, strict=True))
    options = [each for each in get_args(hint) if each is not NoneType]
    if value is None or (not options and not isinstance(hint, type)):
        return value
    kind: Any = options[0] if options else hint
    if len(options) > 1 or kind in _INPUTS.values():
        return _read_tagged(value, _INPUTS)
    if kind is bytes:
        ((key, content),) = value.items()
        return _read_bytes(key.removeprefix("bytes"), content)
    if issubclass(kind, Enum):
        return kind(value)
    return kind(**_arguments(kind, value)) if hasattr(kind, "__dataclass_fields__") else value
