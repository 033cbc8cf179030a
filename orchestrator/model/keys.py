"""Business keys that a saga listens for: each has a keeper, a saga that passes on what is told for its key.

Who listens has told the keeper so by a step, and hears what is told until the saga has ended: then it leaves, however
it ended. A run that goes on in the next one leaves nothing, for that listens on. One that inherits such a step, and is
yet to wait, listens anew: the run that made it may have ended and left, or be another saga's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from orchestrator.model import messages as msg
from orchestrator.model import requests
from orchestrator.model.definition import SignalRequest
from orchestrator.model.events import StepKind
from orchestrator.model.state import SAME_LIFE, SagaState, Step

if TYPE_CHECKING:
    from orchestrator.model.turn import Turn

CORRELATOR = "saga.correlator"
"""The saga type of keepers."""
TOLD = "told"
"""The one signal that a keeper takes, so that all it hears has an order."""
START = (CORRELATOR, b"{}")
"""What it is started with by the first who has something to say to it."""


def listening(keeper: str, saga_id: str, name: str) -> SignalRequest:
    """That a saga listens for the key, and by which signal's name it wants to hear."""
    payload = json.dumps({"hear": saga_id, "name": name}).encode()
    return SignalRequest(keeper, TOLD, payload, START, hears=name)


def leave(saga_id: str) -> bytes:
    """That it listens no longer."""
    return json.dumps({"leave": saga_id}).encode()


def listen_again(turn: Turn) -> None:
    """The run listens for the keys that the steps which it has just inherited listen for, and for which it is to wait.

    For what nobody would ask for it does not: the keeper would give it what it keeps, and that were lost. Each later
    wait listens by itself.
    """
    state = turn.state
    given = {name for name, _ in state.signals}
    for keeper, step in awaited(state.steps.values()).items():
        if (name := step.result.decode()) not in given:
            requests.tell(turn, step.sequence, listening(keeper, state.saga_id, name))


def awaited(steps: Iterable[Step]) -> dict[str, Step]:
    """By keeper the steps that have the saga listen to it for a wait which is not among them."""
    found: dict[str, Step] = {}
    for step in steps:
        if step.keeper:
            found[step.keeper] = step
        elif step.kind is StepKind.SIGNAL:
            found = {keeper: told for keeper, told in found.items() if told.result.decode() != step.command}
    return found


def leave_all(turn: Turn) -> None:
    """The saga has ended: nothing that is told for a key is for it any more. As far as the budget goes."""
    state = turn.state
    for keeper in to_leave(state):
        if not turn.fits(effects=1):
            return
        message_id = f"{state.saga_id}/{state.run}/leave"
        turn.send(msg.Signal(keeper, message_id, TOLD, leave(state.saga_id), by=state.saga_id))


def to_leave(state: SagaState) -> list[str]:
    """The keepers of a saga that has ended which were not told yet."""
    goes_on = state.follows is not None and state.follows.cause in SAME_LIFE
    return [] if goes_on else sorted(state.keys)
