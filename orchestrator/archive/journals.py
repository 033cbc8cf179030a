"""Journals as a whole: what was cut off stands in an archive, the rest in the topic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from orchestrator.archive.shelf import Shelf
from orchestrator.depot import Depot
from orchestrator.errors import SagaError
from orchestrator.log.base import Failure, Log, Record
from orchestrator.log.spans import SpanUnreadable, records_in
from orchestrator.wire.segments import SegmentRecord


class JournalArchive:
    """The archive of one journal topic; `topic_id` keeps it apart from one that had the name before."""

    def __init__(self, depot: Depot, topic: str, topic_id: str) -> None:
        self.depot = depot
        self.topic = topic
        self._folder = f"{topic}-{topic_id}"

    def shelf(self, partition: int) -> Shelf:
        """The segments of one partition, from offset 0 on."""
        return Shelf(self.depot, f"{self._folder}/partition-{partition}")

    def records(self, partition: int, first: int, end: int) -> Iterator[Record]:
        """As they stood in the topic, from one offset up to before another. Raises `SegmentDamaged`, `DepotFailed`."""
        for record in self.shelf(partition).read(first, end):
            yield Record(self.topic, partition, *record)


def as_segment(record: Record) -> SegmentRecord:
    """A record as a segment has it: without its place, which is the shelf's."""
    return SegmentRecord(*record[2:])


def whole_journal(
    log: Log, topic: str, bounds: Mapping[int, tuple[int, int]], archive: JournalArchive | None
) -> Iterator[Record]:
    """Every record of a journal up to the ends in `bounds`, (log start, end) by partition, each in its order.

    One that is cut meanwhile is read on in the archive. Raises `SagaError` where the beginning was cut off and there is
    no archive of it, or where something cannot be read, `SegmentDamaged`, `DepotFailed`.
    """
    for partition, (start, end) in bounds.items():
        if start and archive is None:
            raise SagaError(
                f"{topic}-{partition} was cut below offset {start}, and what stood there is needed: set `archive` as "
                "the workers have it"
            )
        at = 0
        while at < end:
            if archive is not None and at < start:
                start = min(start, end)  # it may have been cut beyond what is asked for
                yield from archive.records(partition, at, start)
                at = start
            try:
                for record in records_in(log, {(topic, partition): (at, end)}):
                    at = record.offset + 1
                    yield record
                at = end  # also where the last offset has no record
            except SpanUnreadable as unreadable:
                cut = archive.shelf(partition).end() if archive is not None else 0
                if unreadable.failure is not Failure.OUT_OF_RANGE or cut <= at:
                    raise
                start = cut
