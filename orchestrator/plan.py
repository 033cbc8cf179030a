"""The declarative style: a saga as a list of steps with typed references between them.

    class OrderPlan(Saga[Order, str]):
        order = takes(Order)
        stock = step(Inventory.reserve(order_id=order.id, sku=order.sku), undo=Inventory.release)
        result = step(Shipping.ship(order_id=order.id, warehouse=stock.warehouse), pivot=True)

To a type checker `stock` is the reply's type; while the class is read it is a reference that records which field is
used where. Steps run in the order they are written; the attribute `result` is the saga's result.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast, overload

from pydantic import BaseModel

from orchestrator.durations import Duration
from orchestrator.errors import DefinitionError
from orchestrator.retry import Retry
from orchestrator.saga import Saga, Undo, check_service, compile_undo
from orchestrator.service import Call, Command, Fields, Template

I = TypeVar("I")  # noqa: E741 - input
M = TypeVar("M", bound=BaseModel)
R = TypeVar("R")

_INPUT = "input"
_OWN = "own reply"
_UNKNOWN_YET = (
    "a declared value is known only when the saga runs: it can be passed on, not computed with. "
    "Write `async def run` where a saga has to compute"
)


class Reference(Template):
    """A value by its origin (a step, the input, the step's own reply) and the fields followed from there."""

    _origin: object
    _model: Any
    _path: tuple[str, ...]

    def __init__(self, origin: object, model: Any, path: tuple[str, ...] = ()) -> None:
        self.__dict__.update(_origin=origin, _model=model, _path=path, _name="")

    def __set_name__(self, owner: type, name: str) -> None:
        self.__dict__["_name"] = name

    def __getattr__(self, field: str) -> Reference:
        if field.startswith("__"):
            raise AttributeError(field)
        model = self._model
        if not (isinstance(model, type) and issubclass(model, BaseModel)) or field not in model.model_fields:
            raise DefinitionError(f"{getattr(model, '__name__', model)} has no field {field!r}")
        return Reference(self._origin, model.model_fields[field].annotation, (*self._path, field))

    def __bool__(self) -> bool:
        raise DefinitionError(_UNKNOWN_YET)

    def __str__(self) -> str:
        raise DefinitionError(_UNKNOWN_YET)

    def __resolve__(self, values: dict[Any, Any]) -> Any:
        value = values[self._origin]
        for field in self._path:
            value = getattr(value, field)
        return value


@dataclass(frozen=True, eq=False)
class Declared:
    """One declared step, as written."""

    call: Call[Any, Any]
    options: dict[str, Any]


def takes(model: type[I]) -> I:
    """The saga's input, to be referred to by its fields."""
    return cast(I, Reference(_INPUT, model))


def outcome(model: type[R]) -> R | None:
    """Inside `undo=` of a declared step: that step's own reply, None where its outcome is unknown."""
    return cast("R | None", Reference(_OWN, model))


@overload
def step(
    call: Call[M, R],
    *,
    undo: Undo[M, R] | None = None,
    pivot: Literal[False] = False,
    retry: Retry | None = None,
    undo_retry: Retry | None = None,
    start_to_close: Duration | None = None,
    schedule_to_close: Duration | None = None,
    spread: bool = False,
) -> R: ...
@overload
def step(
    call: Call[M, R],
    *,
    pivot: Literal[True],
    retry: Retry | None = None,
    start_to_close: Duration | None = None,
    schedule_to_close: Duration | None = None,
    spread: bool = False,
) -> R: ...
def step(call: Call[Any, R], **options: Any) -> R:
    """Declares a step; the options are those of `Saga.step`."""
    own = call.command.reply
    undo = options.get("undo")
    if options.get("pivot") and undo is not None:
        raise DefinitionError(f"{call.command!r}: a pivot has no undo")
    if isinstance(undo, Command):
        compile_undo(call.command, undo)
    elif isinstance(undo, Call):
        check_service(call.command, undo.command)
    elif undo is not None:
        raise DefinitionError(
            "in the declarative style `undo=` is a command or a call, with outcome(...) for the reply"
        )
    if isinstance(undo, Call) and isinstance(undo.request, Fields):
        for value in undo.request.fields.values():
            if isinstance(value, Reference) and value._origin is _OWN and not value._path and value._model is not own:
                raise DefinitionError(
                    f"outcome({value._model.__name__}) in the undo of {call.command!r}: its reply is "
                    f"{getattr(own, '__name__', 'nothing')}"
                )
    return cast(R, Reference(Declared(call, options), own))


@dataclass(frozen=True)
class Plan:
    """A compiled declaration: the coroutine function that carries it out, and its static graph."""

    run: Callable[[Saga[Any, Any], Any], Coroutine[Any, Any, Any]]
    commands: tuple[tuple[str, str], ...]


def compile_plan(cls: type[Saga[Any, Any]]) -> Plan | None:
    """The plan of a class that declares steps, None for one in code style. Raises `DefinitionError`."""
    references = {name: value for name, value in vars(cls).items() if isinstance(value, Reference)}
    declared = {name: value._origin for name, value in references.items() if isinstance(value._origin, Declared)}
    if not declared:
        return None
    if cls.run is not Saga.run:
        raise DefinitionError(f"{cls.__name__} has both `run` and declared steps: choose one style")
    for name, value in references.items():
        if value._origin is _INPUT and value._model is not cls._input._type:
            raise DefinitionError(f"{cls.__name__}.{name} takes {value._model.__name__}, the saga another input")

    async def run(saga: Saga[Any, Any], input: Any) -> Any:
        values: dict[Any, Any] = {_INPUT: input}
        for origin in declared.values():
            values[origin] = await saga.step(_bind(origin.call, values), **_options(origin, values))
        result = references.get("result")
        return None if result is None else result.__resolve__(values)

    commands = tuple((origin.call.command.service, origin.call.command.name) for origin in declared.values())
    return Plan(run, commands)


def _bind(call: Call[Any, Any], values: dict[Any, Any]) -> Call[Any, Any]:
    if isinstance(call.request, Template):
        return Call(call.command, call.request.__resolve__(values))
    return call


def _options(declared: Declared, values: dict[Any, Any]) -> dict[str, Any]:
    options = dict(declared.options)
    undo = options.get("undo")
    if isinstance(undo, Call) and isinstance(undo.request, Template):
        bound = dict(values)
        options["undo"] = lambda reply: _bind(undo, {**bound, _OWN: reply})
    return options
