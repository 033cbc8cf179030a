"""A source without threads, waits or a clock of its own: `step` does whatever can be done now.

One record's way, in order:

1. Read, and mapped. What cannot be mapped becomes a dead letter.
2. Its requests are appended to the inbox; those for one saga one after the other, each when the one before it is
   acknowledged, so that what failed and is sent again overtakes nothing.
3. All of them, or its dead letter, are acknowledged.
4. The offset commits when all before it are through.

A crash between any two leaves the record uncommitted, and whoever reads it next sends the same messages: by their ids
they are known. So that they are, no more is sent than a saga remembers: while commits are not confirmed, what was read
waits behind `MAX_UNCONFIRMED` messages.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.client.requests import Request, Requests
from orchestrator.log import base as log
from orchestrator.log.base import Delivery, Failure, Happening, Reader, Record, RunAppender
from orchestrator.model.messages import KEPT_MESSAGES
from orchestrator.participant.commits import Commits
from orchestrator.participant.counters import Counters
from orchestrator.participant.outbound import RESEND_INTERVAL_MS, EngineFailed, Outbound
from orchestrator.participant.partition import Partition
from orchestrator.participant.settings import ParticipantSettings
from orchestrator.participant.tenure import LogStart
from orchestrator.participant.work import Work
from orchestrator.sources.mapping import FromTopic, Unmappable
from orchestrator.topics import TopicNames

LOGGER = logging.getLogger("orchestrator.sources")

IDLE_MS = 1_000
MAX_UNCONFIRMED = KEPT_MESSAGES // 5
"""So much is sent from the oldest record on whose commit is not confirmed, whatever partitions it comes from.

All of it may be for one saga, and several members of a group may have as much each.
"""
_REFUSED = (Failure.UNKNOWN_TOPIC, Failure.UNAUTHORIZED)


@dataclass(slots=True)
class SourceCounters(Counters):
    """Only ever added to, by the engine's thread. `commands` are the records read."""

    sent: int = 0
    """Requests that the inbox has."""
    passed_over: int = 0
    """Records that nothing was to be made of."""


class Taken(Work):
    """A record from its reading to the acknowledgement of all it asks for."""

    __slots__ = ("problem", "unsent")

    def __init__(self, partition: Partition, record: Record) -> None:
        super().__init__(partition, record, None)
        self.unsent = 0
        """Requests that are not acknowledged."""
        self.problem = ""
        """Why one of them cannot be sent."""


Sending = tuple[Taken, Request]


class Share(Partition):
    """A partition of the source's topic. `unconfirmed` tells of the records that a crash would have sent again:

    the offset of each, and how many messages the engine had sent before it.
    """

    __slots__ = ("unconfirmed",)

    def __init__(self, number: int) -> None:
        super().__init__(number, None)
        self.unconfirmed: deque[tuple[int, int]] = deque()

    def confirm(self) -> None:
        """Drops those whose commit is confirmed."""
        while self.unconfirmed and self.unconfirmed[0][0] < self.committed:
            self.unconfirmed.popleft()


class SourceEngine:
    """One member of a source's group.

    `reader` belongs to the group `topics.source_group(source.name)` and is subscribed to the source's topic alone;
    reader and appender are used by nobody else. `now_ms` never goes back.
    """

    def __init__(
        self,
        source: FromTopic[Any],
        reader: Reader,
        appender: RunAppender,
        requests: Requests,
        now_ms: Callable[[], int],
        *,
        log_start: LogStart,
        topics: TopicNames | None = None,
        settings: ParticipantSettings | None = None,
    ) -> None:
        source.check()
        self.settings = settings or ParticipantSettings()
        self.counters = SourceCounters()
        self.stopping = False
        self._source = source
        self._topic = source.topic
        self._reader = reader
        self._requests = requests
        self._clock = now_ms
        self._now_ms = now_ms()
        self._log_start = log_start
        self._partitions: dict[int, Share] = {}
        self._waiting: deque[Taken] = deque()
        """Read, and not begun: a commit has to be confirmed first."""
        self._requested = 0
        """How many messages there were to send so far."""
        self._lanes: dict[bytes, deque[Sending]] = {}
        """By saga id what waits behind the request that is under way."""
        self._commits = Commits(reader, self._topic, self.settings, lambda: self._now_ms)
        dead_letters = (topics or TopicNames()).dead_letters
        self._out = Outbound(appender, self.settings, dead_letters, self.counters, lambda: self._now_ms, self._through)
        self._wound_up = False

    def step(self, limit: int = 500) -> bool:
        """Does what can be done now; whether anything happened. Raises `EngineFailed`."""
        self._now_ms = self._clock()
        happened = self._out.poll()
        news = self._reader.poll(limit)
        for happening in news:
            if type(happening) is Record:
                self._read(happening)
            else:
                self._hear(happening)
        self._begin_waiting()
        for partition in self._partitions.values():
            partition.begin(self._reader, self._topic, self._log_start, self._now_ms)
        if self.stopping:
            self._wind_up()
        self._commit()
        self._out.flush()
        blocked = self._out.blocked or bool(self._waiting)
        for partition in self._partitions.values():
            change = partition.throttle(blocked, self.settings.window)
            if change is not None:
                (self._reader.pause if change else self._reader.resume)(self._topic, partition.number)
        return bool(happened or news)

    def stop(self) -> None:
        """Takes no more records. Step on until `stopped`, then close reader and appender."""
        self.stopping = True
        for partition in self._partitions.values():
            self._reader.unassign(self._topic, partition.number)
            partition.close()

    @property
    def stopped(self) -> bool:
        """After `stop`: what was under way is acknowledged and committed."""
        return self.stopping and not (self._partitions or self._lanes or self._out.busy)

    @property
    def partitions(self) -> Mapping[int, Partition]:
        """What the group has granted, by number."""
        return self._partitions

    @property
    def due_ms(self) -> int:
        """When to step again if nothing happens until then."""
        moments = [self._now_ms + IDLE_MS]
        if self._out.due_ms is not None:
            moments.append(self._out.due_ms)
        if self._wound_up:
            moments.append(self._commits.due_ms)
        for partition in self._partitions.values():
            moments += partition.due_ms(self._now_ms, self._commits.due_ms)
        return max(self._now_ms + 1, min(moments))

    # -- partitions come and go

    def _hear(self, happening: Happening) -> None:
        if isinstance(happening, log.Committed | log.Ends):
            function, argument = happening.token
            function(argument, happening)
        elif isinstance(happening, log.Granted):
            for _, number in happening.partitions:
                if not self.stopping:
                    self._partitions.setdefault(number, Share(number))
        elif isinstance(happening, log.Revoked):
            for _, number in happening.partitions:
                partition = self._partitions.pop(number, None)
                if partition is not None:
                    partition.close()
        elif isinstance(happening, log.ReadFailed):
            self._read_failed(happening)

    def _read_failed(self, failed: log.ReadFailed) -> None:
        if failed.partition < 0:
            raise EngineFailed(f"{failed.failure.value}: {failed.detail}")
        partition = self._partitions.get(failed.partition)
        if partition is None or partition.closing:
            return
        LOGGER.warning(
            "%s-%d cannot be read: %s: %s", failed.topic, failed.partition, failed.failure.value, failed.detail
        )
        if partition.read_failed(failed.failure, self._now_ms + self.settings.retry_interval_ms):
            self.counters.repositioned += 1
            self._let_go(partition)
            LOGGER.error(
                "%s-%d: its topic no longer has what comes next (retention, or it was created anew): this goes on at "
                "its start; what was deleted before it was read has started nothing",
                failed.topic,
                failed.partition,
            )

    # -- records

    def _read(self, record: Record) -> None:
        partition = self._partitions.get(record.partition)
        if partition is None or partition.closing:
            return
        self.counters.commands += 1
        taken = Taken(partition, record)
        partition.window.append(taken)
        self._waiting.append(taken)

    def _oldest(self) -> Share | None:
        """The partition that has the oldest record whose commit is not confirmed."""
        unconfirmed = [partition for partition in self._partitions.values() if partition.unconfirmed]
        return min(unconfirmed, key=lambda partition: partition.unconfirmed[0][1], default=None)

    def _begin_waiting(self) -> None:
        """Begins what was read, as far as it may be sent before more is confirmed."""
        for partition in self._partitions.values():
            partition.confirm()
        oldest = self._oldest()
        bound = MAX_UNCONFIRMED + (self._requested if oldest is None else oldest.unconfirmed[0][1])
        while self._waiting and self._requested < bound:
            taken = self._waiting.popleft()
            if not taken.partition.closing:
                self._begin(taken)

    def _commit(self) -> None:
        """Commits now and then; soon, where half of what may be sent hangs on it."""
        oldest = self._oldest()
        send = self._commits.send_due
        if oldest is not None and oldest.position is not None:
            offset, before = oldest.unconfirmed[0]
            if offset < oldest.position and self._requested - before >= MAX_UNCONFIRMED // 2:
                send = self._commits.send_soon
        send(self._partitions.values(), self._now_ms)

    def _let_go(self, partition: Share) -> None:
        """Its topic no longer has what was read of it: that is sent, and never comes again."""
        waiting, self._waiting = self._waiting, deque()
        for taken in waiting:
            if taken.partition is partition:
                self._begin(taken)
            else:
                self._waiting.append(taken)
        partition.unconfirmed.clear()
        partition.committed = -1

    def _begin(self, taken: Taken) -> None:
        partition, record = taken.partition, taken.record
        try:
            requests = self._source.requests_for(record, self._requests)
        except Unmappable as problem:
            self._out.bury(taken, str(problem), problem.kind)
            return
        if not requests:
            self.counters.passed_over += 1
            self._out.settle(taken)
            return
        partition.unconfirmed.append((record.offset, self._requested))
        self._requested += len(requests)
        taken.unsent = len(requests)
        for request in requests:
            lane = self._lanes.get(request.key)
            if lane is not None:
                lane.append((taken, request))
            else:
                self._lanes[request.key] = deque()
                self._send((taken, request))

    def _send(self, sending: Sending) -> None:
        request = sending[1]
        self._out.append(
            request.topic, request.partition, request.value, request.key, list(request.headers), (self._sent, sending)
        )

    def _sent(self, sending: Sending, delivery: Delivery) -> None:
        taken, request = sending
        if delivery.failure is None and delivery.offset is not None:
            self.counters.sent += 1
        elif delivery.failure in _REFUSED:
            raise EngineFailed(f"{delivery.failure.value}: {delivery.detail}")
        elif delivery.failure is Failure.TOO_LARGE:
            taken.problem = delivery.detail
        else:
            self.counters.resent += 1
            self._out.resend(taken, lambda _: self._send(sending), RESEND_INTERVAL_MS)
            return
        taken.unsent -= 1
        if not taken.unsent:
            if taken.problem:
                self._out.bury(taken, f"{request.topic} does not take it: {taken.problem}", Failure.TOO_LARGE.name)
            else:
                self._out.settle(taken)
        self._go_on(request.key)

    def _go_on(self, key: bytes) -> None:
        """The next request for the same saga; those of a partition that is another member's by now are its affair."""
        lane = self._lanes[key]
        while lane:
            sending = lane.popleft()
            if not sending[0].partition.closing:
                self._send(sending)
                return
        del self._lanes[key]

    def _through(self, taken: Work) -> None:
        taken.partition.advance()

    def _wind_up(self) -> None:
        """Ends when nothing is under way: commits a last time, forgets."""
        if self._out.busy or self._lanes:
            return
        if not self._wound_up:
            self._wound_up = True
            self._commits.send_all(self._partitions.values(), self._now_ms)
        elif not self._commits.open or self._now_ms >= self._commits.due_ms:
            self._partitions.clear()
