"""An entity that the fuzzer's sagas ask: it sums up, does steps of its own, and goes on in runs of its own."""

from __future__ import annotations

import json
from functools import partial

from orchestrator.model.definition import Definition, StepRequest
from orchestrator.model.retries import RetryPolicy
from orchestrator.simulation.tally import Tally, body

ENTITY_TYPE = "E"
ENTITY_IDS = ("E/1", "E/2")
_STEP = StepRequest("shop", "act", b"x", "revert", retry=RetryPolicy(maximum_attempts=2))


async def _update(entity: Tally, name: str, payload: bytes) -> bytes:
    return await entity.add(json.loads(payload), _STEP if name == "work" else None)


ENTITY = Definition(
    ENTITY_TYPE,
    partial(body, outcomes=6),
    check_update=lambda subject, name, payload: None,
    update=_update,
    lasting=True,
)
