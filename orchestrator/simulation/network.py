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


class NetworkLink(Link):
    """One client's way. Appends wait until `deliver`; `spoil` names a fault for the next few of them."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.queue: deque[Sent] = deque()
        self.late: list[Sent] = []
        self.spoiled: str | None = None
        self.spoil_left = 0
        self.slow_left = 0
        self.hold_group = False
        self.held: list[Callable[[], None]] = []
        self.dead = False

    def append(self, sent: Sent) -> None:
        self.queue.append(sent)

    def request(self, kind: str, perform: Callable[[], None], fail: Callable[[Failure], None]) -> None:
        if self.dead:
            return
        if kind == "group" and self.hold_group:
            self.held.append(perform)
        else:
            perform()

    def spoil(self, fault: str, count: int) -> None:
        if fault == SLOW:
            self.slow_left = count
        else:
            self.spoiled, self.spoil_left = fault, count

    def deliver(self) -> bool:
        """Lands and reports what is on its way, or a part of it."""
        if self.slow_left:
            self.slow_left -= 1
            return False
        queue = self.queue
        if not queue:
            if self.late and self.random.random() < 0.2:
                self.late.pop(self.random.randrange(len(self.late))).land()
            return False
        count = len(queue) if self.random.random() < 0.8 else self.random.randint(1, len(queue))
        for _ in range(count):
            sent = queue.popleft()
            if self.spoil_left:
                self.spoil_left -= 1
                self._spoil(sent)
            else:
                sent.land()
                sent.report()
        return True

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
            self.late.append(sent)

    def release_group(self) -> None:
        """The group's word arrives."""
        self.hold_group = False
        held, self.held = self.held, []
        for perform in held:
            perform()

    def cut(self) -> None:
        """The client died: each record on its way landed, will land, or never does."""
        self.dead = True
        for sent in self.queue:
            fate = self.random.random()
            if fate < 0.4:
                sent.land()
            elif fate < 0.6:
                self.late.append(sent)
        self.queue.clear()
        self.held.clear()
