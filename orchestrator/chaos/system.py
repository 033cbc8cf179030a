"""What chaos is made with: a cluster, workers and services as a user would start them, each in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.broker import Cluster
from orchestrator.broker.probe import HOST, find_leaders
from orchestrator.chaos.guard import Guard, Guarded
from orchestrator.chaos.history import now_ms
from orchestrator.chaos.recovery import Kill
from orchestrator.chaos.sagas import BOOKS, MODULE, SERVICES
from orchestrator.demo.processes import Process
from orchestrator.errors import SagaError
from orchestrator.log.kafka import KafkaLog
from orchestrator.provisioning import apply, plan
from orchestrator.topics import TopicNames

PARTITIONS = 8
ENDED_KEEP_MS = 300_000
"""Long after the last client has given up to ask how a saga ended, and often within a run of an hour."""
SNAPSHOT_EVERY_MS = 45_000
KEPT_IN_KAFKA_MS = 150_000
"""Longer than a broker is away: nothing is deleted that was not read for the checker."""
DEPOT, ARCHIVE = "depot", "archive"
EXTRA = "worker-extra"
WARM = "worker-2"
"""The worker that keeps the stores of the others' partitions warm."""


@dataclass(slots=True)
class System:
    """Everything that runs."""

    cluster: Cluster
    folder: Path
    guard: Guard
    workers: dict[str, Process] = field(default_factory=dict)
    services: dict[str, Process] = field(default_factory=dict)
    kills: list[Kill] = field(default_factory=list)
    damaged: set[Path] = field(default_factory=set)
    """Directories of stores that were struck."""
    names: TopicNames = field(default_factory=TopicNames)

    @property
    def servers(self) -> str:
        return self.cluster.bootstrap_servers

    @property
    def books(self) -> Path:
        return self.folder / "books"

    def log(self) -> KafkaLog:
        """Clients of the cluster, straight to the brokers."""
        return KafkaLog(self.servers)

    def prepare(self, replication: int) -> None:
        """Creates the topics. Raises `AdminFailed`."""
        self.books.mkdir()
        with closing(self.log().admin()) as admin:
            apply(admin, plan(self.names, partitions=PARTITIONS, replication=replication, services=SERVICES))

    def declare(self, workers: int, replication: int, linked: Mapping[str, str]) -> None:
        """Says what there will be; nothing is started. `linked`: by worker, bootstrap servers that are not ours."""
        for name in [*(f"worker-{number}" for number in range(1, workers + 1)), EXTRA]:
            servers = linked.get(name, self.servers)
            self.workers[name] = self._process(name, ["worker", MODULE, "--processes", "1"], replication, servers)
        for name in SERVICES:
            self.services[name] = self._process(name, ["participant", f"{MODULE}:{name}"], replication, self.servers)

    def cut(self) -> tuple[str, dict[str, int]]:
        """The id of the journal's topic, and by partition from where on it still stands there. Raises `AdminFailed`."""
        journal = self.names.journal
        with closing(self.log().admin()) as admin:
            starts = admin.ends([(journal, number) for number in range(PARTITIONS)])
            topic_id = admin.describe([journal])[journal].topic_id
        return topic_id, {str(number): start for (_, number), (start, _) in sorted(starts.items())}

    def start(self) -> None:
        """All of it but the worker that only joins at times."""
        for process in self._all():
            if process.name != EXTRA:
                process.start()

    def check(self) -> None:
        """Raises `SagaError` with the end of the output of a process that has ended."""
        for process in self._all():
            if process.name != EXTRA and not process.running:
                raise SagaError(f"{process.name} ended:\n{process.tail()}")

    def stop(self) -> None:
        """Gracefully, as an operator would. The brokers stay."""
        for process in self._all():
            process.thaw()
        for process in self._all():
            process.stop()

    def kill(self) -> None:
        """All processes at once, frozen ones too. The brokers stay."""
        for process in self._all():
            process.kill()

    def kill_worker(self, name: str, *, whole: bool = True) -> int:
        """kill -9 of a worker: with its supervisor, or (`whole=False`) of the worker process alone.

        Returns how many worker processes there were.
        """
        process = self.workers[name]
        pids = process.children()
        self.kills += [Kill(pid, now_ms()) for pid in pids]
        if whole:
            process.kill()
        else:
            process.kill_children()
        return len(pids)

    def stores(self, name: str) -> list[Path]:
        """The directories of a worker's stores."""
        return sorted((self.folder / "state" / name).glob("stores/*/partition-*"))

    def leader(self, topic: str, partition: int) -> int | None:
        """The place in the cluster of the node that leads a partition, None while nobody says."""
        for node in self.cluster.nodes:
            leader = find_leaders(HOST, node.layout.port, topic).get(partition, -1)
            for place, each in enumerate(self.cluster.nodes):
                if each.layout.node_id == leader:
                    return place
        return None

    def _process(self, name: str, arguments: Sequence[str], replication: int, servers: str) -> Process:
        environment = {
            "SAGA_BOOTSTRAP_SERVERS": servers,
            "SAGA_DEVELOPMENT": "true",
            "SAGA_PARTITIONS": str(PARTITIONS),
            "SAGA_REPLICATION": str(replication),
            "SAGA_STATE_DIRECTORY": str(self.folder / "state" / name),
            "SAGA_METRICS_PORT": "0",
            "SAGA_STANDBY": str(name == WARM).lower(),
            "SAGA_ENDED_KEEP_MS": str(ENDED_KEEP_MS),
            "SAGA_SNAPSHOTS": str(self.folder / DEPOT / "snapshots"),
            "SAGA_SNAPSHOT_EVERY_MS": str(SNAPSHOT_EVERY_MS),
            "SAGA_ARCHIVE": str(self.folder / DEPOT / ARCHIVE),
            "SAGA_JOURNAL_KEEP_MS": str(KEPT_IN_KAFKA_MS),
            "SAGA_TRIM_LAG_MS": str(KEPT_IN_KAFKA_MS),
            BOOKS: str(self.books),
        }
        logs = self.folder / "logs"
        logs.mkdir(exist_ok=True)
        process = Guarded(name, arguments, logs, environment)
        process.guard = self.guard
        return process

    def _all(self) -> list[Process]:
        return [*self.workers.values(), *self.services.values()]
