"""A worker that copies its store, moves its journal into an archive and deletes what is consumed, all within a second.

What it deletes is kept beside, for the checker: records that stand in no topic any more.
"""

from __future__ import annotations

import pickle
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

from orchestrator.acls import PUBLISHERS
from orchestrator.archive import archiver as archiving
from orchestrator.archive.archiver import Archiver
from orchestrator.archive.journals import JournalArchive
from orchestrator.depot import Depot
from orchestrator.log.base import Admin, Log, Reader, Record, RunAppender, TopicPartition
from orchestrator.log.spans import records_in
from orchestrator.runtime import lifecycle, partition, standby, upkeep, worker
from orchestrator.runtime.rebuilding import rebuilder
from orchestrator.snapshots.keeper import Keeper
from orchestrator.snapshots.restoring import Restoring
from orchestrator.snapshots.vault import Vault
from orchestrator.store.rocks import RocksStores
from orchestrator.topics import TopicNames

NOTHING, STORE, SNAPSHOTS = "nothing", "store", "snapshots"
LOSSES = (NOTHING, STORE, SNAPSHOTS)
"""What is gone when who died comes back: the store too where it is the snapshots."""
EVERY_MS = 300


def hurry() -> None:
    """What is due after minutes is due at once, in this process."""
    vars(worker)["UPKEEP_EVERY_S"] = 0.1
    for module, name in (
        (upkeep, "TRIM_EVERY_MS"),
        (archiving, "EVERY_MS"),
        (lifecycle, "COMMIT_EVERY_MS"),
        (partition, "STORE_EVERY_MS"),
        (standby, "FLUSH_EVERY_MS"),
    ):
        vars(module)[name] = EVERY_MS


class Places(NamedTuple):
    """Where things are in the folder of a run."""

    folder: Path

    @property
    def stores(self) -> Path:
        return self.folder / "stores"

    @property
    def depot(self) -> Path:
        return self.folder / "depot"

    @property
    def deleted(self) -> Path:
        return self.folder / "deleted"

    def vault(self) -> Vault:
        return Vault(Depot(str(self.depot)))

    def archive(self, journal: str, topic_id: str) -> JournalArchive:
        return JournalArchive(Depot(str(self.depot)), journal, topic_id)


class Archiving(NamedTuple):
    """What `Worker` is given."""

    stores: Restoring
    keeper: Keeper
    archiver: Archiver


def archiving_with(log: Log, names: TopicNames, topic_id: str, places: Places) -> Archiving:
    """As `saga worker` makes them where snapshots and an archive are set."""
    vault, archive = places.vault(), places.archive(names.journal, topic_id)
    return Archiving(
        Restoring(RocksStores(places.stores), vault, topic_id, rebuilder(log, archive)),
        Keeper(vault, places.folder / "scratch", topic_id, EVERY_MS),
        Archiver(log, archive, vault, topic_id, names.prefix + PUBLISHERS, keep_ms=0, least=1),
    )


class KeepingLog:
    """A log of which nothing is deleted that was not put aside before, in `folder`."""

    def __init__(self, log: Log, folder: Path) -> None:
        self._log = log
        self._folder = folder

    def appender(self, *, wake: Event, linger_ms: float = 0.0) -> RunAppender:
        return self._log.appender(wake=wake, linger_ms=linger_ms)

    def reader(self, group: str | None = None, topics: Iterable[str] = (), *, wake: Event) -> Reader:
        return self._log.reader(group, topics, wake=wake)

    def admin(self) -> Admin:
        admin: Any = _KeepingAdmin(self._log, self._folder)
        return admin  # type: ignore[no-any-return]


class _KeepingAdmin:
    def __init__(self, log: Log, folder: Path) -> None:
        self._log = log
        self._folder = folder
        self._admin = log.admin()

    def __getattr__(self, call: str) -> Any:
        return getattr(self._admin, call)

    def trim(self, offsets: Mapping[TopicPartition, int], timeout_s: float = 10.0) -> None:
        if not offsets:
            return
        begins = self._admin.ends(list(offsets))
        spans = {key: (begins[key][0], offset) for key, offset in offsets.items()}
        self._folder.mkdir(exist_ok=True)
        unfinished = self._folder / uuid.uuid4().hex
        unfinished.write_bytes(pickle.dumps(list(records_in(self._log, spans))))
        unfinished.rename(unfinished.with_suffix(".records"))
        self._admin.trim(offsets, timeout_s)


def deleted_records(folder: Path) -> set[Record]:
    """What was put aside."""
    found: set[Record] = set()
    for path in folder.glob("*.records"):
        found.update(pickle.loads(path.read_bytes()))
    return found
