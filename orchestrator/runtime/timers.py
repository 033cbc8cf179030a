"""The timers of one partition, and the wait before they fire.

When one is due, replies, internal messages and operations that were there before are consumed first: after an outage
a reply that waits in the topic wins over a deadline that passed meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from heapq import heapify, heappop, heappush

from orchestrator.model.state import SagaState
from orchestrator.wire.inputs import INTERNAL, OPERATIONS, REPLIES

Timer = tuple[int, str, int]
"""(due in milliseconds by the partition's clock, saga id, sequence); sequence 0 is the saga's own."""

CONSUMED_BEFORE = (REPLIES, INTERNAL, OPERATIONS)


class Timers:
    """`is_set` tells a timer that still holds from one that was moved or cleared since; those are dropped on the way.

    `asks_ends` is set when somebody should find out the end offsets of the topics in `CONSUMED_BEFORE` and say them by
    `ends`.
    """

    def __init__(self, timers: Iterable[Timer], is_set: Callable[[Timer], bool]) -> None:
        self._heap = list(timers)
        heapify(self._heap)
        self._is_set = is_set
        self._until_ms: int | None = None
        self._ends: Mapping[str, int] | None = None
        self.asks_ends = False

    def add(self, timer: Timer) -> None:
        heappush(self._heap, timer)

    def add_new(self, state: SagaState) -> None:
        """Takes those that a decision has set."""
        for sequence in state.new_due:
            due_ms = state.due_of(sequence)
            if due_ms is not None:
                self.add((due_ms, state.saga_id, sequence))
        state.new_due.clear()

    def pop_due_at_once(self) -> Timer | None:
        """One of those that were due when they were made (a decision's next part), if there is any."""
        return heappop(self._heap) if self._heap and self._heap[0][0] == 0 else None

    def next_due_ms(self) -> int | None:
        """When the earliest is due; it may be stale. None also while what is due waits for what comes before it."""
        return self._heap[0][0] if self._heap and self._until_ms is None else None

    def ends(self, offsets: Mapping[str, int] | None) -> None:
        """End offsets by role, asked after `asks_ends` was set; None: no answer, so `due` asks again."""
        if offsets is None:
            self._until_ms = None
        elif self._until_ms is not None:
            self._ends = dict(offsets)

    def due(self, now_ms: int, consumed: Callable[[str], int], limit: int) -> list[Timer]:
        """At most `limit` timers whose turn it is now."""
        heap = self._heap
        if self._until_ms is None:
            while heap and heap[0][0] <= now_ms and not self._is_set(heap[0]):
                heappop(heap)
            if heap and heap[0][0] <= now_ms:
                self._until_ms, self._ends = now_ms, None
                self.asks_ends = True
            return []
        ends = self._ends
        if ends is None or any(consumed(role) < ends.get(role, 0) for role in CONSUMED_BEFORE):
            return []
        until_ms, self._until_ms = self._until_ms, None
        due: list[Timer] = []
        while heap and heap[0][0] <= until_ms and len(due) < limit:
            timer = heappop(heap)
            if self._is_set(timer):
                due.append(timer)
        return due
