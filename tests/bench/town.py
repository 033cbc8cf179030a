"""What the benches without a broker have in common: a worker's engine, its log in memory, its stores in RocksDB.

Who uses it is its sagas' clients and services. The log forgets what was delivered if it is told to (`forget`), and its
end goes to the next town on the same stores (`leave`).
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.log.base import Record, TopicPartition
from orchestrator.log.memory import MemoryLog
from orchestrator.model.definition import Definition
from orchestrator.model.ids import partition_of
from orchestrator.provisioning import apply, plan
from orchestrator.runtime.clients import Clients
from orchestrator.runtime.engine import Engine
from orchestrator.runtime.lifecycle import Feed
from orchestrator.runtime.partition_config import PartitionConfig
from orchestrator.runtime.takeover import Owner
from orchestrator.runtime.tenure import Phase
from orchestrator.store.rocks import RocksStores
from orchestrator.topics import TopicNames
from orchestrator.wire import headers as h
from orchestrator.wire.journal import Claim, Genesis
from orchestrator.wire.tokens import TokenKeys

Log = Mapping[TopicPartition, tuple[int, list[Record]]]
"""What a log holds: where each partition begins, and its records."""
KEPT = 100
"""Last records of each journal that are never forgotten; after a graceful end a next owner needs one or two."""


class Town:
    """One engine that owns all partitions, and a client. `engine_s` is the processor time of the engine's steps."""

    def __init__(
        self,
        folder: Path,
        definitions: Sequence[Definition],
        *,
        partitions: int,
        services: Sequence[str] = (),
        left: Log | None = None,
        feeds: dict[int, Feed] | None = None,
    ) -> None:
        self.engine_s = 0.0
        self.partitions = partitions
        self.log, self.topics = MemoryLog(_now_ms), TopicNames("")
        self._admin, self._client = self.log.admin(), self.log.appender()
        apply(self._admin, plan(self.topics, partitions=partitions, replication=1, services=services))
        for place, (start, records) in (left or {}).items():
            self.log.partitions[place].start, self.log.partitions[place].records = start, records
        self._ends = {place: partition.start for place, partition in self.log.partitions.items()}
        self._told = {place: partition.end for place, partition in self.log.partitions.items()}
        by_name = {definition.name: definition for definition in definitions}
        config = PartitionConfig(self.topics, partitions, TokenKeys({"k": bytes(16)}), by_name)
        reader, appender = self.log.reader, self.log.appender
        clients = Clients(reader("owners", [self.topics.inbox]), reader(), appender(), appender())
        owner = Owner(
            Claim("w", "", tuple(by_name), "1"),
            lambda: os.urandom(16),
            lambda: Genesis(1, partitions, {}, _now_ms()),
        )
        self.engine = Engine(config, clients, RocksStores(folder), owner, random.random, feeds=feeds)

    @property
    def decisions(self) -> int:
        return self.engine.counters["decisions"]

    def take_over(self) -> None:
        """Steps until the engine owns all partitions."""
        while self.engine.counters["takeovers"] < self.partitions:
            self.step()
            self._look()

    def start(self, definition: Definition, saga_id: str, payload: bytes) -> None:
        """A client's start of a saga."""
        headers = h.write_headers({h.SAGA_TYPE: definition.name})
        at = partition_of(saga_id, self.partitions)
        self._client.append(self.topics.inbox, at, payload, key=saga_id.encode(), headers=headers, token=None)

    def step(self) -> None:
        """One step of the engine."""
        began = time.thread_time()
        self.engine.step(time.monotonic_ns() // 1_000_000)
        self.engine_s += time.thread_time() - began
        self._client.poll()

    def forget(self) -> list[Record]:
        """Takes out of the log what was there at the last call; gives what has come to the journal since then."""
        self._look()
        written: list[Record] = []
        for number in range(self.partitions):
            place = (self.topics.journal, number)
            partition = self.log.partitions[place]
            written += partition.records[self._told[place] - partition.start :]
        self._trim(self._ends)
        self._ends = self._told = {place: partition.end for place, partition in self.log.partitions.items()}
        return written

    def leave(self) -> Log:
        """Hands everything back; gives the end of the log, all of which was delivered."""
        self.engine.leave(time.monotonic_ns() // 1_000_000)
        while not self.engine.left:
            self.step()
        self._trim({place: partition.end for place, partition in self.log.partitions.items()})
        return {place: (each.start, each.records) for place, each in self.log.partitions.items()}

    def _look(self) -> None:
        """Who waits for a partition that has ended would wait for ever."""
        halted = [each.halted_because for each in self.engine.tenures.values() if each.phase is Phase.HALTED]
        assert not halted, halted
        assert not self.engine.epochs_lost, "an epoch was lost, as the log says"

    def _trim(self, ends: Mapping[TopicPartition, int]) -> None:
        """Takes out what is before these offsets and need not be kept."""
        for place, end in ends.items():
            partition = self.log.partitions[place]
            kept = KEPT if place[0] == self.topics.journal else 0
            self._admin.trim({place: max(partition.start, min(end, partition.end - kept))})


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
