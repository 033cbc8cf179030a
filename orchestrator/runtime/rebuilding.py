"""A store made from nothing but the archive and what the journal still has."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from orchestrator.archive.journals import JournalArchive, whole_journal
from orchestrator.depot import DepotFailed
from orchestrator.log.base import AdminFailed, Failure, Log
from orchestrator.log.spans import SpanUnreadable
from orchestrator.runtime.replica import Replica
from orchestrator.store.rocks import RocksStores


def rebuilder(log: Log, archive: JournalArchive) -> Callable[[int, Path], bool]:
    """For `Restoring`: fills a new directory with a partition's store; False where nothing of it was cut.

    The journal is read to its end: only there the store knows of the effects that were acknowledged meanwhile. Raises
    whatever reading raises, and `DepotFailed` where it is the brokers that do not answer, for that passes too.
    """

    def rebuild(partition: int, place: Path) -> bool:
        try:
            return make(partition, place)
        except AdminFailed as failed:
            raise DepotFailed(str(failed)) from failed
        except SpanUnreadable as unreadable:
            if unreadable.failure is Failure.OUT_OF_RANGE:
                raise
            raise DepotFailed(str(unreadable)) from unreadable

    def make(partition: int, place: Path) -> bool:
        with closing(log.admin()) as admin:
            bounds = admin.ends([(archive.topic, partition)])[archive.topic, partition]
        if bounds[0] == 0:
            return False
        scratch = place.with_name(f"{place.name}.rebuilding")
        stores = RocksStores(scratch)
        stores.wipe(partition)
        with closing(stores.open(partition)) as store:
            replica = Replica(store)
            for record in whole_journal(log, archive.topic, {partition: bounds}, archive):
                replica.feed(record.offset, record.timestamp_ms, record.value)
                if len(replica.open_effects) > FORGET_AT:
                    replica.flush()
            replica.flush()
        stores.path(partition).rename(place)
        scratch.rmdir()
        return True

    return rebuild


FORGET_AT = 10_000
"""Effects that may be open, beyond which the store is written: then those that were acknowledged are forgotten."""
