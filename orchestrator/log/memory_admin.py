"""Administrative calls on the log in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from orchestrator.log.base import AdminFailed, Failure, TopicPartition, TopicSpec, TopicState

if TYPE_CHECKING:
    from orchestrator.log.memory import MemoryLog, Partition


class MemoryAdmin:
    """The `Admin` of a `MemoryLog`."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    def describe(self, names: Sequence[str], timeout_s: float = 10.0) -> dict[str, TopicState]:
        return {name: self._log.topics[name] for name in names if name in self._log.topics}

    def create(self, topics: Sequence[TopicSpec], timeout_s: float = 30.0) -> None:
        for spec in topics:
            self._log.create(spec)

    def delete(self, names: Sequence[str], timeout_s: float = 30.0) -> None:
        for name in names:
            self._log.delete(name)

    def trim(self, offsets: Mapping[TopicPartition, int], timeout_s: float = 10.0) -> None:
        for key, offset in offsets.items():
            partition = self._partition(key)
            if not 0 <= offset <= partition.end:
                raise AdminFailed(Failure.OUT_OF_RANGE, f"{key}: {offset} is beyond the end, {partition.end}")
            if offset > partition.start:
                del partition.records[: offset - partition.start]
                partition.start = offset
                partition.stir()

    def ends(
        self, partitions: Sequence[TopicPartition], timeout_s: float = 10.0
    ) -> dict[TopicPartition, tuple[int, int]]:
        return {key: (self._partition(key).start, self._partition(key).end) for key in partitions}

    def offsets_at(
        self, partitions: Sequence[TopicPartition], timestamp_ms: int, timeout_s: float = 10.0
    ) -> dict[TopicPartition, int]:
        found = {}
        for key in partitions:
            partition = self._partition(key)
            later = (record.offset for record in partition.records if record.timestamp_ms >= timestamp_ms)
            found[key] = next(later, partition.end)
        return found

    def committed(
        self, group: str, partitions: Sequence[TopicPartition], timeout_s: float = 10.0
    ) -> dict[TopicPartition, int]:
        offsets = self._log.group(group).offsets
        return {key: offsets[key][0] for key in partitions if key in offsets}

    def close(self) -> None:
        pass

    def _partition(self, key: TopicPartition) -> Partition:
        partition = self._log.partitions.get(key)
        if partition is None:
            raise AdminFailed(Failure.UNKNOWN_TOPIC, f"{key[0]}-{key[1]}")
        return partition
