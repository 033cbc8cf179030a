"""Queries and updates of a saga under test."""

from __future__ import annotations

from typing import Any, ParamSpec, TypeVar

from orchestrator.errors import QueryFailed, UpdateFailed, UpdateRejected
from orchestrator.model import messages as msg
from orchestrator.model import queries, updates
from orchestrator.model.effects import ANSWERED
from orchestrator.model.versions import of_run
from orchestrator.questions import Query, Update
from orchestrator.saga import Saga
from orchestrator.testing.flights import Flight
from orchestrator.testing.histories import update_ended
from orchestrator.testing.stuck import reason_of, why_stuck
from orchestrator.testing.world import World

P = ParamSpec("P")
R = TypeVar("R")
_NOBODY = msg.ReplyAddress("", 0, "")


class Asking:
    """Part of `Running`: what the saga says and does when it is asked."""

    _saga: type[Saga[Any, Any]]
    _world: World

    def _message_id(self) -> str:
        raise NotImplementedError

    def _next(self) -> Flight | None:
        raise NotImplementedError

    def query(self, query: Query[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """What the saga says about itself. Raises `QueryFailed`, which says what its code raised."""
        world = self._world
        payload = query.encode(*args, **kwargs)
        asked = msg.Query(world.saga_id, self._message_id(), _NOBODY, query.name, payload)
        answer = queries.answer(of_run(world.definition, world.state), world.state, asked)
        if answer.status != ANSWERED:
            raise QueryFailed(world.saga_id, answer.error_message)
        return query.decode_result(answer.payload)

    def update(self, update: Update[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Has the saga do something, goes on until it is done, and gives what came of it.

        Raises `UpdateRejected`, `UpdateFailed`; `AssertionError` where it is never done, with what the saga waits for
        or is parked at.
        """
        world, update_id = self._world, self._message_id()
        before = len(world.decisions)
        asked = msg.Update(world.saga_id, update_id, update_id, update.name, update.encode(*args, **kwargs))
        try:
            world.take(asked)
        except updates.UpdateRejected as rejected:
            raise UpdateRejected(world.saga_id, rejected.reason) from None
        while (ended := update_ended(world.decisions[before:], update_id)) is None:
            flight = self._next()
            if world.state.parked:
                raise AssertionError(f"{update!r} is not done: the saga is parked, for {reason_of(world.state)}")
            if flight is None:
                raise AssertionError(f"{update!r} is never done: {why_stuck(world, self._saga)}")
            world.arrive(flight)
        if ended.error_type:
            raise UpdateFailed(world.saga_id, ended.error_type, ended.error_message)
        return update.decode_result(ended.payload)
