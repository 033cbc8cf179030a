"""What people do about tasks, by the sagas that wait for them."""

from __future__ import annotations

import json
from typing import Any, ParamSpec, TypeVar

from pydantic import BaseModel

from orchestrator.questions import Update
from orchestrator.tasks import CLAIM, COMPLETE, REASSIGN

P = ParamSpec("P")
R = TypeVar("R")


class Tasks:
    """Part of a client: human tasks. `key` names one of a saga's open tasks; where there is only one it may be empty.

    `by` is who does it. Each returns when the saga has taken it, within 30 seconds, and raises `UpdateRejected` with
    the reason where it does not: there is no such task any more, it is somebody else's, the form does not fit. Also
    raise `SagaNotFound`, `ResultTimeout`, `InvalidRequest`, `NotAcknowledged`, `Disconnected`.
    """

    async def update(self, id: str, update: Update[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        raise NotImplementedError

    async def claim_task(self, id: str, key: str = "", *, by: str) -> None:
        """Makes a task that nobody has `by`'s, so that nobody else completes it."""
        await self.update(id, CLAIM, key, by)

    async def complete_task(self, id: str, form: BaseModel, *, by: str, key: str | None = None) -> None:
        """Fills in a task's form, of its own type; the saga goes on with it. By default the task that is named so."""
        await self.complete_task_raw(id, type(form).__name__ if key is None else key, form.model_dump_json(), by=by)

    async def complete_task_raw(self, id: str, key: str, form: str, *, by: str) -> None:
        """The same by the task's key, with its form as JSON."""
        filled: Any = json.loads(form)
        await self.update(id, COMPLETE, key, by, filled)

    async def reassign_task(
        self, id: str, key: str = "", *, assignee: str | None = None, group: str | None = None, by: str
    ) -> None:
        """Hands a task on to somebody, or to a group of whom one claims it; whoever has it."""
        await self.update(id, REASSIGN, key, by, assignee, group)
