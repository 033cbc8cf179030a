"""One run: the scene on topics of its own, a process that dies at one point and is started again, and the verdict."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator.checker.check import examine
from orchestrator.checker.evidence import Raw, Told
from orchestrator.checker.journal import Accepted
from orchestrator.client import Client
from orchestrator.demo.dump import dump_topics, evidence_of, evidence_topics, read_books
from orchestrator.errors import ResultTimeout, SagaFailed
from orchestrator.log.base import AdminFailed, Record, TopicPartition
from orchestrator.log.kafka import KafkaLog
from orchestrator.model.events import StepRefused, StepSucceeded, UndoSucceeded
from orchestrator.participant.runner import EXIT_OVERDUE
from orchestrator.provisioning import apply, plan
from orchestrator.runtime.identity import pinned_topics
from orchestrator.runtime.progress import Progress
from orchestrator.runtime.replica import Replica
from orchestrator.store.memory import MemoryStores
from orchestrator.store.rocks import RocksStores
from orchestrator.topics import TopicNames
from orchestrator.wire.ledger import Execution, read_record
from tests.crashes.archiving import NOTHING, SNAPSHOTS, STORE, Places, deleted_records
from tests.crashes.failpoints import Point
from tests.crashes.scene import EARLIER, FURTHER, PARTITIONS, SERVICE, WISHES, Errand, Wish
from tests.crashes.victims import ARCHIVIST, HALTED, INBOX, LEDGER, WORKER, Spec, Victim

PATIENCE_S = 60.0
"""For both sagas together, where nothing else is said: a machine with much else to do takes long."""
KILLED = -9
LOOK_EVERY_S, FURTHER_AFTER_S = 0.1, 2.0
"""Whether an archivist has done what is waited for; after so long it is given more to do."""


@dataclass
class Result:
    """What became of one run."""

    victim: str
    point: Point | None
    loss: str = NOTHING
    deaths: int = 0
    seconds: float = 0.0
    recovery_s: float = 0.0
    """From the death to the last saga's end; 0 where they had ended before."""
    violations: list[str] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    """What the process that was not killed counted; of the victim where nobody was to die."""
    folder: Path | None = None
    """What is left for whoever looks into a violation."""

    @property
    def died(self) -> bool:
        """Whether the point was reached."""
        return self.deaths > 0

    @property
    def place(self) -> str:
        """Where it died, as `python -m tests.crashes` takes it."""
        lost = f" --lose {self.loss}" if self.loss != NOTHING else ""
        return f"{self.victim} {self.point}{lost}"


class Run:
    """One point of one victim. `again`: where the process that is started after it dies too.

    `loss`: what the archivist lacks of what it had, when it is started again.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        victim: str,
        point: Point | None,
        root: Path,
        *,
        again: Point | None = None,
        loss: str = NOTHING,
        mutant: str = "",
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.result = Result(victim, point, loss=loss)
        self._loss = loss
        self._log = KafkaLog(bootstrap_servers)
        prefix = f"c{uuid.uuid4().hex[:8]}-"
        self._names = TopicNames(prefix)
        self._folder = root / prefix.rstrip("-")
        memory = LEDGER if victim == LEDGER else INBOX
        self._worker = ARCHIVIST if victim == ARCHIVIST else WORKER
        self._once = [SERVICE] if memory == INBOX else []
        # An archivist's first life is there to leave something behind.
        self._points: list[Point | None] = [None] if victim == ARCHIVIST else []
        self._points += [each for each in (point, again) if each is not None]
        self._victim = victim
        self._places = Places(self._folder)
        self._begun: dict[str, int] = {}
        self._reached: dict[str, int] = {}
        self._patience_s = patience_s
        self._specs = {
            role: Spec(role, bootstrap_servers, prefix, self._folder, mutant=mutant) for role in (self._worker, memory)
        }
        self._running: dict[str, Victim] = {}
        self._told: dict[str, Told] = {}
        self._died_at = 0.0
        self._ended_at = 0.0

    def go(self) -> Result:
        """All of it. Whatever goes wrong is a violation."""
        began = time.monotonic()
        self._folder.mkdir(parents=True)
        admin = self._admin = self._log.admin()
        topics = plan(self._names, partitions=PARTITIONS, replication=1, services=[SERVICE])
        try:
            apply(admin, topics)
            ids = {name: state.topic_id for name, state in admin.describe(pinned_topics(self._names)).items()}
            self._specs = {role: replace(spec, topic_ids=ids) for role, spec in self._specs.items()}
            for role in self._specs:
                self._start(role)
            if self._victim == ARCHIVIST:
                self._leave_something()
            asyncio.run(self._play(WISHES))
            if all(self._finish(role) for role in reversed(self._specs)):
                self._judge()
        except Exception as error:
            traceback.print_exc()
            self._blame("C14", f"the run could not be brought to its end: {error!r}")
        finally:
            for process in self._running.values():
                process.put_away()
            with suppress(AdminFailed):
                admin.delete([spec.name for spec in topics], 0.06)
            admin.close()
        result = self.result
        result.seconds = time.monotonic() - began
        if self._died_at and self._ended_at > self._died_at:
            result.recovery_s = self._ended_at - self._died_at
        if result.violations:
            result.folder = self._folder
        else:
            shutil.rmtree(self._folder, ignore_errors=True)
        return result

    # -- processes

    def _start(self, role: str) -> None:
        point = self._points.pop(0) if role == self._victim and self._points else None
        self._running[role] = Victim(replace(self._specs[role], point=point))

    def _restart(self, role: str) -> bool:
        """Starts one again that has ended. False: it was not killed, but ended by itself."""
        process = self._running[role]
        process.put_away()
        if process.exit_code == EXIT_OVERDUE:
            # A busy machine let a handler take too long: then it ends itself, for whoever supervises it to start again.
            self._start(role)
            return True
        if process.exit_code != KILLED or role != self._victim:
            halted = process.exit_code == HALTED
            self._blame("C8" if halted else "C14", f"{role} " + ("halted" if halted else f"ended: {process.exit_code}"))
            return False
        self.result.deaths += 1
        self._died_at = self._died_at or time.monotonic()
        self._lose(self._loss)
        self._start(role)
        return True

    def _leave_something(self) -> None:
        """An archivist's life before the one that counts: its journal is cut, and of its store only copies are left."""
        asyncio.run(self._play(EARLIER))
        if self._running[ARCHIVIST].stop() != 0:
            raise RuntimeError("the archivist did not end before anything had happened")
        self._begun = self._reached
        self._lose(STORE)
        self._start(ARCHIVIST)

    def _lose(self, what: str) -> None:
        if what != NOTHING:
            shutil.rmtree(self._places.stores, ignore_errors=True)
        if what == SNAPSHOTS:
            for number in range(PARTITIONS):
                shutil.rmtree(self._places.depot / f"partition-{number}", ignore_errors=True)

    def _progress(self) -> dict[str, int]:
        """Where the topics begin that are cut, and where the newest snapshot stands."""
        # Not commands: an owner deletes those of services that it has heard of, and one of sagas that ended hears none.
        topics = [self._names.journal, self._names.inbox, self._names.replies]
        found = self._admin.ends([(topic, 0) for topic in topics])
        progress = {topic: begin for (topic, _), (begin, _) in found.items()}
        return progress | {"snapshot": max((each.offset for each in self._places.vault().list(0)), default=-1)}

    def _has_kept_up(self) -> bool:
        """Whether the archivist has copied, cut and deleted something since it began; at first, whether it has cut."""
        try:
            self._reached = reached = self._progress()
        except AdminFailed:
            return False
        if not self._begun:
            return reached[self._names.journal] > 0
        return all(at > self._begun[what] for what, at in reached.items())

    def _finish(self, role: str) -> bool:
        """Stops it gracefully; whether it could be. One that dies of that comes back once more, and is stopped then."""
        for _ in range(4):
            process = self._running[role]
            if process.exit_code is None and process.wait_until_serving():
                code = process.stop()
                if code == 0:
                    self._count(role)
                    return True
                if code is None:
                    break
            if not self._restart(role):
                return False
        self._blame("C14", f"{role} does not end")
        return False

    def _count(self, role: str) -> None:
        counts = Counter(json.loads(self._specs[role].counts.read_text()))
        if role == self._victim:
            self.result.calls = counts
        if counts["store.wipe"]:
            self._blame("C7", f"the worker found its store unfit {counts['store.wipe']} times")

    # -- the scene

    async def _play(self, wishes: Mapping[str, tuple[Wish, str]]) -> None:
        """These sagas to their ends, while who dies is started again."""
        loop = asyncio.get_running_loop()
        watched: dict[str, int] = {}
        given_up = asyncio.Event()

        def watch(role: str) -> None:
            watched[role] = self._running[role].sentinel
            loop.add_reader(watched[role], ended, role)

        def ended(role: str) -> None:
            loop.remove_reader(watched.pop(role))
            if self._restart(role):
                watch(role)
            else:
                given_up.set()

        for role in self._running:
            watch(role)
        try:
            async with Client.connect(self._specs[self._worker].bootstrap_servers, prefix=self._names.prefix) as client:
                await self._follow_all(client, wishes, given_up)
                self._ended_at = time.monotonic()
                if self._victim == ARCHIVIST:
                    await self._keep_up(client, given_up)
        finally:
            for sentinel in watched.values():
                loop.remove_reader(sentinel)

    async def _follow_all(
        self, client: Client, wishes: Mapping[str, tuple[Wish, str]], given_up: asyncio.Event
    ) -> None:
        sagas = asyncio.gather(*(self._follow(client, saga_id, *wish) for saga_id, wish in wishes.items()))
        giving_up = asyncio.create_task(given_up.wait())
        waited: list[asyncio.Future[Any]] = [sagas, giving_up]
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        sagas.cancel()
        giving_up.cancel()
        await asyncio.gather(sagas, giving_up, return_exceptions=True)

    async def _keep_up(self, client: Client, given_up: asyncio.Event) -> None:
        """Waits until the archivist has done what is due, with further sagas: a journal that rests is not cut on."""
        deadline = time.monotonic() + self._patience_s
        further_at = time.monotonic() + FURTHER_AFTER_S
        while not await asyncio.to_thread(self._has_kept_up):
            with suppress(TimeoutError):
                await asyncio.wait_for(given_up.wait(), LOOK_EVERY_S)
            if given_up.is_set():
                return
            if time.monotonic() > deadline:
                self._blame("C14", f"not all was copied, cut and deleted: from {self._begun} to {self._reached}")
                return
            if time.monotonic() > further_at:
                await self._follow_all(client, {f"further-{len(self._told)}": FURTHER}, given_up)
                further_at = time.monotonic() + FURTHER_AFTER_S

    async def _follow(self, client: Client, saga_id: str, wish: Wish, expected: str) -> None:
        self._told[saga_id] = Told(saga_id, None)
        handle = await client.start(Errand, wish, id=saga_id)
        self._told[saga_id] = Told(saga_id, True)
        status = "COMPLETED"
        try:
            await handle.result(timeout=self._patience_s)
        except SagaFailed as failed:
            status = str(failed.status)
        except ResultTimeout:
            self._blame("C2", f"{saga_id} did not end within {self._patience_s:.0f} s")
            return
        self._told[saga_id] = Told(saga_id, True, status)
        if status != expected:
            self._blame("C2", f"{saga_id} ended {status}, not {expected}")

    # -- the verdict

    def _blame(self, invariant: str, what: str) -> None:
        self.result.violations.append(f"{invariant}: {what}")

    def _judge(self) -> None:
        told = list(self._told.values())
        raw = self._records()
        effects = read_books([(SERVICE, self._folder / "books" / f"{SERVICE}.db")])
        evidence = evidence_of(raw, self._names, PARTITIONS, told, effects, [SERVICE])
        evidence.once = frozenset(self._once)
        verdict, accepted = examine(evidence)
        self.result.violations += verdict.violations
        if self._victim == LEDGER:
            self._compare_ledger(accepted)
        letters = sum(len(records) for records in evidence.dead_letters.values())
        if letters:
            self._blame("C9", f"{letters} dead letters")
        for number, records in evidence.journal.items():
            self._compare_store(f"the store of partition {number}", self._places.stores, number, records)
            if self._victim == ARCHIVIST:
                self._compare_archive(number, records)
                self._compare_snapshots(number, records)

    def _records(self) -> dict[str, Raw]:
        """What stands in the topics, and what stood there before it was deleted."""
        topics = evidence_topics(self._names, [SERVICE])
        found = {place: list(records) for place, records in self._standing(topics).items()}
        for record in sorted(deleted_records(self._places.deleted), key=lambda record: -record.offset):
            records = found[record.topic, record.partition]
            if not records or record.offset < records[0].offset:
                records.insert(0, record)
        return {topic: {number: found[topic, number] for number in range(PARTITIONS)} for topic in topics}

    def _standing(self, topics: Sequence[str]) -> dict[TopicPartition, Sequence[Record]]:
        raw = dump_topics(self._log, topics, PARTITIONS)
        return {(topic, number): records for topic, of in raw.items() for number, records in of.items()}

    def _compare_ledger(self, accepted: Accepted) -> None:
        """C3: what a participant without an inbox has told is what its ledger holds."""
        topic = self._names.ledger(SERVICE)
        records = [read_record(each.value) for each in dump_topics(self._log, [topic], PARTITIONS)[topic][0]]
        recorded = {(r.saga_id, r.run, r.sequence, r.undo) for r in records if isinstance(r, Execution)}
        for history, event in accepted.of_commands(StepSucceeded, StepRefused, UndoSucceeded):
            unit = (history.saga_id, history.run, event.sequence, isinstance(event, UndoSucceeded))
            if unit not in recorded:
                self._blame("C3", f"the outcome of {unit} is not in the ledger")

    def _compare_store(self, what: str, stores: Path, number: int, records: Sequence[Record]) -> int:
        """C7: what a store holds is what a replay of the raw journal gives at its offset, byte for byte."""
        store = RocksStores(stores).open(number)
        try:
            at, found = Progress(store).at.offset, dict(store.scan(b""))
        finally:
            store.close()
        if found != replayed(records, at):
            self._blame("C7", f"{what} differs from a replay up to offset {at}")
        return at

    def _compare_archive(self, number: int, records: Sequence[Record]) -> None:
        """C6: what was cut off stands in the archive, as it was."""
        journal = self._names.journal
        archive = self._places.archive(journal, self._specs[ARCHIVIST].topic_ids[journal])
        end, (begin, _) = archive.shelf(number).end(), self._admin.ends([(journal, number)])[journal, number]
        if end < begin:
            self._blame("C6", f"the journal begins at {begin}, its archive ends at {end}")
        if list(archive.records(number, 0, end)) != [record for record in records if record.offset < end]:
            self._blame("C6", f"the archive up to {end} is not what stood in the journal")

    def _compare_snapshots(self, number: int, records: Sequence[Record]) -> None:
        """Each that is there is whole and holds what a store does, and its owner can begin with it."""
        vault, journal = self._places.vault(), self._names.journal
        begin, _ = self._admin.ends([(journal, number)])[journal, number]
        for manifest in vault.list(number):
            what, copies = f"the snapshot of offset {manifest.offset}", self._folder / "copies" / manifest.name
            vault.fetch(manifest, RocksStores(copies).path(number))
            if self._compare_store(what, copies, number, records) != manifest.offset:
                self._blame("C7", f"{what} is of another offset")
            if manifest.first_offset < begin:
                self._blame("C8", f"{what} needs the journal from {manifest.first_offset} on; it begins at {begin}")


def replayed(records: Sequence[Record], at: int) -> dict[bytes, bytes]:
    """What a store holds that follows a journal up to that offset."""
    rebuilt = MemoryStores().open(0)
    replay = Replica(rebuilt)
    for record in records:
        if record.offset <= at:
            replay.feed(record.offset, record.timestamp_ms, record.value)
    replay.flush()
    return rebuilt.values
