"""Signals: what a running saga can be told, as data that saga and sender share.

    class Expense(Saga[Claim, str]):
        decided = signal(Decision)

        async def run(self, claim: Claim) -> str:
            decision = await self.receive(Expense.decided, timeout=timedelta(days=3))

A signal is kept until the saga asks for it, so it may come before that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

from pydantic import TypeAdapter, ValidationError

from orchestrator.errors import DefinitionError

S = TypeVar("S")


class Declared(Generic[S]):
    """Something by whose name saga and sender mean the same, with the type of what comes along."""

    def __init__(self, model: type[S] | None) -> None:
        self.name = ""
        self.model = model
        self._adapter: TypeAdapter[Any] = TypeAdapter(model if model is not None else type(None))

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def encode(self, value: S) -> bytes:
        """The value as bytes. Raises `pydantic.ValidationError` if it is of another type."""
        return self._adapter.dump_json(self._adapter.validate_python(value))

    def decode(self, payload: bytes) -> S:
        """The value from its bytes; none at all are JSON's null. Raises `pydantic.ValidationError`."""
        value: S = self._adapter.validate_json(payload or b"null")
        return value

    def problem(self, payload: bytes) -> str | None:
        """What is wrong with a payload, None if nothing is."""
        return problem_with(self.decode, payload)

    def __repr__(self) -> str:
        return f"{type(self).__name__.lower()} {self.name}"


class Signal(Declared[S]):
    """One thing a saga can be told."""

    _owner: type | None = None

    def __set_name__(self, owner: type, name: str) -> None:
        super().__set_name__(owner, name)
        self._owner = owner

    @property
    def address(self) -> str:
        """Its name with its saga's type, such as `Order.paid`: what business keys belong to."""
        definition = getattr(self._owner, "definition", None)
        if definition is None:
            raise DefinitionError(f"{self!r} belongs to no saga: declare it in the class of one")
        return f"{definition.name}.{self.name}"

    def named(self, key: str) -> str:
        """The name under which a saga hears it by a business key."""
        return f"{self.name}/{key}"


@overload
def signal() -> Signal[None]: ...
@overload
def signal(model: type[S]) -> Signal[S]: ...
def signal(model: type[Any] | None = None) -> Signal[Any]:
    """Declares a signal of a saga; without a type it only says that something is so."""
    return Signal(model)


def first_problem(error: ValidationError) -> str:
    """Where the first thing is wrong, and what."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]


def problem_with(decode: Callable[[bytes], object], payload: bytes) -> str | None:
    """Why bytes cannot be read, None if they can."""
    try:
        decode(payload)
    except ValidationError as error:
        return first_problem(error)
    return None


D = TypeVar("D")


def declared_by(cls: type, kind: type[D]) -> dict[str, D]:
    """What a saga class declares of a kind, its bases' too, by name."""
    return {
        name: value for base in reversed(cls.__mro__) for name, value in vars(base).items() if isinstance(value, kind)
    }
