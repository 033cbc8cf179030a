"""A saga under test that is on its way: its time is moved by hand, and it can be looked at and talked to."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

from pydantic import BaseModel

from orchestrator.durations import Duration, milliseconds
from orchestrator.model import messages as msg
from orchestrator.model.events import Event, Recorded, Status, StepKind
from orchestrator.model.messages import Outcome
from orchestrator.promises import Promise
from orchestrator.questions import Update
from orchestrator.saga import Saga
from orchestrator.service import Command
from orchestrator.signals import Signal
from orchestrator.streams import Stream
from orchestrator.tasks import CLAIM, COMPLETE, REASSIGN
from orchestrator.testing.asking import Asking
from orchestrator.testing.end import End, published
from orchestrator.testing.flights import PERSON, Flight, Sent
from orchestrator.testing.operating import BY, Operating
from orchestrator.testing.stuck import reason_of, tasks_of, waits_of, why_stuck
from orchestrator.testing.world import World
from orchestrator.wire.commands import ReplyMessage
from orchestrator.wire.notes import read_note

log = logging.getLogger(__name__)

O = TypeVar("O")  # noqa: E741 - output
M = TypeVar("M", bound=BaseModel)
P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Awaited:
    """A promise, or a signal by a business key, by its name."""

    name: str
    kind: StepKind = StepKind.PROMISE

    def __repr__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class OpenTask:
    """A human task by its key."""

    key: str

    def __repr__(self) -> str:
        return f"task {self.key}"

    def is_opened_by(self, event: Recorded) -> bool:
        """Whether this is the note that opens it."""
        change = read_note(event.payload).tasks.get(self.key)
        return change is not None and "opened_ms" in change


def filled_in(id: str, message_id: str, form: BaseModel, key: str | None, by: str) -> msg.Update:
    """Somebody's completing a task."""
    key = type(form).__name__ if key is None else key
    payload = COMPLETE.encode(key, by, form.model_dump(mode="json"))
    return msg.Update(id, message_id, message_id, COMPLETE.name, payload)


def waits_for(kind: StepKind, name: str, awaited: Signal[Any] | Awaited) -> bool:
    """Whether a wait of this kind and name is one for a signal or a promise."""
    return name == awaited.name and kind is (StepKind.SIGNAL if isinstance(awaited, Signal) else awaited.kind)


class Running(Asking, Operating, Generic[O]):
    """What `SagaTest.start` gives. Nothing happens by itself: `advance`, `until` and `finish` let the time pass.

    saga = SagaTest(OrderFulfilment).service(inventory, shipping).never(Payments.charge).start(order)
    saga.until(Payments.charge)
    assert saga.status is Status.RUNNING
    saga.answer(Payments.charge, Receipt(payment_id="p-1")).finish().assert_completed()
    """

    def __init__(self, saga: type[Saga[Any, O]], world: World) -> None:
        self._saga = saga
        self._world = world
        self._messages = 0

    # -- looking

    @property
    def world(self) -> World:
        """All there is around it."""
        return self._world

    @property
    def status(self) -> Status:
        """As a client would be told."""
        return self._world.state.status

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._world.elapsed

    @property
    def sent(self) -> list[Sent]:
        """Every command so far, with its request, attempt and outcome."""
        return list(self._world.sent)

    @property
    def effects(self) -> list[Command[..., Any, Any]]:
        """The commands that had their effect so far, in order, `do` and undo alike."""
        own = [done for done in self._world.services.log if done.key.rsplit("/", 3)[0] == self._world.saga_id]
        return [done.command for done in own if isinstance(done.command, Command)]

    @property
    def journal(self) -> list[Event]:
        """All events so far, as the journal would hold them."""
        return [event for decision in self._world.decisions for event in decision.events]

    @property
    def waiting_for(self) -> list[str]:
        """What the saga waits for: steps by their command's name, sleeps, and what is parked."""
        return waits_of(self._world.state)

    # -- letting time pass

    def advance(self, duration: Duration) -> Self:
        """Lets that much time pass, and everything happen that is due in it. Seconds, or a timedelta."""
        world = self._world
        target_ms = world.now_ms + milliseconds(duration)
        while (flight := self._next()) is not None and flight.due_ms <= target_ms:
            world.arrive(flight)
        world.now_ms = max(world.now_ms, target_ms)
        return self

    def until(
        self, awaited: Command[..., Any, Any] | Signal[Any] | Promise[Any], attempt: int = 1, *, key: str = ""
    ) -> Self:
        """Goes on until a command was sent and before its answer arrives, or until a signal or promise is waited for.

        Raises `AssertionError` if that never is.
        """
        if isinstance(awaited, Promise):
            promise = Awaited(awaited.named(key))
            return self._until(lambda: self._waits_for(promise), f"{promise!r} was never waited for")
        if isinstance(awaited, Signal):
            return self._until(lambda: self._waits_for(awaited), f"{awaited!r} was never waited for")
        return self._until(lambda: self._under_way(awaited, attempt), f"{awaited!r} (attempt {attempt}) was never sent")

    def until_parked(self) -> Self:
        """Goes on until a person is needed. Raises `AssertionError` if nobody ever is."""
        return self._until(lambda: bool(self._world.state.parked), "it is never parked")

    def finish(self) -> End[O]:
        """Goes on to the end, or to where the saga is parked. Raises `AssertionError` where it waits for ever."""
        world = self._world
        while (flight := self._next()) is not None:
            world.arrive(flight)
        state = world.state
        if not state.ended and not state.parked:
            raise AssertionError(why_stuck(world, self._saga))
        for flight in world.flights:
            if state.ended and flight.rank == PERSON:
                what, at = type(flight.input).__name__.lower(), (flight.due_ms - world.started_ms) / 1000
                raise AssertionError(f"the {what} at {at:g} s came too late: the saga ended after {world.elapsed:g} s")
        world.check_end()
        end = self.end()
        world.services.close()
        return end

    def _next(self) -> Flight | None:
        upcoming = [] if self._world.state.ended else self._world.upcoming()
        return upcoming[0] if upcoming else None

    def _until(self, there: Callable[[], bool], otherwise: str) -> Self:
        while not there():
            flight = self._next()
            if flight is None:
                raise AssertionError(f"{otherwise}: {self!r}")
            self._world.arrive(flight)
        return self

    def _under_way(self, command: Command[..., Any, Any], attempt: int) -> bool:
        return any(
            sent.command is command and sent.attempt == attempt and sent.answered is None for sent in self._world.sent
        )

    def _waits_for(self, awaited: Signal[Any] | Awaited) -> bool:
        steps = self._world.state.steps
        waits = [steps[sequence] for sequence in self._world.state.open]
        return any(waits_for(step.kind, step.command, awaited) for step in waits)

    # -- talking

    @overload
    def signal(self, signal: Signal[None], /, *, key: str | None = None) -> Self: ...
    @overload
    def signal(self, signal: Signal[S], value: S, /, *, key: str | None = None) -> Self: ...
    def signal(self, signal: Signal[Any], value: Any = None, /, *, key: str | None = None) -> Self:
        """A client tells the saga something, by its id or a business key; it is kept until the saga asks for it."""
        name, payload = signal.name if key is None else signal.named(key), signal.encode(value)
        return self._take(msg.Signal(self._world.saga_id, self._message_id(), name, payload, None, BY))

    @overload
    def complete_promise(self, promise: Promise[None], /, *, key: str = "") -> Self: ...
    @overload
    def complete_promise(self, promise: Promise[S], result: S, /, *, key: str = "") -> Self: ...
    def complete_promise(self, promise: Promise[Any], result: Any = None, /, *, key: str = "") -> Self:
        """Somebody keeps a promise of the saga; it may do so before the saga waits for it."""
        name, payload = promise.named(key), promise.encode(result)
        return self._take(msg.Settle(self._world.saga_id, self._message_id(), name, payload, by=BY))

    def fail_promise(self, promise: Promise[Any], error_type: str, message: str = "", /, *, key: str = "") -> Self:
        """Likewise, but it is failed: the saga hears `StepFailed`."""
        name, message_id = promise.named(key), self._message_id()
        return self._take(msg.Settle(self._world.saga_id, message_id, name, b"", error_type, message, by=BY))

    @property
    def tasks(self) -> dict[str, dict[str, Any]]:
        """The open human tasks by their keys, as lists show them: `title`, `assignee`, `group`, `due_ms`, ..."""
        return tasks_of(self._world.decisions)

    def published(self, stream: Stream[S]) -> list[S]:
        """What the saga has published on a stream so far."""
        return published(self.journal, stream)

    def claim_task(self, *, by: str, key: str = "") -> Self:
        """Somebody makes a task theirs. This and the following raise `UpdateRejected` where the saga refuses it."""
        return self._update(CLAIM, key, by)

    def complete_task(self, form: BaseModel, *, by: str = BY, key: str | None = None) -> Self:
        """Somebody fills in a task's form, by default of the task that is named like the form."""
        return self._take(filled_in(self._world.saga_id, self._message_id(), form, key, by))

    def reassign_task(
        self, *, assignee: str | None = None, group: str | None = None, by: str = BY, key: str = ""
    ) -> Self:
        """A task is handed on."""
        return self._update(REASSIGN, key, by, assignee, group)

    def _update(self, update: Update[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Self:
        id, message_id = self._world.saga_id, self._message_id()
        return self._take(msg.Update(id, message_id, message_id, update.name, update.encode(*args, **kwargs)))

    def answer(self, command: Command[..., Any, R], reply: R) -> Self:
        """The service answers a command that nobody has answered yet. Raises `AssertionError` if there is none."""
        return self._reply(command, ReplyMessage(Outcome.SUCCESS, command.encode(reply)))

    def fail(self, command: Command[..., Any, Any], error_type: str, message: str = "") -> Self:
        """Likewise, by a business failure."""
        return self._reply(command, ReplyMessage(Outcome.FAILURE, b"", error_type, message))

    def fork(self, to: int, id: str = "fork", reason: str = "") -> Running[O]:
        """A person starts the saga `id` with what this one had come to before its step `to`; gives that one.

        Both have the same services, and each its own time from then on.
        """
        self._operate(msg.Fork(self._world.saga_id, self._message_id(), to, id, None, reason, BY))
        return Running(self._saga, self._world.beside(self._world.starts.pop()))

    def _reply(self, command: Command[..., Any, Any], ending: ReplyMessage) -> Self:
        world = self._world
        for sent in world.waiting():
            if sent.command is command:
                world.answer(sent, ending)
                return self
        raise AssertionError(f"{command!r} does not wait for an answer: use .never({command!r}), then .until. {self!r}")

    def _take(self, given: msg.Input) -> Self:
        self._world.take(given)
        return self

    def _message_id(self) -> str:
        self._messages += 1
        return f"{BY}-{self._world.saga_id}-{self._messages}"

    # -- telling

    def end(self) -> End[O]:
        """How it stands now, as if it had ended."""
        world, state = self._world, self._world.state
        result = self._saga.decode_result(state.result) if state.phase is Status.COMPLETED else None
        reason = reason_of(state)
        if state.parked:
            log.warning("parked for a person: %s", reason)
        return End(
            state.status,
            result,
            self.effects,
            self.journal,
            state.undone,
            reason,
            state.error_type,
            self.sent,
            list(world.decisions),
            world.elapsed,
        )

    def __repr__(self) -> str:
        waits = f", waiting for {', '.join(self.waiting_for)}" if self.waiting_for else ""
        return f"<{self.status}{waits}, after {self.effects!r}>"
