"""An entity that sums up, which simulated sagas call and clients ask: every call counts once or not at all."""

from __future__ import annotations

import json

from orchestrator.errors import Abort, ContinueAsNew, StepFailed
from orchestrator.model.asked import Asked, Until
from orchestrator.model.definition import Context, Definition, StepRequest
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

    async def add(self, amount: int, step: StepRequest | None) -> bytes:
        """What of it was done is undone where the step fails."""
        await Until(lambda: not self.moving and not self.busy)
        if not amount:
            raise Abort("Nothing")
        if step is not None:
            self.busy = True
            (result,) = await Together((Asked(step),), None, 1)
            self.busy = False
            if isinstance(result, StepFailed):
                raise result
        self.total += amount
        return b"%d" % self.total


async def body(context: Context, payload: bytes, *, outcomes: int = _LONG) -> bytes:
    """It goes on in its next run after so many outcomes."""
    tally = Tally(context, json.loads(payload) or 0)
    context.subject = tally
    await Until(lambda: context.outcomes >= outcomes and not tally.busy)
    tally.moving = True
    raise ContinueAsNew(b"%d" % tally.total, hands_on=True)


async def _update(tally: Tally, name: str, payload: bytes) -> bytes:
    amount, step = json.loads(payload)
    return await tally.add(amount, step and step_request(step))


DEFINITION = Definition(
    TALLY,
    body,
    functions=ScriptedFunctions(),
    query=lambda tally, name, payload: tally.seen(),
    check_update=lambda subject, name, payload: None,
    update=_update,
    lasting=True,
)
