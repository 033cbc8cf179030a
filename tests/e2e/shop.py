"""The order shop as processes on a real broker, for tests that kill, freeze and feed it bad input."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from orchestrator.checker.evidence import Evidence, Told
from orchestrator.client import Client
from orchestrator.demo.dump import gather_evidence
from orchestrator.demo.processes import Process
from orchestrator.errors import SagaFailed
from orchestrator.log.kafka import KafkaLog
from orchestrator.provisioning import apply, plan
from orchestrator.sagas.order_fulfilment import CARD_LIMIT_CENTS, Order, OrderFulfilment
from orchestrator.topics import TopicNames

MODULE = "orchestrator.sagas.order_fulfilment"
SERVICES = ("inventory", "payments", "shipping")
PARTITIONS = 8


class Shop:
    """Two workers on eight partitions and three services; `close` ends them all."""

    def __init__(self, bootstrap_servers: str, prefix: str, folder: Path) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.names = TopicNames(prefix)
        self.folder = folder
        self.log = KafkaLog(bootstrap_servers)
        self.told: dict[str, Told] = {}
        with closing(self.log.admin()) as admin:
            apply(admin, plan(self.names, partitions=PARTITIONS, replication=1, services=SERVICES))
        environment = {
            "SAGA_BOOTSTRAP_SERVERS": bootstrap_servers,
            "SAGA_DEVELOPMENT": "true",
            "SAGA_PARTITIONS": str(PARTITIONS),
            "SAGA_PREFIX": prefix,
            "SAGA_STATE_DIRECTORY": str(folder),
            "SAGA_METRICS_PORT": "0",
            "SHOP_BOOKS": str(folder / "books"),
        }
        commands = {name: ["worker", MODULE] for name in ("worker-1", "worker-2")}
        commands |= {service: ["participant", f"{MODULE}:{service}"] for service in SERVICES}
        self.processes = {name: Process(name, command, folder, environment) for name, command in commands.items()}

    def start(self) -> None:
        for process in self.processes.values():
            process.start()

    def close(self) -> None:
        for process in self.processes.values():
            process.stop()

    def order(self, count: int, name: str, meanwhile: Callable[[], None] | None = None) -> list[str]:
        """Runs orders to their end, one in five with a declined card; their statuses in order.

        `meanwhile` is called in a thread when a third has ended.
        """
        return asyncio.run(self._order(count, name, meanwhile))

    async def _order(self, count: int, name: str, meanwhile: Callable[[], None] | None) -> list[str]:
        async with Client.connect(self.bootstrap_servers, prefix=self.names.prefix) as client:
            ended = 0

            async def one(number: int) -> str:
                nonlocal ended
                saga_id = f"{name}-{number}"
                cents = 2 * CARD_LIMIT_CENTS if number % 5 == 0 else 900
                handle = await client.start(OrderFulfilment, Order(id=saga_id, sku="tea", cents=cents), id=saga_id)
                self.told[saga_id] = Told(saga_id, True)
                try:
                    await handle.result(timeout=50)
                    status = "COMPLETED"
                except SagaFailed as failed:
                    status = str(failed.status)
                self.told[saga_id] = Told(saga_id, True, status)
                ended += 1
                return status

            tasks = [asyncio.create_task(one(number)) for number in range(count)]
            if meanwhile is not None:
                while ended < count // 3:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=0.05)
                await asyncio.to_thread(meanwhile)
            return await asyncio.gather(*tasks)

    def evidence(self) -> Evidence:
        """Stops everything and gathers what the checker needs."""
        self.close()
        told = list(self.told.values())
        return gather_evidence(self.log, self.names, PARTITIONS, SERVICES, told, self.folder / "books")


def freeze(process: Process) -> None:
    os.killpg(process.pid, signal.SIGSTOP)


def thaw(process: Process) -> None:
    os.killpg(process.pid, signal.SIGCONT)


def run_saga(*arguments: str, timeout_s: float = 50) -> subprocess.CompletedProcess[str]:
    """One `saga` command to its end."""
    command = [sys.executable, "-m", "orchestrator.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


def wait_until(condition: Callable[[], bool], within_s: float) -> bool:
    """Polls until the condition holds."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False
