"""A payments service; run as a process it says which key it works on, and hangs where HANGS is set.

Arguments: bootstrap servers, prefix.
"""

from __future__ import annotations

import os
import sys
from threading import Event

from pydantic import BaseModel

from orchestrator.log.kafka import KafkaLog
from orchestrator.participant import HandlerContext, Participant, ParticipantSettings
from orchestrator.participant.runner import Runner
from orchestrator.service import Service, command
from orchestrator.topics import TopicNames


class Charge(BaseModel):
    order_id: str
    cents: int


class Receipt(BaseModel):
    payment_id: str


class Payments(Service):
    charge = command(Charge, Receipt)
    refund = command(Charge)


payments = Participant(Payments)


@payments.handles(Payments.charge)
def charge(request: Charge, context: HandlerContext) -> Receipt:
    print(context.idempotency_key, flush=True)
    if os.environ.get("HANGS"):
        Event().wait()
    return Receipt(payment_id="p-1")


@payments.handles(Payments.refund)
def refund(request: Charge, context: HandlerContext) -> None:
    print(context.idempotency_key, flush=True)


if __name__ == "__main__":
    servers, prefix = sys.argv[1:]
    log = KafkaLog(servers, consumer={"session.timeout.ms": 6_000})
    settings = ParticipantSettings(lease_ms=1_000, handler_limit_ms=3_000)
    Runner(payments, log, topics=TopicNames(prefix), settings=settings).run(signals=True)
