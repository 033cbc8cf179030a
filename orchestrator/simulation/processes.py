"""The simulated processes: workers and participants that can die, freeze and come back, each run when it must work."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING, Any

from orchestrator.model.versions import names_of
from orchestrator.participant.engine import Engine as ParticipantEngine
from orchestrator.participant.settings import ParticipantSettings
from orchestrator.runtime.clients import Clients
from orchestrator.runtime.engine import Engine
from orchestrator.runtime.partition_config import PartitionConfig
from orchestrator.runtime.standby import Standby
from orchestrator.runtime.takeover import Owner
from orchestrator.simulation import sagas
from orchestrator.simulation.local import ScriptedRunner
from orchestrator.simulation.network import NetworkLink
from orchestrator.simulation.services import HANG_MS, NEVER_MS, RUN_MS, ScriptedExecutor
from orchestrator.store.memory import MemoryStores
from orchestrator.topics import TopicNames
from orchestrator.wire.journal import Claim
from orchestrator.wire.tokens import TokenKeys

if TYPE_CHECKING:
    from orchestrator.simulation.world import World

TOPICS = TopicNames()
KEYS = TokenKeys({"sim": b"0123456789abcdef"})
DEFINITIONS = sagas.definitions()
OLD_DEFINITIONS = sagas.definitions(newest=False)
HALF_DEFINITIONS = sagas.definitions(share=50.0)
SETTINGS = ParticipantSettings(lease_ms=3_000, handler_limit_ms=12_000, window=200, commit_interval_ms=1_000)

SOON_MS = (0, 5, 60, 100, 200)
"""How long a process that has something to do waits for the processor."""
LATER_MS = (0, 20, 100, 200, 400)
"""How long commands wait until a service looks at them: its sagas are under way while faults happen."""
STANDBY_SHARE = 0.06
"""Of the workers, those that keep the stores of others' partitions warm."""
IDLE_MS = 1_000
"""A worker to which nothing happens looks around after so long."""
MAY_BE_LATE_MS = 3_500
"""A handler that ends so much later than it would is still within its limit: it takes at most 8 s by itself."""


class Process:
    """What can be up, down or frozen. `due_ms`: when it next has something to do, or starts where it is down."""

    engine: Any
    """None while it is down."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.engine = None
        self.due_ms = NEVER_MS
        self._booked_ms: list[int] = []
        """When it is on the agenda, the next last."""
        self.frozen = False
        self.links: list[NetworkLink] = []

    def ring(self, after_ms: int) -> None:
        """It comes to work within so many milliseconds."""
        due_ms = self.world.now_ms + after_ms
        if due_ms < self.due_ms:
            self.due_ms = due_ms
            self._book()

    def called(self) -> bool:
        """What is on the agenda for it has come: whether it works now, or was put off, or stands still."""
        called_ms = self._booked_ms.pop()
        if self.due_ms == called_ms:
            return not self.frozen
        if not self.frozen:
            self._book()
        return False

    def _book(self) -> None:
        """Puts it on the agenda, unless it is called before that anyway."""
        booked_ms = self._booked_ms
        if not booked_ms or self.due_ms < booked_ms[-1]:
            booked_ms.append(self.due_ms)
            self.world.put_on_agenda(self.due_ms, self)

    def start(self) -> None:
        raise NotImplementedError

    def step(self) -> None:
        """Does what there is to do now, and says when to come again."""
        raise NotImplementedError

    def freeze(self) -> None:
        """It stops where it stands; so does what it was about to send."""
        self.frozen = True
        for link in self.links:
            link.frozen = True

    def thaw(self) -> None:
        self.frozen = False
        self.due_ms = NEVER_MS
        self.ring(0)
        for link in self.links:
            link.go_on()

    def _gone(self, restart_after_ms: int) -> None:
        for link in self.links:
            link.cut()
        self.engine = None
        self.frozen = False
        self.due_ms = NEVER_MS
        self.ring(restart_after_ms)


class Alarm(Event):
    """Set by the log when there is something to do; the process then runs a moment later. No thread waits here."""

    def __init__(self, process: Process, lags_ms: tuple[int, ...]) -> None:
        self.process = process
        self.lags_ms = lags_ms
        self.on = False

    def set(self) -> None:
        if not self.on:
            self.on = True
            process, lags_ms = self.process, self.lags_ms
            process.ring(lags_ms[int(process.world.random.random() * len(lags_ms))])

    def clear(self) -> None:
        self.on = False

    def is_set(self) -> bool:
        return self.on


class Worker(Process):
    """A worker process. Its stores are its disk."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.stores = MemoryStores()
        self.standby: Standby | None = None
        self._clock = (world.now_ms, world.now_ms + world.random.randint(0, 1_000_000), 100)
        """When it was set, what its monotonic clock said then, and its pace in percent."""
        self.wake = Alarm(self, SOON_MS)

    def start(self) -> None:
        world, random, wake = self.world, self.world.random, self.wake
        self.links = [NetworkLink(random, world.later, TOPICS.journal) for _ in range(5)]
        inputs, journals, journal, outward, tailing = self.links
        log = world.log
        self.inputs = log.reader("saga-owners", [TOPICS.inbox], link=inputs, wake=wake)
        self.journals = log.reader(link=journals, wake=wake)
        clients = Clients(
            self.inputs,
            self.journals,
            log.appender(link=journal, wake=wake),
            log.appender(link=outward),
        )
        known = world.known_types()
        owner = Owner(Claim(self.name, "", names_of(known), "sim"), lambda: random.randbytes(16), world.genesis)
        warm, signal_ttl_ms = random.choice((2, 1_000, 1_000)), random.choice((1_000, 60_000))
        limit = random.choice((0, 2, 4))
        config = PartitionConfig(
            TOPICS, world.partitions, KEYS, known, warm, signal_ttl_ms, limit, 400, world.ended_keep_ms
        )
        self.runner = ScriptedRunner(world.calls, random, lambda: world.now_ms)
        self.tails = log.reader(link=tailing, wake=wake)
        self.standby = None
        if random.random() < STANDBY_SHARE:
            self.standby = Standby(
                self.stores,
                lambda: self.tails,
                TOPICS.journal,
                world.partitions,
                lambda number: number in self.engine.tenures,
            )
        stores = self.standby or self.stores
        self.engine = world.make_engine(config, clients, stores, owner, random.random, runner=self.runner)
        self.ring(0)

    def mono_ms(self) -> int:
        """What this machine takes for the monotonic time."""
        at_ms, mono_ms, percent = self._clock
        return mono_ms + (self.world.now_ms - at_ms) * percent // 100

    def set_pace(self, percent: int) -> None:
        """From now on its clock goes so fast."""
        self._clock = (self.world.now_ms, self.mono_ms(), percent)

    def step(self) -> None:
        engine: Engine = self.engine
        mono_ms = self.mono_ms()
        self.wake.on = False
        if self.standby is not None and self.standby.step(mono_ms):
            self.wake.set()
        if engine.step(mono_ms):
            for tenure in engine.tenures.values():
                partition = tenure.partition
                if partition is not None and partition.intake.waiting and partition.intake.ready:
                    self.wake.set()
        self.ring(max(1, min(engine.next_due_in_ms(mono_ms, IDLE_MS), self.runner.due_ms - self.world.now_ms)))

    def kill(self, restart_after_ms: int) -> None:
        """kill -9: nothing in memory survives."""
        if self.engine is None:
            return
        self.world.collect(self.engine)
        self.inputs.close()
        self.journals.close()
        self.tails.close()
        self.stores.release()
        self._gone(restart_after_ms)


class ServiceProcess(Process):
    """One participant process."""

    def __init__(self, world: World, service: str, index: int) -> None:
        super().__init__(world, f"{service}-{index}")
        self.service = service
        self.news = Alarm(self, LATER_MS)
        self.acks = Alarm(self, SOON_MS)

    def start(self) -> None:
        world, random = self.world, self.world.random
        self.links = [NetworkLink(random, world.later, TOPICS.ledger(self.service)) for _ in range(2)]
        reading, sending = self.links
        database = world.databases[self.service]
        self.reader = world.log.reader(
            TOPICS.group(self.service), [TOPICS.commands(self.service)], link=reading, wake=self.news
        )
        self.executor = ScriptedExecutor(
            database, world.effects, lambda: world.now_ms, lambda hangs: random.choice(HANG_MS if hangs else RUN_MS)
        )
        self.engine = world.make_participant(
            self.service,
            self.reader,
            world.log.appender(link=sending, wake=self.acks),
            self.executor,
            lambda: world.now_ms,
            log_start=lambda topic, partition: 0,
            new_nonce=lambda: random.randbytes(16),
            overdue=lambda work: world.doomed.append(self),
            settings=SETTINGS,
            ledger=database.inbox is None,
            owner=self.name,
        )
        self.ring(0)

    def step(self) -> None:
        engine: ParticipantEngine = self.engine
        self.news.on = self.acks.on = False
        engine.step()
        self.ring(min(engine.due_ms, self.executor.due_ms) - self.world.now_ms)

    def thaw(self) -> None:
        """Goes on after a freeze; if a handler was kept beyond its limit, the process exits."""
        super().thaw()
        if self.executor.longest_ms >= MAY_BE_LATE_MS:
            self.kill(100)

    def kill(self, restart_after_ms: int) -> None:
        if self.engine is None:
            return
        self.reader.close()
        self._gone(restart_after_ms)
