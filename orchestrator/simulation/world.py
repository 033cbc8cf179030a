"""One simulated installation: brokers, workers, participants, clients and a nemesis, all from one seed.

Time is virtual and goes from one event to the next: a process that has something to do, a record that arrives, a start,
a fault. What happens in the same millisecond happens in an order from the seed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any

from orchestrator.checker.evidence import Evidence, Raw, ServiceEffect, Told
from orchestrator.log.base import Record, TopicSpec
from orchestrator.log.memory import MemoryLog
from orchestrator.model.ids import partition_of
from orchestrator.model.state import FINAL, SagaState
from orchestrator.model.turn import ENDED_KEEP_MS
from orchestrator.participant.engine import Engine as ParticipantEngine
from orchestrator.runtime.engine import Engine
from orchestrator.runtime.partition import Partition
from orchestrator.runtime.tenure import Phase
from orchestrator.simulation import sagas
from orchestrator.simulation.drawing import SERVICES, draw
from orchestrator.simulation.local import Calls
from orchestrator.simulation.processes import (
    DEFINITIONS,
    HALF_DEFINITIONS,
    OLD_DEFINITIONS,
    TOPICS,
    Process,
    ServiceProcess,
    Worker,
)
from orchestrator.simulation.rest import Rest
from orchestrator.simulation.services import NEVER_MS, Database
from orchestrator.simulation.tally import TALLY
from orchestrator.wire import headers as h
from orchestrator.wire.headers import read_headers
from orchestrator.wire.journal import Genesis

START_MS = 1_000_000
LOOK_EVERY_MS = 100
SHORT_KEEPS_MS = (1_500, 1_500)
"""How often it is looked whether all has come to rest."""
_ENDS = frozenset(map(str, FINAL))
NEW_CODE_MS = 4_000
"""From then on a worker that starts knows the second type, where code comes late."""


class World:
    """Everything, and the passage of time. `make_engine` and `make_participant` let a test put broken ones in place."""

    def __init__(
        self,
        seed: int,
        *,
        make_engine: Callable[..., Engine] = Engine,
        make_participant: Callable[..., ParticipantEngine] = ParticipantEngine,
    ) -> None:
        self.random = random = Random(seed)
        self.apart = Random(f"schedules/{seed}")
        """For schedules: a world without one stays as it was drawn."""
        self.besides = Random(f"besides/{seed}")
        """For faults that some worlds have beside the others, likewise."""
        self.ended_keep_ms = self.apart.choice((ENDED_KEEP_MS, *SHORT_KEEPS_MS))
        self.make_engine = make_engine
        self.make_participant = make_participant
        self.now_ms = self.healed_ms = START_MS
        """`healed_ms`: from when on no process stands still, and no fault is drawn."""
        self.log = MemoryLog(lambda: self.now_ms)
        self.partitions = random.randint(2, 8)
        self.effects: list[ServiceEffect] = []
        self.calls = Calls()
        self.doomed: list[ServiceProcess] = []
        self.told: dict[str, Told] = {}
        self.counters: Counter[str] = Counter()
        self.unasked_wipes = 0
        self.damaged = False
        self.halts: list[str] = []
        self._agenda: list[tuple[int, float, int, Callable[[], object] | Process]] = []
        """(when, order from the seed, order of being put here, what), the next first."""
        self._put = 0
        self._under_way = 0
        """What is on the agenda beside processes."""
        self.late_type = random.random() < 0.2
        self.late_version = random.random() < 0.5
        self.newest = random.choice((DEFINITIONS, DEFINITIONS, HALF_DEFINITIONS))
        self.databases = {
            service: Database(service, inbox=inbox)
            for service, inbox in zip(SERVICES, (True, False, random.random() < 0.5), strict=True)
        }
        self._create_topics()
        self.client = self.log.appender()
        self.workers = [Worker(self, f"worker-{index}") for index in range(random.randint(2, 4))]
        self.services = [
            ServiceProcess(self, service, index) for service in SERVICES for index in range(random.choice((1, 1, 2)))
        ]
        for process in (*self.workers, *self.services):
            process.ring(0)
        self.to_start = random.randint(20, 31)
        self.payloads = [draw(random) for _ in range(self.to_start)]
        self.rest = Rest(self)

    def known_types(self) -> dict[str, Any]:
        """Where code comes late, only newer workers know the second type, and some the second version of both."""
        passed_ms = self.now_ms - START_MS
        known = self.newest
        if self.late_version and self.random.random() < (0.9 if passed_ms <= 0 else 0.2):
            known = OLD_DEFINITIONS
        early = {name: known[name] for name in ("Plain", TALLY, *sagas.OWN)}
        return early if self.late_type and passed_ms < NEW_CODE_MS else known

    def genesis(self) -> Genesis:
        return Genesis(1, self.partitions, {}, self.now_ms)

    def _create_topics(self) -> None:
        names = [TOPICS.inbox, TOPICS.replies, TOPICS.internal, TOPICS.operations, TOPICS.journal]
        names += [TOPICS.answers, TOPICS.dead_letters]
        for service in SERVICES:
            names += [TOPICS.commands(service), TOPICS.ledger(service)]
        for name in names:
            self.log.create(TopicSpec(name, self.partitions, 1, {}))

    # -- clients

    def send(
        self,
        topic: str,
        saga_id: str,
        value: bytes | None,
        headers: dict[str, str | int | None],
        *,
        astray: bool = False,
    ) -> None:
        """A record from a client, on the right partition unless `astray`."""
        partition = partition_of(saga_id, self.partitions)
        if astray:
            partition = (partition + 1) % self.partitions
        self.client.append(topic, partition, value, key=saga_id.encode(), headers=h.write_headers(headers), token=None)

    # -- time

    def later(self, after_ms: int, action: Callable[[], object]) -> None:
        """Does something when so much time has passed."""
        self._under_way += 1
        self.put_on_agenda(self.now_ms + after_ms, action)

    def put_on_agenda(self, at_ms: int, what: Callable[[], object] | Process) -> None:
        """A process comes back by itself, so it does not count as something that is under way."""
        self._put += 1
        heappush(self._agenda, (at_ms, self.random.random(), self._put, what))

    def run(self, most_events: int, most_ms: int) -> bool:
        """Lets time pass until all has come to rest; False if it has not after so many events or so much time."""
        agenda, look_ms, end_ms = self._agenda, 0, self.now_ms + most_ms
        for _ in range(most_events):
            at_ms, _, _, what = heappop(agenda)
            if at_ms > end_ms:
                return False
            if isinstance(what, Process):
                if not what.called():
                    continue
                if at_ms > self.now_ms:
                    if at_ms >= look_ms and not self._under_way:
                        if self.rest.reached():
                            return True
                        look_ms = at_ms + LOOK_EVERY_MS
                    self.now_ms = at_ms
                what.due_ms = NEVER_MS
                if what.engine is None:
                    what.start()
                else:
                    what.step()
                while self.doomed:
                    self.doomed.pop().kill(100)
            else:
                self._under_way -= 1
                self.now_ms = at_ms
                what()
        return False

    # -- what an observer sees

    def owned(self) -> dict[int, Partition]:
        """The partitions that have an owner who is up."""
        return {
            number: held.partition
            for worker in self.workers
            if worker.engine is not None and not worker.frozen
            for number, held in worker.engine.tenures.items()
            if held.phase is Phase.OWNING and held.partition is not None
        }

    def unfinished(self) -> list[SagaState]:
        """What has not ended, as far as owners have it in hand."""
        return [
            execution.state
            for _, partition in sorted(self.owned().items())
            for execution in partition.runs.live.values()
            if not execution.state.ended
        ]

    def some_record(self, topic: str) -> Record | None:
        """A record of the topic, drawn from the seed."""
        records = self.log.records(topic, self.random.randrange(self.partitions))
        return self.random.choice(records) if records else None

    # -- the end

    def collect(self, engine: Engine) -> None:
        """Keeps what an engine counted before it goes, and lets go of its coroutines."""
        self.counters["epochs lost"] += engine.epochs_lost
        for tenure in engine.tenures.values():
            self.unasked_wipes += tenure.wipes
            if tenure.partition is not None:
                tenure.partition.close()
            if tenure.phase is Phase.HALTED:
                self.halts.append(tenure.halted_because)

    def evidence(self, *, settled: bool) -> Evidence:
        """What the checker is given."""
        for partition in range(self.partitions):
            for record in self.log.records(TOPICS.answers, partition):
                found = read_headers(record.headers)
                saga_id, status = found.get(h.SAGA_ID, ""), found.get("saga-status")
                if saga_id in self.told and status in _ENDS:
                    self.told[saga_id] = Told(saga_id, self.told[saga_id].accepted, status)
        return Evidence(
            self.partitions,
            self._raw(TOPICS.journal),
            self._raw(TOPICS.inbox),
            self._raw(TOPICS.replies),
            self._raw(TOPICS.internal),
            self._raw(TOPICS.operations),
            self._raw(TOPICS.answers),
            self._raw(TOPICS.dead_letters),
            {service: self._raw(TOPICS.commands(service)) for service in SERVICES},
            tuple(self.told.values()),
            self.effects,
            frozenset(service for service, database in self.databases.items() if database.inbox is not None),
            settled,
            self.healed_ms,
        )

    def _raw(self, topic: str) -> Raw:
        return {partition: self.log.records(topic, partition) for partition in range(self.partitions)}
