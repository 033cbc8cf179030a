"""An entity that sums up, which simulated sagas call and clients ask: every call counts once or not at all."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from orchestrator.errors import Abort, ContinueAsNew
from orchestrator.model.asked import Until
from orchestrator.model.definition import Context, Definition, StepRequest
from orchestrator.model.events import StepKind

TALLY = "Tally"
_LONG = 8
"""Outcomes after which it goes on in a run of its own."""


class Tally:
    def __init__(self, total: int) -> None:
        self.total = total
        self.moving = False


async def _body(context: Context, payload: bytes) -> bytes:
    tally = Tally(json.loads(payload) or 0)
    context.subject = tally
    await Until(lambda: context.outcomes >= _LONG)
    tally.moving = True
    raise ContinueAsNew(b"%d" % tally.total, hands_on=True)


async def _update(tally: Tally, name: str, payload: bytes) -> bytes:
    await Until(lambda: not tally.moving)
    amount = json.loads(payload)
    if not amount:
        raise Abort("Nothing")
    tally.total += amount
    return b"%d" % tally.total


DEFINITION = Definition(
    TALLY,
    _body,
    check_update=lambda subject, name, payload: None,
    update=_update,
    lasting=True,
)


def draw_call(random: Random) -> dict[str, Any]:
    return {
        "id": f"{TALLY}/{random.randrange(3)}",
        "amount": random.choice((0, 1, 1, 2)),
        "undo": random.random() < 0.6,
        "timeout": random.choice((None, None, 50, 1_000)),
    }


def call_request(call: dict[str, Any]) -> StepRequest:
    """One that is undone by its opposite."""
    amount = call["amount"]
    return StepRequest(
        call["id"],
        "add",
        b"%d" % amount,
        "add" if call["undo"] else None,
        b"%d" % -amount if call["undo"] else None,
        schedule_to_close_ms=call["timeout"],
        kind=StepKind.CALL,
    )
