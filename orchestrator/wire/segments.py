"""Segments: consecutive records of a topic's partition in one file, an Avro object container for any Avro tool."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from typing import Any, NamedTuple

import fastavro

from orchestrator.wire.avro import UnreadableRecord, load_schema

Headers = tuple[tuple[str, bytes], ...]


class SegmentRecord(NamedTuple):
    """One record as it stood in its partition; `timestamp_ms` is the time that the topic had for it."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


def write_segment(records: Iterable[SegmentRecord]) -> bytes:
    """The file's content, compressed."""
    out = BytesIO()
    data = (
        {
            "offset": record.offset,
            "timestamp_ms": record.timestamp_ms,
            "key": record.key,
            "value": record.value,
            "headers": [{"name": name, "value": value} for name, value in record.headers],
        }
        for record in records
    )
    fastavro.writer(out, load_schema("SegmentRecord"), data, codec="deflate")
    return out.getvalue()


def read_segment(content: bytes) -> list[SegmentRecord]:
    """What `write_segment` was given. Raises `UnreadableRecord`."""
    try:
        return [_record(datum) for datum in fastavro.reader(BytesIO(content))]
    except Exception as error:  # fastavro raises whatever the damaged bytes lead it to
        raise UnreadableRecord(f"no segment: {type(error).__name__}: {error}") from None


def _record(datum: Any) -> SegmentRecord:
    headers = tuple((header["name"], header["value"]) for header in datum["headers"])
    return SegmentRecord(datum["offset"], datum["timestamp_ms"], datum["key"], datum["value"], headers)
