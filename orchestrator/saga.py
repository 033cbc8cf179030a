"""Sagas as Python classes.

Code style: `async def run` awaits steps, sleeps and groups; declarative style: see `orchestrator.plan`. Both compile to
one `model.definition.Definition`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from functools import partial
from typing import Any, ClassVar, Generic, Literal, NoReturn, TypeVar, overload

from pydantic import BaseModel, TypeAdapter

from orchestrator.attributes import NoteMethods, attributes_of
from orchestrator.children import ChildAwaitable
from orchestrator.choices import chosen
from orchestrator.durations import Duration, milliseconds
from orchestrator.errors import ContinueAsNew, DefinitionError
from orchestrator.functions import FUNCTIONS, LocalMethods
from orchestrator.groups import Groups
from orchestrator.interceptors import Around, read_around
from orchestrator.locks import LockMethods
from orchestrator.migrations import PastRun
from orchestrator.model.definition import ChildRequest, Context, Definition, StepRequest, UndoPayload
from orchestrator.model.driver import Asked
from orchestrator.model.messages import ChildCancellation, ParentClose, Reuse
from orchestrator.others import OtherMethods
from orchestrator.promises import Promise
from orchestrator.questions import Query, Update, ask, carry_out, refuse
from orchestrator.repeatable import RepeatableMethods
from orchestrator.retry import Retry as Retry
from orchestrator.service import Call, Command, Named
from orchestrator.signals import Declared, Signal, declared_by, problem_with
from orchestrator.streams import Stream, StreamMethods
from orchestrator.tasks import UPDATES as TASK_UPDATES
from orchestrator.tasks import TaskMethods
from orchestrator.waits import WaitMethods

I = TypeVar("I")  # noqa: E741 - input, beside O for output
O = TypeVar("O")  # noqa: E741
M = TypeVar("M", bound=BaseModel)
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")
S = TypeVar("S")

Undo = Named[M, Any] | Call[Any, Any] | Callable[[R | None], Call[Any, Any]]
"""A command of the same service with the same request, a call, or a function from the reply (None: unknown)."""


_ANY: TypeAdapter[Any] = TypeAdapter(Any)
SUGGEST_AFTER_OUTCOMES = 4_000
"""A replay of so many takes some tens of milliseconds."""


class StepAwaitable(Generic[R]):
    """A step that is scheduled when it is awaited or gathered, not before."""

    __slots__ = ("_command", "_request")

    def __init__(self, command: Command[..., Any, R], request: StepRequest) -> None:
        self._command = command
        self._request = request

    def __await__(self) -> Generator[Any, Any, R]:
        payload = yield from Asked(self._request).__await__()
        return self._command.decode(payload or b"")


class Saga(
    Groups,
    RepeatableMethods,
    WaitMethods,
    NoteMethods,
    StreamMethods,
    TaskMethods,
    LocalMethods,
    OtherMethods,
    LockMethods,
    Generic[I, O],
):
    """Base of sagas: `class OrderFulfilment(Saga[Order, str])`, an input type and a result type.

    Class arguments: `name` (the saga type on the wire, default the class's name), `execution_timeout` (seconds or
    timedelta from the beginning to the end, over all runs that continue it; then the saga is cancelled and undone with
    status TIMED_OUT), `run_timeout` (the same for each of its runs), `around` (what stands around its code, the first
    outermost; see `orchestrator.interceptors`), `locks` (from the input the keys that it holds from beginning to end;
    see `lock`).
    """

    definition: ClassVar[Definition]
    """The compiled form."""

    _input: ClassVar[TypeAdapter[Any]]
    _output: ClassVar[TypeAdapter[Any]]
    _around: ClassVar[tuple[Around, ...]] = ()
    _locks: ClassVar[Callable[[Any], Iterable[str]] | None] = None
    _queries: ClassVar[dict[str, Query[..., Any]]]
    _updates: ClassVar[dict[str, Update[..., Any]]]

    def __init_subclass__(
        cls,
        name: str | None = None,
        execution_timeout: Duration | None = None,
        run_timeout: Duration | None = None,
        around: Sequence[Around] | None = None,
        version: int = 1,
        pinned: bool = False,
        locks: Callable[[Any], Iterable[str]] | None = None,
    ) -> None:
        super().__init_subclass__()
        takes, gives = _types_of(cls)
        cls._input, cls._output = TypeAdapter(takes), TypeAdapter(gives)
        if around is not None:
            cls._around = read_around(cls.__name__, around)
        if locks is not None:
            cls._locks = staticmethod(locks)
        _check_names(cls)
        cls._attributes = attributes_of(cls)
        cls._signals = declared_by(cls, Signal)
        cls._promises = declared_by(cls, Promise)
        cls._streams = declared_by(cls, Stream)
        cls._queries = declared_by(cls, Query)
        cls._updates = {**TASK_UPDATES, **declared_by(cls, Update)}
        from orchestrator.plan import compile_plan  # declarative style builds on this module

        plan = compile_plan(cls)
        if plan is None and cls.run is Saga.run:
            raise DefinitionError(f"{cls.__name__} has neither `async def run` nor declared steps")
        cls.definition = Definition(
            name or cls.__name__,
            cls._body,
            cls._check_input,
            cls._check_signal,
            None if execution_timeout is None else milliseconds(execution_timeout),
            None if run_timeout is None else milliseconds(run_timeout),
            plan.commands if plan is not None else (),
            FUNCTIONS,
            version,
            pinned,
            check_promise=cls._check_promise,
            query=partial(ask, cls._queries),
            check_update=partial(refuse, cls._updates),
            update=partial(carry_out, cls._updates),
            migrate=None if cls.migrate.__func__ is Saga.migrate.__func__ else cls._migrate,  # type: ignore[attr-defined]
        )
        if plan is not None:
            cls.run = plan.run  # type: ignore[method-assign]

    async def run(self, input: I, /) -> O:
        """The saga itself. Everything it awaits comes from `self`."""
        raise NotImplementedError

    @overload
    def step(
        self,
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
    ) -> StepAwaitable[R]: ...
    @overload
    def step(
        self,
        call: Call[M, R],
        *,
        pivot: Literal[True],
        retry: Retry | None = None,
        start_to_close: Duration | None = None,
        schedule_to_close: Duration | None = None,
        schedule_to_start: Duration | None = None,
        heartbeat: Duration | None = None,
        spread: bool = False,
    ) -> StepAwaitable[R]: ...
    def step(
        self,
        call: Call[M, R],
        *,
        undo: Undo[M, R] | None = None,
        pivot: bool = False,
        retry: Retry | None = None,
        undo_retry: Retry | None = None,
        start_to_close: Duration | None = None,
        schedule_to_close: Duration | None = None,
        schedule_to_start: Duration | None = None,
        heartbeat: Duration | None = None,
        spread: bool = False,
    ) -> StepAwaitable[R]:
        """One command to one service, with one recorded outcome. Awaiting it gives the reply.

        `undo` reverses it when the saga fails later. `pivot`: after it only forward is possible; it has no undo. Times:
        `start_to_close` for one attempt, `schedule_to_close` for all of them, `schedule_to_start` until a participant
        begins one, `heartbeat` between two signs of life of its handler; without them an attempt waits as long as it
        takes. `spread` puts the command on a partition of its own instead of the saga's: for wide fan-outs.
        Awaiting raises `StepFailed`.
        """
        if not isinstance(call, Call):
            raise DefinitionError(f"a step is a command with its request, such as {call!r}(...), not {call!r}")
        command = call.command
        if undo is not None and not isinstance(undo, Named | Call):
            undo = self._apart(undo)
        undo_command, undo_payload = compile_undo(command, undo)
        if pivot and undo is not None:
            raise DefinitionError(f"{command!r}: a pivot has no undo")
        request = StepRequest(
            command.service,
            command.name,
            call.payload(),
            undo_command,
            undo_payload,
            pivot,
            None if start_to_close is None else milliseconds(start_to_close),
            None if schedule_to_close is None else milliseconds(schedule_to_close),
            None if retry is None else retry.policy(),
            None if undo_retry is None else undo_retry.policy(undo=True),
            spread,
            None if schedule_to_start is None else milliseconds(schedule_to_start),
            None if heartbeat is None else milliseconds(heartbeat),
            None if retry is None or retry.predicate is None else self._apart(retry.predicate),
            problem=command.problem,
        )
        for around in reversed(self._around):
            request = around.step(self, request)
        return StepAwaitable(command, request)

    def child(
        self,
        saga: type[Saga[A, B]],
        input: A,
        *,
        id: str | None = None,
        undo: bool = True,
        parent_close: ParentClose = ParentClose.TERMINATE,
        cancellation: ChildCancellation = ChildCancellation.WAIT_CANCELLATION_COMPLETED,
        reuse: Reuse | None = None,
    ) -> ChildAwaitable[B]:
        """Another saga as a step of this one: awaiting it gives its result, `StepFailed` if it does not complete.

        It is undone with this saga, as a step is, unless `undo` is False. Without an `id` it gets one of its own; an id
        that is taken fails the step, unless `reuse` says otherwise. `cancellation`: what becomes of it when this saga
        is cancelled meanwhile; `parent_close`: when it is terminated.
        """
        parent_close = chosen(ParentClose, parent_close, "parent_close")
        cancellation = chosen(ChildCancellation, cancellation, "cancellation")
        reuse = None if reuse is None else chosen(Reuse, reuse, "reuse")
        if undo and cancellation is ChildCancellation.ABANDON:
            raise DefinitionError(f"child {saga.__name__}: what is left to itself cannot be undone; pass undo=False")
        request = ChildRequest(
            saga.definition.name,
            saga.encode_input(input),
            id,
            undo,
            parent_close,
            cancellation,
            reuse,
            problem=saga.result_problem,
        )
        return ChildAwaitable(saga, request, self._context)

    def start_child(
        self,
        saga: type[Saga[A, Any]],
        input: A,
        *,
        id: str | None = None,
        parent_close: ParentClose = ParentClose.ABANDON,
        reuse: Reuse | None = None,
    ) -> None:
        """Starts another saga and does not wait for it; it is not undone.

        `parent_close`: what becomes of it when this saga ends. Where this one fails or is cancelled, and the other is
        not to be left alone, it is asked to stop and undoes what it did.
        """
        parent_close = chosen(ParentClose, parent_close, "parent_close")
        reuse = None if reuse is None else chosen(Reuse, reuse, "reuse")
        abandons = parent_close is ParentClose.ABANDON
        cancellation = ChildCancellation.ABANDON if abandons else ChildCancellation.TRY_CANCEL
        payload = saga.encode_input(input)
        self._context.begin(ChildRequest(saga.definition.name, payload, id, False, parent_close, cancellation, reuse))

    def continue_as_new(self, input: I) -> NoReturn:
        """Ends this run and starts the saga's next one with `input`: for sagas that go on for months.

        What this run did is not undone any more; its effects happen again in the next run, under new keys. Who waits
        for the result waits for the next run's, and signals that were not asked for come to it.
        """
        raise ContinueAsNew(self.encode_input(input))

    @property
    def suggests_continue_as_new(self) -> bool:
        """Whether the history has grown so long that a new run would be better, from 4,000 outcomes on."""
        return self._context.outcomes >= SUGGEST_AFTER_OUTCOMES

    @classmethod
    def migrate(cls, past: PastRun) -> I | None:
        """The input with which this version's code takes over a run of an older one: for sagas that override it.

        It is asked when such a run next goes on and none of its steps is in flight. The code then begins in another run
        of the id with that input; what was done before is undone with it if it fails, signals and who waits come along,
        waits and timers do not. None: it repeats what was done, as without this method. It must not look at anything
        but `past`; what it raises parks the saga.
        """
        return None

    @classmethod
    def _migrate(cls, version: int, payload: bytes, done: tuple[tuple[str, str, bytes], ...]) -> bytes | None:
        migrated = cls.migrate(PastRun(version, _ANY.validate_json(payload), done))
        return None if migrated is None else cls.encode_input(migrated)

    @classmethod
    async def _body(cls, context: Context, payload: bytes) -> bytes:
        saga = cls()
        saga._context = context
        context.subject = saga
        run: Callable[[Any], Awaitable[Any]] = saga.run
        for around in reversed(cls._around):
            run = partial(around.run, saga, go_on=run)
        input = cls._input.validate_json(payload)
        if cls._locks is not None and (keys := _keys(cls._locks(input))):
            await saga.lock(*keys)
        return cls.encode_result(await run(input))

    @classmethod
    def _check_input(cls, payload: bytes) -> str | None:
        return problem_with(cls._input.validate_json, payload)

    @classmethod
    def _check_signal(cls, name: str, payload: bytes) -> str | None:
        declared = cls._signals.get(name.partition("/")[0])
        if declared is None:
            known = ", ".join(cls._signals) or "none"
            return f"{cls.definition.name} has no signal {name[:40]!r}; its signals: {known}"
        problem = declared.problem(payload)
        return None if problem is None else f"the signal {name} does not fit: {problem}"

    @classmethod
    def _check_promise(cls, name: str, payload: bytes | None) -> str | None:
        declared = cls._promises.get(name.partition("/")[0])
        if declared is None:
            known = ", ".join(cls._promises) or "none"
            return f"{cls.definition.name} has no promise {name[:40]!r}; its promises: {known}"
        problem = None if payload is None else declared.problem(payload)
        return None if problem is None else f"the result of the promise {name} does not fit: {problem}"

    @classmethod
    def encode_input(cls, value: I) -> bytes:
        """The start command's value: JSON in UTF-8. Raises `pydantic.ValidationError`."""
        return cls._input.dump_json(cls._input.validate_python(value))

    @classmethod
    def encode_result(cls, value: O) -> bytes:
        """A result as bytes. Raises `pydantic.ValidationError`."""
        return cls._output.dump_json(cls._output.validate_python(value))

    @classmethod
    def result_problem(cls, payload: bytes) -> str | None:
        """Why this is no result of it, None if it is one."""
        return problem_with(cls.decode_result, payload)

    @classmethod
    def decode_result(cls, payload: bytes) -> O:
        """The result from its bytes. Raises `pydantic.ValidationError`."""
        result: O = cls._output.validate_json(payload or b"null")
        return result


def compile_undo(command: Command[..., Any, Any], undo: Any) -> tuple[str | None, bytes | UndoPayload | None]:
    """The undo's command name and its payload (None: the step's own, or a function of the reply's bytes).

    Raises `DefinitionError` where the undo is of another service or takes another request.
    """
    if undo is None:
        return None, None
    if isinstance(undo, Command):
        check_service(command, undo)
        if undo.request is not command.request:
            raise DefinitionError(
                f"{undo!r} cannot undo {command!r} as it is: it takes {undo.request.__name__}, not "
                f"{command.request.__name__}; pass a call or a function of the reply"
            )
        return undo.name, None
    if isinstance(undo, Call):
        check_service(command, undo.command)
        return undo.command.name, undo.payload()
    unknown: Call[Any, Any] = _call(undo(None), command)
    check_service(command, unknown.command)

    def payload_of(reply: bytes | None) -> bytes:
        if reply is None:
            return unknown.payload()
        call: Call[Any, Any] = _call(undo(command.decode(reply)), command)
        if call.command is not unknown.command:
            raise DefinitionError(
                f"the undo of {command!r} is sometimes {unknown.command!r}, sometimes {call.command!r}"
            )
        return call.payload()

    return unknown.command.name, payload_of


def _call(found: Any, command: Command[..., Any, Any]) -> Call[Any, Any]:
    if not isinstance(found, Call):
        raise DefinitionError(
            f"the undo of {command!r} gives {found!r}: a function of the reply gives a call, such as "
            "`lambda reply: Payments.refund(...)`, also where the reply is None"
        )
    return found


def _keys(found: Iterable[str]) -> tuple[str, ...]:
    """What a class says it locks. A text alone would be locked letter by letter."""
    if isinstance(found, str):
        raise DefinitionError(f"`locks` gives a list of keys, not the text {found!r}: write [{found!r}]")
    return tuple(found)


def check_service(command: Command[..., Any, Any], undo: Command[..., Any, Any]) -> None:
    """Raises `DefinitionError` where an undo is of another service."""
    if undo.service != command.service:
        raise DefinitionError(
            f"{undo!r} cannot undo {command!r}: only the same service can keep do and undo of one step in order"
        )


def _check_names(cls: type) -> None:
    """Raises `DefinitionError` where something that is declared would hide what every saga has, such as `step`."""
    for name, value in vars(cls).items():
        if isinstance(value, Declared | Query | Update | Stream) and hasattr(Saga, name):
            raise DefinitionError(f"{cls.__name__}.{name} would hide `Saga.{name}`: give it another name")


def _types_of(cls: type) -> tuple[Any, Any]:
    for base in getattr(cls, "__orig_bases__", ()):
        origin = getattr(base, "__origin__", None)
        if origin is Saga:
            takes, gives = base.__args__
            return takes, gives
    for base in cls.__mro__[1:]:
        if "_input" in vars(base):
            return vars(base)["_input"]._type, vars(base)["_output"]._type
    raise DefinitionError(f"{cls.__name__}: name the input and result types, as in Saga[Order, str]")
