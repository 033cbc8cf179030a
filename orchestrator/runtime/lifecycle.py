"""Publishes what happened on `saga.lifecycle`, at least once, for the partitions that this worker owns.

The engine hands over each confirmed decision that has something public (`Feed.offer`) and never waits: what does not
fit is left out, and read from the journal later. So is what was confirmed and not yet published when an owner died. The
position of a partition, the next journal offset to publish from, is committed to a group without members, with rule R's
state there; whoever owns the partition next goes on from it. Events of one partition come in journal order; after a
failure some are repeated, each under the same `event-id`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import NamedTuple

from orchestrator.errors import Disconnected
from orchestrator.log.base import Delivery, Ends, Failure, Log, LogFull, ReadFailed, Record
from orchestrator.log.gathered import GatheredAppender
from orchestrator.model.events import Decision
from orchestrator.model.rule import Kind, Rule
from orchestrator.model.state import SagaState
from orchestrator.topics import TopicNames
from orchestrator.wire.avro import UnreadableRecord
from orchestrator.wire.journal import read_decision, read_envelope
from orchestrator.wire.lifecycle import is_public, public_records

log = logging.getLogger(__name__)

GROUP = "saga-lifecycle"
MAX_WAITING = 10_000
"""Decisions of one partition that wait to be published; beyond, they are read from the journal instead: some 10 MiB."""
BATCH = 500
"""Decisions of one partition that are under way at once; with the next batch the ones before are acknowledged."""
MAX_OPEN = 1_000
"""Decisions read from the journal that are not published yet."""
RESOLVED_AT_ONCE = 20
"""Runs that the engine looks up for this in one step: at most a millisecond or two."""
RETRY_MS = 1_000
COMMIT_EVERY_MS = 1_000
LINGER_MS = 5.0
"""Nobody waits for these records, and they are the most that a worker writes: they leave in fewer requests."""
COMMIT_AGAIN_MS = 3_600_000
"""A position that does not move is committed all the same: Kafka forgets it after a week."""


class Position(NamedTuple):
    """Where publishing goes on: a journal offset, and the nonce and the next seq that rule R has before it."""

    offset: int
    nonce: bytes
    seq: int


class _Told(NamedTuple):
    """A decision to publish. `previous` is the offset of the one before it that had something public."""

    previous: int
    after: Position
    decision: Decision
    state: SagaState | None


class Gap:
    """What is read from the journal, up to before `until`. `open` of it are with the engine or came back from it."""

    __slots__ = ("is_paused", "is_read", "open", "resolved", "rule", "unresolved", "until")

    def __init__(self, until: int, rule: Rule) -> None:
        self.until = until
        self.rule = rule
        self.is_read = False
        self.is_paused = False
        self.open = 0
        self.unresolved: deque[tuple[Position, Decision]] = deque()
        """Read from the journal: the engine adds the run."""
        self.resolved: deque[_Told] = deque()


class Feed:
    """One epoch of one partition, between the engine's thread and the publisher's. `nonces` are the claims that count.

    Appending to a deque and taking from its other end are atomic, so no lock is needed.
    """

    __slots__ = ("claim_offset", "gap", "incarnation", "left_out", "nonce", "nonces", "number", "previous", "told")

    def __init__(
        self, number: int, nonce: bytes, claim_offset: int, nonces: Mapping[bytes, int], incarnation: int
    ) -> None:
        self.number = number
        self.incarnation = incarnation
        self.nonce = nonce
        self.claim_offset = claim_offset
        self.nonces = dict(nonces)
        self.told: deque[_Told] = deque()
        self.previous = claim_offset
        self.left_out = claim_offset + 1
        """Below this offset some may have been left out, if nothing that waits says otherwise."""
        self.gap: Gap | None = None

    def offer(self, offset: int, decision: Decision, state: SagaState) -> None:
        """Takes a confirmed decision; for the engine's thread. `state` is the run's, now or later."""
        if not any(map(is_public, decision.events)):
            return
        if len(self.told) < MAX_WAITING:
            self.told.append(_Told(self.previous, self.after(offset), decision, state))
        else:
            self.left_out = offset + 1
        self.previous = offset

    def resolve(self, find: Callable[[str, str], SagaState | None]) -> None:
        """Adds the runs to what was read from the journal; for the engine's thread. `find` gets saga id and run."""
        gap = self.gap
        if gap is None:
            return
        for _ in range(min(RESOLVED_AT_ONCE, len(gap.unresolved))):
            after, decision = gap.unresolved.popleft()
            gap.resolved.append(_Told(-1, after, decision, find(decision.saga_id, decision.run)))

    def after(self, offset: int) -> Position:
        """The position behind a confirmed offset of this epoch, whose seq is told by the offset."""
        return Position(offset + 1, self.nonce, offset - self.claim_offset)


@dataclass(frozen=True, slots=True)
class _Publication:
    """One public event on its way."""

    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]]


@dataclass(slots=True, eq=False)
class _Tenure:
    """One feed being published. `position` None: the committed one is being asked for.

    `batch` holds the events up to `batch_end` (None: there is none), the first `sent` of them handed over, the first
    `done` acknowledged.
    """

    feed: Feed
    position: Position | None = None
    batch: list[_Publication] = field(default_factory=list)
    batch_end: Position | None = None
    sent: int = 0
    reported: int = 0
    done: int = 0
    broken: bool = False
    not_before_ms: int = 0
    committed: Position | None = None
    commit_at_ms: int = 0
    commit_again_at_ms: int = 0


class Lifecycle:
    """Publishes what is in `feeds`, which the engine fills and empties. `step` does all there is to do, in any thread.

    `wake` is set when the log's clients have something; nothing says that a feed has.
    """

    def __init__(
        self, log_: Log, topics: TopicNames, feeds: Mapping[int, Feed], group: str = GROUP, *, wake: Event | None = None
    ) -> None:
        self.wake = wake or Event()
        self.published = 0
        self._journal = topics.journal
        self._topic = topics.lifecycle
        self._feeds = feeds
        self._reader = log_.reader(topics.prefix + group, wake=self.wake)
        self._appender = GatheredAppender(log_.appender(wake=self.wake, linger_ms=LINGER_MS))
        self._tenures: dict[int, _Tenure] = {}

    def close(self) -> None:
        """What was not acknowledged is published again by the next owner."""
        for tenure in self._tenures.values():
            self._commit(tenure)
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
        self._follow_ownership()
        for tenure in self._tenures.values():
            if tenure.position is None:
                self._ask_position(tenure, mono_ms)
            elif mono_ms >= tenure.not_before_ms:
                busy |= self._advance(tenure, tenure.position)
                self._commit_in_time(tenure, mono_ms)
        self._appender.send()
        return busy

    def _follow_ownership(self) -> None:
        feeds = dict(self._feeds)
        for number, tenure in list(self._tenures.items()):
            if feeds.get(number) is not tenure.feed:
                self._commit(tenure)
                self._reader.unassign(self._journal, number)
                del self._tenures[number]
        for number, feed in feeds.items():
            if number not in self._tenures:
                feed.gap = None
                self._tenures[number] = _Tenure(feed)

    # -- the position

    def _ask_position(self, tenure: _Tenure, mono_ms: int) -> None:
        if mono_ms >= tenure.not_before_ms:
            tenure.not_before_ms = mono_ms + 10 * RETRY_MS
            self._reader.ask_committed([(self._journal, tenure.feed.number)], tenure)

    def _take_position(self, ends: Ends, mono_ms: int) -> None:
        tenure: _Tenure = ends.token
        number = tenure.feed.number
        if tenure is not self._tenures.get(number) or tenure.position is not None:
            return
        if ends.failure is not None:
            tenure.not_before_ms = mono_ms + RETRY_MS
            return
        key = (self._journal, number)
        tenure.position = _read_position(ends.offsets.get(key, 0), ends.metadata.get(key, ""), tenure.feed)
        tenure.not_before_ms = 0
        # A group without members takes commits for what is assigned; it is read only where there is a gap.
        self._reader.assign(self._journal, number, tenure.position.offset)
        self._reader.pause(self._journal, number)

    def _commit_in_time(self, tenure: _Tenure, mono_ms: int) -> None:
        moved = tenure.position != tenure.committed
        if mono_ms >= (tenure.commit_at_ms if moved else tenure.commit_again_at_ms):
            tenure.commit_at_ms = mono_ms + COMMIT_EVERY_MS
            tenure.commit_again_at_ms = mono_ms + COMMIT_AGAIN_MS
            tenure.committed = None
            self._commit(tenure)

    def _commit(self, tenure: _Tenure) -> None:
        if tenure.position is not None and tenure.position != tenure.committed:
            tenure.committed = at = tenure.position
            self._reader.commit({(self._journal, tenure.feed.number): (at.offset, position_metadata(at.nonce, at.seq))})

    # -- what is to be published

    def _advance(self, tenure: _Tenure, position: Position) -> bool:
        if tenure.batch_end is None:
            self._gather(tenure, position)
        if tenure.batch_end is None:
            return False
        before = (tenure.sent, tenure.done)
        if tenure.broken and tenure.reported == tenure.sent:
            # From the first that is not acknowledged on, so that the last time they come they come in order.
            tenure.broken = False
            tenure.sent = tenure.reported = tenure.done
        if not tenure.broken:
            self._send(tenure)
        if tenure.done == len(tenure.batch):
            tenure.position = tenure.batch_end
            tenure.batch, tenure.batch_end = [], None
            return True
        return (tenure.sent, tenure.done) != before

    def _gather(self, tenure: _Tenure, position: Position) -> None:
        """Makes the next batch, from the journal where something was left out, else from what waits."""
        feed = tenure.feed
        gap = feed.gap or self._look_for_gap(feed, position)
        source = feed.told if gap is None else gap.resolved
        last = position.offset
        for _ in range(BATCH):
            if not source or (gap is None and source[0].previous >= last):
                break
            told = source.popleft()
            if gap is not None:
                gap.open -= 1
            if told.after.offset <= last:
                continue
            last = told.after.offset
            tenure.batch_end = told.after
            key = told.decision.saga_id.encode()
            for record in public_records(told.decision, (feed.incarnation, feed.number, last - 1), told.state):
                tenure.batch.append(_Publication(key, *record))
        tenure.sent = tenure.reported = tenure.done = 0
        if gap is not None:
            self._go_on_reading(tenure, gap)

    def _go_on_reading(self, tenure: _Tenure, gap: Gap) -> None:
        feed = tenure.feed
        if gap.is_read and not gap.open:
            feed.gap = None
            tenure.batch_end = feed.after(gap.until - 1)
        elif gap.is_paused and gap.open < MAX_OPEN // 2:
            gap.is_paused = False
            self._reader.resume(self._journal, feed.number)

    def _look_for_gap(self, feed: Feed, position: Position) -> Gap | None:
        """Begins to read the journal where something between the position and what waits was left out."""
        until = feed.left_out
        if feed.told:
            head = feed.told[0]
            until = head.after.offset - 1 if head.previous >= position.offset else 0
        if until <= position.offset:
            return None
        nonces = {nonce for nonce, offset in feed.nonces.items() if offset < position.offset}
        # The chain's hash there is not known: what counted is told by nonces and numbers.
        feed.gap = Gap(until, Rule(position.nonce, -1, position.seq, b"unknown", nonces))
        self._reader.assign(self._journal, feed.number, position.offset)
        self._reader.resume(self._journal, feed.number)
        return feed.gap

    def _hear(self, mono_ms: int) -> bool:
        happenings = self._reader.poll()
        for happening in happenings:
            if isinstance(happening, Record):
                tenure = self._tenures.get(happening.partition)
                gap = None if tenure is None else tenure.feed.gap
                if gap is not None and not gap.is_read:
                    self._read(gap, happening, mono_ms)
            elif isinstance(happening, Ends):
                self._take_position(happening, mono_ms)
            elif isinstance(happening, ReadFailed):
                self._read_failed(happening, mono_ms)
        return bool(happenings)

    def _read(self, gap: Gap, record: Record, mono_ms: int) -> None:
        rule, value = gap.rule, record.value or b""
        try:
            envelope = read_envelope(value)
            counts = rule.accept(envelope.kind, envelope.nonce, envelope.seq, rule.chain, record.offset, value)
            decision = read_decision(envelope) if counts and envelope.kind == Kind.DECISION else None
        except UnreadableRecord as unreadable:
            self._read_failed(ReadFailed(record.topic, record.partition, Failure.DAMAGED, str(unreadable)), mono_ms)
            return
        if record.offset < gap.until and decision is not None and any(map(is_public, decision.events)):
            gap.open += 1
            gap.unresolved.append((Position(record.offset + 1, rule.nonce, rule.expected_seq), decision))
            if gap.open >= MAX_OPEN and not gap.is_paused:
                gap.is_paused = True
                self._reader.pause(self._journal, record.partition)
        if record.offset + 1 >= gap.until:
            gap.is_read = True
            self._reader.pause(self._journal, record.partition)

    def _read_failed(self, failed: ReadFailed, mono_ms: int) -> None:
        if failed.partition < 0:
            raise Disconnected(f"publishing on {self._topic}: {failed.failure.value}: {failed.detail}")
        tenure = self._tenures.get(failed.partition)
        if tenure is None or tenure.position is None:
            return
        log.warning("publishing on %s-%d: %s %s", self._topic, failed.partition, failed.failure.value, failed.detail)
        tenure.feed.gap = None
        tenure.not_before_ms = mono_ms + RETRY_MS
        offset = tenure.position.offset
        if failed.failure is Failure.OUT_OF_RANGE and tenure.batch_end is None and offset <= tenure.feed.claim_offset:
            log.error("%s-%d: what was decided from offset %d on is not told", self._journal, failed.partition, offset)
            tenure.position = tenure.feed.after(tenure.feed.claim_offset)
        self._reader.assign(self._journal, failed.partition, tenure.position.offset)
        self._reader.pause(self._journal, failed.partition)

    # -- on the way

    def _send(self, tenure: _Tenure) -> None:
        while tenure.sent < len(tenure.batch):
            publication = tenure.batch[tenure.sent]
            try:
                self._appender.append(
                    self._topic,
                    tenure.feed.number,
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
            log.warning("publishing on %s-%d: %s %s", self._topic, tenure.feed.number, why, delivery.detail)


def position_metadata(nonce: bytes, seq: int) -> str:
    """What is committed beside an offset: who wrote below it, and how much."""
    return f"{nonce.hex()}:{seq}"


def _read_position(offset: int, metadata: str, feed: Feed) -> Position:
    """A committed position; the journal's beginning where it does not fit the journal."""
    nonce_hex, _, seq = metadata.partition(":")
    try:
        position = Position(offset, bytes.fromhex(nonce_hex), int(seq))
    except ValueError:
        return Position(0, b"", 0)
    if not 0 <= feed.nonces.get(position.nonce, offset) < offset:
        return Position(0, b"", 0)
    return position
