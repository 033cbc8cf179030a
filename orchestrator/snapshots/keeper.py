"""Takes snapshots of the stores that a worker has open, one partition after the other."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

from orchestrator.depot import DepotFailed
from orchestrator.snapshots.vault import Vault
from orchestrator.store import keys
from orchestrator.store.base import Copyable, Store, StoreBroken
from orchestrator.store.rocks import read_only
from orchestrator.wire.avro import UnreadableRecord
from orchestrator.wire.stored import read_partition

log = logging.getLogger(__name__)

KEEP = 3
"""Snapshots of each partition that stay: one that is damaged is no disaster."""


class Keeper:
    """Copies each store every `every_ms` into the vault. `scratch` is a directory beside the stores, on their disk.

    A checkpoint is made of links to the store's own files, so it costs its owner some ten milliseconds and no room.
    `taken_ms` says when (by the wall clock) each partition's last snapshot was taken by this worker.
    """

    def __init__(self, vault: Vault, scratch: Path, journal: str, every_ms: int) -> None:
        self.taken_ms: dict[int, int] = {}
        self.failures = 0
        self._vault = vault
        self._scratch = scratch
        self._journal = journal
        self._every_ms = every_ms
        self._due_ms: dict[int, int] = {}
        shutil.rmtree(scratch, ignore_errors=True)  # links of a worker that died would keep files on the disk

    def step(self, stores: Mapping[int, Store], mono_ms: int, now_ms: int) -> None:
        """Takes those that are due. The first of a partition is due after a part of the time that its number says."""
        for number in [number for number in self._due_ms if number not in stores]:
            del self._due_ms[number]
            self.taken_ms.pop(number, None)
        for number, store in stores.items():
            if not isinstance(store, Copyable):
                continue
            first_ms = mono_ms + self._every_ms * (number % 10 + 1) // 10
            if mono_ms < self._due_ms.setdefault(number, first_ms):
                continue
            self._due_ms[number] = mono_ms + self._every_ms
            try:
                self._take(number, store, now_ms)
            except (DepotFailed, StoreBroken, UnreadableRecord, OSError) as failed:
                self.failures += 1
                log.warning("no snapshot of partition %d: %s", number, failed)

    def _take(self, number: int, store: Copyable, now_ms: int) -> None:
        place = self._scratch / f"partition-{number}"
        shutil.rmtree(place, ignore_errors=True)
        self._scratch.mkdir(parents=True, exist_ok=True)
        try:
            store.checkpoint(place)
            data = read_only(place, keys.PARTITION)
            if data is None:
                return  # nothing of the journal is in the store yet
            at = read_partition(data)
            kept = [each.offset for each in self._vault.list(number) if each.journal == self._journal]
            if at.offset not in kept:
                manifest, copied = self._vault.save(number, at.offset, at.first_offset, self._journal, now_ms, place)
                log.info(
                    "snapshot of partition %d at journal offset %d: %d bytes, %d of them new",
                    number,
                    at.offset,
                    manifest.size,
                    copied,
                )
                self._vault.prune(number, self._journal, KEEP)
            self.taken_ms[number] = now_ms
        finally:
            shutil.rmtree(place, ignore_errors=True)
