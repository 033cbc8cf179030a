"""The handlers of one service: how they are registered, called, and how their ends become outcomes."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Protocol, TypeVar, overload

from pydantic import BaseModel, TypeAdapter, ValidationError

from orchestrator.baggage import read_baggage
from orchestrator.errors import DefinitionError, InvalidRequest, Pending
from orchestrator.model.ids import Direction
from orchestrator.model.messages import Outcome
from orchestrator.participant.providing import Needs, PerCall, Providers, needs_of
from orchestrator.participant.rules import Answer, Ignore, Reject, soften
from orchestrator.participant.work import Work
from orchestrator.service import Command, Service
from orchestrator.wire import headers as h
from orchestrator.wire.commands import CommandMessage, Ending, Postponed, ReplyMessage
from orchestrator.wire.completions import write_token
from orchestrator.wire.endings import clean, reply_to, retry

M = TypeVar("M", bound=BaseModel)
R = TypeVar("R")
D = TypeVar("D")

_MAX_COMPLAINTS = 5
_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)


@dataclass(frozen=True, slots=True)
class HandlerContext:
    """What a handler may know besides its request, as its second parameter.

    `step` is the step's sequence in its run. `deadline_ms`: until when the saga waits for this attempt, milliseconds
    since 1970; None: for ever. `connection`: with an SQL inbox the open transaction, which the handler must not end.
    `baggage`: what the saga was started with, such as a tenant.
    """

    saga_id: str
    run: str
    step: int
    saga_type: str
    attempt: int
    direction: Direction
    idempotency_key: str
    deadline_ms: int | None
    traceparent: str | None
    connection: Any = None
    baggage: Mapping[str, str] = field(default_factory=dict)
    make_token: Callable[[], str] = field(default=str, repr=False, compare=False)
    tell: Callable[[bytes], None] = field(default=lambda details: None, repr=False, compare=False)
    details: str = ""

    @property
    def token(self) -> str:
        """Completes this command later, by `Client.complete` or `Client.fail`, once the handler raised `Pending`.

        That of any attempt will do. A secret: whoever has it decides how the step ends.
        """
        return self.make_token()

    def heartbeat(self, details: Any = None) -> None:
        """Says that the handler is alive and, by `details` (JSON, at most 4 KiB), how far it got.

        It goes to the saga if the step has a `heartbeat` timeout, at most three times per timeout, else nowhere. Call
        it at least twice per timeout. Raises `InvalidRequest` for details that are too large or no JSON.
        """
        if details is None:
            self.tell(b"")
            return
        try:
            payload = _ANYTHING.dump_json(details)
        except ValueError as error:
            raise InvalidRequest(f"the heartbeat's details cannot be written as JSON: {error}") from None
        if len(payload) > h.MAX_DETAILS_BYTES:
            raise InvalidRequest(
                f"the heartbeat's details have {len(payload)} bytes, at most {h.MAX_DETAILS_BYTES}; keep them elsewhere"
            )
        self.tell(payload)

    def heartbeat_details(self, kind: type[D]) -> D | None:
        """How far an earlier attempt got, None if it said nothing. Raises `pydantic.ValidationError`."""
        return None if not self.details else TypeAdapter(kind).validate_json(self.details)


class Inbox(Protocol):
    """A memory that commits an outcome together with the handler's effect, such as `connectors.sql.SqlInbox`."""

    def prepare(self) -> None:
        """Called before the first command. Raises if commands could not be processed."""

    def process(
        self, command: CommandMessage, appended_ms: int, perform: Callable[[Any, bool], Ending]
    ) -> tuple[Ending, bool]:
        """Answers from memory, or calls `perform(connection, unsure)` in a transaction; never raises.

        Returns the reply, or that none is due yet, and whether the handler ran. Called from several threads at once.
        """

    def complete(self, command: CommandMessage) -> Answer | Ignore | Reject:
        """Records how pending work ended, and says what is to be told of it. May raise: it is called again."""

    def close(self) -> None:
        """Called after the last command."""


Around = Callable[[Any, HandlerContext], AbstractContextManager[None]]
"""What is entered around a handler: `@contextmanager` on a generator of (request, context)."""


class Registration(Generic[M, R]):
    """What `Participant.handles` returns: the decorator for one command's handler, sync or async."""

    def __init__(self, participant: Participant, command: Command[..., M, R]) -> None:
        self._participant = participant
        self._command = command

    @overload
    def __call__(self, function: Callable[[M], Awaitable[R]]) -> Callable[[M], Awaitable[R]]: ...
    @overload
    def __call__(self, function: Callable[[M], R]) -> Callable[[M], R]: ...
    @overload
    def __call__(
        self, function: Callable[[M, HandlerContext], Awaitable[R]]
    ) -> Callable[[M, HandlerContext], Awaitable[R]]: ...
    @overload
    def __call__(self, function: Callable[[M, HandlerContext], R]) -> Callable[[M, HandlerContext], R]: ...
    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        self._participant.register(self._command, function)
        return function


@dataclass(frozen=True, slots=True)
class Handler:
    """A registered function."""

    command: Command[..., Any, Any]
    function: Callable[..., Any]
    takes_context: bool
    is_async: bool
    needs: Needs
    """What is provided for its other parameters."""


class Participant:
    """The handlers of one service.

    `participant = Participant(Payments)`, then `@participant.handles(Payments.charge)` on a function of the request, or
    of the request and a `HandlerContext`. With an `inbox` its outcomes are kept in the service's own database, else in
    the topic `<service>.ledger`. `provide`: what handlers may `inject` (see `orchestrator.participant.providing`).
    `around`: entered around every call of a handler, the first one outermost; each a function of the request and the
    `HandlerContext` that gives a context manager, never an async one. Raises `DefinitionError` for what is declared
    wrongly.
    """

    def __init__(
        self,
        service: type[Service],
        *,
        inbox: Inbox | None = None,
        provide: Iterable[Callable[..., Any] | PerCall] = (),
        around: Iterable[Around] = (),
    ) -> None:
        self.service = service
        self.inbox = inbox
        self.providers = Providers(provide, (HandlerContext,))
        self.around = tuple(map(_check_around, around))
        self.handlers: dict[str, Handler] = {}

    def handles(self, command: Command[..., M, R]) -> Registration[M, R]:
        """Registers the decorated function for `command`. Raises `DefinitionError`."""
        return Registration(self, command)

    def register(self, command: Command[..., Any, Any], function: Callable[..., Any]) -> None:
        """As `handles`, without a decorator. Raises `DefinitionError`."""
        if self.service.commands.get(command.name) is not command:
            raise DefinitionError(f"{command!r} is no command of {self.service.__name__}")
        if command.name in self.handlers:
            raise DefinitionError(f"{command!r} has a handler already: {_name(self.handlers[command.name].function)}")
        is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - an object whose __call__ is async
        )
        if is_async and self.inbox is not None:
            raise DefinitionError(
                f"{_name(function)}: a handler with an SQL inbox must be a plain function, for it works in the inbox's "
                "transaction"
            )
        needs = needs_of(function)
        self.providers.check(_name(function), needs)
        self.handlers[command.name] = Handler(command, function, _parameters(function) == 2, is_async, needs)

    def override(self, values: Mapping[type, Any]) -> AbstractContextManager[None]:
        """In a test: `with payments.override({Database: fake}):` handlers get these instead of what is provided."""
        return self.providers.override(values)

    def close(self) -> None:
        """Ends what was provided to handlers. Whoever runs the participant calls it after the last command."""
        self.providers.close()

    def check(self) -> None:
        """Raises `DefinitionError` if a command of the service has no handler."""
        missing = sorted(self.service.commands.keys() - self.handlers.keys())
        if missing:
            raise DefinitionError(f"{self.service.__name__} has no handler for {', '.join(missing)}")

    def is_async(self, work: Work) -> bool:
        """Whether the command's handler is to be awaited."""
        handler = self.handlers.get(work.command.command_type)
        return handler is not None and handler.is_async

    def perform(self, work: Work, connection: Any = None, unsure: bool | None = None) -> Ending:
        """Runs the handler to its end and says what to answer, or that its work goes on; never raises.

        An async handler must get by without an event loop, as in a simulation; `perform_async` is for all others.
        """
        prepared = self._prepare(work, connection, work.unsure if unsure is None else unsure)
        if isinstance(prepared, ReplyMessage):
            return prepared
        handler, call = prepared
        try:
            result = call()
            if inspect.iscoroutine(result):
                result = _drive(result)
        except Pending:
            return Postponed(work.command.reply_token)
        except BaseException as error:  # also SystemExit: a handler decides about its command, not about the process
            return reply_to(error)
        return _success(handler, result)

    async def perform_async(self, work: Work, limit_s: float) -> Ending:
        """Likewise for an async handler, which is cancelled after `limit_s` seconds."""
        prepared = self._prepare(work, None, work.unsure)
        if isinstance(prepared, ReplyMessage):
            return prepared
        handler, call = prepared
        try:
            async with asyncio.timeout(limit_s) as limit:
                result = await call()
        except Pending:
            return Postponed(work.command.reply_token)
        except BaseException as error:
            if limit.expired():
                return retry("HandlerTimeout", f"cancelled after {limit_s:g} s")
            return reply_to(error)
        return _success(handler, result)

    def _prepare(self, work: Work, connection: Any, unsure: bool) -> ReplyMessage | tuple[Handler, Callable[[], Any]]:
        """The handler and its call, or the answer to a command for which none will run.

        That answer is a failure, for nothing ran; where an earlier execution may have had an effect, `retry`.
        """
        command = work.command
        handler = self.handlers.get(command.command_type)
        if handler is None:
            reply = ReplyMessage(
                Outcome.FAILURE,
                error_type="UnknownCommand",
                error_message=f"{self.service.name} has no command {command.command_type[:100]!r}",
            )
            return soften(reply) if unsure else reply
        try:
            request = handler.command.request.model_validate_json(command.payload)
        except ValidationError as error:
            reply = ReplyMessage(Outcome.FAILURE, error_type="BadRequest", error_message=_complaint(error))
            return soften(reply) if unsure else reply
        if handler.needs or self.around:
            call = self._around_async if handler.is_async else self._around
            return handler, partial(call, handler, request, self._context(work, connection))
        if handler.takes_context:
            return handler, partial(handler.function, request, self._context(work, connection))
        return handler, partial(handler.function, request)

    def _around(self, handler: Handler, request: BaseModel, context: HandlerContext) -> Any:
        with ExitStack() as scope:
            return self._enter(handler, request, context, scope)()

    async def _around_async(self, handler: Handler, request: BaseModel, context: HandlerContext) -> Any:
        with ExitStack() as scope:
            return await self._enter(handler, request, context, scope)()

    def _enter(
        self, handler: Handler, request: BaseModel, context: HandlerContext, scope: ExitStack
    ) -> Callable[[], Any]:
        """The handler's call, with all that is around it entered and all that it needs."""
        for around in self.around:
            scope.enter_context(around(request, context))
        provided = self.providers.values(handler.needs, {HandlerContext: context}, scope)
        if handler.takes_context:
            return partial(handler.function, request, context, **provided)
        return partial(handler.function, request, **provided)

    def _context(self, work: Work, connection: Any) -> HandlerContext:
        command = work.command
        return HandlerContext(
            command.saga_id,
            command.run,
            command.sequence,
            command.saga_type,
            command.attempt,
            command.direction,
            command.idempotency_key,
            command.deadline_ms,
            command.traceparent,
            connection,
            read_baggage(command.baggage),
            lambda: write_token(self.service.name, work.record.partition, command),
            work.tell,
            command.details,
        )


def _success(handler: Handler, result: Any) -> ReplyMessage:
    """The reply that a handler returned. One of the wrong type is no failure: the effect is there."""
    try:
        return ReplyMessage(Outcome.SUCCESS, handler.command.encode(result))
    except Exception as error:
        complaint = _complaint(error) if isinstance(error, ValidationError) else str(error)
        return retry("BadReply", f"{_name(handler.function)} returned {type(result).__name__}: {complaint}")


def _complaint(error: ValidationError) -> str:
    """What is wrong where, without the values, which may be nobody's business."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [f"{'.'.join(map(str, each['loc'])) or 'value'}: {each['msg']}" for each in found[:_MAX_COMPLAINTS]]
    return clean("; ".join(lines))


def _drive(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise RuntimeError("the handler waits for something, and there is no event loop here")


def _parameters(function: Callable[..., Any]) -> int:
    """1: takes the request, 2: the context too. Raises `DefinitionError`."""
    required = most = 0
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            most += 1
            required += parameter.default is parameter.empty
        elif parameter.kind is parameter.VAR_POSITIONAL:
            most = max(most, 2)
        elif parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
            required = most = 3
    if required > 2 or most < 1:
        raise DefinitionError(f"{_name(function)}: a handler takes the request, or the request and a HandlerContext")
    return 2 if required == 2 or (required == 0 and most == 2) else 1


def _check_around(around: Around) -> Around:
    """Raises `DefinitionError` for what gives no context manager, as far as one can see before it is called."""
    bare = inspect.isgeneratorfunction(around)
    made = inspect.unwrap(around)
    if bare or inspect.isasyncgenfunction(made) or inspect.iscoroutinefunction(made) or not callable(around):
        raise DefinitionError(
            f"{_name(around)}: around=[...] takes plain functions of the request and the HandlerContext that give a "
            "context manager, also around async handlers: write @contextmanager on a generator function, without async"
        )
    return around


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", None) or repr(function)
