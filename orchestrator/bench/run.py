"""One measurement: the system, then its floor, on the same broker."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.bench.figures import Figures, Meter, is_quiet, percentiles
from orchestrator.bench.floor import FloorClient, Setup
from orchestrator.bench.processes import Process
from orchestrator.bench.sizes import Size, measure_sizes
from orchestrator.bench.system import Load, create_topics, start_processes
from orchestrator.broker import Broker, provide
from orchestrator.client import Client
from orchestrator.config import Settings, load_settings
from orchestrator.log.kafka import KafkaLog
from orchestrator.participant.runner import SWITCH_INTERVAL_S
from orchestrator.topics import TopicNames

FLOOR_PREFIX = "floor-"
FSYNC = {"log.flush.interval.messages": "1"}


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. `jvm` are options for the broker's Java."""

    sagas: int = 5_000
    warm_up: int = 2_000
    singly: int = 200
    fsync: bool = False
    jvm: Sequence[str] = ()


class Bench:
    """Broker, system and floor of one run; `say` gets a line of progress now and then."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._say = say

    def run(self) -> dict[str, Any]:
        """Everything. Raises `SagaError` where something could not even be started."""
        folder = Path(tempfile.mkdtemp(prefix="saga-bench-"))
        properties = FSYNC if self._plan.fsync else {}
        interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        try:
            self._say("starting a Kafka broker")
            with provide(ephemeral=True, properties=properties, jvm=self._plan.jvm) as broker:
                settings = load_settings(
                    {"bootstrap_servers": broker.bootstrap_servers, "development": True, "state_directory": folder}
                )
                log = KafkaLog(broker.bootstrap_servers)
                system, sizes = self._run_system(broker, log, settings, folder)
                floor = self._run_floor(broker, log, settings, folder, sizes)
        finally:
            sys.setswitchinterval(interval)
            shutil.rmtree(folder, ignore_errors=True)
        return self._tell(system, floor, sizes, settings)

    def _run_system(
        self, broker: Broker, log: KafkaLog, settings: Settings, folder: Path
    ) -> tuple[Figures, dict[str, Size]]:
        create_topics(log, settings.topic_names, settings)
        processes = start_processes(settings, folder)
        try:
            return asyncio.run(self._measure_system(broker, log, settings, processes))
        finally:
            for process in processes:
                process.stop()

    async def _measure_system(
        self, broker: Broker, log: KafkaLog, settings: Settings, processes: tuple[Process, Process]
    ) -> tuple[Figures, dict[str, Size]]:
        plan, figures = self._plan, Figures()
        async with Client.connect(broker.bootstrap_servers) as client:
            load = Load(client)
            await load.wait_until_ready(processes)
            self._say("the system: warming up")
            await load.run(plan.warm_up)
            self._say(f"the system: {plan.singly} sagas one after the other")
            figures.latency_ms = percentiles(await load.run_singly(plan.singly))
            sizes = await asyncio.to_thread(measure_sizes, log, settings.topic_names, settings.partitions, load.started)
            self._say(f"the system: {plan.sagas} sagas at once")
            meter = self._meter(processes, broker)
            figures.sagas_per_second = round(plan.sagas / await load.run(plan.sagas), 1)
            figures.cpu_ms_per_saga = meter.per_saga(plan.sagas)
        return figures, sizes

    def _run_floor(
        self, broker: Broker, log: KafkaLog, settings: Settings, folder: Path, sizes: dict[str, Size]
    ) -> Figures:
        plan, figures = self._plan, Figures()
        create_topics(log, TopicNames(FLOOR_PREFIX), settings)
        setup = Setup.make(broker.bootstrap_servers, FLOOR_PREFIX, settings.partitions, sizes)
        processes: list[Process] = []
        try:
            for role in ("owner", "participant"):
                processes.append(Process(f"floor-{role}", ["orchestrator.bench.floor", role], folder, {}))
                processes[-1].tell(setup.to_json())
            client = FloorClient(setup, processes)
            self._say("the floor: warming up")
            client.run(plan.warm_up)
            self._say(f"the floor: {plan.singly} sagas one after the other")
            figures.latency_ms = percentiles(client.run_singly(plan.singly))
            self._say(f"the floor: {plan.sagas} sagas at once")
            meter = self._meter((processes[0], processes[1]), broker)
            figures.sagas_per_second = round(plan.sagas / client.run(plan.sagas), 1)
            figures.cpu_ms_per_saga = meter.per_saga(plan.sagas)
            client.close()
        finally:
            for process in processes:
                process.stop()
        return figures

    def _meter(self, processes: tuple[Process, Process], broker: Broker) -> Meter:
        owner, participant = processes
        return Meter(owner.pid, participant.pid, broker.node.pid if broker.node is not None else None)

    def _tell(self, system: Figures, floor: Figures, sizes: dict[str, Size], settings: Settings) -> dict[str, Any]:
        durability = "fsync of every batch (log.flush.interval.messages=1)" if self._plan.fsync else "page cache"
        return {
            "sagas": self._plan.sagas,
            **system.as_json(),
            "floor": floor.as_json(),
            "void": not is_quiet(floor),
            "durability": durability,
            "replication": settings.replication,
            "partitions": settings.partitions,
            "participants": "three services in one process, memory in their ledgers, handlers only answer",
            "records": {
                kind: {
                    "per_saga": round(size.per_saga, 2),
                    "value_bytes": size.value,
                    "header_bytes": size.header_bytes,
                }
                for kind, size in sizes.items()
            },
        }
