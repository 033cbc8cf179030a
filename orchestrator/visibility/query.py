"""The filter of a list: `customer = 'ann' and (amount > 3 or status in ('PARKED', 'PAUSED'))`, read and never pasted.

    filter := all ("or" all)*        all := one ("and" one)*        one := "not" one | "(" filter ")" | comparison
    comparison := NAME (= | != | < | <= | > | >=) VALUE
                | NAME ["not"] "in" "(" VALUE ("," VALUE)* ")"
                | NAME "between" VALUE "and" VALUE | NAME "starts" "with" VALUE | NAME "is" ["not"] "null"

A value is 'text' (a quote is doubled), a number, true or false; a time is text such as '2026-11-25T13:00:00Z'. A name
is one of `FIELDS`, or else a search attribute's. What is missing compares as false.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from orchestrator.errors import InvalidRequest
from orchestrator.model.events import Cause, Status, Undone
from orchestrator.wire.notes import WORDS

FIELDS = {
    "id": "saga_id",
    "run": "run",
    "type": "saga_type",
    "version": "version",
    "status": "status",
    "started": "started_at_ms",
    "updated": "updated_at_ms",
    "ended": "ended_at_ms",
    "cause": "cause",
    "undone": "undone",
    "error": "error_type",
    "partition": "partition",
    "events": "events",
}
"""Names in a filter, and their columns."""
_TIMES = {"started", "updated", "ended"}
_NUMBERS = {"version", "partition", "events"}
_CHOICES: dict[str, type[StrEnum]] = {"status": Status, "cause": Cause, "undone": Undone}
MAX_CHARACTERS = 4_000
MAX_DEPTH = 50

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>-?\d+(?:\.\d+)?)(?![\w.])|(?P<sign><=|>=|!=|=|<|>|\(|\)|,)|(?P<name>[^\W\d]\w*))"
)
_INTEGERS = 2.0**63
"""From here on a number is compared as a float: SQLite's integers have 64 bits."""
_SIGNS = {"=", "!=", "<", "<=", ">", ">="}


@dataclass(frozen=True, slots=True)
class Condition:
    """A piece of SQL with its arguments."""

    sql: str
    arguments: tuple[Any, ...] = ()


def read_filter(text: str) -> Condition:
    """The filter as a condition on the table `runs`. Raises `InvalidRequest`, saying what was expected and where."""
    if len(text) > MAX_CHARACTERS:
        raise InvalidRequest(f"a filter has at most {MAX_CHARACTERS} characters, not {len(text)}")
    reader = _Reader(text)
    condition = reader.filter(0)
    reader.end()
    return condition


def read_order(text: str) -> Condition:
    """`amount desc, started` as what stands behind ORDER BY, the id last. Raises `InvalidRequest`."""
    parts: list[str] = []
    arguments: list[Any] = []
    for part in text.split(","):
        name, _, direction = part.strip().partition(" ")
        if not re.fullmatch(r"[^\W\d]\w*", name) or direction.strip().lower() not in ("", "asc", "desc"):
            raise InvalidRequest(f"an order is NAME [asc|desc], ..., not {part.strip()[:40]!r}")
        value = value_of(name)
        parts.append(f"{value.sql} {direction.strip().upper() or 'ASC'}")
        arguments += value.arguments
    return Condition(", ".join([*parts, "saga_id", "run"]), tuple(arguments))


def fold(text: str) -> str:
    """A text as it is compared in whatever case. A connection that filters are asked of knows it as `folded`."""
    return text.casefold()


def value_of(name: str) -> Condition:
    """A field's or an attribute's value, for ordering and grouping; of a list the first. Raises `InvalidRequest`.

    It reads as in a filter: a `Bool` is the text true or false, an `Int` has no fraction.
    """
    if name in FIELDS:
        return Condition(FIELDS[name])
    if not re.fullmatch(r"[^\W\d]\w*", name):
        raise InvalidRequest(f"{name[:40]!r} is no name of a field or an attribute")
    sql = (
        "(SELECT CASE a.kind WHEN 'Bool' THEN iif(a.number, 'true', 'false') WHEN 'Int' THEN CAST(a.number AS INTEGER) "
        "ELSE coalesce(a.number, a.text) END FROM attributes a WHERE a.saga_id = runs.saga_id AND a.run = runs.run AND "
    )
    return Condition(f"{sql}a.name = ? ORDER BY a.position LIMIT 1)", (name,))


class _Reader:
    """Goes through the tokens once, from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, str, int]] = []
        at, rest = 0, text.rstrip()
        while at < len(rest):
            found = _TOKEN.match(rest, at)
            if found is None:
                at += len(rest[at:]) - len(rest[at:].lstrip())
                raise self._wrong("a name, a value or a sign", at)
            kind = found.lastgroup or ""
            word, start = found[kind], found.start(kind)
            if kind == "name" and word.lower() in WORDS:
                kind, word = "word", word.lower()
            self._tokens.append((kind, word, start))
            at = found.end()
        self._at = 0

    def filter(self, depth: int) -> Condition:
        if depth > MAX_DEPTH:
            raise InvalidRequest(f"a filter has at most {MAX_DEPTH} parentheses inside each other")
        parts = [self._all(depth)]
        while self._takes("word", "or"):
            parts.append(self._all(depth))
        return _join(parts, " OR ")

    def end(self) -> None:
        if self._at < len(self._tokens):
            raise self._wrong("`and`, `or` or the end")

    def _all(self, depth: int) -> Condition:
        parts = [self._one(depth)]
        while self._takes("word", "and"):
            parts.append(self._one(depth))
        return _join(parts, " AND ")

    def _one(self, depth: int) -> Condition:
        if self._takes("word", "not"):
            inner = self._one(depth + 1) if depth <= MAX_DEPTH else self.filter(depth + 1)
            return Condition(f"NOT coalesce({inner.sql}, 0)", inner.arguments)
        if self._takes("sign", "("):
            inner = self.filter(depth + 1)
            self._need("sign", ")")
            return Condition(f"({inner.sql})", inner.arguments)
        return self._comparison()

    def _comparison(self) -> Condition:
        kind, name, _ = self._next("a name")
        if kind != "name":
            raise self._wrong("a name", back=1)
        if self._takes("word", "is"):
            negated = self._takes("word", "not")
            self._need("word", "null")
            absent = f"{FIELDS[name]} IS NULL" if name in FIELDS else f"NOT {_attribute('1')}"
            return Condition(f"NOT ({absent})" if negated else absent, () if name in FIELDS else (name,))
        negated = self._takes("word", "not")
        if self._takes("word", "in"):
            return self._in(name, negated)
        if negated:
            raise self._wrong("`in` behind `not`")
        if self._takes("word", "between"):
            low = self._value()
            self._need("word", "and")
            return _join([_compare(name, ">=", low), _compare(name, "<=", self._value())], " AND ")
        if self._takes("word", "starts"):
            self._need("word", "with")
            return _starts(name, str(self._value()))
        kind, sign, _ = self._next("a comparison")
        if kind != "sign" or sign not in _SIGNS:
            raise self._wrong("one of = != < <= > >= in, between, starts with, is", back=1)
        return _compare(name, sign, self._value())

    def _in(self, name: str, negated: bool) -> Condition:
        self._need("sign", "(")
        parts = [_compare(name, "=", self._value())]
        while self._takes("sign", ","):
            parts.append(_compare(name, "=", self._value()))
        self._need("sign", ")")
        found = _join(parts, " OR ")
        return Condition(f"NOT coalesce({found.sql}, 0)", found.arguments) if negated else found

    def _value(self) -> str | int | float | bool:
        kind, word, _ = self._next("a value")
        if kind == "text":
            return word[1:-1].replace("''", "'")
        if kind == "number":
            number = float(word)
            return int(word) if "." not in word and abs(number) < _INTEGERS else number
        if kind == "word" and word in ("true", "false"):
            return word == "true"
        raise self._wrong("a value: 'text', a number, true or false", back=1)

    def _next(self, expected: str) -> tuple[str, str, int]:
        if self._at >= len(self._tokens):
            raise self._wrong(expected)
        self._at += 1
        return self._tokens[self._at - 1]

    def _takes(self, kind: str, word: str) -> bool:
        taken = self._at < len(self._tokens) and self._tokens[self._at][:2] == (kind, word)
        self._at += taken
        return taken

    def _need(self, kind: str, word: str) -> None:
        if not self._takes(kind, word):
            raise self._wrong(f"{word!r}")

    def _wrong(self, expected: str, place: int | None = None, back: int = 0) -> InvalidRequest:
        at = self._at - back if place is None else 0
        if place is None:
            place = self._tokens[at][2] if at < len(self._tokens) else len(self._text)
        rest = self._text[place : place + 20] or "the end"
        return InvalidRequest(f"the filter at character {place + 1}, {rest!r}: expected {expected}")


def _join(parts: Sequence[Condition], word: str) -> Condition:
    if len(parts) == 1:
        return parts[0]
    arguments = tuple(argument for part in parts for argument in part.arguments)
    return Condition(f"({word.join(part.sql for part in parts)})", arguments)


def _attribute(condition: str) -> str:
    where = f"a.saga_id = runs.saga_id AND a.run = runs.run AND a.name = ? AND {condition}"
    return f"EXISTS (SELECT 1 FROM attributes a WHERE {where})"


def _compare(name: str, sign: str, value: str | int | float | bool) -> Condition:
    time_ms = _time(value)
    if name in FIELDS:
        _check_field(name, sign, value)
        wanted = time_ms if name in _TIMES and time_ms is not None else value
        return Condition(f"coalesce({FIELDS[name]} {sign} ?, 0)", (wanted,))
    if sign == "!=":
        found = _compare(name, "=", value)
        present = _attribute("1")
        return Condition(f"({present} AND NOT {found.sql})", (name, *found.arguments))
    if not isinstance(value, str):
        return Condition(_attribute(f"a.number {sign} ?"), (name, value))
    texts = f"a.kind NOT IN ('Datetime', 'Text') AND a.text {sign} ?"
    options, arguments = [texts], [value]
    if sign == "=":
        options.append("a.kind = 'Text' AND instr(folded(coalesce(a.text, '')), ?) > 0")
        arguments.append(fold(value))
    given: list[Any] = [name, *arguments]
    if time_ms is not None:
        options.append(f"a.kind = 'Datetime' AND a.number {sign} ?")
        given.append(time_ms)
    return Condition(_attribute("(" + " OR ".join(f"({option})" for option in options) + ")"), tuple(given))


def _check_field(name: str, sign: str, value: str | int | float | bool) -> None:
    """Raises `InvalidRequest` for what a field can never be."""
    given = repr(value)[:40]
    if name in _TIMES and (isinstance(value, bool) or (isinstance(value, str) and _time(value) is None)):
        raise InvalidRequest(f"{name} is a time such as '2026-11-25T13:00:00Z', not {given}")
    if name in _NUMBERS and isinstance(value, bool | str):
        raise InvalidRequest(f"{name} is a number, not {given}")
    if isinstance(value, bool):
        raise InvalidRequest(f"{name} is text, not {given}")
    if name in _CHOICES and sign in ("=", "!=") and value not in _CHOICES[name]._value2member_map_:
        raise InvalidRequest(f"{name} is one of {', '.join(_CHOICES[name])}, never {given}")


def _starts(name: str, prefix: str) -> Condition:
    if name in _TIMES | _NUMBERS:
        raise InvalidRequest(f"{name} is no text that starts with anything: compare it by = != < <= > >= or between")
    column = FIELDS.get(name)
    sql = f"substr({column or 'a.text'}, 1, length(?)) = ?"
    if column is not None:
        return Condition(f"coalesce({sql}, 0)", (prefix, prefix))
    return Condition(_attribute(sql), (name, prefix, prefix))


def _time(value: object) -> int | None:
    if not isinstance(value, str):
        return None
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return None
    return round((at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp() * 1000)
