"""Publishes what happened on `saga.lifecycle`, at least once, from the rows that visibility made of the journals.

Rule R was applied when the rows were made, so only what counts is ever told. A consumer group decides who publishes for
which journal partition; its committed offset is the next journal offset to publish, so lag tools see how far it is.
Events of one partition come in journal order; after a failure some are repeated, each under the same `event-id`.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Event

from orchestrator.errors import Disconnected
from orchestrator.log.base import Delivery, Ends, Failure, Granted, Log, LogFull, ReadFailed, Revoked
from orchestrator.model.events import Decision, SagaEnded
from orchestrator.topics import TopicNames
from orchestrator.visibility.public import Told, is_public, public_record
from orchestrator.visibility.views import Views

log = logging.getLogger(__name__)

GROUP = "saga-lifecycle"
BATCH = 500
"""Decisions of one partition that are under way at once; with the next batch the ones before are acknowledged."""
RETRY_MS = 500
MAX_RUNS = 20_000
"""Runs whose type and steps are kept in memory; of others they are read again."""


@dataclass(frozen=True, slots=True)
class _Publication:
    """One public event on its way."""

    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]]


@dataclass(slots=True, eq=False)
class _Tenure:
    """One granted partition. `next_offset` None: the committed offset is being asked for.

    `batch` holds the events up to journal offset `batch_end` (0: there is none), the first `sent` of them handed over,
    the first `done` acknowledged.
    """

    partition: int
    next_offset: int | None = None
    batch: list[_Publication] = field(default_factory=list)
    batch_end: int = 0
    sent: int = 0
    reported: int = 0
    done: int = 0
    broken: bool = False
    not_before_ms: int = 0


class Lifecycle:
    """Publishes for the partitions its group grants. `step` does all there is to do; for the thread of `views`.

    It sees what visibility has written: step that first. `wake` is set when the log's clients have something.
    """

    def __init__(self, log_: Log, topics: TopicNames, views: Views, *, wake: Event | None = None) -> None:
        self.wake = wake or Event()
        self.published = 0
        self._journal = topics.journal
        self._topic = topics.lifecycle
        self._views = views
        self._reader = log_.reader(topics.prefix + GROUP, [topics.journal], wake=self.wake)
        self._appender = log_.appender(wake=self.wake)
        self._tenures: dict[int, _Tenure] = {}
        self._told: OrderedDict[tuple[str, str], Told] = OrderedDict()

    def close(self) -> None:
        """Leaves the group. What was not acknowledged is published again by the next one."""
        self._reader.close()
        self._appender.close(2.0)

    def step(self, mono_ms: int) -> bool:
        """Takes what has come and publishes what is new; whether there was anything. Raises `Disconnected`.

        `mono_ms` is the monotonic time.
        """
        busy = self._hear(mono_ms)
        for delivery in self._appender.poll():
            busy = True
            self._delivered(delivery, mono_ms)
        for tenure in list(self._tenures.values()):
            if tenure.next_offset is None:
                self._ask_position(tenure, mono_ms)
            elif mono_ms >= tenure.not_before_ms:
                busy |= self._advance(tenure, mono_ms)
        return busy

    def _hear(self, mono_ms: int) -> bool:
        happenings = self._reader.poll()
        for happening in happenings:
            if isinstance(happening, Granted):
                for _, partition in happening.partitions:
                    self._tenures[partition] = _Tenure(partition)
            elif isinstance(happening, Revoked):
                for _, partition in happening.partitions:
                    self._tenures.pop(partition, None)
            elif isinstance(happening, Ends):
                self._take_position(happening)
            elif isinstance(happening, ReadFailed):
                raise Disconnected(f"publishing on {self._topic}: {happening.failure.value}: {happening.detail}")
        return bool(happenings)

    def _ask_position(self, tenure: _Tenure, mono_ms: int) -> None:
        if mono_ms >= tenure.not_before_ms:
            tenure.not_before_ms = mono_ms + 10 * RETRY_MS
            self._reader.ask_committed([(self._journal, tenure.partition)], tenure)

    def _take_position(self, ends: Ends) -> None:
        tenure: _Tenure = ends.token
        if ends.failure is None and tenure.next_offset is None:
            tenure.next_offset = ends.offsets.get((self._journal, tenure.partition), 0)
            tenure.not_before_ms = 0

    def _advance(self, tenure: _Tenure, mono_ms: int) -> bool:
        if not tenure.batch_end and not self._gather(tenure):
            return False
        before = (tenure.sent, tenure.batch_end)
        if tenure.broken and tenure.reported == tenure.sent:
            # From the first that is not acknowledged on, so that the last time they come they come in order.
            tenure.broken = False
            tenure.sent = tenure.reported = tenure.done
        if not tenure.broken:
            self._send(tenure)
        if tenure.done == len(tenure.batch):
            self._finish(tenure)
        return (tenure.sent, tenure.batch_end) != before

    def _gather(self, tenure: _Tenure) -> bool:
        """Makes the next batch. Decisions without a public event move the position all the same."""
        assert tenure.next_offset is not None
        found = self._views.decisions_from(tenure.partition, tenure.next_offset, BATCH)
        if not found:
            return False
        for offset, decision in found:
            if not any(is_public(event) for event in decision.events):
                if (told := self._told.get((decision.saga_id, decision.run))) is not None:
                    for event in decision.events:
                        told.note(event)
                continue
            told = self._told_of(decision, offset)
            for index, event in enumerate(decision.events):
                told.note(event)
                record = public_record(decision, tenure.partition, offset, index, told)
                if record is not None:
                    tenure.batch.append(_Publication(decision.saga_id.encode(), *record))
            if any(isinstance(event, SagaEnded) for event in decision.events):
                self._told.pop((decision.saga_id, decision.run), None)
        tenure.batch_end = found[-1][0] + 1
        tenure.sent = tenure.reported = tenure.done = 0
        return True

    def _told_of(self, decision: Decision, offset: int) -> Told:
        key = (decision.saga_id, decision.run)
        told = self._told.get(key)
        if told is None:
            told = self._told[key] = Told()
            for _, earlier in self._views.decisions(*key, until=offset - 1):
                for event in earlier.events:
                    told.note(event)
            if len(self._told) > MAX_RUNS:
                self._told.popitem(last=False)
        return told

    def _send(self, tenure: _Tenure) -> None:
        while tenure.sent < len(tenure.batch):
            publication = tenure.batch[tenure.sent]
            try:
                self._appender.append(
                    self._topic,
                    tenure.partition,
                    publication.value,
                    key=publication.key,
                    headers=publication.headers,
                    token=(tenure, tenure.sent),
                )
            except LogFull:
                return
            tenure.sent += 1

    def _delivered(self, delivery: Delivery, mono_ms: int) -> None:
        tenure: _Tenure
        tenure, number = delivery.token
        if delivery.failure is Failure.FATAL:
            raise Disconnected(f"publishing on {self._topic}: {delivery.detail}")
        tenure.reported += 1
        if delivery.failure is None and delivery.offset is not None:
            if number == tenure.done:
                tenure.done += 1
                self.published += 1
        elif not tenure.broken:
            tenure.broken = True
            tenure.not_before_ms = mono_ms + RETRY_MS
            why = delivery.failure.value if delivery.failure is not None else "no offset"
            log.warning("publishing on %s-%d: %s %s", self._topic, tenure.partition, why, delivery.detail)

    def _finish(self, tenure: _Tenure) -> None:
        tenure.next_offset = position = tenure.batch_end
        tenure.batch, tenure.batch_end = [], 0
        if self._tenures.get(tenure.partition) is tenure:
            self._reader.commit({(self._journal, tenure.partition): (position, "")})
