"""Finds out that a partition was claimed by somebody else while its owner had nothing to write.

Whoever writes learns it from its next append. Who does not would go on owning: a worker that was frozen may claim late
a partition which the group has given to another, decide, and then hand it back. What it decided nobody would drive
on until the owner's next input. So the owner asks now and then how far the journal reaches.
"""

from __future__ import annotations

from orchestrator.log.base import Reader, TopicPartition
from orchestrator.runtime.journal_writer import EpochLost
from orchestrator.runtime.partition import Partition

ASK_EVERY_MS = 10_000


class ClaimWatch:
    """The watch over one epoch of one partition. `reader` gets the answer, with the watch in its token."""

    def __init__(self, partition: Partition, reader: Reader, mono_ms: int) -> None:
        self.number = partition.number
        self._partition = partition
        self._place: TopicPartition = (partition.config.topics.journal, partition.number)
        self._reader = reader
        self._ask_at_ms = mono_ms + ASK_EVERY_MS

    def tick(self, mono_ms: int) -> None:
        """Asks for the journal's end, if it is time."""
        if mono_ms >= self._ask_at_ms:
            self._ask_at_ms = mono_ms + ASK_EVERY_MS
            self._reader.ask_ends([self._place], (self, self._partition.writer.next_offset))

    def ends(self, expected: int, offsets: dict[TopicPartition, int] | None, _mono_ms: int) -> None:
        """The journal's end, asked when `expected` was to be the next offset. Raises `EpochLost`.

        Only an end beyond it says anything: a broker that leads no longer may answer with an earlier one.
        """
        end = 0 if offsets is None else offsets.get(self._place, 0)
        if not self._partition.closed and self._partition.writer.next_offset == expected < end:
            raise EpochLost(f"the journal reaches offset {end}, not {expected}: another owner claimed the partition")
