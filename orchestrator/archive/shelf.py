"""Where segments stand: under a folder for each partition, named by their offsets and by what is in them.

A name ends in the beginning of the content's SHA-256, so that each can be read and checked by itself. Two owners that
archive the same partition, one of them fenced, may write segments that overlap: the records are the same, and a reader
passes over what it has had.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import NamedTuple

from orchestrator.depot import Depot
from orchestrator.wire.avro import UnreadableRecord
from orchestrator.wire.segments import SegmentRecord, read_segment, write_segment

SEGMENT_RECORDS = 10_000
SEGMENT_BYTES = 8 << 20
"""A segment ends at whichever comes first: it is made and read in memory."""
_NAME = re.compile(r"(\d{20})-(\d{20})-([0-9a-f]{16})\.avro")


class SegmentDamaged(Exception):
    """A segment is missing, is not what was written, or does not follow the one before it."""


class Segment(NamedTuple):
    """The records from offset `first` up to before `end`."""

    first: int
    end: int
    digest: str

    @property
    def name(self) -> str:
        return f"{self.first:020d}-{self.end:020d}-{self.digest}.avro"


class Shelf:
    """The segments of one partition, in `folder` of a depot."""

    def __init__(self, depot: Depot, folder: str) -> None:
        self._depot = depot
        self.folder = folder

    def segments(self) -> Sequence[Segment]:
        """All there are, by their first offset. Raises `DepotFailed`."""
        found = [_NAME.fullmatch(name) for name in self._depot.names(self.folder)]
        return sorted(Segment(int(match[1]), int(match[2]), match[3]) for match in found if match)

    def end(self) -> int:
        """Up to where all is here from offset 0 on. Raises `DepotFailed`."""
        end = 0
        for segment in self.segments():
            if segment.first <= end:
                end = max(end, segment.end)
        return end

    def put(self, first: int, end: int, records: Iterable[SegmentRecord]) -> Sequence[Segment]:
        """Writes all that stands from one offset up to before another, a segment at a time. Raises `DepotFailed`.

        Offsets between two records are those of a transaction's marks, and are counted in.
        """
        written: list[Segment] = []
        gathered: list[SegmentRecord] = []
        size = 0
        for record in records:
            if gathered and (len(gathered) >= SEGMENT_RECORDS or size >= SEGMENT_BYTES):
                written.append(self._write(first, record.offset, gathered))
                first, gathered, size = record.offset, [], 0
            gathered.append(record)
            size += len(record.value or b"") + len(record.key or b"")
        if first < end:
            written.append(self._write(first, end, gathered))
        return written

    def read(self, first: int, end: int) -> Iterator[SegmentRecord]:
        """The records from one offset up to before another, each once. Raises `SegmentDamaged`, `DepotFailed`."""
        at = first
        for segment in self.segments():
            if segment.end <= at or at >= end:
                continue
            if segment.first > at:
                break
            for record in self._read(segment):
                if at <= record.offset < end:
                    yield record
            at = segment.end
        if at < end:
            raise SegmentDamaged(f"{self._depot.url}/{self.folder}: nothing stands there of offset {at}")

    def _write(self, first: int, end: int, records: Sequence[SegmentRecord]) -> Segment:
        content = write_segment(records)
        segment = Segment(first, end, sha256(content).hexdigest()[:16])
        self._depot.write(f"{self.folder}/{segment.name}", content)
        return segment

    def _read(self, segment: Segment) -> Sequence[SegmentRecord]:
        place = f"{self.folder}/{segment.name}"
        try:
            content = self._depot.read(place)
        except FileNotFoundError:
            raise SegmentDamaged(f"{self._depot.url}/{place} is missing") from None
        if sha256(content).hexdigest()[:16] != segment.digest:
            raise SegmentDamaged(f"{self._depot.url}/{place} is not what was written")
        try:
            return read_segment(content)
        except UnreadableRecord as unreadable:
            raise SegmentDamaged(f"{self._depot.url}/{place}: {unreadable}") from None
