"""The way between a client and the log: late, lossy and out of order where the seed says so."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random

from orchestrator.log.base import Failure
from orchestrator.log.memory_link import Link, Sent

LOST_ACK = "ack lost, record landed"
NO_OFFSET = "ack without an offset"
LOST = "record lost"
LATE = "record lands after it was reported failed"
SLOW = "acks withheld"
FAULTS = (LOST_ACK, NO_OFFSET, LOST, LATE, SLOW)

TRAVEL_MS = (0, 0, 0, 1, 2, 5)
SLOW_MS = (20, 300, 2_500)
LATE_MS = (5, 200, 2_000, 6_000)

Later = Callable[[int, Callable[[], object]], None]
"""Does something when so many milliseconds have passed."""


class NetworkLink(Link):
    """One client's way. What is appended arrives a little later; `spoil` names a fault for the next few records."""

    def __init__(self, random: Random, later: Later, lagging_topic: str = "") -> None:
        self.random = random
        self.later = later
        self.lagging_topic = lagging_topic
        self.queue: deque[Sent] = deque()
        self.under_way = False
        self.spoiled: str | None = None
        self.spoil_left = 0
        self.slow_ms = 0
        self.hold_group = False
        self.held: list[Callable[[], None]] = []
        self.frozen = False
        self.dead = False

    def append(self, sent: Sent) -> None:
        self.queue.append(sent)
        if not self.under_way:
            self._depart()

    def fetch(self, topic: str, partition: int, end: int) -> int:
        """The last few records of a topic that is read up to a claim may not be seen yet."""
        if topic == self.lagging_topic and self.random.random() < 0.3:
            return end - self.random.randint(1, 4)
        return end

    def request(self, kind: str, perform: Callable[[], None], fail: Callable[[Failure], None]) -> None:
        if self.dead:
            return
        if kind == "group" and self.hold_group:
            self.held.append(perform)
        else:
            perform()

    def spoil(self, fault: str, count: int) -> None:
        if fault == SLOW:
            self.slow_ms = self.random.choice(SLOW_MS)
        else:
            self.spoiled, self.spoil_left = fault, count

    def _depart(self) -> None:
        self.under_way = True
        self.later(self.slow_ms + TRAVEL_MS[int(self.random.random() * len(TRAVEL_MS))], self._arrive)
        self.slow_ms = 0

    def _arrive(self) -> None:
        """Lands and reports what is on its way, or a part of it."""
        self.under_way = False
        queue = self.queue
        if self.frozen or not queue:
            return
        count = len(queue) if self.random.random() < 0.8 else self.random.randint(1, len(queue))
        for _ in range(count):
            sent = queue.popleft()
            if self.spoil_left:
                self.spoil_left -= 1
                self._spoil(sent)
            else:
                sent.land()
                sent.report()
        if queue:
            self._depart()

    def _spoil(self, sent: Sent) -> None:
        if self.spoiled == LOST_ACK:
            sent.land()
            sent.fail()
        elif self.spoiled == NO_OFFSET:
            sent.land()
            sent.report(with_offset=False)
        elif self.spoiled == LOST:
            sent.fail()
        else:
            sent.fail()
            self._land_late(sent)

    def _land_late(self, sent: Sent) -> None:
        self.later(self.random.choice(LATE_MS), sent.land)

    def release_group(self) -> None:
        """The group's word arrives."""
        self.hold_group = False
        held, self.held = self.held, []
        for perform in held:
            perform()

    def go_on(self) -> None:
        """After a freeze: what was about to be sent goes out."""
        self.frozen = False
        if self.queue and not self.under_way:
            self._depart()

    def cut(self) -> None:
        """The client died: each record on its way landed, will land, or never does."""
        self.dead = True
        for sent in self.queue:
            fate = self.random.random()
            if fate < 0.4:
                sent.land()
            elif fate < 0.6:
                self._land_late(sent)
        self.queue.clear()
        self.held.clear()
