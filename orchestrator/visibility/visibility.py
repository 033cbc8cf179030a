"""Follows all journals into the file and answers from it."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Any

from orchestrator.archive.journals import JournalArchive
from orchestrator.archive.shelf import SegmentDamaged
from orchestrator.depot import DepotFailed
from orchestrator.errors import VisibilityStopped
from orchestrator.log.base import Ends, Failure, Happening, Log, ReadFailed, Record, TopicPartition
from orchestrator.model.evolve import BrokenHistory
from orchestrator.model.rule import JournalHalted
from orchestrator.topics import TopicNames
from orchestrator.visibility.database import Moved, open_database, wipe_partition
from orchestrator.visibility.projector import Projector, StaleRows
from orchestrator.visibility.tasks import Task
from orchestrator.visibility.views import Details, Page, Run, VersionCount, Views
from orchestrator.visibility.why import Why
from orchestrator.wire.avro import UnreadableRecord

log = logging.getLogger(__name__)

BATCH = 2_000
"""Records of one transaction: some 2 MiB at 1 KiB each, 50 ms."""
MAX_WAIT_S = 0.2


class _Tail:
    """How one partition is read.

    `checking`: the next record is the last one again, to see whether it still stands. `unchecked`: that one is gone,
    and nothing that follows it has been seen yet. `archived`: what was cut off the journal, as far as it is to be read;
    `from_archive`: the last record read came from there.
    """

    __slots__ = ("archived", "checking", "from_archive", "halted_because", "unchecked")

    def __init__(self) -> None:
        self.archived: Iterator[Record] | None = None
        self.from_archive = False
        self.checking = False
        self.unchecked = False
        self.halted_because = ""


class Visibility:
    """One file, for the thread that made it; others open `Views` on the same path.

    `path` is a SQLite file, made where missing; `partitions` the journal's count. A journal that is not the one the
    rows came from is read anew. One that cannot be followed is left alone, and `halted` says why. What was cut off a
    journal is read from `archive`.
    """

    def __init__(
        self, path: Path, log_: Log, topics: TopicNames, partitions: int, archive: JournalArchive | None = None
    ) -> None:
        self.wake = Event()
        self.database = open_database(path, topics.journal, partitions)
        self.views = Views(self.database)
        self._journal = topics.journal
        self._archive = archive
        self._projector = Projector(self.database)
        self._tails = {partition: _Tail() for partition in range(partitions)}
        self._ends: Ends | None = None
        self._question = 0
        self._reader = log_.reader(wake=self.wake)
        for partition in self._tails:
            self._begin(partition)

    def close(self) -> None:
        """What was read stays."""
        self._reader.close()
        self.database.close()

    def __enter__(self) -> Visibility:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def halted(self) -> dict[int, str]:
        """Partitions whose journal cannot be followed, and why."""
        return {number: tail.halted_because for number, tail in self._tails.items() if tail.halted_because}

    def step(self) -> bool:
        """Takes what has come and writes it; whether anything came. Raises `sqlite3.Error`; calling again is safe."""
        archived = self._read_archive()
        happenings = archived or self._reader.poll(BATCH)
        if not happenings:
            return False
        for happening in happenings:
            if isinstance(happening, Record):
                self._tails[happening.partition].from_archive = bool(archived)
            if isinstance(happening, Ends) and happening.token == self._question:
                self._ends = happening
        stale: StaleRows | None = None
        try:
            with self._projector.batch():
                stale = self._take_all(happenings)
        except Moved:
            self._begin_all()
        except sqlite3.Error:
            self._begin_all()
            raise
        if stale is not None:
            log.warning("visibility of partition %d is built anew: %s", stale.partition, stale)
            wipe_partition(self.database, stale.partition, self._projector.position(stale.partition).last_offset)
            self._projector.forget()
            self._begin_all()
        return True

    def catch_up(self, timeout_s: float = 10.0) -> bool:
        """Reads up to the ends that the journals have now; False if that takes longer. What was read is in the file.

        Raises `VisibilityStopped` where a journal cannot be followed, after all others were.
        """
        deadline = time.monotonic() + timeout_s
        keys = [(self._journal, partition) for partition in self._tails]
        self._ask_ends(keys)
        while not self._caught_up():
            busy, left = self.step(), deadline - time.monotonic()
            if left <= 0 and not self._caught_up():
                return False
            if not busy:
                self.wake.wait(min(max(0.0, left), MAX_WAIT_S))
                self.wake.clear()
            if self._ends is not None and self._ends.failure is not None:
                if self._ends.failure in (Failure.UNKNOWN_TOPIC, Failure.UNAUTHORIZED):
                    problem = f"topic {self._journal}: {self._ends.failure.value}"
                    raise VisibilityStopped(f"{problem}; see `saga topics check`")
                self._ask_ends(keys)
        if halted := self.halted:
            problems = "; ".join(f"partition {number}: {why}" for number, why in halted.items())
            raise VisibilityStopped(f"{self._journal} cannot be followed: {problems}")
        return True

    def list(
        self,
        *,
        status: str | None = None,
        type: str | None = None,
        version: int | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> Page:
        """Runs, the latest first; `after` is the `next` of the page before. Raises `InvalidRequest`."""
        return self.views.list(status=status, type=type, version=version, limit=limit, after=after)

    def find(self, where: str | None, order_by: str | None = None, limit: int = 50) -> tuple[Run, ...]:
        """Runs by a filter such as `customer = 'ann' and amount > 3`, the latest first unless ordered otherwise.

        The language is that of `visibility.query`. Raises `InvalidRequest`.
        """
        return self.views.find(where, order_by, limit)

    def matching(self, where: str | None) -> frozenset[tuple[str, str]]:
        """All runs by such a filter, however many: (saga id, run id). Raises `InvalidRequest`."""
        return self.views.matching(where)

    def tasks(self, saga_id: str | None = None) -> tuple[Task, ...]:
        """What sagas, or one of them, wait for people to do: what is due first comes first."""
        return self.views.tasks(saga_id)

    def count(self, where: str | None = None, group_by: str | None = None) -> dict[Any, int]:
        """How many runs there are by the values of a field or an attribute, else under None.

        Raises `InvalidRequest`.
        """
        return self.views.count(where, group_by)

    def show(self, saga_id: str, run: str | None = None, *, history: int = 200) -> Details | None:
        """One run, the saga's latest by default, with its steps and the latest entries of its history."""
        return self.views.show(saga_id, run, history=history)

    def why(self, saga_id: str, run: str | None = None) -> Why | None:
        """What a run waits for, the saga's latest by default, since when, and what would free it."""
        return self.views.why(saga_id, run)

    def counts(self, *, type: str | None = None) -> dict[str, int]:
        """How many runs there are in each status."""
        return self.views.counts(type=type)

    def versions(self, *, type: str | None = None) -> tuple[VersionCount, ...]:
        """How many runs there are of each version of each type."""
        return self.views.versions(type=type)

    def _begin(self, partition: int) -> None:
        tail, position = self._tails[partition], self._projector.position(partition)
        tail.checking = position.last_offset >= 0
        tail.unchecked, tail.archived, tail.from_archive = False, None, False
        self._reader.assign(self._journal, partition, max(0, position.last_offset))

    def _take_all(self, happenings: Sequence[Happening]) -> StaleRows | None:
        """Takes them in order. Rows found stale end it: what else was fetched comes again."""
        try:
            for happening in happenings:
                if isinstance(happening, Record):
                    self._take(happening)
                elif isinstance(happening, ReadFailed):
                    self._failed(happening)
        except StaleRows as stale:
            return stale
        return None

    def _take(self, record: Record) -> None:
        tail = self._tails[record.partition]
        if tail.halted_because:
            return
        try:
            if tail.checking:
                tail.checking = False
                self._projector.verify(record)
            else:
                tail.unchecked = False
                self._projector.feed(record)
        except (JournalHalted, UnreadableRecord, BrokenHistory) as problem:
            self._halt(record.partition, f"{problem}")

    def _failed(self, failed: ReadFailed) -> None:
        if failed.partition < 0:
            raise VisibilityStopped(f"{failed.failure.value}: {failed.detail}; open it again")
        tail = self._tails[failed.partition]
        position = self._projector.position(failed.partition)
        if failed.failure is not Failure.OUT_OF_RANGE:
            self._halt(failed.partition, f"{failed.failure.value}: {failed.detail}")
        elif not tail.checking and self._turn_to_archive(failed.partition, position.last_offset + 1):
            pass
        elif position.last_offset < 0:
            self._halt(
                failed.partition,
                f"the journal was cut, its beginning is needed: {failed.detail}; set `archive` as the workers have it",
            )
        elif tail.unchecked:
            raise StaleRows(failed.partition, f"offset {position.last_offset + 1} is outside the journal")
        else:
            # The last record may have been cut off by now. If nothing after it was, the chain tells all the same.
            tail.checking, tail.unchecked = False, True
            self._reader.assign(self._journal, failed.partition, position.last_offset + 1)

    def _turn_to_archive(self, partition: int, first: int) -> bool:
        """Whether what is to be read next stands in the archive."""
        if self._archive is None:
            return False
        try:
            end = self._archive.shelf(partition).end()
        except DepotFailed as problem:
            self._halt(partition, str(problem))
            return True
        tail = self._tails[partition]
        if end <= first:
            if tail.from_archive:
                where = f"{self._archive.depot.url}/{self._archive.shelf(partition).folder}"
                self._halt(partition, f"what follows offset {first - 1} is neither in the journal nor in {where}")
            return tail.from_archive
        tail.archived, tail.from_archive = self._archive.records(partition, first, end), True
        return True

    def _read_archive(self) -> Sequence[Happening]:
        """The next records of what was cut off a journal; behind the last of them the journal itself goes on."""
        for partition, tail in self._tails.items():
            if tail.archived is None:
                continue
            try:
                records = list(islice(tail.archived, BATCH))
            except (SegmentDamaged, DepotFailed) as problem:
                tail.archived = None
                self._halt(partition, str(problem))
                continue
            if len(records) < BATCH:
                tail.archived = None
                at = records[-1].offset if records else self._projector.position(partition).last_offset
                self._reader.assign(self._journal, partition, at + 1)
            if records:
                return records
        return ()

    def _halt(self, partition: int, why: str) -> None:
        log.error("visibility of partition %d stops: %s", partition, why)
        self._tails[partition].halted_because = why
        self._reader.unassign(self._journal, partition)

    def _ask_ends(self, keys: Sequence[TopicPartition]) -> None:
        self._ends = None
        self._question += 1
        self._reader.ask_ends(keys, self._question)

    def _begin_all(self) -> None:
        for partition, tail in self._tails.items():
            if not tail.halted_because:
                self._begin(partition)

    def _caught_up(self) -> bool:
        ends = self._ends
        if ends is None or ends.failure is not None:
            return False
        for partition, tail in self._tails.items():
            end = ends.offsets.get((self._journal, partition), 0)
            at = self._projector.position(partition).last_offset + 1
            # Behind an unchecked position the journal may end, and that has yet to be reported.
            behind = tail.checking or (at != end if tail.unchecked else at < end)
            if behind and not tail.halted_because:
                return False
        return True
