"""The demonstration from the first broker to the verdict."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.broker import provide
from orchestrator.checker.check import check
from orchestrator.checker.evidence import Evidence, Raw, Told, Verdict
from orchestrator.checker.ownership import tenures
from orchestrator.client import Client
from orchestrator.config import Settings, load_settings
from orchestrator.demo.dump import gather_evidence
from orchestrator.demo.processes import Process
from orchestrator.errors import ConfigurationError, ResultTimeout, SagaError, SagaFailed
from orchestrator.log.kafka import KafkaLog
from orchestrator.provisioning import apply, plan
from orchestrator.sagas.order_fulfilment import CARD_LIMIT_CENTS, Order, OrderFulfilment

MODULE = "orchestrator.sagas.order_fulfilment"
SERVICES = ("inventory", "payments", "shipping")
FINISH_WITHIN_S = 150.0
READY_WITHIN_S = 60.0
WORKER_DOWN_S = 4.0
SERVICE_DOWN_S = 1.0


@dataclass(slots=True)
class Outcome:
    """What the demonstration showed. Times in seconds; `recovery_s` by partition that the killed worker had owned."""

    verdict: Verdict
    orders: int
    seconds: float
    statuses: Counter[str]
    duplicates: int
    recovery_s: dict[int, float] = field(default_factory=dict)
    folder: Path | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "orders": self.orders,
            "seconds": round(self.seconds, 1),
            "statuses": dict(sorted(self.statuses.items())),
            "effects": self.verdict.effects,
            "duplicates_absorbed": self.duplicates,
            "decisions": self.verdict.decisions,
            "records_dropped": self.verdict.dropped,
            "recovery_s": {str(p): round(s, 2) for p, s in sorted(self.recovery_s.items())},
            "violations": self.verdict.violations,
        }


class Demo:
    """Broker, two workers, three services, one client; `say` gets a line of progress now and then."""

    def __init__(self, orders: int, say: Callable[[str], None]) -> None:
        if orders < 1:
            raise ConfigurationError("the demonstration needs one order at least")
        self.orders = orders
        self.say = say
        self.folder = Path(tempfile.mkdtemp(prefix="saga-demo-"))
        self.told: dict[str, Told] = {}
        self.killed_at_ms = 0

    def run(self) -> Outcome:
        """Everything. Raises `SagaError` where something could not even be started."""
        self.say("starting a Kafka broker")
        with provide(ephemeral=True) as broker:
            settings = load_settings(
                {"bootstrap_servers": broker.bootstrap_servers, "development": True, "state_directory": self.folder}
            )
            log = KafkaLog(broker.bootstrap_servers)
            self._create_topics(log, settings)
            processes = self._processes(settings)
            try:
                for process in processes.values():
                    process.start()
                seconds = asyncio.run(self._load(broker.bootstrap_servers, processes))
            except BaseException:
                for process in processes.values():
                    process.kill()
                raise
            for process in processes.values():
                process.stop()
            self.say("reading every topic and the services' books for the verdict")
            evidence = gather_evidence(
                log,
                settings.topic_names,
                settings.partitions,
                SERVICES,
                list(self.told.values()),
                self.folder / "books",
            )
        return self._outcome(evidence, seconds)

    def _create_topics(self, log: KafkaLog, settings: Settings) -> None:
        specs = plan(
            settings.topic_names, partitions=settings.partitions, replication=settings.replication, services=SERVICES
        )
        with closing(log.admin()) as admin:
            apply(admin, specs)

    def _processes(self, settings: Settings) -> dict[str, Process]:
        environment = {
            "SAGA_BOOTSTRAP_SERVERS": settings.bootstrap_servers or "",
            "SAGA_DEVELOPMENT": "true",
            "SAGA_STATE_DIRECTORY": str(self.folder),
            "SAGA_METRICS_PORT": "0",
            "SHOP_BOOKS": str(self.folder / "books"),
        }
        commands = {f"worker-{number}": ["worker", MODULE, "--processes", "1"] for number in (1, 2)}
        commands |= {service: ["participant", f"{MODULE}:{service}"] for service in SERVICES}
        return {name: Process(name, command, self.folder, environment) for name, command in commands.items()}

    async def _load(self, bootstrap_servers: str, processes: dict[str, Process]) -> float:
        first, *others = planned_orders(self.orders)
        async with Client.connect(bootstrap_servers) as client:
            self.say(f"starting {self.orders} orders, one in ten with a card that will be declined")
            await self._first(await client.start(OrderFulfilment, first, id=first.id), processes)
            self.told[first.id] = Told(first.id, True, "COMPLETED")
            self.say("the first went through; the others follow")
            began = time.monotonic()
            nemesis = asyncio.create_task(self._kill(processes))

            async def one(order: Order) -> None:
                handle = await client.start(OrderFulfilment, order, id=order.id)
                self.told[order.id] = Told(order.id, True)
                try:
                    await handle.result(timeout=FINISH_WITHIN_S)
                    status = "COMPLETED"
                except SagaFailed as failed:
                    status = str(failed.status)
                self.told[order.id] = Told(order.id, True, status)

            pace = self.orders / 12.0
            report = asyncio.create_task(self._report())
            tasks = []
            for number, order in enumerate(others):
                tasks.append(asyncio.create_task(one(order)))
                await asyncio.sleep(max(0.0, began + number / pace - time.monotonic()))
            await asyncio.gather(*tasks, nemesis)
            report.cancel()
            return time.monotonic() - began

    async def _first(self, handle: Any, processes: dict[str, Process]) -> None:
        """The first order shows that everything is up; a process that ended instead says why."""
        waiting = asyncio.create_task(handle.result(timeout=READY_WITHIN_S))
        while not waiting.done():
            await asyncio.wait([waiting], timeout=0.5)
            for process in processes.values():
                if not process.running:
                    waiting.cancel()
                    raise SagaError(f"{process.name} ended:\n{process.tail()}")
        try:
            await waiting
        except ResultTimeout:
            ends = "\n".join(f"{process.name}:\n{process.tail(6)}" for process in processes.values())
            raise SagaError(f"the first order did not end within {READY_WITHIN_S:.0f} s\n{ends}") from None

    async def _kill(self, processes: dict[str, Process]) -> None:
        """kill -9 in the middle: a whole worker, then a service; both come back."""
        while self._ended() < self.orders // 4:
            await asyncio.sleep(0.05)
        self.say(f"{self._ended()} orders ended: kill -9 of worker-1 and of the payment service")
        self.killed_at_ms = time.time_ns() // 1_000_000
        processes["worker-1"].kill()
        processes["payments"].kill()
        await asyncio.sleep(SERVICE_DOWN_S)
        processes["payments"].start()
        await asyncio.sleep(WORKER_DOWN_S - SERVICE_DOWN_S)
        processes["worker-1"].start()
        self.say("both are started again")

    def _ended(self) -> int:
        return sum(told.status is not None for told in self.told.values())

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(2.0)
            self.say(f"{self._ended()} of {self.orders} orders ended")

    def _outcome(self, evidence: Evidence, seconds: float) -> Outcome:
        verdict = check(evidence)
        commands = sum(len(records) for raw in evidence.commands.values() for records in raw.values())
        outcome = Outcome(
            verdict,
            self.orders,
            seconds,
            Counter(verdict.statuses),
            commands - _distinct_commands(evidence) + verdict.absorbed,
            recovery_times(evidence.journal, self.killed_at_ms),
        )
        if verdict.violations:
            outcome.folder = self.folder
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
        return outcome


def planned_orders(count: int) -> list[Order]:
    """So many orders; the card of every tenth is declined, never that of the first, which shows that all is up."""
    return [
        Order(id=f"order-{number}", sku="tea", cents=900 + number if number % 10 else 2 * CARD_LIMIT_CENTS)
        for number in range(1, count + 1)
    ]


def _distinct_commands(evidence: Evidence) -> int:
    keys = set()
    for raw in evidence.commands.values():
        for records in raw.values():
            for record in records:
                keys.add(next((value for name, value in record.headers if name == "idempotency-key"), b""))
    return len(keys)


GONE_AFTER_MS = 1_000
"""An owner whose last accepted record is no younger than this after the kill is taken for the killed one."""


def recovery_times(journal: Raw, killed_at_ms: int) -> dict[int, float]:
    """For each partition that the killed worker owned: seconds from the kill to its next owner's first decision."""
    found: dict[int, float] = {}
    for partition, held in tenures(journal).items():
        before = [each for each in held if each.claim_ms <= killed_at_ms]
        later = [each.first_ms for each in held[len(before) :] if each.first_ms is not None]
        if later and (not before or before[-1].last_ms <= killed_at_ms + GONE_AFTER_MS):
            found[partition] = (later[0] - killed_at_ms) / 1000
    return found
