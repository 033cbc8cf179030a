"""The services of a scenario as one process: they only answer, and remember in their ledgers.

`python -m orchestrator.bench.services SERVERS PREFIX [SERVICE...]`
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence

from orchestrator.bench.processes import when_abandoned
from orchestrator.bench.sagas import Tools, Turn
from orchestrator.errors import Failure
from orchestrator.log.kafka import KafkaLog
from orchestrator.participant import Participant
from orchestrator.participant.runner import Runner, settle_collector
from orchestrator.sagas.order_fulfilment import (
    CARD_LIMIT_CENTS,
    Charge,
    Inventory,
    Payments,
    Receipt,
    Refund,
    Reservation,
    Reserve,
    Ship,
    Shipping,
)
from orchestrator.topics import TopicNames

inventory = Participant(Inventory)
payments = Participant(Payments)
shipping = Participant(Shipping)
tools = Participant(Tools)


@inventory.handles(Inventory.reserve)
def reserve(request: Reserve) -> Reservation:
    return Reservation(warehouse="A")


@inventory.handles(Inventory.release)
def release(request: Reserve) -> None:
    return None


@payments.handles(Payments.charge)
def charge(request: Charge) -> Receipt:
    if request.cents > CARD_LIMIT_CENTS:
        raise Failure("CardDeclined", "over the limit")
    return Receipt(payment_id=f"payment-{request.order_id}")


@payments.handles(Payments.refund)
def refund(request: Refund) -> None:
    return None


@shipping.handles(Shipping.ship)
def ship(request: Ship) -> str:
    return f"shipped {request.order_id}"


@tools.handles(Tools.turn)
def turn(request: Turn) -> int:
    return request.number


def main(servers: str, prefix: str, services: list[str]) -> None:
    """Runs the services, a thread each, until stdin ends."""
    participants = {each.service.name: each for each in (inventory, payments, shipping, tools)}
    topics = TopicNames(prefix)
    run_all([Runner(participants[service], KafkaLog(servers), topics=topics) for service in services])


def run_all(runners: Sequence[Runner]) -> None:
    """Runs these, a thread each, until stdin ends."""
    threads = [threading.Thread(target=runner.run) for runner in runners]
    end = threading.Event()
    when_abandoned(end)
    settle_collector()
    for thread in threads:
        thread.start()
    end.wait()
    for runner in runners:
        runner.stop()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
