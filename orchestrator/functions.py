"""Local steps: functions that the saga's own worker calls, and values that are made once.

    async def run(self, order: Order) -> str:
        quote = await self.local(price, order.sku, order.cents, retry=Retry(maximum_attempts=3))
        number = self.side_effect(next_number, returns=int)

A local step has what a step in a service has (attempts, times, an undo, one recorded outcome), and no hop over a topic.
The function is found again by its module and name: it stands at the top of its module.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from types import FunctionType
from typing import Any, Generic, Protocol, TypeVar, TypeVarTuple, get_type_hints, overload

from pydantic import TypeAdapter, ValidationError

from orchestrator.durations import Duration, milliseconds
from orchestrator.errors import DefinitionError
from orchestrator.model.budget import MAX_BYTES
from orchestrator.model.definition import Context, StepRequest
from orchestrator.model.driver import Asked
from orchestrator.model.effects import LocalCall, reply_of
from orchestrator.model.events import StepKind
from orchestrator.model.ids import Direction, idempotency_key
from orchestrator.model.messages import Outcome, Reply
from orchestrator.model.retries import FailedAttempt
from orchestrator.retry import Retry
from orchestrator.signals import problem_with
from orchestrator.wire.commands import CommandMessage, Ending, Postponed, ReplyMessage
from orchestrator.wire.endings import clean, reply_to
from orchestrator.wire.endings import retry as again

A = TypeVar("A")
F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R")
Ts = TypeVarTuple("Ts")


@dataclass(frozen=True, slots=True)
class LocalContext:
    """What a local step's function may know: it gets this if its first parameter is annotated so.

    `step` is the step's sequence in its run. `deadline_ms`: until when the saga waits for this attempt, milliseconds
    since 1970; None: for ever. `idempotency_key` is the same at every attempt, and another one for the undo.
    """

    saga_id: str
    run: str
    step: int
    saga_type: str
    attempt: int
    direction: Direction
    idempotency_key: str
    deadline_ms: int | None
    connection: Any = None
    """The open transaction of a `transactional` function, which it must not end."""


class Inbox(Protocol):
    """A memory that commits an outcome together with the function's effect, such as `connectors.sql.SqlInbox`."""

    def process(
        self, command: CommandMessage, appended_ms: int, perform: Callable[[Any, bool], Ending]
    ) -> tuple[Ending, bool]:
        """Answers from memory, or calls `perform(connection, unsure)` in a transaction; never raises."""


def transactional(inbox: Inbox) -> Callable[[F], F]:
    """Decorates a local step's function: what it writes is committed together with its outcome, exactly once.

    The function is plain and takes a `LocalContext`, whose `connection` has the transaction open; whatever it raises
    rolls it back. Decorate the undo for the same inbox, so that no late `do` has an effect behind it. Raises
    `DefinitionError` for an async function.
    """

    def decorate(function: F) -> F:
        if inspect.iscoroutinefunction(function):
            raise DefinitionError(f"{function.__qualname__}: a transactional function is plain, not async")
        function.saga_inbox = inbox  # type: ignore[attr-defined]
        return function

    return decorate


class LocalFunction(Generic[R]):
    """A function as local steps know it. Raises `DefinitionError` where it could not be found or called again."""

    def __init__(self, function: Callable[..., Any]) -> None:
        if not isinstance(function, FunctionType) or "<" in function.__qualname__:
            raise DefinitionError(
                f"{function!r} cannot be a local step: whoever owns the saga next must find it by its name. Take a "
                "function at the top of a module, and pass it what it needs"
            )
        self.function = function
        self.name = f"{function.__module__}:{function.__qualname__}"
        self.inbox: Inbox | None = getattr(function, "saga_inbox", None)
        self._by_count: dict[int, TypeAdapter[Any]] = {}

    @cached_property
    def _hints(self) -> dict[str, Any]:
        try:
            return get_type_hints(self.function, include_extras=True)
        except NameError as error:
            raise DefinitionError(f"{self.name}: an annotation names what cannot be found: {error}") from None

    @cached_property
    def _parameters(self) -> list[inspect.Parameter]:
        """Those that are passed by position."""
        kinds = (
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            inspect.Parameter.VAR_POSITIONAL,
        )
        return [each for each in inspect.signature(self.function).parameters.values() if each.kind in kinds]

    @cached_property
    def takes_context(self) -> bool:
        return bool(self._parameters) and self._hints.get(self._parameters[0].name) is LocalContext

    @property
    def result(self) -> Any:
        """The annotated type of its result."""
        return self._annotation("return", "its result")

    @cached_property
    def _result(self) -> TypeAdapter[Any]:
        return TypeAdapter(self.result)

    def _annotation(self, name: str, what: str) -> Any:
        if name not in self._hints:
            raise DefinitionError(f"{self.name}: {what} has no type; annotate it, so that it can be recorded")
        return self._hints[name]

    def _arguments(self, count: int) -> TypeAdapter[Any]:
        """For so many arguments beside the context."""
        adapter = self._by_count.get(count)
        if adapter is None:
            parameters = self._parameters[self.takes_context :]
            if parameters and parameters[-1].kind is inspect.Parameter.VAR_POSITIONAL:
                parameters = [*parameters[:-1], *[parameters[-1]] * (count - len(parameters) + 1)]
            needed = [
                each for each in parameters if each.default is each.empty and each.kind is not each.VAR_POSITIONAL
            ]
            if not len(needed) <= count <= len(parameters):
                most = len(parameters)
                takes = str(most) if len(needed) == most else f"{len(needed)} to {most}"
                raise DefinitionError(f"{self.name} takes {takes} arguments, not {count}")
            types = [self._annotation(each.name, f"parameter {each.name!r}") for each in parameters[:count]]
            shape: Any = tuple.__class_getitem__(tuple(types))
            adapter = self._by_count[count] = TypeAdapter(shape)
        return adapter

    def encode(self, arguments: Sequence[Any]) -> bytes:
        """The arguments as a JSON array. Raises `DefinitionError`, `pydantic.ValidationError`."""
        adapter = self._arguments(len(arguments))
        if self.inbox is not None and not self.takes_context:
            raise DefinitionError(f"{self.name}: a transactional function takes a LocalContext, for its connection")
        self._result  # noqa: B018 - a result without a type is found before the call
        return adapter.dump_json(adapter.validate_python(tuple(arguments)))

    def bind(self, payload: bytes, context: LocalContext) -> list[Any]:
        """What to call it with. Raises `DefinitionError`, `pydantic.ValidationError`."""
        count = len(_ARRAY.validate_json(payload))
        arguments = self._arguments(count).validate_json(payload)
        return [context, *arguments] if self.takes_context else list(arguments)

    def encode_result(self, result: Any) -> bytes:
        """The result as JSON. Raises `pydantic.ValidationError` if it is of another type."""
        return self._result.dump_json(self._result.validate_python(result))

    def problem(self, payload: bytes) -> str | None:
        """Why this is no result of it, None if it is one."""
        return problem_with(self.decode, payload)

    def decode(self, payload: bytes) -> R:
        """The result from its bytes. Raises `pydantic.ValidationError`."""
        result: R = self._result.validate_json(payload or b"null")
        return result


_ARRAY: TypeAdapter[list[Any]] = TypeAdapter(list[Any])
_known: dict[str, LocalFunction[Any]] = {}


def local_function(function: Callable[..., Any]) -> LocalFunction[Any]:
    """The function as local steps know it. Raises `DefinitionError`."""
    name = f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', '')}"
    known = _known.get(name)
    if known is None or known.function is not function:
        known = _known[name] = LocalFunction(function)
    return known


def find_function(name: str) -> LocalFunction[Any]:
    """By the name that the journal has. Raises `DefinitionError` if there is none."""
    if name not in _known:
        module, _, path = name.partition(":")
        try:
            found: Any = import_module(module)
            for part in path.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError, ValueError) as error:
            raise DefinitionError(
                f"there is no function {name}: {error}. While sagas wait for it, it must stand under this name"
            ) from None
        return local_function(found)
    return _known[name]


class LocalFunctions:
    """Implements `definition.Functions`: calls by name, whatever goes wrong is an outcome.

    `stand_ins` are called in place of functions, by the function's name. `watch` is told what they raise.
    """

    def __init__(
        self,
        stand_ins: Mapping[str, Callable[..., Any]] | None = None,
        watch: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self._stand_ins = stand_ins or {}
        self._watch = watch

    def is_async(self, name: str) -> bool:
        try:
            return inspect.iscoroutinefunction(self._stand_ins.get(name) or find_function(name).function)
        except DefinitionError:
            return False  # `perform` says what is wrong

    def perform(self, call: LocalCall) -> Reply:
        try:
            inbox = find_function(call.function).inbox
        except DefinitionError:
            inbox = None  # what is wrong is said below
        if inbox is None or call.function in self._stand_ins:
            return reply_of(call, *self._perform(call))
        ending, _ = inbox.process(
            _message(call), call.since_ms, lambda connection, unsure: self._perform(call, connection)
        )
        if isinstance(ending, Postponed):
            ending = again("Busy", "its outcome is not known yet")
        return reply_of(call, *ending)

    def _perform(self, call: LocalCall, connection: Any = None) -> ReplyMessage:
        try:
            function, arguments = _prepare(call, connection)
            result = (self._stand_ins.get(function.name) or function.function)(*arguments)
        except BaseException as error:  # also SystemExit: a function decides about its step, not about the process
            self._watch(error)
            return reply_to(error)
        return _success(function, result)

    async def perform_async(self, call: LocalCall) -> Reply:
        try:
            function, arguments = _prepare(call)
            result = await (self._stand_ins.get(function.name) or function.function)(*arguments)
        except Exception as error:
            self._watch(error)
            return reply_of(call, *reply_to(error))
        return reply_of(call, *_success(function, result))


def _prepare(call: LocalCall, connection: Any = None) -> tuple[LocalFunction[Any], list[Any]]:
    function = find_function(call.function)
    key = idempotency_key(call.saga_id, call.run, call.sequence, call.direction)
    context = LocalContext(
        call.saga_id,
        call.run,
        call.sequence,
        call.saga_type,
        call.attempt,
        call.direction,
        key,
        call.deadline_ms,
        connection,
    )
    try:
        return function, function.bind(call.payload, context)
    except ValidationError as error:
        # Nothing ran. It is the code that has changed under the saga: a later version may take it again.
        raise DefinitionError(f"{call.function} does not take what the saga passes: {error}") from None


def _message(call: LocalCall) -> CommandMessage:
    """The call as an inbox knows commands. Its deadline is the engine's affair, whose clock is another."""
    return CommandMessage(
        call.saga_id,
        call.run,
        call.saga_type,
        call.function,
        call.sequence,
        call.direction,
        call.attempt,
        idempotency_key(call.saga_id, call.run, call.sequence, call.direction),
        call.payload,
        "",
        -1,
        call.since_ms,
        None,
    )


def _success(function: LocalFunction[Any], result: Any) -> ReplyMessage:
    """A result that cannot be recorded is no failure: the effect is there."""
    try:
        payload = function.encode_result(result)
    except Exception as error:
        return again("BadResult", f"{function.name} returned {type(result).__name__}: {clean(error)}")
    if len(payload) > MAX_BYTES:
        return again("BadResult", f"{function.name} returned {len(payload)} bytes, at most {MAX_BYTES}; a reference")
    return ReplyMessage(Outcome.SUCCESS, payload)


FUNCTIONS = LocalFunctions()


class LocalStep(Generic[R]):
    """A local step, which is scheduled when it is awaited or gathered, not before."""

    __slots__ = ("_function", "_request")

    def __init__(self, function: LocalFunction[R], request: StepRequest) -> None:
        self._function = function
        self._request = request

    def __await__(self) -> Generator[Any, Any, R]:
        payload = yield from Asked(self._request).__await__()
        return self._function.decode(payload or b"")


def undo_payload(undo: LocalFunction[Any], arguments: Sequence[Any]) -> Callable[[bytes | None], bytes]:
    """Of the step's result (None: unknown) the undo's arguments: the result, then those of the step."""
    unknown = undo.encode([None, *arguments])

    def payload_of(result: bytes | None) -> bytes:
        return unknown if result is None else b"[" + result + unknown.removeprefix(b"[null")

    return payload_of


LocalUndo = Callable[[R | None, *Ts], object] | Callable[[LocalContext, R | None, *Ts], object]
"""Undoes a local step from its result (None: unknown) and its arguments, with its context or without."""


class LocalMethods:
    """What a saga's code does by itself. Base of `Saga`."""

    _context: Context

    def _apart(self, function: Callable[[A], R]) -> Callable[[A], R]:
        raise NotImplementedError

    @overload
    def local(
        self,
        function: Callable[[LocalContext, *Ts], Coroutine[Any, Any, R]],
        *arguments: *Ts,
        undo: LocalUndo[R, *Ts] | None = None,
        pivot: bool = False,
        retry: Retry | None = None,
        undo_retry: Retry | None = None,
        start_to_close: Duration | None = None,
        schedule_to_close: Duration | None = None,
    ) -> LocalStep[R]: ...
    @overload
    def local(
        self,
        function: Callable[[*Ts], Coroutine[Any, Any, R]],
        *arguments: *Ts,
        undo: LocalUndo[R, *Ts] | None = None,
        pivot: bool = False,
        retry: Retry | None = None,
        undo_retry: Retry | None = None,
        start_to_close: Duration | None = None,
        schedule_to_close: Duration | None = None,
    ) -> LocalStep[R]: ...
    @overload
    def local(
        self,
        function: Callable[[LocalContext, *Ts], R],
        *arguments: *Ts,
        undo: LocalUndo[R, *Ts] | None = None,
        pivot: bool = False,
        retry: Retry | None = None,
        undo_retry: Retry | None = None,
        start_to_close: Duration | None = None,
        schedule_to_close: Duration | None = None,
    ) -> LocalStep[R]: ...
    @overload
    def local(
        self,
        function: Callable[[*Ts], R],
        *arguments: *Ts,
        undo: LocalUndo[R, *Ts] | None = None,
        pivot: bool = False,
        retry: Retry | None = None,
        undo_retry: Retry | None = None,
        start_to_close: Duration | None = None,
        schedule_to_close: Duration | None = None,
    ) -> LocalStep[R]: ...
    def local(  # type: ignore[misc]  # mypy does not see that *arguments takes any *Ts
        self,
        function: Callable[..., Any],
        *arguments: Any,
        undo: Callable[..., Any] | None = None,
        pivot: bool = False,
        retry: Retry | None = None,
        undo_retry: Retry | None = None,
        start_to_close: Duration | None = None,
        schedule_to_close: Duration | None = None,
    ) -> LocalStep[Any]:
        """Calls a function in the saga's own worker, with one recorded outcome. Awaiting it gives the result.

        The function is plain (it runs in a thread) or async, stands at the top of a module, and may run again with the
        same idempotency key after a crash. A first parameter annotated `LocalContext` gets what it may know. `undo` is
        called with the result (None: unknown) and the same arguments. The rest is as in `step`. Awaiting raises
        `StepFailed`.
        """
        retry_if = None if retry is None or retry.predicate is None else self._apart(retry.predicate)
        times = (retry, undo_retry, start_to_close, schedule_to_close, retry_if)
        return LocalStep(*local_request(function, arguments, undo, pivot, *times))

    def side_effect(self, make: Callable[[], R], *, returns: type[R]) -> R:
        """What `make` gives: it is called once, and every replay gets the recorded value. No pause.

        For what is quick and would be another value each time, such as a number drawn. `returns` is the value's type,
        which pydantic must be able to write as JSON. Raises `DefinitionError` for an async function.
        """
        name = getattr(make, "__name__", type(make).__name__)
        if inspect.iscoroutinefunction(make):
            raise DefinitionError(f"{name} is async: await self.local({name}) instead")
        adapter: TypeAdapter[R] = TypeAdapter(returns)
        recorded = self._context.record(
            StepKind.VALUE, name, lambda: adapter.dump_json(adapter.validate_python(make()))
        )
        return adapter.validate_json(recorded)


def local_request(
    function: Callable[..., Any],
    arguments: Sequence[Any],
    undo: Callable[..., Any] | None,
    pivot: bool,
    retry: Retry | None,
    undo_retry: Retry | None,
    start_to_close: Duration | None,
    schedule_to_close: Duration | None,
    retry_if: Callable[[FailedAttempt], bool] | None,
) -> tuple[LocalFunction[Any], StepRequest]:
    """The step that a call of `local` asks for. Raises `DefinitionError`, `pydantic.ValidationError`."""
    called = local_function(function)
    undone = None if undo is None else local_function(undo)
    if pivot and undo is not None:
        raise DefinitionError(f"{called.name}: a pivot has no undo")
    request = StepRequest(
        "",
        called.name,
        called.encode(arguments),
        None if undone is None else undone.name,
        None if undone is None else undo_payload(undone, arguments),
        pivot,
        None if start_to_close is None else milliseconds(start_to_close),
        None if schedule_to_close is None else milliseconds(schedule_to_close),
        None if retry is None else retry.policy(),
        None if undo_retry is None else undo_retry.policy(undo=True),
        retry_if=retry_if,
        kind=StepKind.LOCAL,
        problem=called.problem,
    )
    return called, request
