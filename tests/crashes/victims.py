"""The processes of a run: forked from a server that has imported everything, so that one is there in milliseconds."""

from __future__ import annotations

import logging
import os
import signal
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, Pipe, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from orchestrator.log.base import Log
from orchestrator.log.kafka import KafkaLog
from orchestrator.participant.runner import Runner
from orchestrator.participant.settings import ParticipantSettings
from orchestrator.runtime.engine import Engine
from orchestrator.runtime.partition_config import PartitionConfig
from orchestrator.runtime.tenure import Phase
from orchestrator.runtime.worker import Worker
from orchestrator.store.rocks import RocksStores
from orchestrator.topics import TopicNames
from orchestrator.wire.tokens import TokenKeys
from tests.crashes.archiving import KeepingLog, Places, archiving_with, hurry
from tests.crashes.failpoints import Fuse, FusedLog, FusedStores, Point, fuse_files, fuse_questions
from tests.crashes.mutants import break_by
from tests.crashes.scene import PARTITIONS, definitions, participant

WORKER, ARCHIVIST, INBOX, LEDGER = "worker", "archivist", "inbox", "ledger"
"""Who may be killed: a worker, one with snapshots and an archive, or a participant with the one or the other memory."""
END_WITHIN_S = 60.0
HALTED = 3
"""The exit code of a worker that halted its partition: nobody would resume it here."""

# Quick to notice that a member is gone: the test's broker allows a second.
MEMBER = {"session.timeout.ms": 1_500, "heartbeat.interval.ms": 200}
LEASE_MS = 400
HANDLER_LIMIT_MS = 1_000

_processes = get_context("forkserver")
_processes.set_forkserver_preload(["tests.crashes.victims"])
_looking = Lock()
"""Held to start one and to see how one ended: starting looks after all others, and an end can be read only once."""


@dataclass(frozen=True)
class Spec:
    """What a process is told."""

    role: str
    bootstrap_servers: str
    prefix: str
    folder: Path
    topic_ids: dict[str, str] = field(default_factory=dict)
    point: Point | None = None
    mutant: str = ""

    @property
    def counts(self) -> Path:
        """Where it writes what it counted, when it ends well."""
        return self.folder / f"{self.role}.json"

    @property
    def output(self) -> Path:
        return self.folder / f"{self.role}.log"


class Victim:
    """A process, started at once."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._told, telling = Pipe(duplex=False)
        with _looking:
            self._process: BaseProcess = _processes.Process(target=_run, args=(spec, telling), daemon=True)
            self._process.start()
        telling.close()

    @property
    def sentinel(self) -> int:
        """Readable when it has ended."""
        return self._process.sentinel

    @property
    def exit_code(self) -> int | None:
        """None: it runs."""
        with _looking:
            return self._process.exitcode

    def wait_until_serving(self) -> bool:
        """Until it owns its partition; False where it ended instead, or does not come to it."""
        try:
            return bool(wait([self._told], END_WITHIN_S)) and bool(self._told.recv())
        except EOFError:
            return False

    def stop(self) -> int | None:
        """A graceful stop. Its exit code; None: it did not end, and was killed."""
        with _looking:
            self._process.terminate()
        ended = wait([self.sentinel], END_WITHIN_S)
        self.put_away()
        return self.exit_code if ended else None

    def put_away(self) -> None:
        """However it stands with it."""
        with _looking:
            self._process.kill()
        wait([self.sentinel])
        with _looking:
            self._process.join()
        if not self._told.closed:
            self._told.close()


def _end_with(parent: BaseProcess) -> None:
    wait([parent.sentinel])
    os._exit(1)


def _run(spec: Spec, telling: Connection) -> None:
    parent = parent_process()
    assert parent is not None
    Thread(target=_end_with, args=(parent,), daemon=True).start()
    output = os.open(spec.output, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)6d %(levelname)s %(name)s %(message)s")
    logging.info("%s begins, to die at %s", spec.role, spec.point or "no point")
    os.environ["SHOP_BOOKS"] = str(spec.folder / "books")
    fuse = Fuse(spec.point)
    if spec.mutant:
        break_by(spec.mutant)
    fuse_questions(fuse)
    (_work if spec.role in (WORKER, ARCHIVIST) else _serve)(spec, fuse, telling)
    fuse.save(spec.counts)


def _work(spec: Spec, fuse: Fuse, telling: Connection) -> None:
    kafka: Log = KafkaLog(spec.bootstrap_servers, consumer=MEMBER)
    places, names = Places(spec.folder), TopicNames(spec.prefix)
    if spec.role == ARCHIVIST:
        kafka = KeepingLog(kafka, places.deleted)
    log = FusedLog(kafka, fuse, ("inputs", "journals"), ("journal", "outward"))
    config = PartitionConfig(names, PARTITIONS, TokenKeys({"k": b"0" * 16}), definitions())
    if spec.role == ARCHIVIST:
        hurry()
        fuse_files(fuse)
        archiving = archiving_with(log, names, spec.topic_ids[names.journal], places)
        worker = Worker(
            log,
            config,
            FusedStores(archiving.stores, fuse),
            topic_ids=spec.topic_ids,
            trim_lag_ms=0,
            standby=True,
            keeper=archiving.keeper,
            archiver=archiving.archiver,
        )
    else:
        worker = Worker(log, config, FusedStores(RocksStores(places.stores), fuse), topic_ids=spec.topic_ids)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    told = False

    def tell(engine: Engine) -> None:
        nonlocal told
        phases = {tenure.phase for tenure in engine.tenures.values()}
        if Phase.HALTED in phases:
            os._exit(HALTED)
        if not told and Phase.OWNING in phases:
            told = True
            telling.send(True)

    worker.run(tell)


def _serve(spec: Spec, fuse: Fuse, telling: Connection) -> None:
    log = FusedLog(KafkaLog(spec.bootstrap_servers, consumer=MEMBER), fuse, ("commands",), ("replies",))
    settings = ParticipantSettings(lease_ms=LEASE_MS, handler_limit_ms=HANDLER_LIMIT_MS)
    runner = Runner(participant(spec.role), log, topics=TopicNames(spec.prefix), settings=settings)
    told = False

    def tell() -> None:
        nonlocal told
        partitions: Any = runner.engine.partitions.values()
        if not told and partitions and all(partition.exact for partition in partitions):
            told = True
            telling.send(True)

    runner.run(signals=True, every_turn=tell)
