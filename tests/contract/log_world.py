"""A log with clients that wait: for the contract that every log keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Event
from time import monotonic
from typing import Any, TypeVar

from orchestrator.log.base import (
    Admin,
    Appender,
    Delivery,
    Granted,
    Happening,
    Log,
    Reader,
    Record,
    Revoked,
    TopicPartition,
    TopicSpec,
)

DEADLINE_S = 30.0
LIMIT = 500

H = TypeVar("H", bound=Happening)


class Writer:
    """An appender with its event."""

    def __init__(self, log: Log, **options: Any) -> None:
        self.wake = Event()
        self.appender: Appender = log.appender(wake=self.wake, **options)

    def deliveries(self, count: int) -> list[Delivery]:
        """Waits for so many."""
        found: list[Delivery] = []
        wait(self.wake, lambda: found.extend(self.appender.poll()), lambda: len(found) >= count)
        assert len(found) == count
        return found

    def append(self, topic: str, partition: int, value: bytes | None = b"x", **options: Any) -> Delivery:
        """Appends one record and waits for its delivery."""
        self.appender.append(topic, partition, value, token="one", **options)
        return self.deliveries(1)[0]

    def fill(self, topic: str, partition: int, count: int) -> None:
        """Appends records with the values b"0", b"1" and so on."""
        for number in range(count):
            self.appender.append(topic, partition, b"%d" % number, token=number)
        assert all(delivery.failure is None for delivery in self.deliveries(count))


class Probe:
    """A reader with its event and all that it told."""

    def __init__(self, log: Log, group: str | None = None, topics: Iterable[str] = ()) -> None:
        self.wake = Event()
        self.reader: Reader = log.reader(group, topics, wake=self.wake)
        self.happened: list[Happening] = []

    def poll(self) -> None:
        """Takes all there is: a full answer may not be the last."""
        while len(happened := self.reader.poll(LIMIT)) == LIMIT:
            self.happened += happened
        self.happened += happened

    def until(self, condition: Callable[[], bool]) -> None:
        """Polls until the condition holds."""
        wait(self.wake, self.poll, condition)

    def all(self, kind: type[H]) -> list[H]:
        return [happening for happening in self.happened if isinstance(happening, kind)]

    def records(self, *keys: TopicPartition) -> list[Record]:
        if not keys:
            return self.all(Record)
        return [record for record in self.all(Record) if (record.topic, record.partition) in keys]

    def read(self, count: int, *keys: TopicPartition) -> list[Record]:
        """Waits for so many records."""
        self.until(lambda: len(self.happened) >= count and len(self.records(*keys)) >= count)
        return self.records(*keys)

    def one(self, kind: type[H]) -> H:
        """Waits for the first happening of its kind and forgets it."""
        self.until(lambda: bool(self.all(kind)))
        found = self.all(kind)[0]
        self.happened.remove(found)
        return found

    def owned(self) -> set[TopicPartition]:
        """What the group granted and did not revoke, so far."""
        owned: set[TopicPartition] = set()
        for happening in self.happened:
            if isinstance(happening, Granted):
                owned.update(happening.partitions)
            elif isinstance(happening, Revoked):
                owned.difference_update(happening.partitions)
        return owned


def wait(wake: Event, poll: Callable[[], None], condition: Callable[[], bool]) -> None:
    deadline = monotonic() + DEADLINE_S
    poll()
    while not condition():
        # Short, because a condition may depend on another client too.
        wake.wait(0.1)
        wake.clear()
        poll()
        assert monotonic() < deadline, "it did not come about"


Transact = Callable[[str, int, int, bool], None]
"""Writes so many records to a partition in one transaction, which is committed or not."""


class World:
    """A log with its admin and one writer; closes what was opened."""

    def __init__(self, log: Log, prefix: str, transact: Transact | None = None) -> None:
        self.log = log
        self._transact = transact
        self.admin: Admin = log.admin()
        self.prefix = prefix
        self._writers: list[Writer] = []
        self._probes: list[Probe] = []

    def topic(self, name: str = "topic", partitions: int = 2, **settings: str) -> str:
        full = self.prefix + name
        named = {key.replace("_", "."): value for key, value in settings.items()}
        self.admin.create([TopicSpec(full, partitions, 1, named)])
        return full

    def write_in_transaction(self, topic: str, partition: int, count: int, *, commit: bool = True) -> None:
        """As a producer of somebody else's does; an offset without a record follows."""
        assert self._transact is not None
        self._transact(topic, partition, count, commit)

    def writer(self, **options: Any) -> Writer:
        self._writers.append(Writer(self.log, **options))
        return self._writers[-1]

    def probe(self, group: str | None = None, topics: Iterable[str] = ()) -> Probe:
        self._probes.append(Probe(self.log, group and self.prefix + group, topics))
        return self._probes[-1]

    def close(self) -> None:
        for probe in self._probes:
            probe.reader.close()
        for writer in self._writers:
            writer.appender.close(5.0)
        self.admin.close()
