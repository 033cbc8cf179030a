"""The order shop as processes on a real broker, for tests that kill, freeze and feed it bad input."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from orchestrator.checker.evidence import Evidence, Raw, Told
from orchestrator.client import Client
from orchestrator.demo.dump import dump_topics, gather_evidence
from orchestrator.demo.processes import Process
from orchestrator.errors import SagaFailed
from orchestrator.log.kafka import KafkaLog
from orchestrator.provisioning import apply, plan
from orchestrator.sagas.order_fulfilment import CARD_LIMIT_CENTS, Order, OrderFulfilment
from orchestrator.topics import TopicNames

MODULE = "orchestrator.sagas.order_fulfilment"
SERVICES = ("inventory", "payments", "shipping")
PARTITIONS = 8
RESULT_WITHIN_S = 80.0


class Shop:
    """Workers (two on eight partitions, unless said otherwise) and three services; `close` ends them all."""

    def __init__(
        self,
        bootstrap_servers: str,
        prefix: str,
        folder: Path,
        *,
        replication: int = 1,
        partitions: int = PARTITIONS,
        workers: int = 2,
        modules: Sequence[str] = (MODULE,),
    ) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.names = TopicNames(prefix)
        self.folder = folder
        self.partitions = partitions
        self.result_within_s = RESULT_WITHIN_S
        self.log = KafkaLog(bootstrap_servers)
        self.told: dict[str, Told] = {}
        with closing(self.log.admin()) as admin:
            apply(admin, plan(self.names, partitions=partitions, replication=replication, services=SERVICES))
        environment = {
            "SAGA_BOOTSTRAP_SERVERS": bootstrap_servers,
            "SAGA_DEVELOPMENT": "true",
            "SAGA_PARTITIONS": str(partitions),
            "SAGA_REPLICATION": str(replication),
            "SAGA_PREFIX": prefix,
            "SAGA_STATE_DIRECTORY": str(folder),
            "SAGA_METRICS_PORT": "0",
            "SHOP_BOOKS": str(folder / "books"),
        }
        commands = {name: ["worker", *modules] for name in (f"worker-{number + 1}" for number in range(workers))}
        commands |= {service: ["participant", f"{MODULE}:{service}"] for service in SERVICES}
        self.processes = {name: Process(name, command, folder, environment) for name, command in commands.items()}

    def start(self) -> None:
        for process in self.processes.values():
            process.start()

    def close(self) -> None:
        for process in self.processes.values():
            process.stop()

    def order(
        self, count: int, name: str, meanwhile: Callable[[], None] | None = None, *, per_second: float | None = None
    ) -> list[str]:
        """Runs orders to their end, one in five with a declined card; their statuses in order.

        All at once, or at a pace of `per_second`. `meanwhile` is called in a thread when a third has ended.
        """
        return asyncio.run(self._order(count, name, meanwhile, per_second))

    async def _order(
        self, count: int, name: str, meanwhile: Callable[[], None] | None, per_second: float | None
    ) -> list[str]:
        async with Client.connect(self.bootstrap_servers, prefix=self.names.prefix) as client:
            ended = 0
            began = time.monotonic()

            async def one(number: int) -> str:
                nonlocal ended
                due = began + number / per_second if per_second else began
                while (left := due - time.monotonic()) > 0:
                    await asyncio.sleep(left)
                saga_id = f"{name}-{number}"
                cents = 2 * CARD_LIMIT_CENTS if number % 5 == 0 else 900
                handle = await client.start(OrderFulfilment, Order(id=saga_id, sku="tea", cents=cents), id=saga_id)
                self.told[saga_id] = Told(saga_id, True)
                try:
                    await handle.result(timeout=self.result_within_s)
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

    def journal(self) -> Raw:
        """Every journal record as it stands now."""
        return dump_topics(self.log, [self.names.journal], self.partitions)[self.names.journal]

    def evidence(self) -> Evidence:
        """Stops everything and gathers what the checker needs."""
        self.close()
        told = list(self.told.values())
        return gather_evidence(self.log, self.names, self.partitions, SERVICES, told, self.folder / "books")


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
