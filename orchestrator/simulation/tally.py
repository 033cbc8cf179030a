"""An entity that sums up, which simulated sagas call and clients ask: every call counts once or not at all."""

from __future__ import annotations

import json
from typing import Any

from orchestrator.errors import Abort, ContinueAsNew, StepFailed
from orchestrator.model.asked import Asked, Until
from orchestrator.model.definition import Context, Definition
from orchestrator.model.groups import Together
from orchestrator.simulation.local import ScriptedFunctions
from orchestrator.simulation.requests import step_request

TALLY = "Tally"
_LONG = 8
"""Outcomes after which it goes on in a run of its own."""


class Tally:
    """One thing at a time, as entities do it."""

    def __init__(self, context: Context, total: int) -> None:
        self.total = total
        self.moving = False
        self.busy = False
        self._context = context

    def seen(self) -> bytes:
        """How many outcomes the code has seen."""
        return b"%d" % self._context.outcomes

    async def add(self, amount: int, step: dict[str, Any] | None) -> bytes:
        """What of it was done is undone where the step fails."""
        await Until(lambda: not self.moving and not self.busy)
        if not amount:
            raise Abort("Nothing")
        if step is not None:
            self.busy = True
            (result,) = await Together((Asked(step_request(step)),), None, 1)
            self.busy = False
            if isinstance(result, StepFailed):
                raise result
        self.total += amount
        return b"%d" % self.total


async def _body(context: Context, payload: bytes) -> bytes:
    tally = Tally(context, json.loads(payload) or 0)
    context.subject = tally
    await Until(lambda: context.outcomes >= _LONG and not tally.busy)
    tally.moving = True
    raise ContinueAsNew(b"%d" % tally.total, hands_on=True)


async def _update(tally: Tally, name: str, payload: bytes) -> bytes:
    return await tally.add(*json.loads(payload))


DEFINITION = Definition(
    TALLY,
    _body,
    functions=ScriptedFunctions(),
    query=lambda tally, name, payload: tally.seen(),
    check_update=lambda subject, name, payload: None,
    update=_update,
    lasting=True,
)
