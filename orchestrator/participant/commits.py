"""The participant's commits: positions for whoever reads next, and the proof that this member is still one."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from orchestrator.log.base import Committed, Reader
from orchestrator.participant.partition import ANSWER_TIMEOUT_MS, Partition
from orchestrator.participant.settings import ParticipantSettings


class Commits:
    """One at a time, of all partitions together. An answer that comes too late still counts for what it confirms."""

    def __init__(self, reader: Reader, topic: str, settings: ParticipantSettings, wall_ms: Callable[[], int]) -> None:
        self._reader = reader
        self._topic = topic
        self._settings = settings
        self._wall_ms = wall_ms
        self._sent_ms = -ANSWER_TIMEOUT_MS
        self.open = False
        """Whether an answer is awaited."""
        self._failed = False
        """Whether the last one that was answered failed."""

    @property
    def due_ms(self) -> int:
        """When the next one may be sent."""
        return self._sent_ms + (ANSWER_TIMEOUT_MS if self.open else self._settings.commit_interval_ms)

    def send_due(self, partitions: Iterable[Partition], now_ms: int) -> None:
        """Commits positions that moved, and renews the leases: who may commit is a member of the group."""
        if now_ms >= self.due_ms:
            self._send_moved(partitions, now_ms)

    def send_soon(self, partitions: Iterable[Partition], now_ms: int) -> None:
        """The same without a pause since the one before, if that is confirmed."""
        if now_ms >= self.due_ms or not (self.open or self._failed):
            self._send_moved(partitions, now_ms)

    def _send_moved(self, partitions: Iterable[Partition], now_ms: int) -> None:
        due = False
        taken: list[tuple[Partition, int]] = []
        for partition in partitions:
            if partition.position is not None:
                taken.append((partition, partition.position))
                tenure = partition.tenure
                due = due or partition.position != partition.committed
                due = due or (tenure is not None and now_ms >= tenure.renewal_ms())
        if due:
            self._send(taken, now_ms)

    def send_all(self, partitions: Iterable[Partition], now_ms: int) -> None:
        """Commits whatever there is, at once."""
        taken = [(partition, partition.position) for partition in partitions if partition.position is not None]
        if taken:
            self._send(taken, now_ms)

    def _send(self, taken: list[tuple[Partition, int]], now_ms: int) -> None:
        self._sent_ms = now_ms
        self.open = True
        offsets = {(self._topic, partition.number): (position, "") for partition, position in taken}
        self._reader.commit(offsets, (self._answered, (now_ms, taken)))

    def _answered(self, sent: tuple[int, list[tuple[Partition, int]]], answer: Committed) -> None:
        sent_ms, taken = sent
        if sent_ms == self._sent_ms:
            self.open = False
        self._failed = answer.failure is not None
        if self._failed:
            return
        for partition, position in taken:
            partition.committed = position
            if partition.tenure is not None:
                partition.tenure.renewed(sent_ms)
                partition.tenure.view.memory.forget(self._wall_ms())
