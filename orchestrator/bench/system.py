"""The system under measurement: one worker, the services, and a client in this process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from orchestrator.bench.processes import Process
from orchestrator.bench.sizes import SERVICES
from orchestrator.client import Client, Handle
from orchestrator.config import Settings
from orchestrator.errors import ResultTimeout
from orchestrator.log.kafka import KafkaLog
from orchestrator.provisioning import apply, plan
from orchestrator.sagas.order_fulfilment import Order, OrderFulfilment
from orchestrator.topics import TopicNames

MODULE = "orchestrator.sagas.order_fulfilment"
READY_WITHIN_S = 90.0
RESULT_WITHIN_S = 300.0


def create_topics(log: KafkaLog, names: TopicNames, settings: Settings) -> None:
    """As `saga topics apply` does."""
    specs = plan(names, partitions=settings.partitions, replication=settings.replication, services=SERVICES)
    with closing(log.admin()) as admin:
        apply(admin, specs)


def start_processes(settings: Settings, folder: Path) -> tuple[Process, Process]:
    """The worker, and the three services in one process."""
    servers = settings.bootstrap_servers or ""
    environment = {
        "SAGA_BOOTSTRAP_SERVERS": servers,
        "SAGA_DEVELOPMENT": "true",
        "SAGA_STATE_DIRECTORY": str(folder),
        "SAGA_METRICS_PORT": "0",
        "SHOP_BOOKS": str(folder / "books"),
    }
    worker = Process("worker", ["orchestrator.cli", "worker", MODULE, "--child"], folder, environment)
    services = Process("services", ["orchestrator.bench.services", servers, *SERVICES], folder, environment)
    return worker, services


class Load:
    """Sagas from one client. Ids go on from call to call."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.started = 0

    async def wait_until_ready(self, processes: Sequence[Process]) -> None:
        """Returns when a saga has ended. Raises `SagaError` if one of the processes did instead."""
        handle = (await self._client.start_many(OrderFulfilment, self._orders(1)))[0]
        deadline = time.monotonic() + READY_WITHIN_S
        while True:
            try:
                await handle.result(timeout=0.5)
                return
            except ResultTimeout:
                for process in processes:
                    process.check()
                if time.monotonic() > deadline:
                    raise

    async def run(self, sagas: int) -> float:
        """So many at once. Returns the seconds from the first start to the last result."""
        orders = self._orders(sagas)
        began = time.perf_counter()
        handles: list[Handle[str]] = await self._client.start_many(OrderFulfilment, orders)
        for handle in handles:
            await handle.result(RESULT_WITHIN_S)
        return time.perf_counter() - began

    async def run_singly(self, sagas: int) -> list[float]:
        """One after the other. Returns the seconds of each, from before `start` to the result."""
        seconds = []
        for saga_id, order in self._orders(sagas):
            began = time.perf_counter()
            handle = await self._client.start(OrderFulfilment, order, id=saga_id)
            await handle.result(RESULT_WITHIN_S)
            seconds.append(time.perf_counter() - began)
        return seconds

    def _orders(self, count: int) -> list[tuple[str, Order]]:
        numbers = range(self.started, self.started + count)
        self.started += count
        return [(f"order-{number:07d}", Order(id=f"order-{number:07d}", sku="tea", cents=995)) for number in numbers]
