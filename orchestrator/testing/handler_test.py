"""One handler alone: what it answers to one attempt, and what its participant answers to a repeat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from orchestrator.durations import Duration, milliseconds
from orchestrator.model.effects import Command as CommandEffect
from orchestrator.model.ids import Direction
from orchestrator.model.messages import Outcome
from orchestrator.participant import Participant
from orchestrator.service import Call, Command
from orchestrator.testing.services import Script, Services, message_of
from orchestrator.wire.commands import ReplyMessage

M = TypeVar("M", bound=BaseModel)
R = TypeVar("R")

RUN = "1-1-0"
_NOW_MS = 1_000_000_000_000


@dataclass(frozen=True, slots=True)
class Called(Generic[R]):
    """What a handler answered. `outcome` None: it raised `Pending`. `retry_after`: seconds, where it said so.

    `ran`: False where the participant's memory answered. `raised`: what the handler raised.
    """

    command: Command[..., Any, R]
    outcome: Outcome | None
    payload: bytes = b""
    error_type: str = ""
    error_message: str = ""
    retry_after: float | None = None
    ran: bool = True
    raised: BaseException | None = None

    @property
    def reply(self) -> R:
        """The reply. Raises `AssertionError` if it did not succeed."""
        if self.outcome is not Outcome.SUCCESS:
            how = "raised Pending" if self.outcome is None else f"answered {self.outcome}"
            words = ": ".join(filter(None, (self.error_type, self.error_message)))
            raise AssertionError(f"{self.command!r} {how} {words}".rstrip()) from self.raised
        return self.command.decode(self.payload)


class HandlerTest:
    """Calls the handlers of one participant as its commands would, one attempt each.

        test = HandlerTest(payments)
        assert test.call(Payments.charge(order_id="o-1", cents=900)).reply == Receipt(payment_id="p-1")
        assert test.call(Payments.charge(order_id="o-1", cents=900)).ran is False  # the same key: answered from memory

    `id` and `step` make the idempotency key. With an SQL inbox the handler works in its transactions: let it connect
    to a fresh database.
    """

    def __init__(self, participant: Participant) -> None:
        self._participant = participant
        script = Script()
        script.host(participant, 0)
        self._services = Services(script)

    def call(
        self, call: Call[M, R], *, attempt: int = 1, step: int = 1, id: str = "test", deadline: Duration | None = None
    ) -> Called[R]:
        """Attempt number `attempt` of a step. `deadline`: how long the saga will wait for it."""
        return self._call(call, "do", attempt, step, id, deadline)

    def undo(self, call: Call[M, R], *, attempt: int = 1, step: int = 1, id: str = "test") -> Called[R]:
        """Likewise, as the undo of step number `step`: a `call` of that step that comes later is refused."""
        return self._call(call, "undo", attempt, step, id, None)

    def _call(
        self, call: Call[M, R], direction: Direction, attempt: int, step: int, id: str, deadline: Duration | None
    ) -> Called[R]:
        command = call.command
        if command.owner is not self._participant.service or command.name not in self._participant.handlers:
            raise AssertionError(
                f"this participant of {self._participant.service.__name__} has no handler of {command!r}"
            )
        until_ms = None if deadline is None else _NOW_MS + milliseconds(deadline)
        effect = CommandEffect(
            id, RUN, "Test", step, direction, attempt, command.service, command.name, 0, call.payload(), until_ms, None
        )
        message = message_of(effect, _NOW_MS)
        reaction = self._services.process(self._services.find(command.service, command.name), message, _NOW_MS)
        raised = self._services.raised.get(message.idempotency_key)
        ending = reaction.ending
        if not isinstance(ending, ReplyMessage):
            return Called(command, None, ran=reaction.ran, raised=raised)
        after = None if ending.retry_after_ms is None else ending.retry_after_ms / 1000
        words = ending.error_type, ending.error_message
        return Called(command, ending.outcome, ending.payload, *words, after, reaction.ran, raised)
