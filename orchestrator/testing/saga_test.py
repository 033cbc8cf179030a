"""What a test says about a saga and its services, before it runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

from pydantic import BaseModel

from orchestrator.baggage import write_baggage
from orchestrator.durations import Duration, milliseconds
from orchestrator.entities import Entity, Operation, entity_id
from orchestrator.errors import DefinitionError
from orchestrator.functions import local_function
from orchestrator.lint import check
from orchestrator.model import messages as msg
from orchestrator.model.events import Recorded, Status, StepKind
from orchestrator.model.messages import Outcome
from orchestrator.participant import HandlerContext, Participant
from orchestrator.promises import Promise
from orchestrator.questions import Update
from orchestrator.saga import Saga
from orchestrator.service import Command
from orchestrator.signals import Signal
from orchestrator.testing.end import End
from orchestrator.testing.entities import EntityTest
from orchestrator.testing.flights import Happening, Sent
from orchestrator.testing.operating import BY
from orchestrator.testing.running import Awaited, OpenTask, Running, filled_in, waits_for
from orchestrator.testing.services import ChildEnding, Script, Scripted, Services
from orchestrator.testing.world import MAX_INPUTS, World
from orchestrator.wire.commands import ReplyMessage

I = TypeVar("I")  # noqa: E741 - input, beside O for output
O = TypeVar("O")  # noqa: E741
M = TypeVar("M", bound=BaseModel)
P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
N = TypeVar("N", bound=Entity[Any])

START = datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC)
"""When a test's saga is started, unless it says otherwise."""

Make = Callable[[str, str], msg.Input]
"""An input, from the saga id and the message id."""


@dataclass(frozen=True, slots=True)
class Planned:
    """An input that a test announces: `after_ms` after the start, or after the saga has begun to wait for `awaited`."""

    make: Make
    words: str
    after_ms: int = 0
    awaited: Command[..., Any, Any] | Signal[Any] | Awaited | OpenTask | None = None
    attempt: int = 1
    once: bool = False
    """Of several for the same one only the first, the others for the next."""

    def matches(self, happening: Happening) -> bool:
        if isinstance(happening, Sent):
            return happening.command is self.awaited and happening.attempt == self.attempt
        if isinstance(happening, Recorded):
            return isinstance(self.awaited, OpenTask) and self.awaited.is_opened_by(happening)
        return isinstance(self.awaited, Signal | Awaited) and waits_for(happening.kind, happening.name, self.awaited)


@dataclass(slots=True)
class SagaTest(Generic[I, O]):
    """`SagaTest(OrderFulfilment).service(inventory, shipping).fail(Payments.charge, "CardDeclined").run(order)`.

    Services are a participant's own handlers, functions, or recorded answers; answers come before handlers. Several
    answers for one command are given in their order; then its handler goes on, or without one the last answer stays. A
    command without a reply needs no answer. Time skips by itself, and the code is replayed before every outcome, in
    long runs at growing distances.
    """

    saga: type[Saga[I, O]]
    _script: Script = field(default_factory=Script)
    _planned: list[Planned] = field(default_factory=list)
    _baggage: dict[str, str] = field(default_factory=dict)
    _delay_ms: int | None = None
    _max_inputs: int = MAX_INPUTS
    _replaying: bool = True

    # -- given

    def baggage(self, **values: str) -> Self:
        """What the saga is started with beside its input, such as `.baggage(tenant="acme")`."""
        self._baggage.update(values)
        return self

    def delayed(self, start_delay: Duration) -> Self:
        """The saga begins so long after it was started. Its times count from the start."""
        self._delay_ms = milliseconds(start_delay)
        return self

    def limit(self, inputs: int) -> Self:
        """The saga has to be at its end after so many outcomes, timers and signals; else it never ends. 10,000 else."""
        self._max_inputs = inputs
        return self

    def without_replay(self) -> Self:
        """Its code is not replayed: for histories that are too long for that, and code that other tests replay."""
        self._replaying = False
        return self

    def service(self, *participants: Participant, takes: Duration = 0) -> Self:
        """The handlers of these participants answer. `takes`: how long each command takes them.

        With an SQL inbox they work in its transactions: let it connect to a fresh database in tests.
        """
        for participant in participants:
            self._script.host(participant, milliseconds(takes))
        return self

    @overload
    def handle(self, command: Command[..., M, R], function: Callable[[M], Awaitable[R]]) -> Self: ...
    @overload
    def handle(self, command: Command[..., M, R], function: Callable[[M], R]) -> Self: ...
    @overload
    def handle(self, command: Command[..., M, R], function: Callable[[M, HandlerContext], Awaitable[R]]) -> Self: ...
    @overload
    def handle(self, command: Command[..., M, R], function: Callable[[M, HandlerContext], R]) -> Self: ...
    def handle(self, command: Command[..., Any, Any], function: Callable[..., Any]) -> Self:
        """A function answers, as a handler: it may raise `Failure` and `RetryLater`. Its assertions fail the test."""
        self._script.handle(command, function)
        return self

    def stand_in(self, function: Callable[P, R], instead: Callable[P, R], /) -> Self:
        """`instead` is called where the saga has a local step call `function`, with the same arguments.

        Without it a local step calls the function itself. Assertions in either fail the test.
        """
        self._script.stand_ins[local_function(function).name] = instead
        return self

    def child(self, saga: type[Saga[Any, R]], result: R, *, takes: Duration = 0) -> Self:
        """Children of this kind complete with `result`, and can be undone. Raises `pydantic.ValidationError`."""
        ending = ChildEnding(milliseconds(takes), Status.COMPLETED, saga.encode_result(result))
        self._script.children[saga.definition.name] = ending
        return self

    def child_fails(
        self, saga: type[Saga[Any, Any]], error_type: str, message: str = "", *, takes: Duration = 0
    ) -> Self:
        """Children of this kind fail, and leave nothing behind."""
        ending = ChildEnding(milliseconds(takes), Status.COMPENSATED, b"", error_type, message)
        self._script.children[saga.definition.name] = ending
        return self

    def call(self, operation: Operation[Any, ..., R], result: R) -> Self:
        """Entities that are called for this give `result`. Raises `pydantic.ValidationError`."""
        self._script.calls[operation.name] = operation.encode_result(result), "", ""
        return self

    def call_fails(self, operation: Operation[Any, ..., Any], error_type: str, message: str = "") -> Self:
        """Entities refuse this operation."""
        self._script.calls[operation.name] = b"", error_type, message
        return self

    def locked(self, *keys: str, for_: Duration | None = None) -> Self:
        """Somebody else holds these keys when the saga starts, and gives them back after `for_`; never by default.

        All other keys are free.
        """
        self._script.held.update(dict.fromkeys(keys, None if for_ is None else milliseconds(for_)))
        return self

    def entity(self: SagaTest[Any, Any], kind: type[N], key: str = "test", *, now: datetime = START) -> EntityTest[N]:
        """An entity by itself, which nobody has asked for anything yet."""
        check(kind)
        return EntityTest(Running(kind, self.world(entity_id(kind, key), now, Services(self._script))), kind)

    def answer(self, command: Command[..., M, R], reply: R, *, takes: Duration = 0) -> Self:
        """The command succeeds with `reply`. Raises `pydantic.ValidationError` if it is of another type."""
        return self._add(command, ReplyMessage(Outcome.SUCCESS, command.encode(reply)), takes)

    def fail(self, command: Command[..., Any, Any], error_type: str, message: str = "", *, takes: Duration = 0) -> Self:
        """The service refuses: a business failure, without any effect."""
        return self._add(command, ReplyMessage(Outcome.FAILURE, b"", error_type, message), takes)

    def retry(
        self,
        command: Command[..., Any, Any],
        error_type: str = "Unavailable",
        times: int = 1,
        *,
        after: Duration | None = None,
        takes: Duration = 0,
    ) -> Self:
        """The service asks to be tried again, `times` times; `after` that long, or as the step's policy says."""
        after_ms = None if after is None else milliseconds(after)
        for _ in range(times):
            self._add(command, ReplyMessage(Outcome.RETRY, b"", error_type, "", after_ms), takes)
        return self

    def never(self, command: Command[..., Any, Any], times: int = 1) -> Self:
        """Nobody answers: the command or its reply is lost, `times` times, and timeouts decide."""
        for _ in range(times):
            self._script.add(command, Scripted(None))
        return self

    @overload
    def signal(self, signal: Signal[None], /, *, key: str | None = None, after: Duration = 0) -> Self: ...
    @overload
    def signal(self, signal: Signal[S], value: S, /, *, key: str | None = None, after: Duration = 0) -> Self: ...
    def signal(self, signal: Signal[Any], value: Any = None, /, *, key: str | None = None, after: Duration = 0) -> Self:
        """A client tells the saga this, `after` the saga has begun to wait for it; with a `key` by this business key.

        Of several for one signal each wait gets the next. `.at(60).signal(...)` does not wait for a wait.
        """
        make, awaited = _signal(signal, value, key), signal if key is None else _heard(signal, key)
        self._planned.append(Planned(make, f"signal({awaited.name})", milliseconds(after), awaited, once=True))
        return self

    def update(self, update: Update[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Self:
        """A client asks the saga for this as soon as it was started; of several each after the one before.

        `.at(60).update(...)` and `.when(Payments.charge).update(...)` do so later. What the saga refuses raises
        `UpdateRejected` in the test, but not in a proof. Raises `pydantic.ValidationError`.
        """
        self._planned.append(Planned(_update(update, *args, **kwargs), f"update({update.name})"))
        return self

    @overload
    def complete_promise(self, promise: Promise[None], /, *, key: str = "", after: Duration = 0) -> Self: ...
    @overload
    def complete_promise(self, promise: Promise[S], result: S, /, *, key: str = "", after: Duration = 0) -> Self: ...
    def complete_promise(
        self, promise: Promise[Any], result: Any = None, /, *, key: str = "", after: Duration = 0
    ) -> Self:
        """Somebody keeps the saga's promise, `after` the saga has begun to wait for it."""
        name, payload = promise.named(key), promise.encode(result)
        return self._settle(name, after, lambda saga_id, message_id: msg.Settle(saga_id, message_id, name, payload))

    def fail_promise(
        self,
        promise: Promise[Any],
        error_type: str,
        message: str = "",
        /,
        *,
        key: str = "",
        after: Duration = 0,
    ) -> Self:
        """Likewise, but it is failed: the saga hears `StepFailed`."""
        name = promise.named(key)
        make = lambda saga_id, message_id: msg.Settle(saga_id, message_id, name, b"", error_type, message)  # noqa: E731
        return self._settle(name, after, make)

    def complete_task(self, form: BaseModel, *, by: str = BY, key: str | None = None, after: Duration = 0) -> Self:
        """Somebody fills in a task's form, `after` the saga has opened the task; by default the one named so."""
        awaited = OpenTask(type(form).__name__ if key is None else key)
        make = lambda saga_id, message_id: filled_in(saga_id, message_id, form, key, by)  # noqa: E731
        self._planned.append(Planned(make, f"complete_task({awaited.key})", milliseconds(after), awaited, once=True))
        return self

    def _settle(self, name: str, after: Duration, make: Make) -> Self:
        words, awaited = f"promise({name})", Awaited(name)
        self._planned.append(Planned(make, words, milliseconds(after), awaited, once=True))
        return self

    def _add(self, command: Command[..., Any, Any], reply: ReplyMessage, takes: Duration) -> Self:
        if not isinstance(command, Command):
            raise DefinitionError(f"{command!r} is no command: name one of a service, such as Payments.charge")
        self._script.add(command, Scripted(reply, milliseconds(takes)))
        return self

    # -- when

    def at(self, time: Duration) -> When[I, O]:
        """Something happens that long after the start: `.at(60).cancel()`. Seconds, or a timedelta."""
        return When(self, f"at({time})", milliseconds(time))

    def when(self, awaited: Command[..., Any, Any] | Signal[Any], attempt: int = 1) -> When[I, O]:
        """Something happens when a command was sent, before its answer comes: `.when(Shipping.ship).cancel()`.

        With a signal: when the saga has begun to wait for it.
        """
        return When(self, f"when({awaited!r})", 0, awaited, attempt)

    def plan(self, planned: Planned) -> Self:
        """For `When`."""
        self._planned.append(planned)
        return self

    # -- then

    def run(self, input: I, *, id: str = "test", now: datetime = START) -> End[O]:
        """Runs the saga to its end, or to where it is parked. Raises `AssertionError` where an answer is missing,
        `DefinitionError` where the code cannot replay (see `orchestrator.lint`).

        `now`: when it is started.
        """
        running, planned = self._begin(input, id, now)
        end = running.finish()
        for missed in planned:
            what = "sent" if isinstance(missed.awaited, Command) else "waited for"
            raise AssertionError(f".{missed.words} had no occasion: {missed.awaited!r} was never {what}. {end!r}")
        return end

    def start(self, input: I, *, id: str = "test", now: datetime = START) -> Running[O]:
        """Starts the saga, and leaves it to the test how its time passes."""
        return self._begin(input, id, now)[0]

    def _begin(self, input: I, id: str, now: datetime) -> tuple[Running[O], list[Planned]]:
        check(self.saga)
        world = self.world(id, now, Services(self._script))
        waiting = self.begin(world, input)
        return Running(self.saga, world), waiting

    def begin(self, world: World, input: I) -> list[Planned]:
        """Starts the saga in a world, with all that this test announces; returns what has had no occasion yet."""
        id = world.saga_id
        waiting: list[Planned] = []
        for number, planned in enumerate(self._planned, start=1):
            if planned.awaited is not None:
                waiting.append(planned)
            else:
                world.post(planned.make(id, f"planned-{number}"), world.now_ms + planned.after_ms)

        def watch(happening: Happening) -> None:
            told = False
            for planned in [each for each in waiting if each.matches(happening)]:
                if planned.once and told:
                    continue  # for the next wait
                told |= planned.once
                waiting.remove(planned)
                message_id = f"planned-{self._planned.index(planned) + 1}"
                world.post(planned.make(id, message_id), world.now_ms + planned.after_ms)

        world.watchers.append(watch)
        name, baggage = self.saga.definition.name, write_baggage(self._baggage)
        payload = self.saga.encode_input(input)
        world.take(msg.Start(id, "start", name, payload, begin_after_ms=self._delay_ms, baggage=baggage))
        return waiting

    def world(
        self, id: str, now: datetime, services: Services, incarnation: int = 1, *, replaying: bool = True
    ) -> World:
        """A world of its own for one run; nothing has happened in it."""
        now_ms = round(now.timestamp() * 1000)
        replaying = replaying and self._replaying
        world = World(self.saga.definition, services, id, now_ms, incarnation, replaying=replaying)
        world.max_inputs = self._max_inputs
        return world

    @property
    def script(self) -> Script:
        """What was said about the services."""
        return self._script


@dataclass(frozen=True, slots=True)
class When(Generic[I, O]):
    """What happens at a time, or when a command is sent. Each method gives the test again."""

    _test: SagaTest[I, O]
    _words: str
    _after_ms: int = 0
    _awaited: Command[..., Any, Any] | Signal[Any] | None = None
    _attempt: int = 1

    @overload
    def signal(self, signal: Signal[None], /, *, key: str | None = None) -> SagaTest[I, O]: ...
    @overload
    def signal(self, signal: Signal[S], value: S, /, *, key: str | None = None) -> SagaTest[I, O]: ...
    def signal(self, signal: Signal[Any], value: Any = None, /, *, key: str | None = None) -> SagaTest[I, O]:
        """A client tells the saga something, by its id or a business key; it is kept until the saga asks for it."""
        return self._plan(f"signal {signal.name}", _signal(signal, value, key))

    def update(self, update: Update[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> SagaTest[I, O]:
        """A client asks the saga for this. Raises `pydantic.ValidationError`."""
        return self._plan(f"update {update.name}", _update(update, *args, **kwargs))

    def cancel(self, reason: str = "") -> SagaTest[I, O]:
        """A client cancels."""
        return self._plan("cancel", lambda saga_id, message_id: msg.Cancel(saga_id, message_id, None, reason, BY))

    def terminate(self, reason: str = "") -> SagaTest[I, O]:
        """An operator ends the saga at once; nothing is undone."""
        return self._plan("terminate", lambda saga_id, message_id: msg.Terminate(saga_id, message_id, None, reason, BY))

    def pause(self, reason: str = "") -> SagaTest[I, O]:
        """A person keeps the saga where it is."""
        return self._plan("pause", lambda saga_id, message_id: msg.Pause(saga_id, message_id, None, reason, BY))

    def resume(self, reason: str = "") -> SagaTest[I, O]:
        """A person lets the saga go on that was paused."""
        return self._plan("resume", lambda saga_id, message_id: msg.Resume(saga_id, message_id, None, reason, BY))

    def compensate(self, reason: str = "") -> SagaTest[I, O]:
        """A person has all undone that the saga did, without its code."""
        return self._plan(
            "compensate", lambda saga_id, message_id: msg.Compensate(saga_id, message_id, None, reason, BY)
        )

    def reset(self, to: int, reason: str = "") -> SagaTest[I, O]:
        """A person has undone what the saga did from its step `to` on, and it goes on from there."""
        return self._plan("reset", lambda saga_id, message_id: msg.Reset(saga_id, message_id, to, None, reason, BY))

    def _plan(self, what: str, make: Make) -> SagaTest[I, O]:
        words = f"{self._words}.{what}(...)"
        return self._test.plan(Planned(make, words, self._after_ms, self._awaited, self._attempt))


def _heard(signal: Signal[Any], key: str) -> Awaited:
    return Awaited(signal.named(key), StepKind.SIGNAL)


def _signal(signal: Signal[Any], value: Any, key: str | None = None) -> Make:
    name, payload = signal.name if key is None else signal.named(key), signal.encode(value)
    return lambda saga_id, message_id: msg.Signal(saga_id, message_id, name, payload, None, BY)


def _update(update: Update[P, Any], *args: P.args, **kwargs: P.kwargs) -> Make:
    payload = update.encode(*args, **kwargs)
    return lambda saga_id, message_id: msg.Update(saga_id, message_id, message_id, update.name, payload)
