"""All use cases on one real broker: two workers as processes, every service in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any

from pydantic import BaseModel

from orchestrator.checker.evidence import Evidence, Told
from orchestrator.cli.dev import find_participants
from orchestrator.client import Client
from orchestrator.demo.dump import gather_evidence
from orchestrator.demo.processes import Process
from orchestrator.errors import SagaFailed, UpdateRejected
from orchestrator.log.kafka import KafkaLog
from orchestrator.participant import ParticipantSettings
from orchestrator.participant.runner import Runner, load_participant
from orchestrator.provisioning import apply, plan
from orchestrator.saga import Saga
from orchestrator.sagas import etl_pipeline as etl
from orchestrator.sagas import expense_approval as expenses
from orchestrator.sagas import infrastructure_provisioning as infrastructure
from orchestrator.sagas import order_fulfilment as orders
from orchestrator.sagas import subscription_billing as billing
from orchestrator.sagas import travel_booking as travel
from orchestrator.signals import Signal
from orchestrator.topics import TopicNames

PARTITIONS = 4
RESULT_WITHIN_S = 80.0
SOON = timedelta(seconds=1)


@dataclass(frozen=True)
class Scenario:
    """One way through a use case: what is asked for, how it ends, and which lines are in the services' books then."""

    name: str
    saga: type[Saga[Any, Any]]
    given: Callable[[str], Any]
    """The input for a saga id."""
    ends: str
    """Its result as a text, or its status and the error's type."""
    books: dict[str, list[str]] = field(default_factory=dict)
    """By service, sorted; `{id}` stands for the saga id."""
    says: tuple[tuple[Signal[Any], Any], ...] = ()
    """What a client tells the saga, one after the other, as soon as it has started it."""
    fills: tuple[tuple[str, BaseModel], ...] = ()
    """Who fills in which form of its tasks, one after the other, as soon as there is the task."""


def trip(destination: str, cents: int = 90_000, **more: Any) -> Callable[[str], travel.Trip]:
    return lambda id: travel.Trip(id=id, traveller="Ada", destination=destination, cents=cents, **more)


LOADED = [f"{file}.csv@{row}" for file in range(1, etl.FILES) for row in (0, 100, 200)] + [f"{etl.FILES}.csv@0"]

SCENARIOS = (
    Scenario(
        "order",
        orders.OrderFulfilment,
        lambda id: orders.Order(id=id, sku="tea", cents=900),
        "shipped {id}",
        {
            "inventory": ["reserved tea for {id}"],
            "payments": ["charged 900 for {id}"],
            "shipping": ["shipped {id} from A"],
        },
    ),
    Scenario(
        "trip",
        travel.TravelBooking,
        trip("Paris"),
        "ticket='ticket-for-seat-of-{id}' room='room-of-{id}' car='car-of-{id}'",
        {
            "airline": ["held a seat to Paris", "issued a ticket for seat-of-{id}"],
            "hotels": ["reserved a room in Paris"],
            "cars": ["reserved a car in Paris"],
            "cards": ["charged 90000"],
        },
    ),
    Scenario(
        "trip-without-car",
        travel.TravelBooking,
        trip("Venice"),
        "ticket='ticket-for-seat-of-{id}' room='room-of-{id}' car=None",
        {"hotels": ["reserved a room in Venice"], "cars": [], "cards": ["charged 90000"]},
    ),
    Scenario(
        "trip-declined",
        travel.TravelBooking,
        trip("Rome", 900_000),
        "COMPENSATED CardDeclined",
        {
            "airline": ["held a seat to Rome", "released the seat to Rome"],
            "hotels": ["cancelled the room in Rome", "reserved a room in Rome"],
            "cars": ["cancelled the car in Rome", "reserved a car in Rome"],
            "cards": [],
        },
    ),
    Scenario(
        "trip-unanswered",
        travel.TravelBooking,
        trip("Shangri-La", patience=3 * SOON),
        "COMPENSATED Timeout",
        {"cards": []},  # whether there is a room that is cancelled hangs on who was faster
    ),
    Scenario(
        "expense-small",
        expenses.ExpenseApproval,
        lambda id: expenses.Expense(id=id, employee="Ada", cents=900),
        "payment-{id}",
        {"budgets": ["reserved 900"], "mail": [], "payroll": ["paid 900 to Ada"]},
    ),
    Scenario(
        "expense-approved",
        expenses.ExpenseApproval,
        lambda id: expenses.Expense(id=id, employee="Ada", cents=20_000),
        "payment-{id}",
        {
            "budgets": ["reserved 20000"],
            "mail": [
                "to Ada: manager: yes have fun",
                "to manager: please decide about {id} (request 1 to you)",
            ],
            "payroll": ["paid 20000 to Ada"],
        },
        fills=(
            ("Bob", expenses.Decision(approved=False)),
            ("manager", expenses.Decision(approved=True, why="have fun")),
        ),
    ),
    Scenario(
        "expense-nobody",
        expenses.ExpenseApproval,
        lambda id: expenses.Expense(id=id, employee="Ada", cents=20_000, times_asked=2, remind_every=SOON),
        "COMPENSATED NobodyDecided",
        {
            "budgets": ["released 20000", "reserved 20000"],
            "mail": [
                "to Ada: nobody has decided about {id}",
                "to director: please decide about {id} (request 1 to you)",
                "to director: please decide about {id} (request 2 to you)",
                "to manager: please decide about {id} (request 1 to you)",
                "to manager: please decide about {id} (request 2 to you)",
            ],
            "payroll": [],
        },
    ),
    Scenario(
        "environment",
        infrastructure.InfrastructureProvisioning,
        lambda id: infrastructure.Environment(name=id, machines=2, check_every=SOON),
        "{id}.balancer.example",
        {
            "network": ["created the network of {id}"],
            "compute": ["launched machine 1 of {id}", "launched machine 2 of {id}"],
            "balancing": ["balances {id} over 2", "checked {id}", "checked {id}"],
            "dns": ["{id} is at {id}.balancer.example"],
        },
    ),
    Scenario(
        "environment-too-large",
        infrastructure.InfrastructureProvisioning,
        lambda id: infrastructure.Environment(name=id, machines=infrastructure.QUOTA + 1),
        "COMPENSATED QuotaExceeded",
        {"network": ["created the network of {id}", "deleted the network of {id}"], "balancing": [], "dns": []},
    ),
    Scenario(
        "etl",
        etl.EtlPipeline,
        lambda id: etl.Day(date=id),
        "rows=1500 bad=['{id}/6.csv']",
        {
            "cleaning": [f"cleaned {{id}}/{part}" for part in LOADED],
            "warehouse": [
                "created {id}",
                *(f"loaded clean/{{id}}/{part}" for part in LOADED),
                "published {id} without {id}/6.csv",
            ],
        },
    ),
    Scenario(
        "etl-too-bad",
        etl.EtlPipeline,
        lambda id: etl.Day(date=etl.BAD_DAY),
        "COMPENSATED Malformed",
        {"cleaning": [], "warehouse": [f"created {etl.BAD_DAY}", f"dropped {etl.BAD_DAY}"]},
    ),
    Scenario(
        "subscription",
        billing.SubscriptionBilling,
        lambda id: billing.Subscription(customer=id, cents=900, months=3, every=SOON),
        "3 months as agreed",
        {
            "cashier": [f"charged {{id}} 900 for month {month}" for month in (1, 2, 3)],
            "membership": [
                *(f"{{id}} may come in month {month}" for month in (1, 2, 3)),
                "{id} may come no more after month 3",
            ],
            "letters": ["to {id}: over: 3 months as agreed"],
        },
    ),
    Scenario(
        "subscription-late",
        billing.SubscriptionBilling,
        lambda id: billing.Subscription(customer=billing.LATE, cents=900, months=2, every=2 * SOON, grace=SOON),
        "2 months as agreed",
        {
            "cashier": ["charged Oblomov 900 for month 1", "charged Oblomov 900 for month 2"],
            "letters": [
                "to Oblomov: month 1, request 1 of 3: CardDeclined",
                "to Oblomov: month 2, request 1 of 3: CardDeclined",
                "to Oblomov: over: 2 months as agreed",
            ],
        },
    ),
    Scenario(
        "subscription-cancelled",
        billing.SubscriptionBilling,
        lambda id: billing.Subscription(customer="Ada", cents=900, every=2 * SOON),
        "cancelled after month 1",
        {
            "cashier": ["charged Ada 900 for month 1"],
            "membership": ["Ada may come in month 1", "Ada may come no more after month 1"],
        },
        says=((billing.SubscriptionBilling.cancelled, billing.Cancellation(why="moved")),),
    ),
    Scenario(
        "subscription-unpaid",
        billing.SubscriptionBilling,
        lambda id: billing.Subscription(customer=billing.BROKE, cents=900, grace=SOON / 2),
        "not paid for month 1",
        {"cashier": [], "membership": ["Diogenes may come no more after month 1"]},
    ),
)
MODULES = tuple(dict.fromkeys(scenario.saga.__module__ for scenario in SCENARIOS))


class Town:
    """Workers and services of all use cases under one prefix; `close` ends them all."""

    def __init__(self, bootstrap_servers: str, prefix: str, folder: Path) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.names = TopicNames(prefix)
        self.folder = folder
        self.log = KafkaLog(bootstrap_servers)
        self.told: dict[str, Told] = {}
        self.services = find_participants(MODULES)
        with closing(self.log.admin()) as admin:
            apply(admin, plan(self.names, partitions=PARTITIONS, replication=1, services=list(self.services)))
        environment = {
            "SAGA_BOOTSTRAP_SERVERS": bootstrap_servers,
            "SAGA_DEVELOPMENT": "true",
            "SAGA_PARTITIONS": str(PARTITIONS),
            "SAGA_PREFIX": prefix,
            "SAGA_STATE_DIRECTORY": str(folder),
            "SAGA_METRICS_PORT": "0",
        }
        self.workers = [Process(f"worker-{n}", ["worker", *MODULES], folder, environment) for n in (1, 2)]
        limits = ParticipantSettings(dead_letter_partitions=PARTITIONS)
        self._runners = [
            Runner(load_participant(place), self.log, topics=self.names, settings=limits, exit=lambda code: None)
            for place in self.services.values()
        ]
        self._threads = [Thread(target=runner.run) for runner in self._runners]

    def start(self) -> None:
        for worker in self.workers:
            worker.start()
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        for runner in self._runners:
            runner.stop()
        for worker in self.workers:
            worker.stop()
        for thread in self._threads:
            thread.join()

    def run(
        self, times: int, name: str, meanwhile: Callable[[], None] | None = None
    ) -> dict[str, tuple[Scenario, str]]:
        """Runs every scenario so often, all at once; by saga id how each ended.

        `meanwhile` is called in a thread when a third has ended.
        """
        wanted = {f"{name}-{one.name}-{number}": one for one in SCENARIOS for number in range(times)}
        ends = asyncio.run(self._run(wanted, meanwhile))
        return {saga_id: (wanted[saga_id], end) for saga_id, end in ends.items()}

    async def _run(self, wanted: dict[str, Scenario], meanwhile: Callable[[], None] | None) -> dict[str, str]:
        ends: dict[str, str] = {}
        async with Client.connect(self.bootstrap_servers, prefix=self.names.prefix) as client:

            async def one(saga_id: str, scenario: Scenario) -> None:
                handle = await client.start(scenario.saga, scenario.given(saga_id), id=saga_id)
                self.told[saga_id] = Told(saga_id, True)
                for signal, value in scenario.says:
                    await handle.signal(signal, value)
                for by, form in scenario.fills:
                    await fill_in(client, saga_id, form, by)
                try:
                    ends[saga_id], status = str(await handle.result(timeout=RESULT_WITHIN_S)), "COMPLETED"
                except SagaFailed as failed:
                    ends[saga_id], status = f"{failed.status} {failed.error_type}", str(failed.status)
                self.told[saga_id] = Told(saga_id, True, status)

            tasks = [asyncio.create_task(one(*each)) for each in wanted.items()]
            if meanwhile is not None:
                while len(ends) < len(tasks) // 3:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=0.05)
                await asyncio.to_thread(meanwhile)
            await asyncio.gather(*tasks)
        return ends

    def evidence(self) -> Evidence:
        """Stops everything and gathers what the checker needs."""
        self.close()
        told = list(self.told.values())
        return gather_evidence(self.log, self.names, PARTITIONS, list(self.services), told, self.folder / "books")


async def fill_in(client: Client, saga_id: str, form: BaseModel, by: str) -> None:
    """Fills in a task's form once the task is open. Whose it is not may not."""
    while True:
        try:
            return await client.complete_task(saga_id, form, by=by)
        except UpdateRejected as refused:
            if "no open task" not in refused.reason:
                return None
            await asyncio.sleep(0.05)


@contextmanager
def town(bootstrap_servers: str, prefix: str, folder: Path) -> Iterator[Town]:
    """A town that works, until the block ends."""
    made = Town(bootstrap_servers, prefix, folder)
    made.start()
    try:
        yield made
    finally:
        made.close()
