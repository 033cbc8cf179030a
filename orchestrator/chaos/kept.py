"""Raw evidence in files: what was read of each partition, told statuses and the services' books, to be judged again."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, overload

from orchestrator.checker.evidence import Raw, ServiceEffect, Told
from orchestrator.log.base import Record

_LOSSLESS = "surrogateescape"
_OPEN_BUFFER = 1 << 18


class KeptRecords(Sequence[Record]):
    """One partition's records in a file of JSON lines: read each time they are walked over, so they take no memory.

    A line has the offset, the time in milliseconds, key and value in base64, and the headers as pairs of texts.
    """

    def __init__(self, path: Path, topic: str, partition: int, count: int) -> None:
        self._path = path
        self._topic = topic
        self._partition = partition
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, at: int) -> Record: ...
    @overload
    def __getitem__(self, at: slice) -> list[Record]: ...
    def __getitem__(self, at: int | slice) -> Record | list[Record]:
        return list(self)[at]

    def __iter__(self) -> Iterator[Record]:
        if not self._count:
            return
        with self._path.open(encoding="utf-8", buffering=_OPEN_BUFFER) as file:
            for line in file:
                offset, at_ms, key, value, headers = json.loads(line)
                yield Record(
                    self._topic,
                    self._partition,
                    offset,
                    at_ms,
                    _bytes(key),
                    _bytes(value),
                    tuple((name, text.encode(errors=_LOSSLESS)) for name, text in headers),
                )


def keep_records(folder: Path, records: Iterable[Record], topics: Sequence[str], partitions: int) -> dict[str, Raw]:
    """Writes records to files in a folder that is made, and gives them as the checker takes them."""
    folder.mkdir()
    files: dict[tuple[str, int], IO[str]] = {}
    counts: dict[tuple[str, int], int] = {}
    try:
        for record in records:
            key = (record.topic, record.partition)
            if key not in files:
                files[key] = _path(folder, *key).open("w", encoding="utf-8", buffering=_OPEN_BUFFER)
                counts[key] = 0
            files[key].write(_line(record))
            counts[key] += 1
    finally:
        for file in files.values():
            file.close()
    return {
        topic: {
            partition: KeptRecords(_path(folder, topic, partition), topic, partition, counts.get((topic, partition), 0))
            for partition in range(partitions)
        }
        for topic in topics
    }


def write_told(path: Path, told: Iterable[Told]) -> None:
    """What clients were told, a line for each saga."""
    _write(path, ([each.saga_id, each.accepted, each.status] for each in told))


def write_effects(path: Path, effects: Iterable[ServiceEffect]) -> None:
    """What the services did, a line for each effect."""
    _write(
        path,
        ([each.at, each.service, each.key, each.saga_id, each.run, each.sequence, each.direction] for each in effects),
    )


def _write(path: Path, lines: Iterable[list[Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def _line(record: Record) -> str:
    key = None if record.key is None else b64encode(record.key).decode()
    value = None if record.value is None else b64encode(record.value).decode()
    headers = [[name, (content or b"").decode(errors=_LOSSLESS)] for name, content in record.headers]
    return json.dumps([record.offset, record.timestamp_ms, key, value, headers]) + "\n"


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text)


def _path(folder: Path, topic: str, partition: int) -> Path:
    return folder / f"{topic}-{partition}.jsonl"
