"""A saga against recorded answers, on the engine's own core: the same decisions as in production, without a broker.

Before every outcome the saga's code is let go of and replayed, so that code which is not deterministic shows in its
first test.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Generic, Self, TypeVar

from pydantic import BaseModel

from orchestrator.model import messages as msg
from orchestrator.model.decide import InputRejected, decide
from orchestrator.model.effects import Command as CommandEffect
from orchestrator.model.effects import effects
from orchestrator.model.events import Event, Status, Undone
from orchestrator.model.messages import Outcome
from orchestrator.model.turn import Execution, Moment
from orchestrator.saga import Saga
from orchestrator.service import Command

log = logging.getLogger(__name__)

I = TypeVar("I")  # noqa: E741 - input, beside O for output
O = TypeVar("O")  # noqa: E741
M = TypeVar("M", bound=BaseModel)
R = TypeVar("R")

MAX_INPUTS = 100_000
"""A saga that is not at its end after so many outcomes and timers goes round in circles."""
_START_MS = 1_000_000_000_000


@dataclass(frozen=True, slots=True)
class _Answer:
    outcome: Outcome
    payload: bytes = b"null"
    error_type: str = ""
    error_message: str = ""


@dataclass(slots=True, repr=False)
class End(Generic[O]):
    """How a saga ended. `effects`: the commands that had their effect, in order, `do` and undo alike.

    `journal`: all events, as the journal would hold them. `reason`: why it is parked, or what made it fail; with the
    traceback where the saga's code raised what it must not.
    """

    status: Status
    result: O | None
    effects: list[Command[..., Any, Any]]
    journal: list[Event]
    undone: Undone | None = None
    reason: str = ""

    def __repr__(self) -> str:
        """One line, for a failed assertion: the reason without its traceback, the commands without their history."""
        first, *more = self.reason.splitlines() or [""]
        who, raised, _ = first.partition(" raised ")
        why = f"{who}{raised}{more[-1]}" if raised and more else first
        result = f" with {self.result!r}" if self.status is Status.COMPLETED else ""
        return f"<{self.status}{result}{f' ({why})' if why else ''} after {self.effects!r}>"


@dataclass(slots=True)
class SagaTest(Generic[I, O]):
    """`SagaTest(OrderFulfilment).answer(Inventory.reserve, Reservation(warehouse="A")).run(order)`.

    Several answers for one command are given in their order, the last one to all that follow. A command without a reply
    needs no answer.
    """

    saga: type[Saga[I, O]]
    _answers: dict[tuple[str, str], list[_Answer]] = field(default_factory=dict)
    _services: dict[str, dict[str, Command[..., Any, Any]]] = field(default_factory=dict)

    def answer(self, command: Command[..., M, R], reply: R) -> Self:
        """The command succeeds with `reply`. Raises `pydantic.ValidationError` if it is of another type."""
        return self._add(command, _Answer(Outcome.SUCCESS, command.encode(reply)))

    def fail(self, command: Command[..., M, R], error_type: str, message: str = "") -> Self:
        """The service refuses: a business failure, without any effect."""
        return self._add(command, _Answer(Outcome.FAILURE, b"", error_type, message))

    def retry(self, command: Command[..., M, R], error_type: str = "Unavailable", times: int = 1) -> Self:
        """The service asks to be tried again, `times` times."""
        for _ in range(times):
            self._add(command, _Answer(Outcome.RETRY, b"", error_type))
        return self

    def run(self, input: I, *, id: str = "test") -> End[O]:
        """Runs the saga to its end, or to where it is parked. Raises `AssertionError` where an answer is missing."""
        return _Run(self, id).to_end(self.saga.encode_input(input))

    def _add(self, command: Command[..., Any, Any], answer: _Answer) -> Self:
        self._answers.setdefault((command.service, command.name), []).append(answer)
        self._services[command.service] = command.siblings
        return self

    def take(self, effect: CommandEffect) -> tuple[Command[..., Any, Any], _Answer]:
        """The command as declared and what it is answered. Raises `AssertionError`."""
        command = self._services.get(effect.service, {}).get(effect.command)
        answers = self._answers.get((effect.service, effect.command), [])
        if command is not None and not answers and command.reply is None:
            return command, _Answer(Outcome.SUCCESS)
        if command is None or not answers:
            name = f"{effect.service}.{effect.command}"
            raise AssertionError(f"{name} was sent, and this test has no answer for it: add .answer(...) or .fail(...)")
        return command, answers[0] if len(answers) == 1 else answers.pop(0)


class _Run(Generic[I, O]):
    """One saga id from start to end."""

    def __init__(self, test: SagaTest[I, O], saga_id: str) -> None:
        self.test = test
        self.saga_id = saga_id
        self.definition = test.saga.definition
        self.now_ms = _START_MS
        self.offset = 0
        self.execution: Execution | None = None
        self.journal: list[Event] = []
        self.effects: list[Command[..., Any, Any]] = []
        self.commands: deque[CommandEffect] = deque()

    def to_end(self, payload: bytes) -> End[O]:
        self._decide(msg.Start(self.saga_id, "start", self.definition.name, payload))
        execution = self.execution
        assert execution is not None
        state = execution.state
        while not state.ended:
            if self.offset > MAX_INPUTS:
                raise AssertionError(f"the saga is not at its end after {MAX_INPUTS} outcomes and timers")
            if self.commands:
                self._serve(self.commands.popleft())
            elif not self._skip_time():
                break
        result = self.test.saga.decode_result(state.result) if state.phase is Status.COMPLETED else None
        reason = "; ".join(state.parked.values()) or ": ".join(filter(None, (state.error_type, state.error_message)))
        execution.detach()
        if state.parked:
            log.warning("parked for a person: %s", reason)
        return End(state.status, result, self.effects, self.journal, state.undone, reason)

    def _serve(self, effect: CommandEffect) -> None:
        command, answer = self.test.take(effect)
        if answer.outcome is Outcome.SUCCESS:
            self.effects.append(command)
        undo = effect.direction == "undo"
        reply = msg.Reply(
            self.saga_id,
            effect.run,
            effect.sequence,
            undo,
            effect.attempt,
            answer.outcome,
            answer.payload,
            answer.error_type,
            answer.error_message,
        )
        self._decide(reply)

    def _skip_time(self) -> bool:
        """Goes to the next timer. False: nothing will happen any more."""
        assert self.execution is not None
        state = self.execution.state
        if state.parked:
            return False
        dues = [(due, sequence) for sequence in (0, *state.steps) if (due := state.due_of(sequence)) is not None]
        if not dues:
            return False
        due_ms, sequence = min(dues)
        self.now_ms = max(self.now_ms, due_ms)
        self._decide(msg.TimerDue(self.saga_id, state.run, sequence, due_ms))
        return True

    def _decide(self, given: msg.Input) -> None:
        self.offset += 1
        if self.execution is not None:
            self.execution.detach()
        try:
            self.execution, events, _ = decide(
                self.execution, self.definition, given, Moment(self.now_ms, 1, self.offset, 1)
            )
        except InputRejected as rejected:
            raise AssertionError(str(rejected)) from None
        assert self.execution is not None
        self.journal.extend(events)
        for event in events:
            for effect in effects(event, self.saga_id, self.execution.state):
                if isinstance(effect, CommandEffect):
                    self.commands.append(effect)
