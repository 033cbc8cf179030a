"""Who answers the commands of a saga under test: recorded answers, functions, or a participant's own handlers.

Each service has a memory, kept by the rules of the participant SDK: a command that comes twice is answered twice and
done once, and a `do` behind its `undo` is refused.
"""

from __future__ import annotations

import asyncio
import functools
import weakref
from collections.abc import Callable, Coroutine, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from threading import Thread
from time import time_ns
from typing import Any, NamedTuple, TypeVar

from orchestrator.functions import LocalFunctions
from orchestrator.log.base import Record
from orchestrator.model.effects import Command as CommandEffect
from orchestrator.model.effects import LocalCall
from orchestrator.model.events import Status
from orchestrator.model.ids import Direction, idempotency_key
from orchestrator.model.messages import Outcome, Reply, Start, UndoChild
from orchestrator.participant import rules
from orchestrator.participant.handlers import Handler, Inbox, Participant
from orchestrator.participant.settings import ParticipantSettings
from orchestrator.participant.work import Unit, Work
from orchestrator.service import Command
from orchestrator.wire import headers as h
from orchestrator.wire.commands import CommandMessage, Ending, Postponed, ReplyMessage

T = TypeVar("T")

HANDLER_LIMIT_S = ParticipantSettings().handler_limit_ms / 1000


@dataclass(frozen=True, slots=True)
class Scripted:
    """One recorded answer; without a reply the command is never answered. `takes_ms`: how long the service needs."""

    reply: ReplyMessage | None
    takes_ms: int = 0


@dataclass(slots=True)
class Script:
    """What a test says about its services. It is only read: every run makes its own `Services` of it."""

    answers: dict[tuple[str, str], list[Scripted]] = field(default_factory=dict)
    participants: dict[str, Participant] = field(default_factory=dict)
    takes_ms: dict[str, int] = field(default_factory=dict)
    """How long a command takes the services that have a participant."""
    known: dict[tuple[str, str], Command[..., Any, Any]] = field(default_factory=dict)
    """Commands of the services that this test says anything about."""
    stand_ins: dict[str, Callable[..., Any]] = field(default_factory=dict)
    """What is called in place of a local step's function, by the function's name."""
    children: dict[str, ChildEnding] = field(default_factory=dict)
    """How children end, by their saga type."""
    calls: dict[str, tuple[bytes, str, str]] = field(default_factory=dict)
    """What entities answer, by the operation's name: the result, or an error's type and message."""
    held: dict[str, int | None] = field(default_factory=dict)
    """How long somebody else holds a lock's key from the start, in milliseconds; None: for ever."""

    @property
    def has_inbox(self) -> bool:
        """Whether a participant keeps its outcomes in a database."""
        return any(participant.inbox is not None for participant in self.participants.values())

    def learn(self, command: Command[..., Any, Any]) -> None:
        """Notes a command and its siblings."""
        siblings = command.owner.commands if command.owner is not None else {command.name: command}
        self.known.update(((command.service, name), each) for name, each in siblings.items())

    def add(self, command: Command[..., Any, Any], answer: Scripted) -> None:
        self.learn(command)
        self.answers.setdefault((command.service, command.name), []).append(answer)

    def host(self, participant: Participant, takes_ms: int) -> None:
        """All handlers of a participant; what an earlier one said about the same commands no longer counts."""
        own = self._of(participant.service.name, participant)
        own.inbox, own.providers, own.around = participant.inbox, participant.providers, participant.around
        own.handlers.update(participant.handlers)
        self.takes_ms[own.service.name] = takes_ms
        for command in participant.service.commands.values():
            self.learn(command)

    def handle(self, command: Command[..., Any, Any], function: Callable[..., Any]) -> None:
        """One function for one command."""
        assert command.owner is not None
        self.learn(command)
        own = self._of(command.service, Participant(command.owner))
        own.handlers.pop(command.name, None)
        own.register(command, function)

    def _of(self, service: str, like: Participant) -> Participant:
        return self.participants.setdefault(service, Participant(like.service, inbox=like.inbox))


class Reaction(NamedTuple):
    """What a service did about a command. `ending` None: nobody will ever answer. `ran`: it was no repeat.

    `due_ms`: when it answers. One unit is done one after the other, as in production: an undo waits for its `do`.
    """

    command: Command[..., Any, Any]
    ending: Ending | None
    due_ms: int
    ran: bool


class Effect(NamedTuple):
    """Something that a service has done; or a local step's function, and then `command` is its name."""

    command: Command[..., Any, Any] | str
    key: str
    sequence: int
    direction: Direction


class ChildEnding(NamedTuple):
    """How a child ends, or what came of its undo."""

    takes_ms: int
    status: Status | str
    result: bytes = b""
    error_type: str = ""
    error_message: str = ""


class Services:
    """The services of one run. What they opened is closed by `close`, or when nobody has them any more."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.calls = script.calls
        self.held = script.held
        self._answers = {name: list(answers) for name, answers in script.answers.items()}
        self._memory: dict[Unit, rules.Entry] = {}
        self._silent: set[tuple[str, int]] = set()
        self._prepared: set[str] = set()
        self._busy_until_ms: dict[Unit, int] = {}
        self._loop = Loop()
        self.log: list[Effect] = []
        """What they have done, in order."""
        self.raised: dict[str, BaseException] = {}
        """What the handlers of commands raised last, by idempotency key."""
        self.beats: dict[str, bytes] = {}
        """What they said last of how far they got, likewise."""
        self._hosts = {name: self._watched(participant) for name, participant in script.participants.items()}
        self._inboxes = [host.inbox for host in self._hosts.values() if host.inbox is not None]
        self._open = self._opened()

    def child(self, start: Start) -> ChildEnding:
        """How a child that is started will end."""
        ending = self._script.children.get(start.saga_type)
        if ending is None:
            name = start.saga_type
            raise AssertionError(f"child {name} was started, and this test has no end for it: add .child(...)")
        return ending

    def undo_child(self, undo: UndoChild) -> ChildEnding:
        """What comes of the undo of a child."""
        return ChildEnding(0, Status.COMPENSATED)

    def find(self, service: str, command: str) -> Command[..., Any, Any]:
        """The command as declared. Raises `AssertionError` where this test says nothing about its service."""
        found = self._script.known.get((service, command))
        if found is None:
            raise AssertionError(
                f"{service}.{command} was sent, and this test has no answer for it: "
                "add .answer(...) or .fail(...), or its service by .service(...)"
            )
        return found

    def ask(self, effect: CommandEffect, now_ms: int) -> Reaction:
        """Has the command carried out, unless memory answers it. Raises `AssertionError`, also what a handler says."""
        return self.process(self.find(effect.service, effect.command), message_of(effect, now_ms), now_ms)

    def process(self, declared: Command[..., Any, Any], message: CommandMessage, now_ms: int) -> Reaction:
        """As `ask`, for a command as it arrives."""
        attempt = (message.idempotency_key, message.attempt)
        ready_ms = max(now_ms, self._busy_until_ms.get(message.unit, 0))
        if attempt in self._silent:
            return Reaction(declared, None, ready_ms, False)
        entry = self._memory.get(message.unit)
        decision = rules.decide(message, entry, now_ms=now_ms)
        if isinstance(decision, rules.Answer | rules.Refuse):
            return Reaction(declared, decision.reply, ready_ms, False)
        if not isinstance(decision, rules.Run):
            return Reaction(declared, Postponed(message.reply_token), ready_ms, False)
        ending, takes_ms = self.perform(declared, message, now_ms, decision.unsure)
        if ending is None:
            self._silent.add(attempt)
        else:
            self.remember(message, ending)
            self._busy_until_ms[message.unit] = ready_ms = ready_ms + takes_ms
        return Reaction(declared, ending, ready_ms, True)

    def perform(
        self, declared: Command[..., Any, Any], message: CommandMessage, now_ms: int, unsure: bool
    ) -> tuple[Ending | None, int]:
        """Carries a command out that no memory answers: what comes of it, and how long it takes in milliseconds."""
        scripted = self._next_answer(declared)
        if scripted is None:
            ending: Ending | None = self._run(declared, message, now_ms, unsure)
            takes_ms = self._script.takes_ms.get(declared.service, 0)
        else:
            ending, takes_ms = scripted.reply, scripted.takes_ms
        if isinstance(ending, ReplyMessage) and ending.outcome is Outcome.SUCCESS:
            self.log.append(Effect(declared, message.idempotency_key, message.sequence, message.direction))
        return ending, takes_ms

    def call(self, call: LocalCall) -> Reply:
        """Calls the function of a local step, or what stands in for it. Its assertions fail the test."""
        key = idempotency_key(*call.unit, call.direction)
        self.raised.pop(key, None)

        def watch(error: BaseException) -> None:
            self.raised[key] = error
            _raise_assertion(error)

        functions = LocalFunctions(self._script.stand_ins, watch)
        if functions.is_async(call.function):
            reply = self._loop.run(functions.perform_async(call))
        else:
            reply = functions.perform(call)
        if reply.outcome is Outcome.SUCCESS:
            self.log.append(Effect(call.function, key, call.sequence, call.direction))
        return reply

    def remember(self, message: CommandMessage, ending: Ending) -> None:
        """Keeps an outcome, as the participant would."""
        undo = message.direction == "undo"
        self._memory[message.unit] = rules.record(self._memory.get(message.unit), undo, message.attempt, ending)

    def _next_answer(self, command: Command[..., Any, Any]) -> Scripted | None:
        """Recorded answers come first, each once; with no handler behind them the last stays. None: ask the handler."""
        answers = self._answers.get((command.service, command.name))
        host = self._hosts.get(command.service)
        if host is not None and command.name in host.handlers:
            return answers.pop(0) if answers else None
        if answers:
            return answers[0] if len(answers) == 1 else answers.pop(0)
        hosted = command.service in self._script.takes_ms
        if command.reply is None and not hosted:
            return Scripted(ReplyMessage(Outcome.SUCCESS, b"null"))
        raise AssertionError(
            f"{command!r} was sent, and this test has no answer for it: add .answer(...) or .fail(...)"
            if not hosted
            else f"{command!r} was sent, and its service has no handler for it: decorate one with "
            f"handles({command.owner.__name__ if command.owner else ''}.{command.name})"
        )

    def close(self) -> None:
        """Lets go of databases and of the event loop. What is asked later, of another run, opens them again."""
        self._prepared.clear()
        self._open()

    def _opened(self) -> weakref.finalize[..., Services]:
        return weakref.finalize(self, _close_all, self._inboxes, self._loop)

    def _run(self, command: Command[..., Any, Any], message: CommandMessage, now_ms: int, unsure: bool) -> Ending:
        host = self._hosts[command.service]
        work = Work(None, Record(f"{command.service}.commands", 0, 0, now_ms, b"", b""), message)
        work.unsure = unsure
        self.raised.pop(message.idempotency_key, None)
        if not self._open.alive:
            self._open = self._opened()
        if host.inbox is not None:
            if command.service not in self._prepared:
                self._prepared.add(command.service)
                host.inbox.prepare()
            # Its database judges by its own clock, and it is not that of the test.
            undated = message._replace(deadline_ms=None, sent_at_ms=0)
            ending, ran = host.inbox.process(
                undated, time_ns() // 1_000_000, lambda connection, unsure: host.perform(work, connection, unsure)
            )
            if not ran:
                raise AssertionError(_not_run(command, ending))
        elif host.is_async(work):
            ending = self._loop.run(host.perform_async(work, HANDLER_LIMIT_S))
        else:
            ending = host.perform(work)
        self.beats[message.idempotency_key] = work.beat[0]
        error = self.raised.get(message.idempotency_key)
        if isinstance(error, AssertionError) or not isinstance(error, Exception | None):
            raise error
        return ending

    def _watched(self, participant: Participant) -> Participant:
        """The same handlers, whose exceptions are kept: an outcome only has their type and text."""
        own = copy(participant)
        own.handlers = {
            name: replace(handler, function=self._watch(handler), takes_context=True)
            for name, handler in participant.handlers.items()
        }
        return own

    def _watch(self, handler: Handler) -> Callable[..., Any]:
        function, takes_context = handler.function, handler.takes_context

        def call(request: Any, context: Any, provided: dict[str, Any]) -> Any:
            return function(request, context, **provided) if takes_context else function(request, **provided)

        @functools.wraps(function, updated=())
        def plain(request: Any, context: Any, **provided: Any) -> Any:
            try:
                return call(request, context, provided)
            except BaseException as error:
                self.raised[context.idempotency_key] = error
                raise

        @functools.wraps(function, updated=())
        async def awaited(request: Any, context: Any, **provided: Any) -> Any:
            try:
                return await call(request, context, provided)
            except BaseException as error:
                self.raised[context.idempotency_key] = error
                raise

        return awaited if handler.is_async else plain


def _close_all(inboxes: Sequence[Inbox], loop: Loop) -> None:
    for inbox in inboxes:
        inbox.close()
    loop.close()


class Loop:
    """An event loop for async handlers, made when the first one is met; also under a test that has a loop itself."""

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        runner = self._runner
        if runner is None:
            runner = self._runner = asyncio.Runner()
        result: T = _apart(lambda: runner.run(coroutine))
        return result

    def close(self) -> None:
        if self._runner is not None:
            _apart(self._runner.close)
            self._runner = None


def _apart(act: Callable[[], Any]) -> Any:
    """Calls it where no event loop runs: in a thread of its own if one runs here."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return act()
    results: list[Any] = []
    thread = Thread(target=lambda: results.append(act()))
    thread.start()
    thread.join()
    return results[0]


def message_of(effect: CommandEffect, now_ms: int) -> CommandMessage:
    """A command as its participant reads it."""
    key = idempotency_key(effect.saga_id, effect.run, effect.sequence, effect.direction)
    echoed = h.write_headers(
        {
            h.SAGA_ID: effect.saga_id,
            h.SAGA_RUN: effect.run,
            h.SAGA_TYPE: effect.saga_type,
            h.COMMAND_TYPE: effect.command,
            h.STEP: str(effect.sequence),
            h.DIRECTION: effect.direction,
            h.IDEMPOTENCY_KEY: key,
            h.ATTEMPT: str(effect.attempt),
            h.REPLY_TOKEN: f"test:{key}",
        }
    )
    return CommandMessage(
        effect.saga_id,
        effect.run,
        effect.saga_type,
        effect.command,
        effect.sequence,
        effect.direction,
        effect.attempt,
        key,
        effect.payload,
        "saga.replies",
        0,
        now_ms,
        effect.deadline_ms,
        effect.traceparent,
        tuple(echoed),
        None,
        effect.heartbeat_ms,
        effect.details.decode(),
        baggage=effect.baggage,
    )


def _not_run(command: Command[..., Any, Any], ending: Ending) -> str:
    if isinstance(ending, ReplyMessage) and ending.outcome is Outcome.RETRY:
        return f"{command!r} could not be run in its inbox: {_words(ending)}"
    return (
        f"{command!r} was answered from its inbox, which remembers an earlier test: give each test a fresh database, "
        "such as sqlite3.connect(':memory:', check_same_thread=False)"
    )


def _words(reply: ReplyMessage) -> str:
    return " ".join(filter(None, (reply.outcome.value, reply.error_type, reply.error_message)))


def _raise_assertion(error: BaseException) -> None:
    """What a test itself asserts is no outcome of its saga."""
    if isinstance(error, AssertionError) or not isinstance(error, Exception):
        raise error
