"""What every log does, run on each implementation: appending and reading."""

from __future__ import annotations

import random

import pytest

from orchestrator.log.base import Failure, LogFull, ReadFailed
from tests.contract.log_world import DEADLINE_S, World, wait

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


def test_a_run_is_appended_in_its_order_between_single_records(world: World) -> None:
    topic, writer = world.topic(), world.writer()
    writer.appender.append(topic, 1, b"a", token="a")
    assert writer.appender.append_run(topic, 1, [(b"b", "b"), (None, "c"), (b"", "d")]) == 3
    writer.appender.append(topic, 1, b"e", token="e")
    assert writer.appender.append_run(topic, 1, []) == 0
    assert [(each.token, each.offset) for each in writer.deliveries(5)] == [(t, n) for n, t in enumerate("abcde")]
    probe = world.probe()
    probe.reader.assign(topic, 1, 0)
    records = probe.read(5)
    assert [(record.value, record.key, record.headers) for record in records] == [
        (value, None, ()) for value in (b"a", b"b", None, b"", b"e")
    ]


def test_a_run_is_taken_as_far_as_there_is_room(world: World) -> None:
    topic, writer = world.topic(), world.writer(bound=4)
    run = [(b"%d" % number, number) for number in range(6)]
    assert writer.appender.append_run(topic, 0, run) == 4
    assert (writer.appender.append_run(topic, 0, run[4:]), writer.appender.pending) == (0, 4)
    assert [delivery.token for delivery in writer.deliveries(4)] == [0, 1, 2, 3]
    assert writer.appender.append_run(topic, 0, run[4:]) == 2
    assert [(delivery.token, delivery.offset) for delivery in writer.deliveries(2)] == [(4, 4), (5, 5)]


def test_a_record_of_a_run_that_is_refused_leaves_the_others(world: World) -> None:
    topic, writer = world.topic(max_message_bytes="1000"), world.writer()
    assert writer.append(topic, 0).offset == 0
    sizes = (10, 6_000_000, 20)
    assert writer.appender.append_run(topic, 0, [(bytes(size), size) for size in sizes]) == 3
    found = {delivery.token: delivery for delivery in writer.deliveries(3)}
    assert found[6_000_000].failure is Failure.TOO_LARGE
    assert [found[size].offset for size in (10, 20)] == [1, 2]


def test_a_run_for_an_unknown_partition_is_so_many_deliveries(world: World) -> None:
    topic, writer = world.topic(partitions=1), world.writer()
    assert writer.append(topic, 0).failure is None
    assert writer.appender.append_run(topic, 7, [(b"x", 0), (b"y", 1)]) == 2
    assert [delivery.failure for delivery in writer.deliveries(2)] == [Failure.UNKNOWN_TOPIC] * 2


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


def test_a_topic_may_take_larger_records_than_others(world: World) -> None:
    topic, writer = world.topic(max_message_bytes="4194304"), world.writer()
    sizes = [10, 2 << 20, 10, 4_000_000, 10]
    for size in sizes:
        writer.appender.append(topic, 0, bytes(size), token=size)
    assert [(delivery.token, delivery.failure) for delivery in writer.deliveries(5)] == [(size, None) for size in sizes]
    probe = world.probe()
    probe.reader.assign(topic, 0, 0)
    assert [len(record.value or b"") for record in probe.read(5)] == sizes


def test_small_records_do_not_share_the_refusal_of_a_large_one(world: World) -> None:
    topic, writer = world.topic(max_message_bytes="1000512"), world.writer()
    sizes = [300_000, 300_000, 300_000, 300_000, 10, 2 << 20, 10, 999_000]
    for size in sizes:
        writer.appender.append(topic, 0, bytes(size), token=size)
    refused = [delivery.token for delivery in writer.deliveries(len(sizes)) if delivery.failure is Failure.TOO_LARGE]
    assert refused == [2 << 20]


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


def test_topic_that_was_missing_is_written_and_read_once_it_is_there(world: World) -> None:
    topic, writer, probe = world.prefix + "topic", world.writer(), world.probe()
    assert writer.append(topic, 0).failure is Failure.UNKNOWN_TOPIC
    probe.reader.assign(topic, 0, 0)
    assert probe.one(ReadFailed).failure is Failure.UNKNOWN_TOPIC
    world.topic()
    # It may be said to be missing a little longer.
    deliveries = [writer.append(topic, 0)]
    while deliveries[-1].failure is Failure.UNKNOWN_TOPIC:
        deliveries.append(writer.append(topic, 0))
    assert (deliveries[-1].offset, deliveries[-1].failure) == (0, None)
    probe.reader.assign(topic, 0, 0)
    assert probe.read(1)[0].offset == 0


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
