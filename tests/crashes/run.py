"""One run: the scene on topics of its own, a process that dies at one point and is started again, and the verdict."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator.checker.check import examine
from orchestrator.checker.evidence import Evidence, Told
from orchestrator.checker.journal import Accepted
from orchestrator.client import Client
from orchestrator.demo.dump import dump_topics, gather_evidence
from orchestrator.errors import ResultTimeout, SagaFailed
from orchestrator.log.base import AdminFailed, Record
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
from tests.crashes.failpoints import Point
from tests.crashes.scene import PARTITIONS, SERVICE, WISHES, Errand
from tests.crashes.victims import HALTED, INBOX, LEDGER, WORKER, Spec, Victim

PATIENCE_S = 60.0
"""For both sagas together, where nothing else is said: a machine with much else to do takes long."""
KILLED = -9


@dataclass
class Result:
    """What became of one run."""

    victim: str
    point: Point | None
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


class Run:
    """One point of one victim. `again`: where the process that is started after it dies too."""

    def __init__(
        self,
        bootstrap_servers: str,
        victim: str,
        point: Point | None,
        root: Path,
        *,
        again: Point | None = None,
        mutant: str = "",
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.result = Result(victim, point)
        self._log = KafkaLog(bootstrap_servers)
        prefix = f"c{uuid.uuid4().hex[:8]}-"
        self._names = TopicNames(prefix)
        self._folder = root / prefix.rstrip("-")
        memory = LEDGER if victim == LEDGER else INBOX
        self._once = [SERVICE] if memory == INBOX else []
        self._points = [each for each in (point, again) if each is not None]
        self._victim = victim
        self._patience_s = patience_s
        self._specs = {
            role: Spec(role, bootstrap_servers, prefix, self._folder, mutant=mutant) for role in (WORKER, memory)
        }
        self._running: dict[str, Victim] = {}
        self._told: dict[str, Told] = {}
        self._died_at = 0.0
        self._ended_at = 0.0

    def go(self) -> Result:
        """All of it. Whatever goes wrong is a violation."""
        began = time.monotonic()
        self._folder.mkdir(parents=True)
        admin = self._log.admin()
        topics = plan(self._names, partitions=PARTITIONS, replication=1, services=[SERVICE])
        try:
            apply(admin, topics)
            ids = {name: state.topic_id for name, state in admin.describe(pinned_topics(self._names)).items()}
            self._specs = {role: replace(spec, topic_ids=ids) for role, spec in self._specs.items()}
            for role in self._specs:
                self._start(role)
            asyncio.run(self._play())
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
        self._start(role)
        return True

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

    async def _play(self) -> None:
        """Both sagas to their ends, while who dies is started again."""
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
            async with Client.connect(self._specs[WORKER].bootstrap_servers, prefix=self._names.prefix) as client:
                sagas = asyncio.gather(*(self._follow(client, saga_id) for saga_id in WISHES))
                giving_up = asyncio.create_task(given_up.wait())
                waited: list[asyncio.Future[Any]] = [sagas, giving_up]
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                sagas.cancel()
                giving_up.cancel()
                await asyncio.gather(sagas, giving_up, return_exceptions=True)
        finally:
            self._ended_at = time.monotonic()
            for sentinel in watched.values():
                loop.remove_reader(sentinel)

    async def _follow(self, client: Client, saga_id: str) -> None:
        wish, expected = WISHES[saga_id]
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
        evidence = gather_evidence(self._log, self._names, PARTITIONS, [SERVICE], told, self._folder / "books")
        evidence.once = frozenset(self._once)
        verdict, accepted = examine(evidence)
        self.result.violations += verdict.violations
        if self._victim == LEDGER:
            self._compare_ledger(accepted)
        letters = sum(len(records) for records in evidence.dead_letters.values())
        if letters:
            self._blame("C9", f"{letters} dead letters")
        self._compare_stores(evidence)

    def _compare_ledger(self, accepted: Accepted) -> None:
        """C3: what a participant without an inbox has told is what its ledger holds."""
        topic = self._names.ledger(SERVICE)
        records = [read_record(each.value) for each in dump_topics(self._log, [topic], PARTITIONS)[topic][0]]
        recorded = {(r.saga_id, r.run, r.sequence, r.undo) for r in records if isinstance(r, Execution)}
        for history, event in accepted.of_commands(StepSucceeded, StepRefused, UndoSucceeded):
            unit = (history.saga_id, history.run, event.sequence, isinstance(event, UndoSucceeded))
            if unit not in recorded:
                self._blame("C3", f"the outcome of {unit} is not in the ledger")

    def _compare_stores(self, evidence: Evidence) -> None:
        """C7: what the worker's store holds is what a replay of the raw journal gives at its offset, byte for byte."""
        stores = RocksStores(self._folder / "stores")
        for number, records in evidence.journal.items():
            store = stores.open(number)
            try:
                at, found = Progress(store).at.offset, dict(store.scan(b""))
            finally:
                store.close()
            if found != replayed(records, at):
                self._blame("C7", f"the store of partition {number} differs from a replay up to offset {at}")


def replayed(records: Sequence[Record], at: int) -> dict[bytes, bytes]:
    """What a store holds that follows a journal up to that offset."""
    rebuilt = MemoryStores().open(0)
    replay = Replica(rebuilt)
    for record in records:
        if record.offset <= at:
            replay.feed(record.offset, record.timestamp_ms, record.value)
    replay.flush()
    return rebuilt.values
