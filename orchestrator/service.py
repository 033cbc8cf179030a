"""Service contracts: what a service can be asked, as data that both sides import.

    class Payments(Service):
        charge = command(Charge, Receipt)
        refund = command(Refund)

A command's request is a pydantic model: its JSON is the value of the record on `payments.commands`. The second argument
is the type of the reply; without it the reply carries nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, ParamSpec, TypeVar, overload

from pydantic import BaseModel, TypeAdapter

from orchestrator.errors import DefinitionError
from orchestrator.signals import problem_with

P = ParamSpec("P")
M = TypeVar("M", bound=BaseModel)
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Call(Generic[M, R]):
    """A command with its request, not sent yet. `request` is a model, or a template in the declarative style."""

    command: Command[..., M, R]
    request: Any

    def payload(self) -> bytes:
        """The request as it goes over the wire: JSON in UTF-8."""
        data: bytes = self.request.model_dump_json().encode()
        return data


class Named(Generic[M, R]):
    """What `undo=` accepts of a command: its name. Uncallable, or type checkers would take a function for it."""


class Command(Named[M, R], Generic[P, M, R]):
    """One thing a service can be asked. Calling it with the request's fields makes a `Call`."""

    def __init__(self, request: Callable[P, M], reply: type[R] | None) -> None:
        if not (isinstance(request, type) and issubclass(request, BaseModel)):
            raise DefinitionError(f"command(...): the request must be a pydantic model class, not {request!r}")
        self.request: type[BaseModel] = request
        self.reply: type[R] | None = reply
        self.service = ""
        self.name = ""
        self.owner: type[Service] | None = None
        """The contract that it is declared in."""
        self._adapter: TypeAdapter[Any] = TypeAdapter(reply if reply is not None else type(None))

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Call[M, R]:
        for value in kwargs.values():
            if isinstance(value, Template):
                return Call(self, Fields(self.request, kwargs))
        return Call(self, self.request(*args, **kwargs))

    def decode(self, payload: bytes) -> R:
        """The reply from its bytes. Raises `pydantic.ValidationError`."""
        result: R = self._adapter.validate_json(payload or b"null")
        return result

    def problem(self, payload: bytes) -> str | None:
        """Why this is no reply, None if it is one."""
        return problem_with(self.decode, payload)

    def encode(self, reply: R) -> bytes:
        """The reply as bytes. Raises `pydantic.ValidationError` if it is of another type."""
        return self._adapter.dump_json(self._adapter.validate_python(reply))

    def __repr__(self) -> str:
        return f"{self.service}.{self.name}"


class Template:
    """A value that is known only when the saga runs; see `orchestrator.plan`."""

    def __resolve__(self, values: dict[str, Any]) -> Any:
        raise NotImplementedError


class Fields(Template):
    """A request some of whose fields are templates."""

    def __init__(self, request: type[BaseModel], fields: dict[str, Any]) -> None:
        self.request = request
        self.fields = fields
        unknown = fields.keys() - request.model_fields.keys()
        if unknown:
            raise DefinitionError(f"{request.__name__} has no field {sorted(unknown)[0]!r}")

    def __resolve__(self, values: dict[str, Any]) -> BaseModel:
        resolved = {
            name: value.__resolve__(values) if isinstance(value, Template) else value
            for name, value in self.fields.items()
        }
        return self.request(**resolved)


@overload
def command(request: Callable[P, M]) -> Command[P, M, None]: ...
@overload
def command(request: Callable[P, M], reply: type[R]) -> Command[P, M, R]: ...
def command(request: Callable[P, M], reply: type[Any] | None = None) -> Command[P, M, Any]:
    """Declares a command of a `Service`: its request model and the type of its reply."""
    return Command(request, reply)


def topic_name(class_name: str) -> str:
    """`PaymentGateway` → `payment-gateway`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", class_name).lower()


_LEGAL = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")


class Service:
    """Base of contracts. `name=` sets the topic prefix; it defaults to the class name in kebab case."""

    name: ClassVar[str] = ""
    commands: ClassVar[dict[str, Command[..., Any, Any]]] = {}

    def __init_subclass__(cls, name: str | None = None) -> None:
        cls.name = name or topic_name(cls.__name__)
        if not _LEGAL.fullmatch(cls.name):
            raise DefinitionError(f"{cls.__name__}: {cls.name!r} cannot be a topic's name; pass name=...")
        cls.commands = {key: value for key, value in vars(cls).items() if isinstance(value, Command)}
        for declared in cls.commands.values():
            declared.service = cls.name
            declared.owner = cls
