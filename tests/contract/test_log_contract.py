"""What every log does, run on each implementation."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from threading import Event
from time import monotonic
from typing import Any, TypeVar

import pytest

from orchestrator.log.base import (
    Admin,
    AdminFailed,
    Appender,
    Committed,
    Delivery,
    Ends,
    Failure,
    Granted,
    Happening,
    Log,
    LogFull,
    Reader,
    ReadFailed,
    Record,
    Revoked,
    TopicPartition,
    TopicSpec,
)
from orchestrator.log.kafka import KafkaLog
from orchestrator.log.memory import MemoryLog

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


class World:
    """A log with its admin and one writer; closes what was opened."""

    def __init__(self, log: Log, prefix: str) -> None:
        self.log = log
        self.admin: Admin = log.admin()
        self.prefix = prefix
        self._writers: list[Writer] = []
        self._probes: list[Probe] = []

    def topic(self, name: str = "topic", partitions: int = 2, **settings: str) -> str:
        full = self.prefix + name
        named = {key.replace("_", "."): value for key, value in settings.items()}
        self.admin.create([TopicSpec(full, partitions, 1, named)])
        return full

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


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.broker)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "memory":
        world = World(MemoryLog(itertools.count(1_000).__next__), "m-")
    else:
        # A topic that does not exist is reported after this time.
        common = {"topic.metadata.propagation.max.ms": 1_000}
        world = World(KafkaLog(request.getfixturevalue("broker"), common=common), request.getfixturevalue("prefix"))
    yield world
    world.close()


# Appending


def test_every_append_has_one_delivery_in_order(world: World) -> None:
    topic, writer = world.topic(partitions=3), world.writer()
    for number in range(300):
        writer.appender.append(topic, number % 3, b"x", token=(number % 3, number // 3))
    deliveries = writer.deliveries(300)
    for partition in range(3):
        mine = [delivery for delivery in deliveries if delivery.token[0] == partition]
        assert [delivery.token[1] for delivery in mine] == list(range(100))
        assert [delivery.offset for delivery in mine] == list(range(100))
        assert {delivery.failure for delivery in mine} == {None}
    assert writer.appender.poll() == []


def test_pending_counts_what_was_not_polled(world: World) -> None:
    topic, writer = world.topic(), world.writer()
    assert writer.appender.pending == 0
    for _ in range(5):
        writer.appender.append(topic, 0, b"x", token=None)
    assert writer.appender.pending == 5
    writer.deliveries(5)
    assert writer.appender.pending == 0


def test_appender_is_bounded_and_takes_more_after_a_poll(world: World) -> None:
    topic, writer = world.topic(), world.writer(bound=20)
    for _ in range(20):
        writer.appender.append(topic, 0, b"x", token=None)
    with pytest.raises(LogFull):
        writer.appender.append(topic, 0, b"too many", token=None)
    writer.deliveries(20)
    assert writer.append(topic, 0).offset == 20


@pytest.mark.parametrize("value", [None, b"", b"\x00\xff", b"text"])
def test_keys_and_values_come_back(world: World, value: bytes | None) -> None:
    topic = world.topic()
    world.writer().append(topic, 1, value, key=value)
    probe = world.probe()
    probe.reader.assign(topic, 1, 0)
    record = probe.read(1)[0]
    assert (record.topic, record.partition, record.offset) == (topic, 1, 0)
    assert record.key == value
    assert record.value == value
    assert record.headers == ()


def test_headers_come_back_in_order_with_repeated_names(world: World) -> None:
    topic = world.topic()
    headers = (("b", b"1"), ("a", b""), ("b", b"\x00\xff"), ("näme", b"2"), ("", b"3"))
    world.writer().append(topic, 0, None, headers=headers)
    probe = world.probe()
    probe.reader.assign(topic, 0, 0)
    assert probe.read(1)[0].headers == headers


def test_headers_may_come_from_any_iterable(world: World) -> None:
    topic = world.topic()
    world.writer().append(topic, 0, None, headers=((name, b"1") for name in "ab"))
    probe = world.probe()
    probe.reader.assign(topic, 0, 0)
    assert probe.read(1)[0].headers == (("a", b"1"), ("b", b"1"))


def test_record_too_large_is_refused_and_does_not_land(world: World) -> None:
    topic, writer = world.topic(), world.writer()
    assert writer.append(topic, 0, bytes(2 << 20)).failure is Failure.TOO_LARGE
    assert writer.append(topic, 0, b"x", headers=[("h", bytes(2 << 20))]).failure is Failure.TOO_LARGE
    delivery = writer.append(topic, 0, bytes(900_000))
    assert (delivery.offset, delivery.failure) == (0, None)


def test_unknown_topic_or_partition_is_a_delivery(world: World) -> None:
    topic, writer = world.topic(partitions=2), world.writer()
    for unknown in ((topic, 2), (world.prefix + "none", 0)):
        delivery = writer.append(*unknown)
        assert (delivery.token, delivery.offset, delivery.failure) == ("one", None, Failure.UNKNOWN_TOPIC)
    writer.append(topic, 1)
    delivery = writer.append(topic, 2)
    assert (delivery.offset, delivery.failure) == (None, Failure.UNKNOWN_TOPIC)


@pytest.mark.parametrize("kind", ["LogAppendTime", "CreateTime"])
def test_delivery_and_record_agree_on_the_time(world: World, kind: str) -> None:
    topic = world.topic(message_timestamp_type=kind)
    deliveries = [world.writer().append(topic, 0) for _ in range(3)]
    probe = world.probe()
    probe.reader.assign(topic, 0, 0)
    times = [record.timestamp_ms for record in probe.read(3)]
    assert times == [delivery.timestamp_ms for delivery in deliveries]
    assert times == sorted(times)
    assert times[0] > 0


def test_closing_waits_for_what_was_queued(world: World) -> None:
    topic, writer = world.topic(), world.writer()
    for number in range(1_000):
        writer.appender.append(topic, 0, b"x", token=number)
    assert writer.appender.close(DEADLINE_S) == 0
    assert [delivery.token for delivery in writer.deliveries(1_000)] == list(range(1_000))
    assert writer.appender.close(0.0) == 0
    with pytest.raises(RuntimeError, match="closed"):
        writer.appender.append(topic, 0, b"x", token=None)


# Reading


def test_reads_from_the_offset_on_in_order(world: World) -> None:
    topic, writer = world.topic(partitions=2), world.writer()
    writer.fill(topic, 0, 700)
    writer.fill(topic, 1, 700)
    probe = world.probe()
    probe.reader.assign(topic, 0, 5)
    probe.reader.assign(topic, 1, 0)
    probe.read(1_395)
    assert [record.value for record in probe.records((topic, 0))] == [b"%d" % n for n in range(5, 700)]
    assert [record.offset for record in probe.records((topic, 1))] == list(range(700))
    writer.append(topic, 0, b"later")
    assert probe.read(1_396)[-1].value == b"later"


def test_reads_nothing_without_assignment(world: World) -> None:
    topic, writer = world.topic(), world.writer()
    writer.fill(topic, 0, 3)
    writer.fill(topic, 1, 3)
    probe = world.probe()
    probe.reader.assign(topic, 1, 0)
    assert {record.partition for record in probe.read(3)} == {1}


def test_assigned_at_the_end_reads_what_comes(world: World) -> None:
    topic, writer = world.topic(), world.writer()
    writer.fill(topic, 0, 3)
    probe = world.probe()
    probe.reader.assign(topic, 0, 3)
    writer.append(topic, 0, b"new")
    assert [record.offset for record in probe.read(1)] == [3]


def test_poll_keeps_its_limit(world: World) -> None:
    topic, writer = world.topic(), world.writer()
    writer.fill(topic, 0, 50)
    probe = world.probe()
    probe.reader.assign(topic, 0, 0)
    sizes = []

    def poll() -> None:
        happened = probe.reader.poll(7)
        sizes.append(len(happened))
        probe.happened += happened

    wait(probe.wake, poll, lambda: len(probe.happened) == 50)
    assert max(sizes) == 7
    assert [record.offset for record in probe.records()] == list(range(50))


def test_caller_that_is_slow_for_a_while_misses_nothing(world: World) -> None:
    topic, writer = world.topic(partitions=2), world.writer()
    for partition in range(2):
        writer.fill(topic, partition, 15_000)
    slow, quick = world.probe(), world.probe()
    for probe in (slow, quick):
        for partition in range(2):
            probe.reader.assign(topic, partition, 0)
    # While one reads all of it, the other holds as much ahead as it may.
    quick.read(30_000)
    slow.read(30_000)
    for probe in (slow, quick):
        for partition in range(2):
            assert [record.offset for record in probe.records((topic, partition))] == list(range(15_000))


@pytest.mark.parametrize("offset", [4, 1_000, -1, -2])
def test_outside_the_log_is_out_of_range_and_ends_the_assignment(world: World, offset: int) -> None:
    topic, writer = world.topic(), world.writer()
    writer.fill(topic, 0, 3)
    probe = world.probe()
    probe.reader.assign(topic, 0, offset)
    failed = probe.one(ReadFailed)
    assert (failed.topic, failed.partition, failed.failure) == (topic, 0, Failure.OUT_OF_RANGE)
    probe.reader.assign(topic, 0, 1)
    assert [record.offset for record in probe.read(2)] == [1, 2]


def test_trimmed_away_is_out_of_range(world: World) -> None:
    topic, writer = world.topic(), world.writer()
    writer.fill(topic, 0, 10)
    world.admin.trim({(topic, 0): 4})
    probe = world.probe()
    probe.reader.assign(topic, 0, 3)
    assert probe.one(ReadFailed).failure is Failure.OUT_OF_RANGE
    probe.reader.assign(topic, 0, 4)
    assert [record.offset for record in probe.read(6)] == [4, 5, 6, 7, 8, 9]


def test_failure_of_one_partition_leaves_the_others(world: World) -> None:
    topic, writer = world.topic(), world.writer()
    writer.fill(topic, 1, 3)
    probe = world.probe()
    probe.reader.assign(topic, 0, 100)
    probe.reader.assign(topic, 1, 0)
    probe.one(ReadFailed)
    writer.append(topic, 1)
    assert len(probe.read(4)) == 4


def test_unknown_partition_and_topic_stop_reading(world: World) -> None:
    topic = world.topic(partitions=1)
    probe = world.probe()
    unknown = {(topic, 1), (world.prefix + "none", 0)}
    for key in unknown:
        probe.reader.assign(*key, 0)
    probe.until(lambda: len(probe.all(ReadFailed)) == 2)
    assert {(failed.topic, failed.partition) for failed in probe.all(ReadFailed)} == unknown
    assert {failed.failure for failed in probe.all(ReadFailed)} == {Failure.UNKNOWN_TOPIC}


def test_paused_partition_delivers_nothing_until_resumed(world: World) -> None:
    topic, writer = world.topic(), world.writer()
    probe = world.probe()
    probe.reader.assign(topic, 0, 0)
    probe.reader.assign(topic, 1, 0)
    probe.reader.pause(topic, 0)
    writer.fill(topic, 0, 3)
    writer.fill(topic, 1, 3)
    assert {record.partition for record in probe.read(3)} == {1}
    probe.reader.resume(topic, 0)
    assert [record.offset for record in probe.read(3, (topic, 0))] == [0, 1, 2]


def test_pause_and_resume_lose_and_repeat_nothing(world: World) -> None:
    topic, writer = world.topic(partitions=1), world.writer()
    writer.fill(topic, 0, 2_000)
    probe = world.probe()
    probe.reader.assign(topic, 0, 0)
    chance = random.Random(3)
    while len(probe.records()) < 2_000:
        probe.reader.pause(topic, 0)
        probe.happened += probe.reader.poll(chance.randrange(1, 200))
        probe.reader.resume(topic, 0)
        probe.read(min(2_000, len(probe.records()) + chance.randrange(1, 200)))
    assert [record.offset for record in probe.records()] == list(range(2_000))


def test_pause_outlives_a_move_and_not_an_unassign(world: World) -> None:
    topic, writer = world.topic(), world.writer()
    writer.fill(topic, 0, 5)
    probe = world.probe()
    probe.reader.assign(topic, 1, 0)
    probe.reader.assign(topic, 0, 5)
    probe.reader.pause(topic, 0)
    probe.reader.assign(topic, 0, 2)
    writer.append(topic, 1)
    assert {record.partition for record in probe.read(1)} == {1}
    probe.reader.resume(topic, 0)
    assert [record.offset for record in probe.read(3, (topic, 0))] == [2, 3, 4]
    probe.happened.clear()
    probe.reader.pause(topic, 0)
    probe.reader.unassign(topic, 0)
    probe.reader.assign(topic, 0, 3)
    assert [record.offset for record in probe.read(2, (topic, 0))] == [3, 4]


def test_pausing_what_is_not_assigned_does_nothing(world: World) -> None:
    topic = world.topic()
    probe = world.probe()
    probe.reader.pause(topic, 0)
    probe.reader.resume(topic, 0)
    probe.reader.unassign(topic, 0)
    world.writer().fill(topic, 0, 1)
    probe.reader.assign(topic, 0, 0)
    assert len(probe.read(1)) == 1


def test_unassign_drops_what_was_fetched(world: World) -> None:
    topic, writer = world.topic(), world.writer()
    writer.fill(topic, 0, 1_000)
    probe = world.probe()
    probe.reader.assign(topic, 0, 0)
    wait(probe.wake, lambda: probe.happened.extend(probe.reader.poll(1)), lambda: len(probe.happened) > 0)
    probe.reader.unassign(topic, 0)
    before = len(probe.happened)
    probe.reader.assign(topic, 1, 0)
    writer.fill(topic, 1, 5)
    probe.read(5, (topic, 1))
    assert [record.partition for record in probe.records()[before:]] == [1] * 5


def test_moving_an_assignment_drops_what_was_fetched(world: World) -> None:
    topic, writer = world.topic(partitions=1), world.writer()
    writer.fill(topic, 0, 3_000)
    probe = world.probe()
    chance = random.Random(5)
    for _ in range(25):
        offset = chance.randrange(2_900)
        probe.reader.assign(topic, 0, offset)
        probe.happened.clear()
        count = chance.choice((1, 1, 40))
        read = [record.offset for record in probe.read(count)]
        assert read[:count] == list(range(offset, offset + count))
        assert read == list(range(offset, offset + len(read)))


def test_recreated_topic_is_out_of_range(world: World) -> None:
    topic, writer = world.topic(partitions=1), world.writer()
    writer.fill(topic, 0, 5)
    probe = world.probe()
    probe.reader.assign(topic, 0, 0)
    probe.read(5)
    world.admin.delete([topic])
    world.topic(partitions=1)
    # Meanwhile it may have been seen to be missing.
    probe.one(ReadFailed)
    probe.reader.assign(topic, 0, 5)
    assert probe.one(ReadFailed).failure in (Failure.OUT_OF_RANGE, Failure.UNKNOWN_TOPIC)


# Asking


def test_ends_are_those_after_the_question(world: World) -> None:
    topic, writer = world.topic(partitions=3), world.writer()
    probe = world.probe()
    for count in range(1, 10):
        offset = writer.append(topic, 1).offset
        probe.reader.ask_ends([(topic, 0), (topic, 1)], count)
        ends = probe.one(Ends)
        assert (ends.token, ends.failure) == (count, None)
        assert ends.offsets == {(topic, 0): 0, (topic, 1): (offset or 0) + 1}


def test_every_question_has_its_answer(world: World) -> None:
    topic = world.topic(partitions=3)
    probe = world.probe()
    for token in range(20):
        probe.reader.ask_ends([(topic, token % 3)], token)
    probe.until(lambda: len(probe.all(Ends)) >= 20)
    assert {ends.token: dict(ends.offsets) for ends in probe.all(Ends)} == {n: {(topic, n % 3): 0} for n in range(20)}


def test_ends_of_an_unknown_partition_fail_and_leave_it_out(world: World) -> None:
    topic = world.topic(partitions=1)
    probe = world.probe()
    probe.reader.ask_ends([(topic, 0), (topic, 7)], "some")
    ends = probe.one(Ends)
    assert (dict(ends.offsets), ends.failure) == ({(topic, 0): 0}, Failure.UNKNOWN_TOPIC)
    probe.reader.ask_ends([(world.prefix + "none", 0)], "none")
    ends = probe.one(Ends)
    assert (dict(ends.offsets), ends.failure) == ({}, Failure.UNKNOWN_TOPIC)


def test_without_a_group_nothing_is_committed(world: World) -> None:
    topic = world.topic()
    probe = world.probe()
    probe.reader.assign(topic, 0, 0)
    probe.reader.commit({(topic, 0): (0, "")}, "token")
    committed = probe.one(Committed)
    assert (committed.token, committed.failure) == ("token", Failure.NOT_OWNED)
    probe.reader.ask_committed([(topic, 0)], "asked")
    assert probe.one(Ends).failure is Failure.NOT_OWNED


# Belonging to a group


def test_single_member_is_granted_all_and_reads_nothing_yet(world: World) -> None:
    topic, other, writer = world.topic(partitions=4), world.topic("other", 4), world.writer()
    for partition in range(4):
        writer.fill(topic, partition, 3)
    probe = world.probe("group", [topic])
    probe.until(lambda: len(probe.owned()) == 4)
    assert probe.owned() == {(topic, partition) for partition in range(4)}
    probe.reader.assign(topic, 2, 1)
    probe.reader.assign(other, 2, 0)
    writer.fill(other, 2, 1)
    probe.read(3)
    assert {(record.topic, record.partition, record.offset) for record in probe.records()} == {
        (topic, 2, 1),
        (topic, 2, 2),
        (other, 2, 0),
    }


def test_subscribed_partition_is_assigned_only_while_granted(world: World) -> None:
    topic, other, writer = world.topic(partitions=1), world.topic("other"), world.writer()
    writer.fill(topic, 0, 3)
    first = world.probe("group", [topic])
    first.until(lambda: len(first.owned()) == 1)
    second = world.probe("group", [topic])
    second.reader.assign(topic, 0, 0)
    second.reader.assign(other, 0, 0)
    writer.fill(other, 0, 1)
    assert {record.topic for record in second.read(1)} == {other}


def test_committed_offsets_are_seen_by_who_asks(world: World) -> None:
    topic, other = world.topic(partitions=3), world.topic("other", 3)
    probe = world.probe("group", [topic])
    probe.until(lambda: len(probe.owned()) == 3)
    probe.reader.assign(other, 1, 0)
    probe.reader.commit({(topic, 0): (7, "7:abc"), (other, 1): (9, "")}, "first")
    committed = probe.one(Committed)
    assert (committed.token, committed.failure) == ("first", None)
    probe.reader.commit({(topic, 1): (1, "no token")})
    probe.reader.commit({(topic, 0): (8, "8:def")}, "second")
    assert probe.one(Committed).token == "second"
    probe.reader.ask_committed([(topic, 0), (topic, 1), (topic, 2), (other, 1)], "asked")
    ends = probe.one(Ends)
    assert (ends.token, ends.failure) == ("asked", None)
    assert ends.offsets == {(topic, 0): 8, (topic, 1): 1, (other, 1): 9}
    assert ends.metadata == {(topic, 0): "8:def", (topic, 1): "no token", (other, 1): ""}


def test_commit_of_what_is_not_owned_fails_as_a_whole(world: World) -> None:
    topic, other = world.topic(partitions=1), world.topic("other", 1)
    probe = world.probe("group", [topic])
    probe.until(lambda: len(probe.owned()) == 1)
    probe.reader.commit({(topic, 0): (1, ""), (other, 0): (1, "")}, "foreign")
    committed = probe.one(Committed)
    assert (committed.token, committed.failure) == ("foreign", Failure.NOT_OWNED)
    probe.reader.ask_committed([(topic, 0), (other, 0)], "asked")
    assert probe.one(Ends).offsets == {}


def test_positions_are_never_taken_from_the_group(world: World) -> None:
    topic, writer = world.topic(partitions=1), world.writer()
    writer.fill(topic, 0, 5)
    probe = world.probe("group", [topic])
    probe.until(lambda: len(probe.owned()) == 1)
    probe.reader.commit({(topic, 0): (4, "")}, "token")
    probe.one(Committed)
    probe.reader.assign(topic, 0, 2)
    assert [record.offset for record in probe.read(3)] == [2, 3, 4]


def split(first: Probe, second: Probe, partitions: int) -> None:
    """Waits until two members own all partitions between them, none of them all."""

    def done() -> bool:
        first.poll()
        second.poll()
        return (
            len(first.owned() | second.owned()) == partitions
            and not first.owned() & second.owned()
            and bool(first.owned())
            and bool(second.owned())
        )

    first.until(done)


def test_two_members_split_the_partitions_and_inherit_them(world: World) -> None:
    topic, writer = world.topic(partitions=4), world.writer()
    first = world.probe("group", [topic])
    first.until(lambda: len(first.owned()) == 4)
    for partition in range(4):
        first.reader.assign(topic, partition, 0)
    second = world.probe("group", [topic])
    split(first, second, 4)
    assert len(first.owned()) == len(second.owned()) == 2
    assert all(not revoked.lost for revoked in first.all(Revoked))
    # What was revoked is no longer read, what stayed is, without a break.
    for partition in range(4):
        writer.fill(topic, partition, 2)
    first.read(4)
    assert {(record.topic, record.partition) for record in first.records()} == first.owned()
    second.reader.close()
    first.until(lambda: len(first.owned()) == 4)


def test_revoked_partitions_records_do_not_follow(world: World) -> None:
    topic, other, writer = world.topic(partitions=2), world.topic("other", 1), world.writer()
    for partition in range(2):
        writer.fill(topic, partition, 500)
    first = world.probe("group", [topic])
    first.until(lambda: len(first.owned()) == 2)
    for partition in range(2):
        first.reader.assign(topic, partition, 0)
    second = world.probe("group", [topic])

    def poll() -> None:
        second.poll()
        for _ in range(9):
            first.happened += first.reader.poll(7)

    wait(first.wake, poll, lambda: bool(first.all(Revoked)))
    first.reader.assign(other, 0, 0)
    writer.fill(other, 0, 1)
    first.read(1, (other, 0))
    revoked = first.all(Revoked)[0]
    later = first.happened[first.happened.index(revoked) :]
    assert not {(record.topic, record.partition) for record in later if isinstance(record, Record)} & set(
        revoked.partitions
    )


def test_assignments_of_topics_not_subscribed_survive_a_rebalance(world: World) -> None:
    topic, other, writer = world.topic(partitions=2), world.topic("other", 2), world.writer()
    first = world.probe("group", [topic])
    first.until(lambda: len(first.owned()) == 2)
    for partition in range(2):
        first.reader.assign(other, partition, 0)
        writer.fill(other, partition, 3)
    first.read(6)
    second = world.probe("group", [topic])
    split(first, second, 2)
    for partition in range(2):
        writer.fill(other, partition, 3)
    first.read(12)
    for partition in range(2):
        assert [record.offset for record in first.records((other, partition))] == list(range(6))
    for partition in range(2):
        first.reader.unassign(other, partition)


def test_closed_reader_says_nothing(world: World) -> None:
    topic = world.topic(partitions=1)
    world.writer().fill(topic, 0, 3)
    probe = world.probe("group", [topic])
    probe.until(lambda: len(probe.owned()) == 1)
    probe.reader.assign(topic, 0, 0)
    probe.reader.close()
    assert probe.reader.poll() == []
    probe.reader.close()


# Administration


def test_describe_tells_what_there_is(world: World) -> None:
    topic = world.topic(partitions=3, retention_ms="-1", message_timestamp_type="LogAppendTime")
    states = world.admin.describe([topic, world.prefix + "none"])
    assert set(states) == {topic}
    state = states[topic]
    assert (state.name, state.partitions, state.replication) == (topic, 3, 1)
    assert state.topic_id
    assert state.settings["retention.ms"] == "-1"
    assert state.settings["message.timestamp.type"] == "LogAppendTime"
    assert state.settings["cleanup.policy"] == "delete"
    assert world.admin.describe([]) == {}


def test_creating_what_exists_leaves_it(world: World) -> None:
    topic = world.topic(partitions=2)
    before = world.admin.describe([topic])
    world.admin.create([TopicSpec(topic, 5, 1, {}), TopicSpec(world.prefix + "new", 1, 1, {})])
    assert world.admin.describe([topic]) == before
    assert world.prefix + "new" in world.admin.describe([world.prefix + "new"])
    world.admin.create([])


def test_recreated_topic_has_another_id(world: World) -> None:
    topic = world.topic()
    before = world.admin.describe([topic])[topic].topic_id
    world.admin.delete([topic, world.prefix + "none"])
    assert world.admin.describe([topic]) == {}
    world.topic()
    assert world.admin.describe([topic])[topic].topic_id != before


def test_trim_deletes_below(world: World) -> None:
    topic, writer = world.topic(), world.writer()
    writer.fill(topic, 0, 5)
    assert world.admin.ends([(topic, 0), (topic, 1)]) == {(topic, 0): (0, 5), (topic, 1): (0, 0)}
    world.admin.trim({(topic, 0): 3})
    assert world.admin.ends([(topic, 0)]) == {(topic, 0): (3, 5)}
    world.admin.trim({(topic, 0): 5})
    assert world.admin.ends([(topic, 0)]) == {(topic, 0): (5, 5)}
    assert writer.append(topic, 0).offset == 5
    world.admin.trim({})


@pytest.mark.parametrize("offset", [6, -1])
def test_trim_outside_the_log_fails(world: World, offset: int) -> None:
    topic, writer = world.topic(), world.writer()
    writer.fill(topic, 0, 5)
    with pytest.raises(AdminFailed) as caught:
        world.admin.trim({(topic, 0): offset})
    assert caught.value.failure is Failure.OUT_OF_RANGE
    assert world.admin.ends([(topic, 0)]) == {(topic, 0): (0, 5)}


def test_ends_of_an_unknown_partition_raise(world: World) -> None:
    topic = world.topic(partitions=1)
    for unknown in ((topic, 1), (world.prefix + "none", 0)):
        with pytest.raises(AdminFailed) as caught:
            world.admin.ends([unknown])
        assert caught.value.failure is Failure.UNKNOWN_TOPIC
    assert world.admin.ends([]) == {}


def test_new_topic_can_be_written_to_and_read_at_once(world: World) -> None:
    writer = world.writer()
    for number in range(5):
        topic = world.topic(f"new-{number}", partitions=3)
        assert writer.append(topic, 2).offset == 0
