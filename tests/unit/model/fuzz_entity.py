"""An entity that the fuzzer's sagas ask: it sums up, does steps of its own, and goes on in runs of its own."""

from __future__ import annotations

import json

from orchestrator.errors import Abort, ContinueAsNew, StepFailed
from orchestrator.model.asked import Asked, Until
from orchestrator.model.definition import Context, Definition, StepRequest
from orchestrator.model.groups import Together
from orchestrator.model.retries import RetryPolicy

ENTITY_TYPE = "E"
ENTITY_IDS = ("E/1", "E/2")
_LONG = 6
"""Outcomes after which it goes on in its next run."""


class Entity:
    """One thing at a time."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.busy = False
        self.moving = False

    async def add(self, amount: int, *, works: bool) -> bytes:
        await Until(lambda: not self.moving and not self.busy)
        if not amount:
            raise Abort("Nothing")
        if works:
            self.busy = True
            step = StepRequest("shop", "act", b"x", "revert", retry=RetryPolicy(maximum_attempts=2))
            (result,) = await Together((Asked(step),), None, 1)
            self.busy = False
            if isinstance(result, StepFailed):
                raise result
        self.total += amount
        return b"%d" % self.total


async def _body(context: Context, payload: bytes) -> bytes:
    entity = Entity(json.loads(payload) or 0)
    context.subject = entity
    await Until(lambda: context.outcomes >= _LONG and not entity.busy)
    entity.moving = True
    raise ContinueAsNew(b"%d" % entity.total, hands_on=True)


async def _update(entity: Entity, name: str, payload: bytes) -> bytes:
    return await entity.add(json.loads(payload), works=name == "work")


ENTITY = Definition(ENTITY_TYPE, _body, check_update=lambda subject, name, payload: None, update=_update, lasting=True)
