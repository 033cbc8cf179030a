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
from orchestrator.broker import start_cluster
from orchestrator.client import Client
from orchestrator.config import Settings, load_settings
from orchestrator.log.kafka import KafkaLog
from orchestrator.participant.loop import SWITCH_INTERVAL_S

_FLUSH_ALL = {"log.flush.interval.messages": "1"}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Brokers:
    """Where they are, their processes, and on how many of them each record is."""

    bootstrap_servers: str
    pids: Sequence[int]
    replication: int


def with_broker(
    measure: Callable[[Brokers, Path], T],
    *,
    brokers: int = 1,
    fsync: Fsync = Fsync.NOTHING,
    jvm: Sequence[str] = (),
) -> T:
    """What `measure` makes of so many brokers and a folder of its own, in a process set up as those it measures."""
    folder = Path(tempfile.mkdtemp(prefix="saga-bench-"))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        properties = _FLUSH_ALL if fsync is Fsync.ALL else {}
        with start_cluster(brokers, properties=properties, jvm=jvm) as cluster:
            pids = [node.pid for node in cluster.nodes if node.pid is not None]
            return measure(Brokers(cluster.bootstrap_servers, pids, min(3, brokers)), folder)
    finally:
        sys.setswitchinterval(interval)
        shutil.rmtree(folder, ignore_errors=True)


def meter_of(processes: tuple[Process, Process], brokers: Brokers) -> Meter:
    """Processor time of an owner and a participant, and of their brokers, from now on."""
    owner, participant = processes
    return Meter(owner.pid, participant.pid, brokers.pids)


@dataclass(frozen=True, slots=True)
class Running:
    """What is measured, once its first saga has ended."""

    load: Load
    log: KafkaLog
    settings: Settings
    worker: Process
    services: Process
    brokers: Brokers

    def meter(self) -> Meter:
        """Processor time from now on."""
        return meter_of((self.worker, self.services), self.brokers)


def prepare(name: str, scenario: Scenario, brokers: Brokers, folder: Path, fsync: Fsync) -> tuple[Settings, KafkaLog]:
    """Topics of this name's own, and a new folder of that name in `folder` for what the processes leave."""
    (folder / name).mkdir()
    settings = load_settings(
        {
            "bootstrap_servers": brokers.bootstrap_servers,
            "development": True,
            "replication": brokers.replication,
            "state_directory": folder / name / "state",
            "prefix": f"{name}-",
        }
    )
    log = KafkaLog(brokers.bootstrap_servers)
    create_topics(log, settings.topic_names, settings, scenario.services, fsync=fsync is Fsync.TOPICS)
    return settings, log


@asynccontextmanager
async def running(
    scenario: Scenario, brokers: Brokers, folder: Path, fsync: Fsync = Fsync.NOTHING
) -> AsyncIterator[Running]:
    """Starts all of it and stops it again. Raises `SagaError` where something could not be started."""
    settings, log = prepare(scenario.name, scenario, brokers, folder, fsync)
    with ExitStack() as stack:
        worker, services = processes = start_processes(settings, folder / scenario.name, scenario)
        for process in processes:
            stack.callback(process.stop)
        async with Client.connect(brokers.bootstrap_servers, prefix=settings.prefix) as client:
            load = Load(client, scenario)
            await load.wait_until_ready(processes)
            yield Running(load, log, settings, worker, services, brokers)
