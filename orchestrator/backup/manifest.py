"""What a backup consists of. Written last: without it there is no backup."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.archive.shelf import Shelf
from orchestrator.depot import Depot
from orchestrator.errors import SagaError
from orchestrator.log.base import TopicPartition

NAME = "backup.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Manifest:
    """`spans` are [topic, partition, first offset, end] of all that was copied, `topics` by their role their names.

    `published` says by partition up to which offset its journal was published. `taken_ms` is when it began, by the wall
    clock.
    """

    taken_ms: int
    partitions: int
    topics: Mapping[str, str]
    services: Sequence[str]
    spans: Sequence[tuple[str, int, int, int]]
    published: Mapping[str, int]

    def of_topic(self, topic: str) -> dict[TopicPartition, tuple[int, int]]:
        """What was copied of one topic."""
        return {(name, number): (first, end) for name, number, first, end in self.spans if name == topic}


def shelf_of(depot: Depot, topic: str, partition: int) -> Shelf:
    """Where a backup keeps a partition."""
    return Shelf(depot, f"{topic}/partition-{partition}")


def write_manifest(depot: Depot, manifest: Manifest) -> None:
    """Raises `DepotFailed`."""
    depot.write(NAME, json.dumps({"format": FORMAT, **asdict(manifest)}, indent=1).encode())


def read_manifest(depot: Depot) -> Manifest:
    """Raises `SagaError` where there is no backup, `DepotFailed`."""
    try:
        given: dict[str, Any] = json.loads(depot.read(NAME))
    except FileNotFoundError:
        raise SagaError(f"{depot.url} has no {NAME}: it is no backup, or one that was not finished") from None
    except ValueError as error:
        raise SagaError(f"{depot.url}/{NAME} is damaged: {error}") from None
    if given.pop("format", None) != FORMAT:
        raise SagaError(f"{depot.url} is a backup of another version of this software")
    given["spans"] = [(topic, number, first, end) for topic, number, first, end in given["spans"]]
    return Manifest(**given)
