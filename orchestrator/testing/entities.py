"""Entities in tests: what they answer to a saga under test, and one that is under test itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from orchestrator.errors import SagaNotFound, UpdateFailed
from orchestrator.model import calls
from orchestrator.model import messages as msg
from orchestrator.testing.histories import update_ended
from orchestrator.testing.stuck import reason_of, why_stuck

if TYPE_CHECKING:
    from orchestrator.entities import Entity, OperationCall
    from orchestrator.questions import Query
    from orchestrator.testing.running import Running

N = TypeVar("N", bound="Entity[Any]")
P = ParamSpec("P")
R = TypeVar("R")


def answer_to(asked: msg.Update, caller: msg.Parent, answers: Mapping[str, tuple[bytes, str, str]]) -> msg.Called:
    """What an entity answers: an undo is done. Raises `AssertionError`."""
    if calls.is_undo(asked):
        answer: tuple[bytes, str, str] = b"null", "", ""
    elif asked.name in answers:
        answer = answers[asked.name]
    else:
        what = f"{asked.saga_type}.{asked.name}"
        raise AssertionError(
            f"{what} was called, and this test has no answer for it: add .call(...) or .call_fails(...)"
        )
    return msg.Called(caller.saga_id, caller.run, caller.sequence, *answer)


class EntityTest(Generic[N]):
    """`SagaTest(Account).entity()`: an entity by itself. Its time passes as `Running` lets it."""

    def __init__(self, running: Running[Any], kind: type[N]) -> None:
        self.running = running
        self._kind = kind
        self._calls = 0

    def call(self, call: OperationCall[N, R]) -> R:
        """Has an operation done, and lets time pass until it is. Raises `UpdateFailed`, `UpdateRejected`.

        `AssertionError` where it is never done, with what the entity waits for or why it is parked.
        """
        self._calls += 1
        update_id = f"call-{self._calls}"
        world = self.running.world
        before = len(world.decisions)
        world.take(
            msg.Update(
                world.saga_id, update_id, update_id, call.name, call.payload, saga_type=self._kind.definition.name
            )
        )
        while (ended := update_ended(world.decisions[before:], update_id)) is None:
            if world.state.parked:
                raise AssertionError(f"{call.name} is not done: the entity is parked, for {reason_of(world.state)}")
            flights = world.upcoming()
            if not flights:
                raise AssertionError(f"{call.name} never ends: {why_stuck(world, self._kind)}")
            world.arrive(flights[0])
        if ended.error_type:
            raise UpdateFailed(world.saga_id, ended.error_type, ended.error_message)
        return call.decode(ended.payload)

    def query(self, query: Query[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """What the entity says about itself. Raises `SagaNotFound` where nobody has asked it for anything yet.

        `QueryFailed` says what its code raised.
        """
        world = self.running.world
        if world.execution is None:
            raise SagaNotFound(world.saga_id, "there is no such entity yet: it begins with its first operation")
        return self.running.query(query, *args, **kwargs)
