"""Moves what no owner needs any more from the journals into the archive."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from orchestrator.archive.journals import JournalArchive, as_segment
from orchestrator.archive.shelf import SegmentDamaged
from orchestrator.depot import DepotFailed
from orchestrator.errors import SagaError
from orchestrator.log.base import AdminFailed, Log
from orchestrator.log.spans import records_in
from orchestrator.snapshots.vault import Vault

log = logging.getLogger(__name__)

EVERY_MS = 60_000
SNAPSHOTS = 2
"""So many sound ones of a partition must reach beyond what is cut: one may turn out damaged."""
AT_ONCE = 100_000
"""Records of a partition that are moved in one step: some 100 MB, and other partitions wait meanwhile."""


class Archiver:
    """Cuts one worker's journals. `journal` is the id of the topic that the snapshots in `vault` belong to.

    Cut is what lies below all snapshots of a partition, was published by the group `publishers` and is older than
    `keep_ms`, once it stands in the archive and was read there.
    `least` records are not worth a segment. `cut` says where each journal begins now, as far as this worker cut it.
    """

    def __init__(
        self,
        log_: Log,
        archive: JournalArchive,
        vault: Vault,
        journal: str,
        publishers: str,
        keep_ms: int,
        least: int = 1_000,
    ) -> None:
        self.cut: dict[int, int] = {}
        self.failures = 0
        self._log = log_
        self._admin = log_.admin()
        self._archive = archive
        self._vault = vault
        self._journal = journal
        self._publishers = publishers
        self._keep_ms = keep_ms
        self._least = least
        self._due_ms = 0

    def step(self, partitions: Iterable[int], mono_ms: int, now_ms: int) -> None:
        """Every minute: looks at each partition, which blocks. What fails is logged, and tried again."""
        if mono_ms < self._due_ms:
            return
        self._due_ms = mono_ms + EVERY_MS
        for number in partitions:
            try:
                self._move(number, now_ms)
            except (AdminFailed, DepotFailed, SagaError, SegmentDamaged, OSError) as failed:
                self.failures += 1
                log.warning("the journal of partition %d is not cut: %s", number, failed)

    def close(self) -> None:
        self._admin.close()

    def _move(self, number: int, now_ms: int) -> None:
        needed = self._needed(number)
        if needed < self._least:
            return
        place = (self._archive.topic, number)
        begin, _ = self._admin.ends([place])[place]
        aged = self._admin.offsets_at([place], now_ms - self._keep_ms)[place]
        bound = min(needed, aged, self._admin.committed(self._publishers, [place]).get(place, 0))
        if bound - begin < self._least:
            return
        shelf = self._archive.shelf(number)
        archived = shelf.end()
        if archived < begin:
            raise SegmentDamaged(f"{shelf.folder} lacks the offsets from {archived} to {begin}: bring them back")
        bound = min(bound, begin + AT_ONCE)
        records = records_in(self._log, {place: (archived, bound)})
        shelf.put(archived, bound, map(as_segment, records))
        for _ in shelf.read(begin, bound):
            pass  # what is about to be deleted, as it stands there
        self._admin.trim({place: bound})
        self.cut[number] = bound
        log.info("the journal of partition %d was cut at offset %d; what stood below is in the archive", number, bound)

    def _needed(self, number: int) -> int:
        """The offset from which on some snapshot needs the journal; 0 where there are too few."""
        snapshots = [each for each in self._vault.list(number) if each.journal == self._journal]
        sound = [each for each in snapshots if self._vault.is_complete(each)]
        return min(each.first_offset for each in snapshots) if len(sound) >= SNAPSHOTS else 0
