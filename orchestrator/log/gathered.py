"""An appender whose records leave together: a partition's next ones when those before them are acknowledged.

A producer's own thread takes what it finds: records that are made fifty microseconds apart leave in a request each, and
a request costs client and broker more than making the record did. Waiting for more inside the producer costs every
hop that time, also when nothing else comes. So whoever makes records says when a round of them is complete (`send`).

And what the producer could not send yet stays here. librdkafka's idempotent producer sends nothing more of a partition
while five or more of its records are unacknowledged; it asks again and again without a pause whether it may by now,
which took a third of a worker's processor time. Held back, the records gather instead: alone a record leaves at once,
under load the batches grow by themselves, and there is nothing to be tuned.

What has neither key nor headers (journal, ledger) is handed over as one run. One by one, the producer's thread wakes at
the first record and sends the few that are there by then; the rest is stuck behind them, and it asks again and again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import takewhile
from typing import Any

from orchestrator.log.base import Delivery, LogFull, RunAppender, TopicPartition

BOUND = 20_000
"""Records that may wait here, some 10 MiB."""
MAX_UNDER_WAY = 4
"""Records of one partition under way at which the producer still sends more of it (RD_KAFKA_IDEMP_MAX_INFLIGHT)."""

_Held = tuple[str, int, bytes | None, Any, bytes | None, Iterable[tuple[str, bytes]]]
_make = tuple.__new__


class _Lane:
    """One partition's records: those that wait, and how many are under way."""

    __slots__ = ("under_way", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[_Held] = deque()
        self.under_way = 0


class GatheredAppender:
    """Hands over to `appender` at `send` what was appended since and may leave, each partition's records in order."""

    def __init__(self, appender: RunAppender, bound: int = BOUND) -> None:
        self._appender = appender
        self._bound = bound
        self._lanes: dict[TopicPartition, _Lane] = {}
        self._ready: dict[_Lane, None] = {}
        """Lanes that something waits in and that may leave, in the order in which they came to it."""
        self.waiting = 0
        """Records that are not handed over."""

    def append(
        self,
        topic: str,
        partition: int,
        value: bytes | None,
        *,
        token: Any,
        key: bytes | None = None,
        headers: Iterable[tuple[str, bytes]] = (),
    ) -> None:
        """As of an appender; the record leaves with a later `send`. Raises `LogFull`."""
        if self.waiting >= self._bound:
            raise LogFull(f"{self._bound} records wait to be sent")
        lane = self._lanes.get((topic, partition))
        if lane is None:
            lane = self._lanes[topic, partition] = _Lane()
        lane.waiting.append((topic, partition, value, (lane, token), key, headers))
        self.waiting += 1
        if lane.under_way <= MAX_UNDER_WAY:
            self._ready[lane] = None

    def send(self) -> bool:
        """Hands over what may leave; False where the appender was full: the rest goes with the next call."""
        while self._ready:
            lane = next(iter(self._ready))
            if not self._send(lane):
                return False
            del self._ready[lane]
        return True

    def _send(self, lane: _Lane) -> bool:
        waiting, append = lane.waiting, self._appender.append
        while waiting:
            topic, partition, value, token, key, headers = waiting[0]
            if key is None and not headers:
                run = [(held[2], held[3]) for held in takewhile(_is_plain, waiting)]
                taken = self._appender.append_run(topic, partition, run)
                self._handed_over(lane, taken)
                if taken < len(run):
                    return False
            else:
                try:
                    append(topic, partition, value, token=token, key=key, headers=headers)
                except LogFull:
                    return False
                self._handed_over(lane, 1)
        return True

    def _handed_over(self, lane: _Lane, count: int) -> None:
        for _ in range(count):
            lane.waiting.popleft()
        lane.under_way += count
        self.waiting -= count

    def poll(self) -> list[Delivery]:
        """As of an appender. What may leave now does so with the next `send`."""
        deliveries = self._appender.poll()
        for number, delivery in enumerate(deliveries):
            lane, token = delivery[0]
            deliveries[number] = _make(Delivery, (token, *delivery[1:]))
            lane.under_way -= 1
            if lane.waiting and lane.under_way <= MAX_UNDER_WAY:
                self._ready[lane] = None
        return deliveries

    @property
    def pending(self) -> int:
        return self._appender.pending + self.waiting

    def close(self, timeout_s: float) -> int:
        """As of an appender; what waits here was never sent, and is not counted."""
        return self._appender.close(timeout_s)


def _is_plain(held: _Held) -> bool:
    return held[4] is None and not held[5]
