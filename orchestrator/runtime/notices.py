"""What an owner says in its log of what it has confirmed."""

from __future__ import annotations

import logging

from orchestrator.model import events as ev

log = logging.getLogger(__name__)


def tell_parked(decision: ev.Decision, partition: int) -> None:
    """A line for the log; the reason, which may quote what users sent, stands in the history."""
    for event in decision.events:
        if isinstance(event, ev.SagaParked | ev.StepParked | ev.UndoParked):
            where = {"saga_id": decision.saga_id, "partition": partition, "step": getattr(event, "sequence", 0)}
            log.warning("parked for a person: %s; see `saga show`", type(event).__name__, extra=where)
