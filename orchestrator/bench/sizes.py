"""How many records of what size the system writes for each saga."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.demo.dump import dump_topics
from orchestrator.log.base import Log, Record
from orchestrator.topics import TopicNames


@dataclass(frozen=True, slots=True)
class Size:
    """The records of one kind: how many for each saga, mean bytes of the value, and the headers of one of them."""

    per_saga: float
    value: int
    headers: tuple[tuple[str, bytes], ...]

    @property
    def header_bytes(self) -> int:
        return sum(len(name) + len(value) for name, value in self.headers)


def measure_sizes(log: Log, names: TopicNames, partitions: int, sagas: int, services: Sequence[str]) -> dict[str, Size]:
    """By kind of record: what the topics hold after so many sagas."""
    kinds = {
        "inbox": [names.inbox],
        "journal": [names.journal],
        "command": [names.commands(service) for service in services],
        "ledger": [names.ledger(service) for service in services],
        "reply": [names.replies],
        "answer": [names.answers],
        "lifecycle": [names.lifecycle],
    }
    raw = dump_topics(log, [topic for topics in kinds.values() for topic in topics], partitions)
    found = {}
    for kind, topics in kinds.items():
        records = [record for topic in topics for part in raw[topic].values() for record in part]
        found[kind] = _size(records, sagas)
    return found


def _size(records: Sequence[Record], sagas: int) -> Size:
    values = [len(record.value or b"") for record in records]
    # Headers differ by a digit or two from record to record: one from the middle stands for all.
    ordered = sorted(records, key=lambda record: sum(len(name) + len(value) for name, value in record.headers))
    headers = tuple(ordered[len(ordered) // 2].headers) if ordered else ()
    return Size(len(records) / sagas, round(sum(values) / max(1, len(values))), headers)
