"""One measurement: the system and its floor in turn, on the same broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.bench.figures import Figures, Fsync, is_quiet, middle, percentiles
from orchestrator.bench.floor import FloorClient, Setup
from orchestrator.bench.processes import Process
from orchestrator.bench.running import Brokers, Running, meter_of, running, with_broker
from orchestrator.bench.scenarios import ORDERS, SHOP
from orchestrator.bench.sizes import Size, measure_sizes
from orchestrator.bench.system import create_topics
from orchestrator.config import Settings
from orchestrator.topics import TopicNames

FLOOR_PREFIX = "floor-"


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. `jvm` are options for the broker's Java.

    `sagas` and `singly` are measured `rounds` times, for the system and for its floor in turn. `warm_up` sagas of the
    system go before, and ten times as many of the floor with five times `singly`: they are cheap, and a broker that has
    just started compiles its own code at the cost of everybody else. With three `brokers` each record is on all three.
    """

    sagas: int = 5_000
    warm_up: int = 2_000
    singly: int = 200
    rounds: int = 3
    brokers: int = 1
    fsync: Fsync = Fsync.NOTHING
    jvm: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class _Floor:
    """The floor's processes, owner and participant, and who starts its sagas."""

    processes: tuple[Process, Process]
    client: FloorClient


class Bench:
    """Broker, system and floor of one run; `say` gets a line of progress now and then."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._say = say

    def run(self) -> dict[str, Any]:
        """Everything. Raises `SagaError` where something could not even be started."""
        return with_broker(self._run_all, brokers=self._plan.brokers, fsync=self._plan.fsync, jvm=self._plan.jvm)

    def _run_all(self, broker: Brokers, folder: Path) -> dict[str, Any]:
        return asyncio.run(self._measure(broker, folder))

    async def _measure(self, broker: Brokers, folder: Path) -> dict[str, Any]:
        plan = self._plan
        figures: list[Figures] = []
        lowest: list[Figures] = []
        with ExitStack() as stack:
            async with running(ORDERS, broker, folder, plan.fsync) as system:
                load, settings = system.load, system.settings
                topics = TopicNames(FLOOR_PREFIX)
                create_topics(system.log, topics, settings, SHOP, fsync=plan.fsync is Fsync.TOPICS)
                self._say("warming up: the system")
                await load.run(plan.warm_up)
                sizes = await asyncio.to_thread(
                    measure_sizes, system.log, settings.topic_names, settings.partitions, load.started, SHOP
                )
                floor = self._start_floor(broker, settings, folder, sizes, stack)
                self._say("warming up: the floor, and with it the broker")
                await asyncio.to_thread(floor.client.run, 10 * plan.warm_up)
                await asyncio.to_thread(floor.client.run_singly, 5 * plan.singly)
                for number in range(1, plan.rounds + 1):
                    amounts = f"{plan.singly} sagas one after the other, {plan.sagas} at once"
                    self._say(f"round {number} of {plan.rounds}: {amounts}")
                    await self._round(system, floor, figures, lowest)
        return self._tell(figures, lowest, sizes, settings)

    async def _round(self, system: Running, floor: _Floor, figures: list[Figures], lowest: list[Figures]) -> None:
        """The system and its floor in turn, first one saga after the other, then many at once."""
        plan = self._plan
        mine = Figures(latency_ms=percentiles(await system.load.run_singly(plan.singly)))
        base = Figures(latency_ms=percentiles(await asyncio.to_thread(floor.client.run_singly, plan.singly)))
        meter = system.meter()
        mine.sagas_per_second = round(plan.sagas / await system.load.run(plan.sagas), 1)
        mine.cpu_ms_per_saga = meter.per_saga(plan.sagas)
        meter = meter_of(floor.processes, system.brokers)
        base.sagas_per_second = round(plan.sagas / await asyncio.to_thread(floor.client.run, plan.sagas), 1)
        base.cpu_ms_per_saga = meter.per_saga(plan.sagas)
        figures.append(mine)
        lowest.append(base)

    def _start_floor(
        self, broker: Brokers, settings: Settings, folder: Path, sizes: dict[str, Size], stack: ExitStack
    ) -> _Floor:
        setup = Setup.make(broker.bootstrap_servers, FLOOR_PREFIX, settings.partitions, sizes)
        processes: list[Process] = []
        for role in ("owner", "participant"):
            processes.append(Process(f"floor-{role}", ["orchestrator.bench.floor", role], folder, {}))
            stack.callback(processes[-1].stop)
            processes[-1].tell(setup.to_json())
        client = FloorClient(setup, processes)
        stack.callback(client.close)
        return _Floor((processes[0], processes[1]), client)

    def _tell(
        self, system: list[Figures], floor: list[Figures], sizes: dict[str, Size], settings: Settings
    ) -> dict[str, Any]:
        return {
            "sagas": self._plan.sagas,
            **middle(system).as_json(),
            "floor": middle(floor).as_json(),
            "void": not is_quiet(middle(floor)),
            "rounds": [
                {"system": figures.as_json(), "floor": lowest.as_json()}
                for figures, lowest in zip(system, floor, strict=True)
            ],
            "durability": self._plan.fsync.durability,
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
