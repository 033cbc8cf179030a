"""The declarative style: a saga as a list of steps with typed references between them.

    class OrderPlan(Saga[Order, str]):
        order = takes(Order)
        stock = step(Inventory.reserve(order_id=order.id, sku=order.sku), undo=Inventory.release)
        result = step(Shipping.ship(order_id=order.id, warehouse=stock.warehouse), pivot=True)

To a type checker `stock` is the reply's type; while the class is read it is a reference that records which field is
used where. Steps run in the order they are written, those of one `parallel(...)` at the same time, `each(...)` for
every item of a list; the attribute `result` is the saga's result. What has to choose or to compute is written in code
style.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator, Reversible, Set
from dataclasses import dataclass
from types import GenericAlias
from typing import Any, Literal, TypeVar, TypeVarTuple, cast, overload

from pydantic import BaseModel

from orchestrator.durations import Duration
from orchestrator.errors import DefinitionError
from orchestrator.functions import LocalContext, LocalUndo, local_function
from orchestrator.retry import Retry
from orchestrator.saga import Saga, Undo, check_service, compile_undo
from orchestrator.service import Call, Command, Fields, Named, Template

I = TypeVar("I")  # noqa: E741 - input
M = TypeVar("M", bound=BaseModel)
R = TypeVar("R")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")

_INPUT = "input"
_OWN = "own reply"
_ITEM = "item"
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


@dataclass(eq=False)
class Declared:
    """One declared step, as written. `group`: all that run at the same time with it, itself among them; or none."""

    call: Call[Any, Any]
    options: dict[str, Any]
    group: tuple[Declared, ...] = ()

    @property
    def name(self) -> str:
        return repr(self.call.command)

    def ask(self, saga: Saga[Any, Any], values: dict[Any, Any]) -> Awaitable[Any]:
        return saga.step(_bind(self.call, values), **_options(self, values))

    def needs(self) -> Iterator[Declared]:
        """The steps whose replies it refers to."""
        undo = self.options.get("undo")
        for call in (self.call, undo):
            if isinstance(call, Call) and isinstance(call.request, Fields):
                yield from _origins(*call.request.fields.values())


@dataclass(eq=False)
class DeclaredEach(Declared):
    """A step for every item of a list."""

    items: Any = ()
    concurrency: int = 0

    def ask(self, saga: Saga[Any, Any], values: dict[Any, Any]) -> Awaitable[Any]:
        def one(item: Any) -> Awaitable[Any]:
            return saga.step(_bind(self.call, {**values, _ITEM: item}), **self.options)

        return saga.each(self.items.__resolve__(values), one, concurrency=self.concurrency)

    def needs(self) -> Iterator[Declared]:
        yield from _origins(self.items)
        yield from super().needs()


@dataclass(eq=False)
class DeclaredLocal(Declared):
    """A local step, which has no call of a service."""

    function: Any = None
    arguments: tuple[Any, ...] = ()

    @property
    def name(self) -> str:
        return str(self.function.name)

    def ask(self, saga: Saga[Any, Any], values: dict[Any, Any]) -> Awaitable[Any]:
        arguments = [each.__resolve__(values) if isinstance(each, Template) else each for each in self.arguments]
        step: Awaitable[Any] = saga.local(self.function.function, *arguments, **self.options)
        return step

    def needs(self) -> Iterator[Declared]:
        yield from _origins(*self.arguments)


def _origins(*values: Any) -> Iterator[Declared]:
    for value in values:
        if isinstance(value, Reference) and isinstance(value._origin, Declared):
            yield value._origin


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
    schedule_to_start: Duration | None = None,
    heartbeat: Duration | None = None,
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
    schedule_to_start: Duration | None = None,
    heartbeat: Duration | None = None,
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


@overload
def parallel(a: A, b: B, /) -> tuple[A, B]: ...
@overload
def parallel(a: A, b: B, c: C, /) -> tuple[A, B, C]: ...
@overload
def parallel(a: A, b: B, c: C, d: D, /) -> tuple[A, B, C, D]: ...
@overload
def parallel(a: A, b: B, c: C, d: D, e: E, /) -> tuple[A, B, C, D, E]: ...
@overload
def parallel(*steps: A) -> tuple[A, ...]: ...
def parallel(*steps: Any) -> tuple[Any, ...]:
    """Declared steps that run at the same time: `flight, hotel = parallel(step(...), step(...))`.

    As with `Saga.gather` the first that fails cancels the others.
    """
    members = []
    for reference in steps:
        declared = reference._origin if isinstance(reference, Reference) and not reference._path else None
        if not isinstance(declared, Declared) or declared.group:
            raise DefinitionError("parallel(...) takes steps as they are declared, each in one group only")
        if declared.options.get("pivot"):
            raise DefinitionError(f"{declared.name}: a pivot runs alone, not in parallel(...)")
        members.append(declared)
    for declared in members:
        declared.group = tuple(members)
    return steps


def each(
    items: Reversible[T],
    function: Callable[[T], Call[M, R]],
    *,
    undo: Named[M, Any] | None = None,
    concurrency: int = 10,
    retry: Retry | None = None,
    undo_retry: Retry | None = None,
    start_to_close: Duration | None = None,
    schedule_to_close: Duration | None = None,
    spread: bool = False,
) -> tuple[R, ...]:
    """Declares a step for every item of a list, `concurrency` of them at a time; gives the replies in its order.

    `function` makes an item's call; like every declared value the item can be passed on, not computed with. `undo`
    takes the same request.
    """
    declared = items._model if isinstance(items, Reference) else None
    inner = getattr(declared, "__args__", (None,))[0]
    origin = getattr(declared, "__origin__", None)
    if not isinstance(items, Reference) or not isinstance(origin, type):
        raise DefinitionError("each(...) takes a declared list or tuple, such as a field of the input")
    if issubclass(origin, Set):
        raise DefinitionError("each(...): a set has another order in each process: declare a list or tuple")
    if concurrency < 1:
        raise DefinitionError(f"each(...): concurrency={concurrency} must be at least 1")
    call = function(cast(T, Reference(_ITEM, inner)))
    if undo is not None:
        compile_undo(call.command, undo)
    model = GenericAlias(tuple, (call.command.reply, ...))
    options = {
        "undo": undo,
        "retry": retry,
        "undo_retry": undo_retry,
        "start_to_close": start_to_close,
        "schedule_to_close": schedule_to_close,
        "spread": spread,
    }
    return cast("tuple[R, ...]", Reference(DeclaredEach(call, options, (), items, concurrency), model))


@overload
def local(
    function: Callable[[LocalContext, *Ts], Coroutine[Any, Any, R]],
    *arguments: *Ts,
    undo: LocalUndo[R, *Ts] | None = None,
    pivot: bool = False,
    retry: Retry | None = None,
    undo_retry: Retry | None = None,
    start_to_close: Duration | None = None,
    schedule_to_close: Duration | None = None,
) -> R: ...
@overload
def local(
    function: Callable[[*Ts], Coroutine[Any, Any, R]],
    *arguments: *Ts,
    undo: LocalUndo[R, *Ts] | None = None,
    pivot: bool = False,
    retry: Retry | None = None,
    undo_retry: Retry | None = None,
    start_to_close: Duration | None = None,
    schedule_to_close: Duration | None = None,
) -> R: ...
@overload
def local(
    function: Callable[[LocalContext, *Ts], R],
    *arguments: *Ts,
    undo: LocalUndo[R, *Ts] | None = None,
    pivot: bool = False,
    retry: Retry | None = None,
    undo_retry: Retry | None = None,
    start_to_close: Duration | None = None,
    schedule_to_close: Duration | None = None,
) -> R: ...
@overload
def local(
    function: Callable[[*Ts], R],
    *arguments: *Ts,
    undo: LocalUndo[R, *Ts] | None = None,
    pivot: bool = False,
    retry: Retry | None = None,
    undo_retry: Retry | None = None,
    start_to_close: Duration | None = None,
    schedule_to_close: Duration | None = None,
) -> R: ...
def local(  # type: ignore[misc]  # mypy does not see that *arguments takes any *Ts
    function: Callable[..., Any], *arguments: Any, **options: Any
) -> Any:
    """Declares a local step, for what a saga has to compute; the options are those of `Saga.local`."""
    called = local_function(function)
    if options.get("undo") is not None:
        local_function(options["undo"])
    return Reference(DeclaredLocal(cast("Call[Any, Any]", None), options, (), called, arguments), called.result)


@dataclass(frozen=True)
class Plan:
    """A compiled declaration: the coroutine function that carries it out, and its static graph."""

    run: Callable[[Saga[Any, Any], Any], Coroutine[Any, Any, Any]]
    commands: tuple[tuple[str, str], ...]


def compile_plan(cls: type[Saga[Any, Any]]) -> Plan | None:
    """The plan of a class that declares steps, None for one in code style. Raises `DefinitionError`."""
    references = [value for attribute in vars(cls).values() for value in _references(attribute)]
    stages: list[tuple[Declared, ...]] = []
    for value in references:
        if isinstance(value._origin, Declared):
            stage = value._origin.group or (value._origin,)
            if stage not in stages:
                stages.append(stage)
        elif value._origin is _INPUT and value._model is not cls._input._type and not value._path:
            raise DefinitionError(f"{cls.__name__}.{value._name} takes {value._model.__name__}, the saga another input")
    if not stages:
        return None
    if cls.run is not Saga.run:
        raise DefinitionError(f"{cls.__name__} has both `run` and declared steps: choose one style")
    _check_order(stages)
    given = vars(cls).get("result")

    async def run(saga: Saga[Any, Any], input: Any) -> Any:
        values: dict[Any, Any] = {_INPUT: input}
        for stage in stages:
            if stage[0].group:
                results = await saga.gather(*(step.ask(saga, values) for step in stage))
                values.update(zip(stage, results, strict=True))
            else:
                values[stage[0]] = await stage[0].ask(saga, values)
        if isinstance(given, tuple):
            return tuple(value.__resolve__(values) for value in given)
        return given.__resolve__(values) if isinstance(given, Reference) else None

    steps = [step for stage in stages for step in stage if not isinstance(step, DeclaredLocal)]
    commands = tuple((step.call.command.service, step.call.command.name) for step in steps)
    return Plan(run, commands)


def _references(attribute: Any) -> list[Reference]:
    values = attribute if isinstance(attribute, tuple) else (attribute,)
    return [value for value in values if isinstance(value, Reference)]


def _check_order(stages: list[tuple[Declared, ...]]) -> None:
    """Raises `DefinitionError` where a step refers to a reply that is not there when it begins."""
    done: set[Declared] = set()
    for stage in stages:
        for declared in stage:
            for needed in declared.needs():
                if needed not in done:
                    raise DefinitionError(
                        f"{declared.name} needs the reply of {needed.name}, which does not run "
                        "before it: give that step a name of its own, before this one, not in the same parallel(...)"
                    )
        done.update(stage)


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
