"""What handlers need besides their request: declared by type, made when it is needed, closed when it is over.

    def database() -> Iterator[Database]:
        with Database.connect() as connected:
            yield connected

    payments = Participant(Payments, provide=[database])

    @payments.handles(Payments.charge)
    def charge(request: Charge, database: Database = inject(Database)) -> Receipt: ...

A provider is a function whose return type says what it provides, or a class. It lives as long as the participant,
with `per_call` as long as one call of a handler; a generator's rest runs at the end of that. Providers may need others.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from threading import RLock
from typing import Any, TypeVar, cast, get_args, get_type_hints

from orchestrator.errors import DefinitionError

T = TypeVar("T")

Needs = Mapping[str, type]
"""By parameter: the type that is wanted."""


@dataclass(frozen=True, slots=True)
class Injected:
    """Stands in a signature for what a provider makes."""

    wanted: type


def inject(wanted: type[T]) -> T:
    """A parameter's default: what the participant provides of this type. `HandlerContext` is always there."""
    return cast(T, Injected(wanted))


@dataclass(frozen=True, slots=True)
class PerCall:
    """A provider that is asked anew for each call."""

    make: Callable[..., Any]


def per_call(make: Callable[..., Any]) -> PerCall:
    """For `Participant(provide=...)`: this one is asked anew for each call of a handler, and ends with it."""
    return PerCall(make)


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider as it was read."""

    wanted: type
    make: Callable[..., Any]
    per_call: bool
    needs: Needs
    ends: bool
    """Whether it is a generator, whose rest runs at the end."""


def needs_of(function: Callable[..., Any]) -> Needs:
    """The parameters whose default is `inject(...)`."""
    parameters = inspect.signature(function).parameters
    return {name: each.default.wanted for name, each in parameters.items() if isinstance(each.default, Injected)}


class Providers:
    """The providers of one participant. Raises `DefinitionError` where one is declared wrongly.

    `always`: types that each call brings itself.
    """

    def __init__(self, given: Iterable[Callable[..., Any] | PerCall], always: tuple[type, ...]) -> None:
        self._always = always
        self._known: dict[type, Provider] = {}
        self._made: dict[type, Any] = {}
        self._instead: dict[type, Any] = {}
        self._lock = RLock()
        self._scope = ExitStack()
        for each in given:
            provider = _read(each)
            if provider.wanted in self._known or provider.wanted in always:
                raise DefinitionError(f"two providers of {provider.wanted.__name__}")
            self._known[provider.wanted] = provider
        for provider in self._known.values():
            self._check(provider, ())

    def check(self, who: str, needs: Needs) -> None:
        """Raises `DefinitionError` where nobody provides what is needed."""
        for name, wanted in needs.items():
            if wanted not in self._known and wanted not in self._always:
                known = ", ".join(sorted(known.__name__ for known in (*self._known, *self._always)))
                raise DefinitionError(
                    f"{who}: nobody provides {wanted.__name__} for {name!r}; provided are {known}. "
                    "Name a provider in Participant(..., provide=[...])"
                )

    def values(self, needs: Needs, call: dict[type, Any], scope: ExitStack) -> dict[str, Any]:
        """What is needed, by parameter. `call` holds what this call has already, `scope` ends with it."""
        return {name: self._value(wanted, call, scope) for name, wanted in needs.items()}

    @contextmanager
    def override(self, values: Mapping[type, Any]) -> Iterator[None]:
        """These instead of what the providers make, in a test."""
        before, self._instead = self._instead, {**self._instead, **values}
        try:
            yield
        finally:
            self._instead = before

    def close(self) -> None:
        """Ends what lived as long as the participant, the latest first."""
        with self._lock:
            self._made.clear()
            self._scope.close()

    def _value(self, wanted: type, call: dict[type, Any], scope: ExitStack) -> Any:
        if wanted in self._instead:
            return self._instead[wanted]
        if wanted in call:
            return call[wanted]
        provider = self._known[wanted]
        if provider.per_call:
            value = call[wanted] = _make(provider, self.values(provider.needs, call, scope), scope)
            return value
        with self._lock:
            if wanted not in self._made:
                self._made[wanted] = _make(provider, self.values(provider.needs, {}, self._scope), self._scope)
            return self._made[wanted]

    def _check(self, provider: Provider, above: tuple[type, ...]) -> None:
        name = provider.wanted.__name__
        if provider.wanted in above:
            raise DefinitionError(f"the provider of {name} needs itself")
        self.check(f"the provider of {name}", provider.needs)
        for wanted in provider.needs.values():
            needed = self._known.get(wanted)
            if not provider.per_call and (needed is None or needed.per_call):
                raise DefinitionError(
                    f"the provider of {name} lives as long as the participant and cannot need {wanted.__name__}, "
                    "which lives for one call: make it per_call(...)"
                )
            if needed is not None:
                self._check(needed, (*above, provider.wanted))


def _read(given: Callable[..., Any] | PerCall) -> Provider:
    make = given.make if isinstance(given, PerCall) else given
    ends = inspect.isgeneratorfunction(make)
    if inspect.isclass(make):
        wanted: Any = make
    else:
        wanted = get_type_hints(make).get("return")
        if ends:
            wanted = next(iter(get_args(wanted)), None)
    if not isinstance(wanted, type) or inspect.iscoroutinefunction(make) or inspect.isasyncgenfunction(make):
        raise DefinitionError(
            f"{getattr(make, '__qualname__', make)}: a provider is a plain function with its class as the return type, "
            "a generator function with Iterator[...] of it, or a class"
        )
    for name, parameter in inspect.signature(make).parameters.items():
        many = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.default is parameter.empty and not many:
            raise DefinitionError(
                f"the provider of {wanted.__name__}: nobody gives it {name!r}. Write `= inject(...)` behind this "
                "parameter, give it another default, or provide a function that makes the object"
            )
    return Provider(wanted, make, isinstance(given, PerCall), needs_of(make), ends)


def _make(provider: Provider, values: dict[str, Any], scope: ExitStack) -> Any:
    if not provider.ends:
        return provider.make(**values)
    made: Callable[..., AbstractContextManager[Any]] = contextmanager(provider.make)
    return scope.enter_context(made(**values))
