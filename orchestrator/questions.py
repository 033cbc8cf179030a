"""Queries: what a saga tells about itself, while it runs and after its end. Updates: what it is asked to do.

    class Expense(Saga[Claim, str]):
        stage_ = "asked"

        @query
        def stage(self) -> str:
            return self.stage_

        @update
        async def raise_to(self, cents: int) -> int:
            self.cents = cents
            return self.cents

        @raise_to.validator
        def _positive(self, cents: int) -> None:
            if cents <= 0:
                raise ValueError("an expense is more than nothing")

A query only looks. It is asked of a replayed copy of the saga: what it changed would be lost. An update may change the
saga and await what `run` may; what its validator refuses leaves no trace.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Coroutine, Mapping
from functools import cached_property
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, get_type_hints, overload

from pydantic import TypeAdapter, ValidationError

from orchestrator.errors import BUGS, DefinitionError
from orchestrator.signals import first_problem

P = ParamSpec("P")
R = TypeVar("R")


class Method(Generic[P, R]):
    """A method of a saga that is called from outside, with its arguments and result as JSON."""

    def __init__(self, function: Callable[Concatenate[Any, P], Any]) -> None:
        self.function = function
        self.name = function.__name__
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @cached_property
    def _types(self) -> tuple[inspect.Signature, dict[str, TypeAdapter[Any]], TypeAdapter[Any]]:
        """The signature without `self`, and how each argument and the result are read and written."""
        try:
            hints = get_type_hints(self.function)
        except NameError as error:
            raise DefinitionError(f"{self!r}: {error}; its types must be known in the module") from None
        signature = inspect.signature(self.function)
        parameters = list(signature.parameters.values())[1:]
        loose = [each.name for each in parameters if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
        if loose:
            raise DefinitionError(f"{self!r}: name every argument, {loose[0]!r} may be any number of them")
        adapters = {each.name: TypeAdapter(hints.get(each.name, Any)) for each in parameters}
        return signature.replace(parameters=parameters), adapters, TypeAdapter(hints.get("return", Any))

    def encode(self, *args: P.args, **kwargs: P.kwargs) -> bytes:
        """The arguments as bytes. Raises `TypeError`, `pydantic.ValidationError`."""
        signature, adapters, _ = self._types
        given = signature.bind(*args, **kwargs).arguments
        pairs = (
            b"%s:%s" % (json.dumps(name).encode(), adapters[name].dump_json(adapters[name].validate_python(value)))
            for name, value in given.items()
        )
        return b"{%s}" % b",".join(pairs)

    def arguments(self, payload: bytes) -> Mapping[str, Any]:
        """The arguments from their bytes, by name. Raises `ValueError` with what is wrong."""
        signature, adapters, _ = self._types
        given = json.loads(payload or b"{}")
        if not isinstance(given, dict):
            raise ValueError(f"the arguments of {self!r} are a JSON object of their names")
        try:
            signature.bind(**given)
            return {name: adapters[name].validate_json(json.dumps(value)) for name, value in given.items()}
        except TypeError as error:
            raise ValueError(f"{self!r}: {error}") from None
        except ValidationError as error:
            raise ValueError(f"the arguments of {self!r} do not fit: {first_problem(error)}") from None

    def encode_result(self, value: Any) -> bytes:
        """Raises `pydantic.ValidationError` where the method gave another type than it says."""
        adapter = self._types[2]
        return adapter.dump_json(adapter.validate_python(value))

    def decode_result(self, payload: bytes) -> R:
        """Raises `pydantic.ValidationError`."""
        result: R = self._types[2].validate_json(payload or b"null")
        return result

    def __repr__(self) -> str:
        return f"{type(self).__name__.lower()} {self.name}"


class Query(Method[P, R]):
    """A question that a saga answers."""

    @overload
    def __get__(self, saga: None, owner: type) -> Query[P, R]: ...
    @overload
    def __get__(self, saga: object, owner: type) -> Callable[P, R]: ...
    def __get__(self, saga: object | None, owner: type) -> Any:
        return self if saga is None else self.function.__get__(saga, owner)


def query(function: Callable[Concatenate[Any, P], R]) -> Query[P, R]:
    """Makes a method a query: it only looks, and awaits nothing."""
    if inspect.iscoroutinefunction(function):
        raise DefinitionError(f"{function.__qualname__}: a query awaits nothing; what changes the saga is an update")
    return Query(function)


class Update(Method[P, R]):
    """Something that a saga is asked to do, with a result."""

    def __init__(self, function: Callable[Concatenate[Any, P], Any]) -> None:
        super().__init__(function)
        self.check: Callable[..., None] | None = None

    def validator(self, function: Callable[Concatenate[Any, P], None]) -> Callable[Concatenate[Any, P], None]:
        """What is asked first, with the same arguments: it raises where the saga should not take the update.

        It only looks, and changes nothing.
        """
        if inspect.iscoroutinefunction(function):
            raise DefinitionError(f"{function.__qualname__}: a validator awaits nothing; it only looks, and raises")
        self.check = function
        return function

    @overload
    def __get__(self, saga: None, owner: type) -> Update[P, R]: ...
    @overload
    def __get__(self, saga: object, owner: type) -> Callable[P, Coroutine[Any, Any, R]]: ...
    def __get__(self, saga: object | None, owner: type) -> Any:
        return self if saga is None else self.function.__get__(saga, owner)


def update(function: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]) -> Update[P, R]:
    """Makes a method an update: who asks for it waits for its result."""
    if not inspect.iscoroutinefunction(function):
        raise DefinitionError(f"{function.__qualname__}: an update is an async method; what only looks is a query")
    return Update(function)


def refuse(updates: Mapping[str, Update[..., Any]], saga: Any, name: str, payload: bytes) -> str | None:
    """Why a saga does not take an update, None if it does."""
    found = updates.get(name)
    if found is None:
        known = ", ".join(each for each in updates if each.isidentifier())
        return f"there is no update {name[:40]!r}; its updates: {known or 'none'}"
    try:
        arguments = found.arguments(payload)
        if found.check is not None:
            found.check(saga, **arguments)
    except BUGS as refused:
        return str(refused) or type(refused).__name__
    return None


async def carry_out(updates: Mapping[str, Update[..., Any]], saga: Any, name: str, payload: bytes) -> bytes:
    """What the update gives, as bytes. Raises what it raises."""
    found = updates[name]
    return found.encode_result(await found.function(saga, **found.arguments(payload)))


def ask(queries: Mapping[str, Query[..., Any]], saga: Any, name: str, payload: bytes) -> bytes:
    """What a saga answers. Raises `ValueError` where there is no such query, and what the query raises."""
    found = queries.get(name)
    if found is None:
        raise ValueError(f"there is no query {name[:40]!r}; its queries: {', '.join(queries) or 'none'}")
    return found.encode_result(found.function(saga, **found.arguments(payload)))
