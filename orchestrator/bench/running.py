"""A scenario's system on a broker that is there: topics of its own, a worker and services that have only just begun."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from orchestrator.bench.figures import Fsync, Meter
from orchestrator.bench.processes import Process
from orchestrator.bench.scenarios import Scenario
from orchestrator.bench.system import Load, create_topics, start_processes
from orchestrator.broker import Broker, provide
from orchestrator.client import Client
from orchestrator.config import Settings, load_settings
from orchestrator.log.kafka import KafkaLog
from orchestrator.participant.loop import SWITCH_INTERVAL_S

_FLUSH_ALL = {"log.flush.interval.messages": "1"}

T = TypeVar("T")


def with_broker(measure: Callable[[Broker, Path], T], *, fsync: Fsync = Fsync.NOTHING, jvm: Sequence[str] = ()) -> T:
    """What `measure` makes of a broker and a folder of its own, in a process set up as those that are measured."""
    folder = Path(tempfile.mkdtemp(prefix="saga-bench-"))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        with provide(ephemeral=True, properties=_FLUSH_ALL if fsync is Fsync.ALL else {}, jvm=jvm) as broker:
            return measure(broker, folder)
    finally:
        sys.setswitchinterval(interval)
        shutil.rmtree(folder, ignore_errors=True)


def meter_of(processes: tuple[Process, Process], broker: Broker) -> Meter:
    """Processor time of an owner and a participant, and of their broker, from now on."""
    owner, participant = processes
    return Meter(owner.pid, participant.pid, None if broker.node is None else broker.node.pid)


@dataclass(frozen=True, slots=True)
class Running:
    """What is measured, once its first saga has ended."""

    load: Load
    log: KafkaLog
    settings: Settings
    worker: Process
    services: Process
    broker: Broker

    def meter(self) -> Meter:
        """Processor time from now on."""
        return meter_of((self.worker, self.services), self.broker)


def prepare(name: str, scenario: Scenario, broker: Broker, folder: Path, fsync: Fsync) -> tuple[Settings, KafkaLog]:
    """Topics of this name's own, and a new folder of that name in `folder` for what the processes leave."""
    (folder / name).mkdir()
    settings = load_settings(
        {
            "bootstrap_servers": broker.bootstrap_servers,
            "development": True,
            "state_directory": folder / name / "state",
            "prefix": f"{name}-",
        }
    )
    log = KafkaLog(broker.bootstrap_servers)
    create_topics(log, settings.topic_names, settings, scenario.services, fsync=fsync is Fsync.TOPICS)
    return settings, log


@asynccontextmanager
async def running(
    scenario: Scenario, broker: Broker, folder: Path, fsync: Fsync = Fsync.NOTHING
) -> AsyncIterator[Running]:
    """Starts all of it and stops it again. Raises `SagaError` where something could not be started."""
    settings, log = prepare(scenario.name, scenario, broker, folder, fsync)
    with ExitStack() as stack:
        worker, services = processes = start_processes(settings, folder / scenario.name, scenario)
        for process in processes:
            stack.callback(process.stop)
        async with Client.connect(broker.bootstrap_servers, prefix=settings.prefix) as client:
            load = Load(client, scenario)
            await load.wait_until_ready(processes)
            yield Running(load, log, settings, worker, services, broker)
