"""One simulated installation: brokers, workers, participants, clients and a nemesis, all from one seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from threading import Event
from typing import Any

from orchestrator.checker.evidence import Evidence, Raw, ServiceEffect, Told
from orchestrator.log.base import Record, TopicSpec
from orchestrator.log.memory import MemoryLog
from orchestrator.model.ids import partition_of
from orchestrator.model.state import SagaState
from orchestrator.participant.engine import Engine as ParticipantEngine
from orchestrator.participant.settings import ParticipantSettings
from orchestrator.runtime.engine import Clients, Engine, Phase
from orchestrator.runtime.materialize import load_state
from orchestrator.runtime.partition import PartitionConfig
from orchestrator.runtime.takeover import Owner
from orchestrator.simulation import sagas
from orchestrator.simulation.network import NetworkLink
from orchestrator.simulation.services import Database, ScriptedExecutor
from orchestrator.store import keys
from orchestrator.store.memory import MemoryStores
from orchestrator.topics import TopicNames
from orchestrator.wire import headers as h
from orchestrator.wire.headers import read_headers
from orchestrator.wire.journal import Claim, Genesis
from orchestrator.wire.tokens import TokenKeys

START_MS = 1_000_000
KEYS = TokenKeys({"sim": b"0123456789abcdef"})
TOPICS = TopicNames()
_DEFINITIONS = sagas.definitions()
_SETTINGS = ParticipantSettings(lease_ms=2_000, handler_limit_ms=20_000, window=200)


class Flag(Event):
    """An event that costs nothing: nobody else's thread waits here."""

    def __init__(self) -> None:
        self.on = True

    def set(self) -> None:
        self.on = True

    def clear(self) -> None:
        self.on = False

    def is_set(self) -> bool:
        return self.on


class Worker:
    """A worker process: it can die, freeze and come back. Its stores are its disk."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.stores = MemoryStores()
        self.engine: Engine | None = None
        self.links: list[NetworkLink] = []
        self.frozen = False
        self.mono_offset = world.random.randint(0, 1_000_000)
        self.up_at_ms: int | None = 0
        self.wake = Flag()
        self.due_ms = 0

    def start(self) -> None:
        world, random, wake = self.world, self.world.random, self.wake
        self.links = [NetworkLink(random) for _ in range(4)]
        inputs, journals, journal, outward = self.links
        log = world.log
        self.inputs = log.reader("saga-owners", [TOPICS.inbox], link=inputs, wake=wake)
        clients = Clients(
            self.inputs,
            log.reader(link=journals, wake=wake),
            log.appender(link=journal, wake=wake),
            log.appender(link=outward, wake=wake),
        )
        owner = Owner(Claim(self.name, "", tuple(_DEFINITIONS), "sim"), lambda: random.randbytes(16), world.genesis)
        config = PartitionConfig(TOPICS, world.partitions, KEYS, world.known_types(), warm=random.choice((2, 1_000)))
        self.engine = world.make_engine(config, clients, self.stores, owner, random.random)
        self.up_at_ms = None

    def step(self) -> bool:
        """Works if something came or is due."""
        assert self.engine is not None
        now_ms = self.world.now_ms
        if not self.wake.on and now_ms < self.due_ms:
            return False
        self.wake.on = False
        mono_ms = now_ms + self.mono_offset
        busy = self.engine.step(mono_ms)
        for link in self.links:
            busy |= link.deliver()
        if busy:
            self.wake.on = True
        else:
            self.due_ms = now_ms + self.engine.next_due_in_ms(mono_ms, 500)
        return busy

    def kill(self, restart_after_ms: int) -> None:
        """kill -9: nothing in memory survives."""
        if self.engine is None:
            return
        self.world.collect(self.engine)
        for link in self.links:
            link.cut()
            self.world.graves.append(link)
        self.world.log.expire(self.inputs)
        self.stores.release()
        self.engine = None
        self.frozen = False
        self.up_at_ms = self.world.now_ms + restart_after_ms


class ServiceProcess:
    """One participant process."""

    def __init__(self, world: World, service: str, index: int) -> None:
        self.world = world
        self.service = service
        self.name = f"{service}-{index}"
        self.engine: ParticipantEngine | None = None
        self.frozen = False
        self.up_at_ms: int | None = 0
        self.links: list[NetworkLink] = []
        self.wake = Flag()
        self.due_ms = 0

    def start(self) -> None:
        world, random = self.world, self.world.random
        self.links = [NetworkLink(random) for _ in range(2)]
        database = world.databases[self.service]
        self.reader = world.log.reader(TOPICS.group(self.service), [TOPICS.commands(self.service)], link=self.links[0])
        self.executor = ScriptedExecutor(
            database, world.effects, lambda: world.now_ms, lambda: random.choice((0, 1, 5, 30))
        )
        self.engine = world.make_participant(
            self.service,
            self.reader,
            world.log.appender(link=self.links[1], wake=self.wake),
            self.executor,
            lambda: world.now_ms,
            log_start=lambda topic, partition: 0,
            new_nonce=lambda: random.randbytes(16),
            overdue=lambda work: world.doomed.append(self),
            settings=_SETTINGS,
            ledger=database.inbox is None,
            owner=self.name,
        )
        self.up_at_ms = None

    def step(self) -> bool:
        assert self.engine is not None
        now_ms = self.world.now_ms
        if not self.wake.on and now_ms < self.due_ms:
            return False
        self.wake.on = False
        busy = self.engine.step()
        for link in self.links:
            busy |= link.deliver()
        if busy:
            self.wake.on = True
        due_ms = self.executor.due_ms
        self.due_ms = self.engine.due_ms if due_ms is None else min(self.engine.due_ms, due_ms)
        return busy

    def thaw(self) -> None:
        """Goes on after a freeze; if a handler was kept beyond its limit, the process exits."""
        self.frozen = False
        if self.executor.longest_ms >= _SETTINGS.handler_limit_ms - 10_000:
            self.kill(100)

    def kill(self, restart_after_ms: int) -> None:
        if self.engine is None:
            return
        for link in self.links:
            link.cut()
            self.world.graves.append(link)
        self.world.log.expire(self.reader)
        self.engine = None
        self.frozen = False
        self.up_at_ms = self.world.now_ms + restart_after_ms


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
        self.make_engine = make_engine
        self.make_participant = make_participant
        self.now_ms = START_MS
        self.log = MemoryLog(lambda: self.now_ms)
        self.partitions = random.randint(2, 8)
        self.effects: list[ServiceEffect] = []
        self.graves: list[NetworkLink] = []
        self.doomed: list[ServiceProcess] = []
        self.told: dict[str, Told] = {}
        self.counters: Counter[str] = Counter()
        self.unasked_wipes = 0
        self.damaged = False
        self.halts: list[str] = []
        self.agenda: list[tuple[int, Callable[[], object]]] = []
        self.late_type = random.random() < 0.15
        self.databases = {
            service: Database(service, inbox=inbox)
            for service, inbox in zip(sagas.SERVICES, (True, False, random.random() < 0.5), strict=True)
        }
        self._create_topics()
        self.client = self.log.appender()
        self.workers = [Worker(self, f"worker-{index}") for index in range(random.randint(2, 4))]
        self.services = [
            ServiceProcess(self, service, index)
            for service in sagas.SERVICES
            for index in range(random.choice((1, 1, 2)))
        ]
        self.to_start = random.randint(26, 40)
        self.payloads = [sagas.draw(random) for _ in range(self.to_start)]

    def known_types(self) -> dict[str, Any]:
        """Where code comes late, only newer workers know the second type."""
        if self.late_type and self.now_ms < START_MS + 4_000:
            return {"Plain": _DEFINITIONS["Plain"]}
        return _DEFINITIONS

    def genesis(self) -> Genesis:
        return Genesis(1, self.partitions, {}, self.now_ms)

    def _create_topics(self) -> None:
        names = [TOPICS.inbox, TOPICS.replies, TOPICS.internal, TOPICS.operations, TOPICS.journal]
        names += [TOPICS.answers, TOPICS.dead_letters]
        for service in sagas.SERVICES:
            names += [TOPICS.commands(service), TOPICS.ledger(service)]
        for name in names:
            self.log.create(TopicSpec(name, self.partitions, 1, {}))

    def send(
        self, topic: str, saga_id: str, value: bytes, headers: dict[str, str | int | None], *, astray: bool = False
    ) -> None:
        """A record from a client, on the right partition unless `astray`."""
        partition = partition_of(saga_id, self.partitions)
        if astray:
            partition = (partition + 1) % self.partitions
        self.client.append(topic, partition, value, key=saga_id.encode(), headers=h.write_headers(headers), token=None)

    def start_saga(self, number: int) -> None:
        """A client starts one saga; sometimes twice, sometimes on the wrong partition."""
        random = self.random
        saga_id = f"saga-{number}"
        headers: dict[str, str | int | None] = {
            h.SAGA_TYPE: random.choice(sagas.TYPES),
            h.MESSAGE_ID: f"start-{number}",
            h.REPLY_TO: TOPICS.answers,
            h.REPLY_PARTITION: number % self.partitions,
            h.CORRELATION_ID: saga_id,
        }
        astray = random.random() < 0.1
        self.send(TOPICS.inbox, saga_id, self.payloads[number], headers, astray=astray)
        self.told[saga_id] = Told(saga_id, True)
        if random.random() < 0.1:
            self.send(TOPICS.inbox, saga_id, self.payloads[number], headers, astray=random.random() < 0.5)

    def collect(self, engine: Engine) -> None:
        """Keeps what an engine counted before it goes, and lets go of its coroutines."""
        self.counters["epochs lost"] += engine.epochs_lost
        for tenure in engine.tenures.values():
            self.unasked_wipes += tenure.wipes
            if tenure.partition is not None:
                tenure.partition.close()
            if tenure.phase is Phase.HALTED:
                self.halts.append(tenure.halted_because)

    def step(self) -> bool:
        """Everybody who is up does what there is to do, in an order from the seed."""
        busy = False
        actors: list[Worker | ServiceProcess] = [*self.workers, *self.services]
        self.random.shuffle(actors)
        for actor in actors:
            if actor.engine is None:
                if actor.up_at_ms is not None and self.now_ms >= actor.up_at_ms:
                    actor.start()
                    busy = True
            elif not actor.frozen:
                busy |= actor.step()
        for process in self.doomed:
            process.kill(100)
        self.doomed.clear()
        for link in self.graves:
            link.deliver()
        return busy

    def later(self, after_ms: int, action: Callable[[], object]) -> None:
        """Does something when so much time has passed."""
        self.agenda.append((self.now_ms + after_ms, action))

    def run_due(self) -> None:
        """Does what was put off until now."""
        due = [action for at, action in self.agenda if at <= self.now_ms]
        if due:
            self.agenda = [(at, action) for at, action in self.agenda if at > self.now_ms]
            for action in due:
                action()

    def agenda_waits(self) -> list[int]:
        return [at - self.now_ms for at, _ in self.agenda]

    def next_due_ms(self) -> int:
        """How long nothing happens by itself, at most a minute."""
        wait = 60_000
        actors: list[Worker | ServiceProcess] = [*self.workers, *self.services]
        for actor in actors:
            if actor.engine is None:
                wait = min(wait, (actor.up_at_ms or 0) - self.now_ms)
            elif not actor.frozen:
                wait = min(wait, actor.due_ms - self.now_ms)
        return max(1, wait)

    def settled(self) -> bool:
        """Everything that came is consumed, nothing is under way, every saga ended or waits for a person."""
        for worker in self.workers:
            if worker.engine is None or worker.frozen:
                return False
        owned: dict[int, Any] = {}
        for worker in self.workers:
            assert worker.engine is not None
            for number, tenure in worker.engine.tenures.items():
                if tenure.phase is Phase.HALTED:
                    continue
                if tenure.phase is not Phase.OWNING or tenure.partition is None or not tenure.partition.quiet:
                    return False
                owned[number] = tenure.partition
        if len(owned) < self.partitions and not self._any_halted():
            return False
        topics = {"inbox": TOPICS.inbox, "replies": TOPICS.replies, "internal": TOPICS.internal}
        topics["operations"] = TOPICS.operations
        for number, partition in owned.items():
            for role, topic in topics.items():
                if partition.intake.consumed(role) < len(self.log.records(topic, number)):
                    return False
            for execution in partition.executions.values():
                if not _is_at_rest(execution.state):
                    return False
        return all(self._stored_at_rest(partition) for partition in owned.values())

    def _stored_at_rest(self, partition: Any) -> bool:
        """The same for the runs that are in the store only."""
        for key, _ in partition.store.scan(keys.RUNS):
            saga_id = key[1:].decode()
            if saga_id not in partition.executions:
                state = load_state(partition.store, saga_id)
                if state is not None and not _is_at_rest(state):
                    return False
        return True

    def _any_halted(self) -> bool:
        return any(
            tenure.phase is Phase.HALTED
            for worker in self.workers
            if worker.engine is not None
            for tenure in worker.engine.tenures.values()
        )

    def evidence(self, *, settled: bool) -> Evidence:
        """What the checker is given."""
        for partition in range(self.partitions):
            for record in self.log.records(TOPICS.answers, partition):
                found = read_headers(record.headers)
                saga_id, status = found.get(h.SAGA_ID, ""), found.get("saga-status")
                if saga_id in self.told and status is not None and status != "REFUSED":
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
            {service: self._raw(TOPICS.commands(service)) for service in sagas.SERVICES},
            tuple(self.told.values()),
            self.effects,
            frozenset(service for service, database in self.databases.items() if database.inbox is not None),
            settled,
        )

    def _raw(self, topic: str) -> Raw:
        return {partition: self.log.records(topic, partition) for partition in range(self.partitions)}

    def some_record(self, topic: str) -> Record | None:
        """A record of the topic, drawn from the seed."""
        records = self.log.records(topic, self.random.randrange(self.partitions))
        return self.random.choice(records) if records else None


def _is_at_rest(state: SagaState) -> bool:
    """Ended, or waiting for a person or for code, and nothing that was sent is unanswered."""
    if state.ended or state.phase == "WAITING_FOR_CODE":
        return True
    if not state.parked:
        return False
    return all(sequence in state.parked for sequence in (*state.open, *state.undo_open))
