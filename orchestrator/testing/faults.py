"""What can go wrong on a saga's way, as values that can be written down and repeated.

Commands are numbered in the order in which their first attempt is sent, undo commands too; what arrives at the saga
(outcomes, timers, signals) is numbered in the order of its arrival.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from orchestrator.model.children import REFUSED
from orchestrator.model.effects import LocalCall, reply_of
from orchestrator.model.events import Status
from orchestrator.model.ids import Direction, idempotency_key
from orchestrator.model.messages import Outcome, Parent, Reply, Start, UndoChild
from orchestrator.model.retries import DO_POLICY, UNDO_POLICY, RetryPolicy
from orchestrator.model.state import Step
from orchestrator.service import Command
from orchestrator.testing.services import ChildEnding, Effect, Script, Services
from orchestrator.testing.world import World
from orchestrator.wire.commands import CommandMessage, Ending, ReplyMessage

TRIES = 2
"""How often a command fails that is tried without any limit."""
LATER_MS = 10**12
"""When a command is tried again that has a deadline: behind it."""

_KINDS = {
    "refuse": "command {0} ({1}) is refused",
    "trouble": "command {0} ({1}) asks to be tried again until its attempts are used up",
    "unsure": "command {0} ({1}) has its effect, its service does not know, and its attempts are used up",
    "lose": "command {0} ({1}) has its effect, and its replies are lost until its time is up",
    "cancel": "a client cancels before arrival {0}",
    "expire": "the saga's own time is up before arrival {0}",
    "crash": "the owner crashes before arrival {0}",
    "twice": "arrival {0} comes twice",
    "swap": "arrival {0} is overtaken by what comes {1} later",
}


class Fault(NamedTuple):
    """One thing that goes wrong, at a command or an arrival; `other` only for `swap`."""

    kind: str
    at: int
    other: int = 0

    def __str__(self) -> str:
        return f"{self.kind} {self.at}+{self.other}" if self.other else f"{self.kind} {self.at}"

    def words(self, commands: list[Asked]) -> str:
        """As a sentence."""
        name = commands[self.at - 1].what if self.at <= len(commands) else "never sent"
        return _KINDS[self.kind].format(self.at, self.other or name)


Faults = tuple[Fault, ...]
TROUBLES = ("refuse", "trouble", "unsure", "lose")


def read_faults(text: str) -> Faults:
    """`refuse 2, crash 4` as faults. Raises `AssertionError`."""
    found = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        match = re.fullmatch(r"(\w+) (\d+)(?:\+(\d+))?", part)
        if match is None or match[1] not in _KINDS:
            raise AssertionError(f"{part!r} is no fault; known are {', '.join(_KINDS)}, such as 'refuse 2, crash 4'")
        found.append(Fault(match[1], int(match[2]), int(match[3] or 0)))
    return tuple(found)


@dataclass(slots=True)
class Asked:
    """One command (`do` or `undo` of one step), and what could go wrong with it."""

    what: str
    key: str
    sequence: int
    direction: Direction
    payload: bytes
    troubles: tuple[str, ...] = ()


class FaultyServices(Services):
    """Services that some commands have trouble with, until a person has looked at it (`calm`)."""

    def __init__(self, script: Script, faults: Faults) -> None:
        super().__init__(script)
        self.world: World | None = None
        self.calm = False
        self.commands: list[Asked] = []
        self.problems: list[str] = []
        self._numbers: dict[str, int] = {}
        self._troubles = {fault.at: fault.kind for fault in faults if fault.kind in TROUBLES}

    def perform(
        self, declared: Command[..., Any, Any], message: CommandMessage, now_ms: int, unsure: bool
    ) -> tuple[Ending | None, int]:
        key = message.idempotency_key
        asked = Asked(repr(declared), key, message.sequence, message.direction, message.payload)
        asked.troubles = self._possible(declared, message)
        trouble = self._trouble(asked)
        injected = self._injected(trouble, message)
        if injected is not None:
            if trouble == "unsure" and message.attempt == 1:
                super().perform(declared, message, now_ms, unsure)
            return injected, 0
        ending, takes_ms = super().perform(declared, message, now_ms, unsure)
        return (None, 0) if trouble == "lose" else (ending, takes_ms)

    def call(self, call: LocalCall) -> Reply:
        key = idempotency_key(*call.unit, call.direction)
        asked = Asked(f"local {call.function}", key, call.sequence, call.direction, call.payload)
        asked.troubles = ("refuse", "trouble", "unsure") if call.direction == "do" else ("refuse", "trouble")
        trouble = self._trouble(asked)
        injected = self._injected(trouble, call)
        if injected is None:
            return super().call(call)
        if trouble == "unsure" and call.attempt == 1:
            super().call(call)
        return reply_of(call, *injected)

    def child(self, start: Start) -> ChildEnding:
        assert start.parent is not None
        ending = super().child(start)
        asked = self._family(f"child {start.saga_type}", start.parent, "do", start.payload)
        if self._trouble(asked) == "refuse":
            return ChildEnding(ending.takes_ms, Status.COMPENSATED, b"", "Injected", "failed and undone by the proof")
        return ending

    def undo_child(self, undo: UndoChild) -> ChildEnding:
        ending = super().undo_child(undo)
        asked = self._family("child", undo.parent, "undo", b"")
        if self._trouble(asked) == "refuse":
            return ChildEnding(0, REFUSED, b"", "NotUndone", "refused by the proof")
        return ending

    def _family(self, what: str, parent: Parent, direction: Direction, payload: bytes) -> Asked:
        key = idempotency_key(parent.saga_id, parent.run, parent.sequence, direction)
        return Asked(what, key, parent.sequence, direction, payload, ("refuse",))

    def _trouble(self, asked: Asked) -> str | None:
        """What this command has to suffer; numbers it, and notes a key that is used for two of them."""
        number = self._numbers.setdefault(asked.key, len(self.commands) + 1)
        if number > len(self.commands):
            self.commands.append(asked)
        known = self.commands[number - 1]
        if (known.what, known.payload) != (asked.what, asked.payload):
            self.problems.append(f"the key {asked.key} was used for two different commands")
        return None if self.calm else self._troubles.get(number)

    def _injected(self, trouble: str | None, message: CommandMessage | LocalCall) -> ReplyMessage | None:
        """What is answered in place of the service."""
        if trouble == "refuse" and message.attempt == 1:
            return ReplyMessage(Outcome.FAILURE, b"", "Injected", "refused by the proof")
        if trouble in ("trouble", "unsure") and message.attempt <= self._tries(message):
            after_ms = LATER_MS if self._has_deadline(message) else None
            return ReplyMessage(Outcome.RETRY, b"", "Injected", "try again, says the proof", after_ms)
        return None

    def _possible(self, declared: Command[..., Any, Any], message: CommandMessage) -> tuple[str, ...]:
        host = self._hosts.get(declared.service)
        found = ["refuse", "trouble"]
        if message.direction == "do":
            if host is None or host.inbox is None:
                found.append("unsure")  # an inbox always knows
            if message.deadline_ms is not None:
                found.append("lose")
        return tuple(found)

    def _tries(self, message: CommandMessage | LocalCall) -> int:
        """How many attempts fail: all there are, or some where there is no limit."""
        return self._policy(message).pace("Injected").maximum_attempts or TRIES

    def _has_deadline(self, message: CommandMessage | LocalCall) -> bool:
        by_step = message.direction == "do" and self._step(message).deadline_ms is not None
        return by_step or self._policy(message).retry_timeout_ms is not None

    def _policy(self, message: CommandMessage | LocalCall) -> RetryPolicy:
        step = self._step(message)
        return (step.undo_retry or UNDO_POLICY) if message.direction == "undo" else (step.retry or DO_POLICY)

    def _step(self, message: CommandMessage | LocalCall) -> Step:
        assert self.world is not None
        return self.world.state.steps[message.sequence]


__all__ = ["Asked", "Effect", "Fault", "Faults", "FaultyServices", "read_faults"]
