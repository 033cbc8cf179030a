"""The thread that owns a Kafka consumer: nothing else touches it.

It polls without a break, also while the caller is slow, so that the group's callbacks are always served: what was
fetched waits in `inbox`, and at the bound all partitions are paused inside the consumer, which is polled on. The
caller's wishes come as commands, taken at the latest when a poll that found nothing ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import methodcaller
from threading import Event, Thread
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from orchestrator.log import base
from orchestrator.log.base import Committed, Failure, Granted, Happening, Headers, Passed, ReadFailed, Record, Revoked
from orchestrator.log.kafka_config import LOGGER
from orchestrator.log.kafka_failure import explain, failure_of, lacking

_POLL_S = 0.01
"""Sleep in the library while nothing comes: the longest a command waits. A hundred idle polls a second cost 0.3 %."""
_CHUNK = 500
"""Records taken from the library at once."""
_MAX_RECORDS = 20_000
_MAX_BYTES = 32 << 20
"""Bound of what waits for the caller, overrun by at most one chunk. Above it all pause, below half of it all go on."""

_make = tuple.__new__


class Cursor:
    """One assignment of a partition, from `assign` to `unassign` or the next `assign`.

    `offset` is where it begins and, in the poller's thread, the lowest offset that may come next. `paused` is the
    caller's.
    """

    __slots__ = ("key", "offset", "partition", "paused", "topic")

    def __init__(self, topic: str, partition: int, offset: int, paused: bool) -> None:
        self.key = (topic, partition)
        self.topic = topic
        self.partition = partition
        self.offset = offset
        self.paused = paused

    def failed(self, failure: Failure, detail: str) -> Stopped:
        """That reading for it stopped."""
        return Stopped(self, ReadFailed(self.topic, self.partition, failure, detail))


class Chunk:
    """Records fetched for one cursor, or that it passed some. Those of a cursor that the partition lost are dropped."""

    __slots__ = ("cursor", "records", "size")

    def __init__(self, cursor: Cursor, records: Sequence[Record | Passed], size: int) -> None:
        self.cursor = cursor
        self.records = records
        self.size = size


class Stopped:
    """Reading for one cursor stopped."""

    __slots__ = ("cursor", "failed")

    def __init__(self, cursor: Cursor, failed: ReadFailed) -> None:
        self.cursor = cursor
        self.failed = failed


class Poller:
    """Runs the consumer. Methods with an underscore run in its thread; `command` hands them over."""

    def __init__(self, config: Mapping[str, Any], topics: frozenset[str], grouped: bool, wake: Event) -> None:
        self.inbox: deque[Chunk | Stopped | Happening] = deque()
        self.topics = topics
        self.grouped = grouped
        self.read_records = 0
        """Records and bytes the caller took out of the inbox: counted by the caller's thread only."""
        self.read_bytes = 0
        self._put_records = 0
        self._put_bytes = 0
        self._wake = wake
        self._config = config
        self._consumer = Consumer({**config, "on_commit": self._on_commit})
        self._commands: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._live: dict[base.TopicPartition, Cursor] = {}
        """What the consumer has assigned."""
        self._granted: set[base.TopicPartition] = set()
        self._commits: list[tuple[frozenset[tuple[str, int, int]], Any]] = []
        """Commits under way and their tokens; the library tells them by nothing but what was committed."""
        self._full = False
        self._stopping = False
        self._thread = Thread(target=self._run, name="kafka-reader", daemon=True)
        self._thread.start()

    def command(self, function: Callable[..., None], *arguments: Any) -> None:
        """Has a method run in the poller's thread, after those handed over before."""
        self._commands.append((function, arguments))

    def post(self, happening: Chunk | Stopped | Happening) -> None:
        """Puts something into the inbox; from any thread."""
        self.inbox.append(happening)
        if not self._wake.is_set():
            self._wake.set()

    def stop(self) -> None:
        """Leaves the group, closes the consumer and ends the thread. What was not taken is let go of."""
        self._stopping = True
        self._thread.join()
        self.inbox.clear()

    def _run(self) -> None:
        consumer, commands = self._consumer, self._commands
        if self.topics:
            consumer.subscribe(
                sorted(self.topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
        while not self._stopping:
            try:
                while commands:
                    function, arguments = commands.popleft()
                    function(*arguments)
                self._bound()
                message = consumer.poll(_POLL_S)
                if message is not None:
                    self._take([message, *consumer.consume(_CHUNK - 1, 0)])
            except KafkaException as error:
                self._fail_all(error.args[0])
            except Exception as error:
                LOGGER.exception("the reader's thread failed")
                self.post(ReadFailed("", -1, Failure.FATAL, repr(error)))
                break
        try:
            consumer.close()
        except Exception:
            LOGGER.exception("closing the consumer failed")
        del self._consumer  # it knows this object by its callbacks: whoever waits for the collector keeps both

    # Records

    def _take(self, messages: list[Message]) -> None:
        """Turns messages into chunks, one for each run of records of one partition."""
        topic, partition = "", -1
        cursor: Cursor | None = None
        records: list[Record] = []
        size = 0
        append = records.append
        for message in messages:
            error = message.error()
            if error is not None:
                self._put(cursor, records, size)
                topic, cursor = "", None
                if error.code() == KafkaError._PARTITION_EOF:
                    self._reach_end(message)
                else:
                    self._fail(message, error)
                continue
            if message.partition() != partition or message.topic() != topic:
                self._put(cursor, records, size)
                topic, partition = message.topic() or "", message.partition() or 0
                cursor = self._live.get((topic, partition))
                records = []
                append = records.append
                size = 0
            value = message.value()
            if value is not None:
                size += len(value)
            append(
                _make(
                    Record,
                    (
                        topic,
                        partition,
                        message.offset(),
                        message.timestamp()[1],
                        message.key(),
                        value,
                        _headers(message),
                    ),
                )
            )
        self._put(cursor, records, size)

    def _put(self, cursor: Cursor | None, records: list[Record], size: int) -> None:
        # Without a cursor they are leftovers of an assignment that ended.
        if cursor is not None and records:
            if records[0].offset < cursor.offset:
                # The library pauses everything for a rebalance and may go back to what it had just handed out.
                records = [record for record in records if record.offset >= cursor.offset]
                if not records:
                    return
            cursor.offset = records[-1].offset + 1
            self._put_records += len(records)
            self._put_bytes += size
            self.post(Chunk(cursor, records, size))

    def _reach_end(self, message: Message) -> None:
        """The library has read up to a partition's end. Where records come slowly, each of them is followed by this."""
        cursor = self._live.get((message.topic() or "", _number(message)))
        offset = message.offset()
        # It may say so again after it went back, or for less than was read: only what no record told is news.
        if cursor is not None and offset is not None and offset > cursor.offset:
            cursor.offset = offset
            self._put_records += 1
            self.post(Chunk(cursor, [Passed(cursor.topic, cursor.partition, offset)], 0))

    def _bound(self) -> None:
        waiting = self._put_records - self.read_records
        size = self._put_bytes - self.read_bytes
        if not self._full and (waiting >= _MAX_RECORDS or size >= _MAX_BYTES):
            self._full = True
            self._consumer.pause([_at(key) for key in self._live])
        elif self._full and waiting <= _MAX_RECORDS // 2 and size <= _MAX_BYTES // 2:
            self._full = False
            self._consumer.resume([_at(key) for key, cursor in self._live.items() if not cursor.paused])

    # Failures

    def _fail(self, message: Message, error: KafkaError) -> None:
        failure = failure_of(error)
        cursor = self._live.get((message.topic() or "", _number(message)))
        if failure is Failure.FATAL:
            self._fail_all(error)
        elif failure is Failure.UNAUTHORIZED and cursor is None:
            of_group = error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED
            # The library asks after the group it was named, also where nobody joins it.
            if self.grouped or not of_group:
                what = f"group {self._config['group.id']}" if of_group else f"topic {message.topic()}"
                self.post(ReadFailed("", -1, failure, explain(error, f"Read on {what}", self._config)))
        elif failure is not Failure.UNKNOWN_OUTCOME and cursor is not None:
            self._drop(cursor)
            self.post(cursor.failed(failure, explain(error, f"Read on topic {cursor.topic}", self._config)))
        else:
            # The library goes on by itself where it was.
            LOGGER.warning("reading %s: %s", message.topic(), error.str())

    def _fail_all(self, error: KafkaError) -> None:
        """Ends the client: whoever uses it makes another."""
        self._stopping = True
        self.post(ReadFailed("", -1, Failure.FATAL, error.str()))

    # Commands

    def assign(self, cursor: Cursor) -> None:
        """Begins reading for the cursor."""
        if cursor.topic in self.topics and cursor.key not in self._granted:
            return
        before = self._live.get(cursor.key)
        if before is not None:
            self._drop(before)
        if cursor.offset < 0:
            # The library would take it for one of its names, such as the end.
            self.post(cursor.failed(Failure.OUT_OF_RANGE, f"{cursor.offset} is no offset"))
            return
        self._consumer.incremental_assign([TopicPartition(cursor.topic, cursor.partition, cursor.offset)])
        self._live[cursor.key] = cursor
        if cursor.paused or self._full:
            self._consumer.pause([_at(cursor.key)])
        else:
            # A pause outlives an unassign inside the library.
            self._consumer.resume([_at(cursor.key)])

    def unassign(self, cursor: Cursor) -> None:
        """Ends reading for the cursor, if it did not end before."""
        if self._live.get(cursor.key) is cursor:
            self._drop(cursor)

    def give_up(self, cursor: Cursor, failure: Failure) -> None:
        """Ends reading for a cursor whose partition is not to be seen: the library would wait for it without a word."""
        if self._live.get(cursor.key) is cursor:
            self._drop(cursor)
            hidden = failure is Failure.UNAUTHORIZED
            why = lacking(f"Read on topic {cursor.topic}", self._config) if hidden else "it does not exist"
            self.post(cursor.failed(failure, why))

    def set_paused(self, cursor: Cursor, paused: bool) -> None:
        """Pauses or resumes what the cursor reads."""
        if self._live.get(cursor.key) is not cursor:
            return
        if paused:
            self._consumer.pause([_at(cursor.key)])
        elif not self._full:
            self._consumer.resume([_at(cursor.key)])

    def commit(self, offsets: Mapping[base.TopicPartition, tuple[int, str]], token: Any) -> None:
        """Commits for partitions this member owns."""
        foreign = [key for key in offsets if key not in (self._granted if key[0] in self.topics else self._live)]
        if not self.grouped or foreign:
            detail = f"not owned: {foreign}" if self.grouped else "the reader has no group"
            self._answer(token, Failure.NOT_OWNED, detail)
        elif not offsets:
            self._answer(token, None, "")
        else:
            partitions = [TopicPartition(*key, offset, metadata) for key, (offset, metadata) in offsets.items()]
            entry = (_identity(partitions), token)
            self._commits.append(entry)
            try:
                self._consumer.commit(offsets=partitions, asynchronous=True)
            except KafkaException as error:
                self._commits.remove(entry)
                self._answer(token, failure_of(error.args[0]), error.args[0].str())

    def _drop(self, cursor: Cursor) -> None:
        del self._live[cursor.key]
        self._consumer.incremental_unassign([_at(cursor.key)])

    # The library's callbacks, from within `poll` and `close`

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # Assigning nothing still must be said, or the library would begin reading by itself.
        consumer.incremental_assign([])
        keys = _keys(partitions)
        self._granted.update(keys)
        if keys:
            self.post(Granted(keys))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._release(consumer, partitions, lost=False)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._release(consumer, partitions, lost=True)

    def _release(self, consumer: Consumer, partitions: list[TopicPartition], lost: bool) -> None:
        keys = _keys(partitions)
        # The library refuses to unassign what was granted and never assigned.
        consumer.incremental_unassign([_at(key) for key in keys if key in self._live])
        self._granted.difference_update(keys)
        for key in keys:
            self._live.pop(key, None)
        if keys and not self._stopping:
            self.post(Revoked(keys, lost))

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        identity = _identity(partitions)
        for index, (committed, token) in enumerate(self._commits):
            if committed == identity:
                del self._commits[index]
                error = error or next((item.error for item in partitions if item.error is not None), None)
                if error is None:
                    self._answer(token, None, "")
                else:
                    self._answer(token, failure_of(error), error.str())
                return
        LOGGER.warning("a commit was answered that nobody waits for")

    def _answer(self, token: Any, failure: Failure | None, detail: str) -> None:
        if token is not None:
            self.post(Committed(token, failure, detail))


_read_headers = methodcaller("headers")
"""`message.headers()` as a call that is always checked.

For a header whose name is no UTF-8 the library returns a list with a hole and raises at once. Python notices that in
every call but one that it has specialised to a bare method call in code that ran often; going on there with the hole
is a crash of the process, and anyone who may write to a topic could cause it.
"""


def _headers(message: Message) -> Headers:
    try:
        headers: Any = _read_headers(message)
    except Exception:
        LOGGER.warning("headers of %s-%s@%s are unreadable", message.topic(), message.partition(), message.offset())
        return ()
    if not headers:
        return ()
    for _, value in headers:
        if value is None:
            return tuple((name, value or b"") for name, value in headers)
    return tuple(headers)


def _at(key: base.TopicPartition) -> TopicPartition:
    return TopicPartition(key[0], key[1])


def _number(message: Message) -> int:
    partition = message.partition()
    return -1 if partition is None else partition


def _keys(partitions: Iterable[TopicPartition]) -> tuple[base.TopicPartition, ...]:
    return tuple(sorted((item.topic, item.partition) for item in partitions))


def _identity(partitions: Iterable[TopicPartition]) -> frozenset[tuple[str, int, int]]:
    return frozenset((item.topic, item.partition, item.offset) for item in partitions)
