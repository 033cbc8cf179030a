"""Search attributes: what lists of sagas are searched, ordered and counted by, declared with their types in the class.

    class Order(Saga[OrderInput, str]):
        customer = Keyword()
        amount = Double()

        async def run(self, order: OrderInput) -> str:
            self.upsert(Order.customer(order.customer), Order.amount(order.cents / 100))

`saga list --where "customer = 'ann' and amount > 3"` finds it from then on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from typing import Any, ClassVar, Generic, TypeVar

from orchestrator.errors import DefinitionError
from orchestrator.model.definition import Context
from orchestrator.model.events import StepKind
from orchestrator.wire.notes import FIELDS, WORDS, Note, write_note

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Assignment:
    """An attribute's new value, made by calling the attribute."""

    attribute: Attribute[Any]
    value: Any


class Attribute(Generic[V]):
    """Base of the seven kinds. Calling one gives an assignment; None takes the attribute away."""

    def __init__(self) -> None:
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __call__(self, value: V | None) -> Assignment:
        return Assignment(self, value)

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.name}"

    def plain(self, value: V) -> Any:
        """As JSON holds it. Raises `DefinitionError` for what JSON cannot hold."""
        if isinstance(value, float) and not isfinite(value):
            raise DefinitionError(f"attribute {self.name}: {value} is no {type(self).__name__}, None takes it away")
        return value


class Bool(Attribute[bool]):
    """True or false."""


class Int(Attribute[int]):
    """A whole number."""


class Double(Attribute[float]):
    """A number."""


class Datetime(Attribute[datetime]):
    """A point in time; one without a time zone is in UTC."""

    def plain(self, value: datetime) -> int:
        """Milliseconds since 1970."""
        if not isinstance(value, datetime):
            raise DefinitionError(f"attribute {self.name}: {str(value)[:40]!r} is no Datetime")
        return round((value if value.tzinfo is not None else value.replace(tzinfo=UTC)).timestamp() * 1000)


class Keyword(Attribute[str]):
    """A word that is compared as a whole, of at most 255 characters."""


class KeywordList(Attribute[list[str]]):
    """Several such words, of which one is enough to be found."""


class Text(Attribute[str]):
    """A text, found by a part of it."""


def attributes_of(cls: type) -> dict[str, Attribute[Any]]:
    """The attributes that a class and its bases declare, by name. Raises `DefinitionError` for a reserved name."""
    found: dict[str, Attribute[Any]] = {}
    for base in reversed(cls.__mro__):
        found.update({name: value for name, value in vars(base).items() if isinstance(value, Attribute)})
    for name in found:
        if name in FIELDS or name.lower() in WORDS:
            raise DefinitionError(
                f"{cls.__name__}.{name}: no filter would find an attribute of this name, give it another. Reserved are "
                f"the fields of every run ({', '.join(FIELDS)}) and the words of filters ({', '.join(WORDS)})"
            )
    return found


def note_of(
    declared: dict[str, Attribute[Any]],
    assignments: tuple[Assignment, ...],
    memo: Mapping[str, Any] | None = None,
    summary: str | None = None,
) -> bytes:
    """As it is recorded. Raises `DefinitionError` for an attribute of another saga, or a value that does not fit."""
    attributes: dict[str, tuple[str, Any]] = {}
    for given in assignments:
        if not isinstance(given, Assignment):
            raise DefinitionError(f"an attribute is set by its value, such as Order.customer('ann'), not by {given!r}")
        attribute = given.attribute
        if declared.get(attribute.name) is not attribute:
            raise DefinitionError(f"{attribute!r} is no attribute of this saga: declare it in the class")
        value = None if given.value is None else attribute.plain(given.value)
        attributes[attribute.name] = (type(attribute).__name__, value)
    try:
        return write_note(Note(attributes, dict(memo or {}), summary))
    except ValueError as error:
        raise DefinitionError(str(error)) from None


class NoteMethods:
    """What a saga tells those who look for it. Base of `Saga`."""

    _context: Context
    _attributes: ClassVar[dict[str, Attribute[Any]]]

    def upsert(self, *assignments: Assignment) -> None:
        """Sets search attributes, `self.upsert(Order.customer("ann"))`: the saga is found by them from now on."""
        self._note(self.note_of(*assignments))

    def memo(self, **values: Any) -> None:
        """Adds to what lists tell of this saga: any JSON. It is not searched by; None takes a name away."""
        self._note(self.note_of(memo=values))

    def summarize(self, summary: str) -> None:
        """Sets the line that lists show."""
        self._note(self.note_of(summary=summary))

    def _note(self, note: bytes) -> None:
        self._context.record(StepKind.NOTE, "", lambda: note)

    @classmethod
    def note_of(
        cls, *assignments: Assignment, memo: Mapping[str, Any] | None = None, summary: str | None = None
    ) -> bytes:
        """Attributes, memo and summary as they go into the history; nothing where none is given.

        Raises `DefinitionError` for an attribute of another saga, or a value that does not fit.
        """
        if not assignments and not memo and summary is None:
            return b""
        return note_of(cls._attributes, assignments, memo, summary)
