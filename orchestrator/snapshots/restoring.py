"""Stores that begin with a snapshot where there is none on this disk."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Lock, Thread

from orchestrator.depot import DepotFailed
from orchestrator.snapshots.vault import SnapshotDamaged, Vault
from orchestrator.store.base import Store, StoreBusy
from orchestrator.store.rocks import RocksStores

log = logging.getLogger(__name__)

MAX_RESTORED = 2
"""Snapshots of a partition that may turn out to be of no use. With a store of one's own before them there are as many
wipes as an engine makes before it sets a partition aside, so that in the end it reads the journal."""


class Restoring:
    """`stores`, each of which is restored before it is opened for the first time, unless it is there already.

    To copy a snapshot takes seconds, which no engine can wait for: a thread does it, and `open` says `StoreBusy`
    meanwhile. Each snapshot is tried once. One that is damaged, or was wiped since, is followed by the one before it,
    and after `MAX_RESTORED` by what `rebuild` makes in a new directory, if it can, or an empty store: the journal has
    it all. `journal` is the id of its topic: snapshots of another are passed over. While the place of the snapshots
    cannot be reached an empty store stands in, unless there is a `rebuild`: then `open` says `StoreBusy` until it can,
    and so it does while `rebuild` raises `DepotFailed`.
    """

    def __init__(
        self, stores: RocksStores, vault: Vault, journal: str, rebuild: Callable[[int, Path], bool] | None = None
    ) -> None:
        self._stores = stores
        self._vault = vault
        self._journal = journal
        self._rebuild = rebuild
        self._lock = Lock()
        self._under_way: set[int] = set()
        self._ready: set[int] = set()
        self._tried: set[tuple[int, str]] = set()
        self._restored: Counter[int] = Counter()

    def open(self, partition: int) -> Store:
        """As of the stores below. Raises `StoreBusy` until it is restored."""
        with self._lock:
            known = partition in self._under_way or partition in self._ready
            if not known and not self._stores.path(partition).exists():
                Thread(target=self._restore, args=(partition,), name=f"restore-{partition}", daemon=True).start()
                self._under_way.add(partition)
            if partition in self._under_way:
                raise StoreBusy(f"the store of partition {partition} is being restored from a snapshot")
        return self._stores.open(partition)

    def wipe(self, partition: int) -> None:
        """As of the stores below; the next `open` begins with an older snapshot."""
        self._stores.wipe(partition)
        self._ready.discard(partition)

    def _restore(self, partition: int) -> None:
        ready = True
        try:
            self._try_all(partition)
        except (DepotFailed, OSError) as failed:
            # Where journals are cut an empty store is of no use: the next `open` tries again.
            ready = self._rebuild is None
            log.warning("partition %d is not restored from a snapshot: %s", partition, failed)
        except Exception:
            log.exception("partition %d is not restored from a snapshot", partition)
        finally:
            with self._lock:
                if ready:
                    self._ready.add(partition)
                self._under_way.discard(partition)

    def _try_all(self, partition: int) -> None:
        place = self._stores.path(partition)
        copy = place.with_name(f"{place.name}.restoring")
        for manifest in self._vault.list(partition) if self._restored[partition] < MAX_RESTORED else ():
            if (partition, manifest.name) in self._tried or manifest.journal != self._journal:
                continue
            shutil.rmtree(copy, ignore_errors=True)
            try:
                self._vault.fetch(manifest, copy)
                copy.rename(place)
            except SnapshotDamaged as damaged:
                self._tried.add((partition, manifest.name))
                log.warning("partition %d: the snapshot of offset %d: %s", partition, manifest.offset, damaged)
                continue
            finally:
                shutil.rmtree(copy, ignore_errors=True)
            self._tried.add((partition, manifest.name))
            self._restored[partition] += 1
            log.info("partition %d: restored from the snapshot of journal offset %d", partition, manifest.offset)
            return
        if self._rebuild is not None and self._rebuild(partition, place):
            log.info("partition %d: restored from the archive and the journal", partition)
