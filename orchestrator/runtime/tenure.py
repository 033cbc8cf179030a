"""One partition that the group granted to this worker, and where it stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import Enum

from orchestrator.log.base import TopicPartition
from orchestrator.runtime.claim_watch import ClaimWatch
from orchestrator.runtime.partition import Partition
from orchestrator.runtime.poison import Poison
from orchestrator.runtime.takeover import Takeover
from orchestrator.runtime.witness import witness_of
from orchestrator.store.base import Store
from orchestrator.wire.inputs import INBOX


class Phase(Enum):
    """Where a partition of this worker stands."""

    WAITING = "waiting"
    PROVING = "proving membership"
    TAKING_OVER = "taking over"
    OWNING = "owning"
    LEAVING = "leaving"
    HALTED = "halted"


class Tenure:
    """One granted partition, through as many epochs as it takes."""

    __slots__ = (
        "begin_at_ms",
        "committed",
        "granted",
        "halted_because",
        "leave_by_ms",
        "number",
        "partition",
        "paused",
        "phase",
        "poison",
        "store",
        "taken_over_ms",
        "takeover",
        "topic_ids",
        "unreadable",
        "watch",
        "wipes",
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.phase = Phase.WAITING
        self.granted = True
        self.begin_at_ms = 0
        self.leave_by_ms = 0
        self.store: Store | None = None
        self.takeover: Takeover | None = None
        self.partition: Partition | None = None
        self.watch: ClaimWatch | None = None
        self.poison = Poison()
        self.paused = False
        self.wipes = 0
        self.unreadable: Counter[str] = Counter()
        """Failed reads of each input topic since a record of it came."""
        self.halted_because = ""
        self.taken_over_ms = 0
        self.topic_ids: Mapping[str, str] = {}
        """Of the topics that the journal was made for."""
        self.committed = (0, "")
        """What the group has for the inbox: its position and the witness."""

    def positions_to_commit(
        self, partition: Partition, topics: Mapping[str, str]
    ) -> dict[TopicPartition, tuple[int, str]]:
        """What the group is to be told of each input topic, named by role; the inbox's carries the witness."""
        at = partition.progress.at
        told = {topic: (max(0, at.input_positions.get(role, 0)), "") for role, topic in topics.items()}
        self.committed = (told[topics[INBOX]][0], str(witness_of(at.offset, at.chain)))
        told[topics[INBOX]] = self.committed
        return {(topic, self.number): position for topic, position in told.items()}

    def __str__(self) -> str:
        if self.takeover is not None:
            return f"{self.phase.value}: {self.takeover}"
        return self.phase.value
