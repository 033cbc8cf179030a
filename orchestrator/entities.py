"""Entities: state under a key, with one writer, changed by operations that clients and sagas ask for.

    class Account(Entity[Balance]):
        @operation
        async def withdraw(self, cents: int) -> int:
            if self.state.cents < cents:
                raise Abort("Insufficient")
            self.state.cents -= cents
            return self.state.cents

    left = await client.entity(Account, "ann").call(Account.withdraw(5))                                # a client
    left = await self.entity(Account, "ann").call(Account.withdraw(5), undo=Account.deposit(5))         # a saga

An entity begins with its first operation. Its operations are carried out one after the other, in the order in which
they came. One that fails leaves the state as it was, and what its steps did is undone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, Generic, ParamSpec, TypeVar, overload

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from orchestrator.durations import Duration, milliseconds
from orchestrator.errors import Abort, ContinueAsNew, DefinitionError, StepFailed
from orchestrator.interceptors import Around
from orchestrator.model.definition import Context, SignalRequest, StepRequest, UndoPayload
from orchestrator.model.driver import Asked, Until
from orchestrator.model.events import StepKind
from orchestrator.model.groups import Together
from orchestrator.model.ids import problem_of
from orchestrator.questions import Method, Update, carry_out, refuse
from orchestrator.saga import Saga
from orchestrator.signals import declared_by, first_problem, problem_with

S = TypeVar("S")
E = TypeVar("E", contravariant=True)
N = TypeVar("N", bound="Entity[Any]")
T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")

_OWN = frozenset({"state", "_context", "_random", "_came", "_done", "_busy", "_deleted", "_leaving"})
"""What is set on an entity while an operation is under way."""


class OperationCall(Generic[E, R]):
    """An operation with its arguments, to be asked of an entity."""

    __slots__ = ("_decode", "name", "payload")

    def __init__(self, name: str, payload: bytes, decode: Callable[[bytes], R]) -> None:
        self.name = name
        self.payload = payload
        self._decode = decode

    def decode(self, payload: bytes) -> R:
        """The result from its bytes. Raises `pydantic.ValidationError`."""
        return self._decode(payload)

    def problem(self, payload: bytes) -> str | None:
        """Why this is no result of it, None if it is one."""
        return problem_with(self._decode, payload)


class Operation(Method[P, R], Generic[E, P, R]):
    """Something that an entity does for whoever asks. Called on the class it gives what can be asked."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> OperationCall[E, R]:
        """Raises `TypeError`, `pydantic.ValidationError`."""
        return OperationCall(self.name, self.encode(*args, **kwargs), self.decode_result)

    @overload
    def __get__(self, entity: None, owner: type) -> Operation[E, P, R]: ...
    @overload
    def __get__(self, entity: object, owner: type) -> Callable[P, Coroutine[Any, Any, R]]: ...
    def __get__(self, entity: object | None, owner: type) -> Any:
        return self if entity is None else self.function.__get__(entity, owner)


def operation(function: Callable[Concatenate[T, P], Coroutine[Any, Any, R]]) -> Operation[T, P, R]:
    """Makes a method an operation. It may change `self.state` and await what a saga may, but no pivot.

    To refuse it raises `Abort`.
    """
    if not inspect.iscoroutinefunction(function):
        raise DefinitionError(f"{function.__qualname__}: an operation is an async method; what only looks is a query")
    return Operation(function)


class Entity(Saga[Any, Any], Generic[S]):
    """Base of entities: `class Account(Entity[Balance])`, the type of the state, which can be made without arguments.

    Class arguments are `name`, `version`, `pinned` and `around`, as of a saga. The entity with key `ann` is the saga
    with the id `Account/ann`.
    """

    state: S
    _state: ClassVar[Any] = None
    _operations: ClassVar[dict[str, Operation[Any, ..., Any]]] = {}

    def __init_subclass__(
        cls, name: str | None = None, around: Sequence[Around] | None = None, version: int = 1, pinned: bool = False
    ) -> None:
        super().__init_subclass__(name=name, around=around, version=version, pinned=pinned)
        for base in getattr(cls, "__orig_bases__", ()):
            if getattr(base, "__origin__", None) is Entity:
                (cls._state,) = base.__args__
        if cls._state is None:
            raise DefinitionError(f"{cls.__name__}: name the type of its state, as in Entity[Balance]")
        if "/" in cls.definition.name:
            raise DefinitionError(f"{cls.definition.name}: an entity's name has no slash, its key may")
        if cls.run is not Entity.run:
            raise DefinitionError(f"{cls.__name__}: an entity has no run or declared steps of its own, but operations")
        _check_initial(cls)
        cls._input, cls._output = TypeAdapter(cls._state | None), TypeAdapter(cls._state)
        cls._operations = declared_by(cls, Operation)
        cls.definition = replace(
            cls.definition,
            check_update=partial(_refuse, cls._operations, cls._updates),
            update=partial(_carry_out, cls._operations, cls._updates),
            lasting=True,
        )

    def __init__(self) -> None:
        self._came = self._done = 0
        """Operations that have come, and that are over."""
        self._busy = self._deleted = self._leaving = False

    if not TYPE_CHECKING:  # type checkers would take any name then

        def __setattr__(self, name: str, value: Any) -> None:
            """Only the state is as before where an operation fails, and handed on to the entity's next run."""
            declared = getattr(type(self), name, None)
            if name not in _OWN and self.__dict__.get("_busy") and not hasattr(declared, "__set__"):
                raise DefinitionError(
                    f"{type(self).__name__}: an operation sets self.{name}, which a refusal would not take back and "
                    f"which is lost once the entity goes on in another run; make it a part of self.state"
                )
            super().__setattr__(name, value)

    def initial(self) -> S:
        """The state of an entity that nobody has asked for anything yet."""
        state: S = self._state()
        return state

    @operation
    async def delete(self) -> None:
        """Ends the entity once nothing waits for it any more. Another operation begins with a state of its own."""
        self.state = self.initial()
        self._deleted = True

    async def run(self, state: S | None, /) -> S:
        """Lets operations come until the entity is deleted, and goes on in a run of its own when there were many."""
        self.state = self.initial() if state is None else state
        await Until(lambda: not self._busy and (self._gone or self.suggests_continue_as_new))
        self._leaving = True
        if self._gone:
            return self.state
        raise ContinueAsNew(self.encode_input(self.state), hands_on=True)

    @property
    def _gone(self) -> bool:
        return self._deleted and self._came == self._done

    async def _operate(self, operation: Operation[Any, ..., Any], payload: bytes) -> bytes:
        turn, self._came = self._came, self._came + 1
        await Until(lambda: self._done == turn and not self._leaving)
        self._busy, self._deleted = True, False
        before = deepcopy(self.state)
        (result,) = await Together((_attempt(self, operation, payload),), None, 1)
        self._busy, self._done = False, turn + 1
        if isinstance(result, StepFailed):
            self.state = before
            raise result
        return operation.encode_result(result)


def _check_initial(kind: type[Entity[Any]]) -> None:
    """Raises `DefinitionError` where an entity has no state to begin with."""
    if kind.initial is not Entity.initial:
        return
    try:
        kind._state()
    except PydanticUserError:
        return  # it names a class that is defined further below
    except (TypeError, ValueError) as error:
        problem = first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise DefinitionError(
            f"{kind.__name__}: its state cannot be made without arguments ({problem}): give what is missing a default, "
            "or define `initial`"
        ) from None


async def _attempt(entity: Any, operation: Operation[Any, ..., Any], payload: bytes) -> Any:
    """What the operation gives. A branch that fails is undone, and then fails by `StepFailed`."""
    try:
        return await operation.function(entity, **operation.arguments(payload))
    except Abort as refused:
        raise StepFailed(operation.name, refused.error_type, refused.message, unknown=False) from None


def _refuse(
    operations: Mapping[str, Operation[Any, ..., Any]],
    updates: Mapping[str, Update[..., Any]],
    entity: Any,
    name: str,
    payload: bytes,
) -> str | None:
    found = operations.get(name)
    if found is None and name not in updates:
        return f"there is no operation {name[:40]!r}; its operations: {', '.join(operations)}"
    if found is None:
        return refuse(updates, entity, name, payload)
    try:
        found.arguments(payload)
    except ValueError as wrong:
        return str(wrong)
    return None


async def _carry_out(
    operations: Mapping[str, Operation[Any, ..., Any]],
    updates: Mapping[str, Update[..., Any]],
    entity: Any,
    name: str,
    payload: bytes,
) -> bytes:
    """What sagas ask for was not looked at before: it is refused here."""
    if (problem := _refuse(operations, updates, entity, name, payload)) is not None:
        raise Abort("Rejected", problem)
    if name in operations:
        result: bytes = await entity._operate(operations[name], payload)
        return result
    return await carry_out(updates, entity, name, payload)


def entity_id(kind: type[Entity[Any]], key: str) -> str:
    """The saga id of an entity. Raises `DefinitionError` where none can have it."""
    id = f"{kind.definition.name}/{key}"
    if not key or (problem := problem_of(id)) is not None:
        raise DefinitionError(f"the key {key[:40]!r} of {kind.__name__}: {problem if key else 'it is empty'}")
    return id


class CallAwaitable(Generic[R]):
    """An operation that is asked for when it is awaited or gathered."""

    __slots__ = ("_call", "_request")

    def __init__(self, call: OperationCall[Any, R], request: StepRequest) -> None:
        self._call = call
        self._request = request

    def __await__(self) -> Generator[Any, Any, R]:
        payload = yield from Asked(self._request).__await__()
        return self._call.decode(payload or b"")


class EntityCaller(Generic[N]):
    """An entity as a saga's code asks it for something."""

    __slots__ = ("_apart", "_context", "_type", "id")

    def __init__(self, kind: type[N], key: str, context: Context, apart: Callable[[Any], Any]) -> None:
        self.id = entity_id(kind, key)
        self._type = kind.definition.name
        self._context = context
        self._apart = apart

    def call(
        self,
        call: OperationCall[N, R],
        *,
        undo: OperationCall[N, Any] | Callable[[R | None], OperationCall[N, Any]] | None = None,
        timeout: Duration | None = None,
    ) -> CallAwaitable[R]:
        """A step: awaiting it gives what the operation gave. It is carried out once.

        `undo` is the operation that reverses it when the saga fails later, or a function from the result (None where
        the saga did not wait for it). It is asked for only where the first one was carried out, also where the saga no
        longer waited for that. Raises `StepFailed` where the entity refuses, or has not answered within `timeout`.
        """
        if not isinstance(call, OperationCall):
            raise DefinitionError(f"what is asked is an operation with its arguments: {call!r}(...), not {call!r}")
        undo_name, undo_payload = _undo_of(undo if not callable(undo) else self._apart(undo))
        close_ms = None if timeout is None else milliseconds(timeout)
        request = StepRequest(
            self.id,
            call.name,
            call.payload,
            undo_name,
            _by_reply(call, undo_payload),
            schedule_to_close_ms=close_ms,
            kind=StepKind.CALL,
            problem=call.problem,
        )
        return CallAwaitable(call, request)

    def tell(self, call: OperationCall[N, Any]) -> None:
        """Asks for an operation, and does not wait: once, and in the order of asking. What comes of it is not told."""
        self._context.tell(SignalRequest(self.id, call.name, call.payload, (self._type, b"null"), update=True))


def _undo_of(undo: Any) -> tuple[str | None, Any]:
    """The undo's name, and its payload or the function that makes it."""
    if undo is None:
        return None, None
    if isinstance(undo, OperationCall):
        return undo.name, undo.payload
    return undo(None).name, undo


def _by_reply(call: OperationCall[Any, Any], undo: Any) -> bytes | UndoPayload | None:
    if undo is None or isinstance(undo, bytes):
        return undo

    def payload_of(reply: bytes | None) -> bytes:
        made: OperationCall[Any, Any] = undo(None if reply is None else call.decode(reply))
        return made.payload

    return payload_of
