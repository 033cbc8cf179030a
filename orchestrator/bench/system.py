"""The system under measurement: one worker, the services, and a client in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from orchestrator.bench.processes import Process
from orchestrator.bench.scenarios import Scenario
from orchestrator.client import Client, Handle
from orchestrator.config import Settings
from orchestrator.errors import ResultTimeout, SagaFailed
from orchestrator.log.kafka import KafkaLog
from orchestrator.provisioning import apply, plan
from orchestrator.topics import TopicNames

READY_WITHIN_S = 90.0
RESULT_WITHIN_S = 300.0


def create_topics(
    log: KafkaLog, names: TopicNames, settings: Settings, services: Sequence[str], *, fsync: bool = False
) -> None:
    """As `saga topics apply` does."""
    specs = plan(
        names, partitions=settings.partitions, replication=settings.replication, services=services, fsync=fsync
    )
    with closing(log.admin()) as admin:
        apply(admin, specs)


def start_processes(settings: Settings, folder: Path, scenario: Scenario) -> tuple[Process, Process]:
    """The worker, and the services in one process."""
    servers = settings.bootstrap_servers or ""
    environment = {
        "SAGA_BOOTSTRAP_SERVERS": servers,
        "SAGA_DEVELOPMENT": "true",
        "SAGA_STATE_DIRECTORY": str(settings.state_directory),
        "SAGA_PREFIX": settings.prefix,
        "SAGA_METRICS_PORT": "0",
        "SHOP_BOOKS": str(folder / "books"),
    }
    worker = Process("worker", ["orchestrator.cli", "worker", scenario.module, "--child"], folder, environment)
    arguments = ["orchestrator.bench.services", servers, settings.prefix, *scenario.services]
    services = Process("services", arguments, folder, environment)
    return worker, services


class Load:
    """Sagas of one scenario from one client. Their numbers go on from call to call."""

    def __init__(self, client: Client, scenario: Scenario) -> None:
        self._client = client
        self.scenario = scenario
        self.started = 0
        self.undone = 0

    async def wait_until_ready(self, processes: Sequence[Process]) -> None:
        """Returns when a saga has ended. Raises `SagaError` if one of the processes did instead."""
        handle = (await self._client.start_many(self.scenario.saga, self.inputs(1)))[0]
        await self._talk(handle)
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

    async def start(self, inputs: list[tuple[str, Any]]) -> None:
        """These at once. Returns when Kafka has them; nobody waits for what becomes of them."""
        await self._client.start_many(self.scenario.saga, inputs)

    async def run(self, sagas: int) -> float:
        """So many at once. Returns the seconds from the first start to the last result."""
        inputs = self.inputs(sagas)
        began = time.perf_counter()
        handles = await self._client.start_many(self.scenario.saga, inputs)
        if self.scenario.told is not None:
            await asyncio.gather(*map(self._talk, handles))
        for handle in handles:
            await self._end(handle)
        return time.perf_counter() - began

    async def run_singly(self, sagas: int) -> list[float]:
        """One after the other. Returns the seconds of each, from before `start` to the result."""
        seconds = []
        for saga_id, payload in self.inputs(sagas):
            began = time.perf_counter()
            await self.run_one(saga_id, payload)
            seconds.append(time.perf_counter() - began)
        return seconds

    async def run_one(self, saga_id: str, payload: Any) -> None:
        """One saga, from its start to its end."""
        handle = await self._client.start(self.scenario.saga, payload, id=saga_id)
        await self._talk(handle)
        await self._end(handle)

    async def _talk(self, handle: Handle[Any]) -> None:
        if self.scenario.told is not None:
            for number in range(self.scenario.steps):
                await handle.signal(self.scenario.told, number)

    async def _end(self, handle: Handle[Any]) -> None:
        try:
            await handle.result(RESULT_WITHIN_S)
        except SagaFailed:
            if not self.scenario.undone:
                raise
            self.undone += 1

    def inputs(self, count: int) -> list[tuple[str, Any]]:
        """Ids and inputs of the next so many."""
        numbers = range(self.started, self.started + count)
        self.started += count
        return [(f"{self.scenario.name}-{number:07d}", self.scenario.payload(number)) for number in numbers]
