"""What is measured: kinds of sagas, what they are started with, and what their client does while they run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.bench.sagas import FanOut, InTurn, LocalOnly, Told
from orchestrator.saga import Saga
from orchestrator.sagas.order_fulfilment import CARD_LIMIT_CENTS, Order, OrderFulfilment
from orchestrator.signals import Signal

ORDERS_MODULE = "orchestrator.sagas.order_fulfilment"
SAGAS_MODULE = "orchestrator.bench.sagas"
SHOP = ("inventory", "payments", "shipping")

LONG, WIDE, WORDS = 100, 1_000, 3
"""Steps of a sequence, of a fan-out, and signals of a saga that waits for them."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of load. `sagas` are started at once, `singly` one after the other.

    `steps` is how many steps (or signals) one of them takes, `services` which services take part.
    """

    name: str
    says: str
    saga: type[Saga[Any, Any]]
    module: str
    services: tuple[str, ...]
    payload: Callable[[int], Any]
    """What the saga with this number is started with."""
    steps: int
    sagas: int
    singly: int
    told: Signal[int] | None = None
    """The signal that the client sends `steps` times to each."""
    undone: bool = False
    """Whether some end undone. Where none should, one that does ends the run."""

    def scaled(self, share: float) -> Scenario:
        """The same with this share of its sagas."""
        return replace(self, sagas=max(1, round(share * self.sagas)), singly=max(1, round(share * self.singly)))


def _order(number: int) -> Order:
    return Order(id=f"order-{number:07d}", sku="tea", cents=995)


def _order_of_many(number: int) -> Order:
    cents = CARD_LIMIT_CENTS + 1 if number % 10 == 3 else 995
    return Order(id=f"order-{number:07d}", sku="tea", cents=cents)


ORDERS = Scenario("orders", "orders of three steps", OrderFulfilment, ORDERS_MODULE, SHOP, _order, 3, 5_000, 200)

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "undone",
            "orders of three steps, a tenth of them declined at the second and undone",
            OrderFulfilment,
            ORDERS_MODULE,
            SHOP,
            _order_of_many,
            3,
            5_000,
            200,
            undone=True,
        ),
        Scenario("local", "three local steps", LocalOnly, SAGAS_MODULE, (), lambda number: number, 3, 5_000, 200),
        Scenario(
            "sequence",
            f"{LONG} steps in a service, one after the other",
            InTurn,
            SAGAS_MODULE,
            ("tools",),
            lambda number: LONG,
            LONG,
            100,
            5,
        ),
        Scenario(
            "fan-out",
            f"{WIDE:,} steps in a service at once",
            FanOut,
            SAGAS_MODULE,
            ("tools",),
            lambda number: WIDE,
            WIDE,
            10,
            5,
        ),
        Scenario(
            "signals",
            f"{WORDS} signals, each sent when the one before is acknowledged",
            Told,
            SAGAS_MODULE,
            (),
            lambda number: WORDS,
            WORDS,
            2_000,
            200,
            told=Told.word,
        ),
    )
}
