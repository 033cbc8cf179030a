"""The reader over a Kafka broker: the caller's side of a consumer that lives in a thread of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from threading import Event
from typing import Any

from confluent_kafka import KafkaException

from orchestrator.log.base import Ends, Failure, Happening, Revoked, TopicPartition
from orchestrator.log.kafka_config import Raw, consumer_config, refused
from orchestrator.log.kafka_inquirer import Asked, Inquirer, Question
from orchestrator.log.kafka_poller import Chunk, Cursor, Poller, Stopped


class KafkaReader:
    """Reads by one consumer. For one thread; `wake` is set whenever `poll` has something.

    Never created in a process that forked after another client was: librdkafka's threads do not survive a fork.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        group: str | None = None,
        topics: Iterable[str] = (),
        wake: Event,
        common: Raw,
        consumer: Raw,
    ) -> None:
        config = consumer_config(bootstrap_servers, common, consumer, group=group)
        subscribed = frozenset(topics if group is not None else ())
        try:
            self._poller = Poller(config, subscribed, group is not None, wake)
        except KafkaException as error:
            raise refused(error) from error
        self._inquirer = Inquirer(config, self._poller.post, partial(self._poller.command, self._poller.give_up))
        self._cursors: dict[TopicPartition, Cursor] = {}
        """The assignments as the caller sees them; a chunk of another cursor is late and dropped."""
        self._rest: Chunk | None = None
        self._closed = False

    def assign(self, topic: str, partition: int, offset: int) -> None:
        before = self._cursors.get((topic, partition))
        cursor = Cursor(topic, partition, offset, before is not None and before.paused)
        self._cursors[cursor.key] = cursor
        self._poller.command(self._poller.assign, cursor)
        self._inquirer.ask(cursor)

    def unassign(self, topic: str, partition: int) -> None:
        cursor = self._cursors.pop((topic, partition), None)
        if cursor is not None:
            self._poller.command(self._poller.unassign, cursor)

    def pause(self, topic: str, partition: int) -> None:
        self._set_paused((topic, partition), True)

    def resume(self, topic: str, partition: int) -> None:
        self._set_paused((topic, partition), False)

    def _set_paused(self, key: TopicPartition, paused: bool) -> None:
        cursor = self._cursors.get(key)
        if cursor is not None and cursor.paused != paused:
            cursor.paused = paused
            self._poller.command(self._poller.set_paused, cursor, paused)

    def poll(self, limit: int = 500) -> list[Happening]:
        happened: list[Happening] = []
        if self._closed:
            return happened
        inbox = self._poller.inbox
        while len(happened) < limit:
            if self._rest is not None:
                item: Chunk | Stopped | Happening = self._rest
                self._rest = None
            elif inbox:
                item = inbox.popleft()
            else:
                break
            if isinstance(item, Chunk):
                self._read(item, limit - len(happened), happened)
            elif isinstance(item, Stopped):
                if self._cursors.get(item.cursor.key) is item.cursor:
                    del self._cursors[item.cursor.key]
                    happened.append(item.failed)
            else:
                if isinstance(item, Revoked):
                    for key in item.partitions:
                        self._cursors.pop(key, None)
                happened.append(item)
        return happened

    def _read(self, chunk: Chunk, room: int, happened: list[Happening]) -> None:
        records = chunk.records
        current = self._cursors.get(chunk.cursor.key) is chunk.cursor
        if current and len(records) > room:
            happened += records[:room]
            self._rest = Chunk(chunk.cursor, records[room:], chunk.size)
            self._poller.read_records += room
            return
        if current:
            happened += records
        self._poller.read_records += len(records)
        self._poller.read_bytes += chunk.size

    def ask_ends(self, partitions: Sequence[TopicPartition], token: Any) -> None:
        self._inquirer.ask(Question(Asked.ENDS, tuple(partitions), token))

    def ask_starts(self, partitions: Sequence[TopicPartition], token: Any) -> None:
        self._inquirer.ask(Question(Asked.STARTS, tuple(partitions), token))

    def ask_committed(self, partitions: Sequence[TopicPartition], token: Any) -> None:
        if self._poller.grouped:
            self._inquirer.ask(Question(Asked.COMMITTED, tuple(partitions), token))
        else:
            self._poller.post(Ends(token, {}, Failure.NOT_OWNED, detail="the reader has no group"))

    def commit(self, offsets: Mapping[TopicPartition, tuple[int, str]], token: Any = None) -> None:
        self._poller.command(self._poller.commit, dict(offsets), token)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._poller.stop()
            self._inquirer.stop()
