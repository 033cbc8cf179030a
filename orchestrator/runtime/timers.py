"""The timers of one partition, and the wait before they fire.

Only those that are due soon are in memory: a saga that sleeps for days costs nothing but its entry in the store, whose
timers are in the order of their times.

When one is due, replies, internal messages and operations that were there before are consumed first: after an outage
a reply that waits in the topic wins over a deadline that passed meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from heapq import heapify, heappop, heappush
from itertools import islice

from orchestrator.model.state import SagaState
from orchestrator.store import keys
from orchestrator.store.base import Store
from orchestrator.wire.inputs import INTERNAL, OPERATIONS, REPLIES

Timer = tuple[int, str, int]
"""(due in milliseconds by the partition's clock, saga id, sequence); sequence 0 is the saga's own.

They compare as their keys in the store do.
"""

CONSUMED_BEFORE = (REPLIES, INTERNAL, OPERATIONS)
AHEAD_MS = 10_000
"""How far ahead timers are looked for: most are cleared long before they are due, and then never in memory."""
PAGE = 1_000
"""Timers that are taken from the store at once, some 2 ms: there may be any number that are due at the same time."""


class Timers:
    """`is_set` tells a timer that still holds from one that was moved or cleared since; those are dropped on the way.

    `ahead` gives the timers of runs that are ahead of the store. `asks_ends` is set when somebody should find out the
    end offsets of the input topics and say them by `ends`. Raises `StoreBroken` where it looks ahead.
    """

    def __init__(self, store: Store, ahead: Callable[[], Iterable[Timer]], is_set: Callable[[Timer], bool]) -> None:
        self._store = store
        self._ahead = ahead
        self._is_set = is_set
        self._heap: list[Timer] = []
        self._bound: Timer = (0, "", 0)
        """Those below it are in the heap; all others are in the store, or will be, or are told by `ahead`."""
        self._until_ms: int | None = None
        self._ends: Mapping[str, int] | None = None
        self.asks_ends = False

    @property
    def held(self) -> int:
        """How many are in memory, those among them that no longer hold."""
        return len(self._heap)

    def add(self, timer: Timer) -> None:
        """A run's timer is set. From now on it is told by `ahead`, until it is in the store."""
        if timer < self._bound:
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
        return heappop(self._heap) if self._has_due(0) else None

    def next_due_ms(self) -> int | None:
        """When there may be something to do. None while what is due waits for what comes before it."""
        if self._until_ms is not None:
            return None
        return min(self._heap[0], self._bound)[0] if self._heap else self._bound[0]

    def ends(self, offsets: Mapping[str, int] | None) -> None:
        """End offsets by role, asked after `asks_ends` was set; None: no answer, so `due` asks again."""
        if offsets is None:
            self._until_ms = None
        elif self._until_ms is not None:
            self._ends = dict(offsets)

    def told_end(self, role: str) -> int:
        """The end offset that was told last of one of the topics."""
        return 0 if self._ends is None else self._ends.get(role, 0)

    def look_again(self, timer: Timer) -> None:
        """Those from this one on are looked for anew: some of them that were due have not been done with."""
        self._bound = min(self._bound, timer)
        self._heap[:] = [each for each in self._heap if each < self._bound]
        heapify(self._heap)

    def due(self, now_ms: int, consumed: Callable[[str], int], limit: int) -> list[Timer]:
        """At most `limit` timers whose turn it is now."""
        heap = self._heap
        if self._until_ms is None:
            while self._has_due(now_ms) and not self._is_set(heap[0]):
                heappop(heap)
            if self._has_due(now_ms):
                self._until_ms, self._ends = now_ms, None
                self.asks_ends = True
            return []
        ends = self._ends
        if ends is None or any(consumed(role) < ends.get(role, 0) for role in CONSUMED_BEFORE):
            return []
        until_ms, self._until_ms = self._until_ms, None
        due: list[Timer] = []
        while len(due) < limit and self._has_due(until_ms):
            timer = heappop(heap)
            if self._is_set(timer):
                due.append(timer)
        return due

    def _has_due(self, by_ms: int) -> bool:
        """Whether the heap's first is due by then, once those were taken from the store that may be."""
        heap = self._heap
        if not (heap and heap[0][0] <= by_ms) and self._bound[0] <= by_ms:
            self._look_ahead(by_ms)
        return bool(heap) and heap[0][0] <= by_ms

    def _look_ahead(self, now_ms: int) -> None:
        """Takes the next ones from the store, and from the runs that are ahead of it."""
        begin, end = self._bound, (now_ms + AHEAD_MS, "", 0)
        stored = self._store.scan(keys.TIMERS, keys.timer(*begin), keys.timer(*end))
        found = {keys.read_timer(key) for key, _ in islice(stored, PAGE)}
        if len(found) == PAGE:
            due_ms, saga_id, sequence = max(found)
            end = (due_ms, saga_id, sequence + 1)
        found.update(timer for timer in self._ahead() if begin <= timer < end)
        self._heap.extend(found)
        heapify(self._heap)
        self._bound = end
