"""What a log must say when brokers answer with errors that a real one seldom gives: see `orchestrator.log.base`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from threading import Event
from typing import Any

import pytest
from confluent_kafka import KafkaError

from orchestrator.log.base import (
    AdminFailed,
    Committed,
    Delivery,
    Ends,
    Failure,
    Granted,
    ReadFailed,
    Revoked,
    TopicPartition,
)
from orchestrator.log.kafka import KafkaLog
from tests.contract.log_world import Probe, World, Writer, wait
from tests.scripted_cluster import Api, ScriptedCluster, scripted_cluster

LEADER, COORDINATOR, COORDINATORS = 2, 3, range(4, 12)
"""Brokers that lead partitions and coordinate groups: what is pushed to one of them is for nobody else."""
REFUSED = (Failure.UNKNOWN_TOPIC, Failure.UNAUTHORIZED, Failure.TOO_LARGE)
"""Failures that say for sure that a record is not in the log."""

RETRIED = (
    "NOT_ENOUGH_REPLICAS",
    "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
    "NOT_LEADER_FOR_PARTITION",
    "LEADER_NOT_AVAILABLE",
    "REQUEST_TIMED_OUT",
    "UNKNOWN_TOPIC_OR_PART",
    "UNKNOWN_PRODUCER_ID",
    "KAFKA_STORAGE_ERROR",
    "INVALID_MSG",
)
UNCLEAR = ("INVALID_REQUIRED_ACKS", "INVALID_PRODUCER_EPOCH", "FENCED_LEADER_EPOCH", "INVALID_TIMESTAMP", "UNKNOWN")
TRANSIENT = (
    "NOT_LEADER_FOR_PARTITION",
    "FENCED_LEADER_EPOCH",
    "UNKNOWN_LEADER_EPOCH",
    "KAFKA_STORAGE_ERROR",
    "UNKNOWN_TOPIC_OR_PART",
    "REPLICA_NOT_AVAILABLE",
    "OFFSET_NOT_AVAILABLE",
    "INVALID_MSG",
    "UNKNOWN",
)


def code(name: str) -> int:
    number: int = getattr(KafkaError, name)
    return number


@pytest.fixture(scope="module")
def cluster() -> Iterator[ScriptedCluster]:
    with scripted_cluster(brokers=11) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def world(cluster: ScriptedCluster) -> Iterator[World]:
    consumer = {"session.timeout.ms": 1_500, "heartbeat.interval.ms": 100}
    world = World(KafkaLog(cluster.bootstrap_servers, consumer=consumer), "m-")
    yield world
    world.close()


@pytest.fixture(scope="module")
def writer(world: World) -> Writer:
    """What it is given at once leaves as one batch; of two, these brokers take the second where the first fails."""
    return world.writer(linger_ms=20)


@pytest.fixture(scope="module")
def probe(world: World) -> Probe:
    return world.probe()


@pytest.fixture(scope="module")
def places(cluster: ScriptedCluster) -> Iterator[TopicPartition]:
    """Partitions that are led already: to find a new topic's leader takes a producer a second."""
    topic = cluster.topic("many", partitions=60, leader=LEADER)
    return ((topic, number) for number in range(60))


@pytest.fixture
def place(places: Iterator[TopicPartition]) -> TopicPartition:
    """A partition that nobody else uses."""
    return next(places)


@pytest.fixture
def topic(cluster: ScriptedCluster, prefix: str) -> str:
    """A topic with one partition, to be subscribed to."""
    return cluster.topic(prefix + "topic", leader=LEADER)


def values(probe: Probe, place: TopicPartition, count: int) -> list[bytes | None]:
    """What the log holds, which are at least so many records."""
    probe.reader.ask_ends([place], place)
    probe.until(lambda: any(ends.token == place for ends in probe.all(Ends)))
    end = next(ends for ends in probe.all(Ends) if ends.token == place).offsets[place]
    assert end >= count
    probe.reader.assign(*place, 0)
    probe.until(lambda: len(probe.records(place)) >= end)
    probe.reader.unassign(*place)
    records = probe.records(place)
    assert [record.offset for record in records] == list(range(end))
    return [record.value for record in records]


class Sent:
    """Records of one partition, each with a value of its own, and what was said of them."""

    def __init__(self, writer: Writer, place: TopicPartition) -> None:
        self.writer = writer
        self.place = place
        self.said: list[Delivery] = []
        self.count = 0

    def send(self, count: int) -> list[Delivery]:
        """As one run; what is said of them, in the order of the records."""
        appender: Any = self.writer.appender
        run = [(b"%d" % number, number) for number in range(self.count, self.count + count)]
        self.count += count
        assert appender.append_run(*self.place, run) == count
        said = self.writer.deliveries(count)
        assert appender.pending == 0
        self.said += said
        return sorted(said, key=lambda delivery: int(delivery.token))

    def check(self, probe: Probe) -> list[bytes | None]:
        """The contract: one report each; placed records are there, refused ones are not, none is there twice."""
        assert sorted(delivery.token for delivery in self.said) == list(range(self.count))
        placed = {d.token: d.offset for d in self.said if d.failure is None and d.offset is not None}
        found = values(probe, self.place, len(placed))
        for token, offset in placed.items():
            assert found[offset] == b"%d" % token
        assert list(placed.values()) == sorted(placed.values())
        refused = {b"%d" % delivery.token for delivery in self.said if delivery.failure in REFUSED}
        assert not refused & set(found)
        assert len(set(found)) == len(found)
        return found


@pytest.mark.parametrize("name", RETRIED)
def test_what_can_be_tried_again_lands_once(
    name: str, cluster: ScriptedCluster, writer: Writer, probe: Probe, place: TopicPartition
) -> None:
    sent = Sent(writer, place)
    sent.send(1)
    cluster.err(Api.PRODUCE, code(name), code(name), broker=LEADER)
    assert [(d.offset, d.failure) for d in sent.send(3)] == [(1, None), (2, None), (3, None)]
    assert cluster.left(Api.PRODUCE, LEADER) == 0
    assert sent.check(probe) == [b"0", b"1", b"2", b"3"]


@pytest.mark.parametrize("name", UNCLEAR)
def test_of_an_unclear_error_nothing_is_promised(
    name: str, cluster: ScriptedCluster, writer: Writer, probe: Probe, place: TopicPartition
) -> None:
    sent = Sent(writer, place)
    sent.send(1)
    cluster.err(Api.PRODUCE, code(name), broker=LEADER)
    assert {delivery.failure for delivery in sent.send(3)} <= {None, Failure.UNKNOWN_OUTCOME}
    assert {delivery.failure for delivery in sent.said} >= {Failure.UNKNOWN_OUTCOME}
    assert sent.send(1)[0].failure is None
    sent.check(probe)


@pytest.mark.parametrize(
    ("name", "failure"),
    [
        ("TOPIC_AUTHORIZATION_FAILED", Failure.UNAUTHORIZED),
        ("CLUSTER_AUTHORIZATION_FAILED", Failure.UNAUTHORIZED),
        ("MSG_SIZE_TOO_LARGE", Failure.TOO_LARGE),
    ],
)
def test_what_is_refused_is_not_there(
    name: str, failure: Failure, cluster: ScriptedCluster, writer: Writer, probe: Probe, place: TopicPartition
) -> None:
    sent = Sent(writer, place)
    sent.send(1)
    cluster.err(Api.PRODUCE, code(name), broker=LEADER)
    assert [delivery.failure for delivery in sent.send(3)] == [failure] * 3
    # A topic that was forbidden stays so until the library has looked again.
    wait(Event(), lambda: None, lambda: sent.send(1)[0].failure is None)
    assert {delivery.failure for delivery in sent.said} == {None, failure}
    sent.check(probe)


def test_a_repeated_sequence_has_no_offset(
    cluster: ScriptedCluster, writer: Writer, probe: Probe, place: TopicPartition
) -> None:
    """The library counts a batch's offsets on from the one that is missing: 0 for the second record, and so on."""
    sent = Sent(writer, place)
    sent.send(4)
    cluster.err(Api.PRODUCE, code("DUPLICATE_SEQUENCE_NUMBER"), broker=LEADER)
    assert [(d.offset, d.failure) for d in sent.send(3)] == [(None, None)] * 3
    assert [(d.offset, d.failure) for d in sent.send(2)] == [(4, None), (5, None)]
    sent.check(probe)


def test_what_follows_a_repeated_sequence_has_its_offset(
    cluster: ScriptedCluster, writer: Writer, probe: Probe, place: TopicPartition
) -> None:
    """Also where it is the very one that the library would have counted."""
    sent = Sent(writer, place)
    cluster.err(Api.PRODUCE, code("DUPLICATE_SEQUENCE_NUMBER"), broker=LEADER)
    assert [(d.offset, d.failure) for d in sent.send(1)] == [(None, None)]
    assert [(d.offset, d.failure) for d in sent.send(1)] == [(0, None)]
    sent.check(probe)


def test_a_broken_sequence_ends_the_producer(
    cluster: ScriptedCluster, world: World, probe: Probe, place: TopicPartition
) -> None:
    sent = Sent(world.writer(linger_ms=20), place)
    sent.send(1)
    cluster.err(Api.PRODUCE, code("OUT_OF_ORDER_SEQUENCE_NUMBER"), broker=LEADER)
    assert {delivery.failure for delivery in sent.send(2)} <= {Failure.UNKNOWN_OUTCOME, Failure.FATAL}
    assert [delivery.failure for delivery in sent.send(2)] == [Failure.FATAL] * 2
    assert sent.check(probe) == [b"0"]


def test_what_expires_here_may_land_later(
    cluster: ScriptedCluster, world: World, probe: Probe, place: TopicPartition
) -> None:
    """And it is no obstacle for what comes after it."""
    writer = world.writer(delivery_timeout_ms=300)
    sent = Sent(writer, place)
    sent.send(1)
    cluster.err(Api.PRODUCE, 0, broker=LEADER, rtt_ms=1_500)
    assert [delivery.failure for delivery in sent.send(1)] == [Failure.UNKNOWN_OUTCOME]
    wait(Event(), lambda: None, lambda: sent.send(1)[0].failure is None)
    assert b"1" in sent.check(probe)


def test_leaders_move_while_records_are_written_and_read(cluster: ScriptedCluster, world: World, prefix: str) -> None:
    topic = cluster.topic(prefix + "moving", leader=1)
    writer, reading = world.writer(), world.probe()
    reading.reader.assign(topic, 0, 0)
    said: list[Delivery] = []
    for number in range(60):
        if number % 10 == 5:
            cluster.lead(topic, 0, 1 + number // 10 % 3)
        writer.appender.append(topic, 0, b"%d" % number, token=number)
        said += writer.appender.poll()
    said += writer.deliveries(60 - len(said))
    assert [(d.token, d.offset, d.failure) for d in said] == [(n, n, None) for n in range(60)]
    assert [record.value for record in reading.read(60)] == [b"%d" % number for number in range(60)]
    assert not reading.all(ReadFailed)


def test_a_broker_goes_and_comes_back(cluster: ScriptedCluster, world: World, prefix: str) -> None:
    topic = cluster.topic(prefix + "down", leader=1)
    sent, reading = Sent(world.writer(), (topic, 0)), world.probe()
    reading.reader.assign(topic, 0, 0)
    sent.send(2)
    reading.read(2)
    cluster.take_down(1)
    appender: Any = sent.writer.appender
    appender.append_run(topic, 0, [(b"2", 2), (b"3", 3)])
    cluster.bring_up(1)
    assert [(d.token, d.offset, d.failure) for d in sent.writer.deliveries(2)] == [(2, 2, None), (3, 3, None)]
    assert [record.value for record in reading.read(4)] == [b"0", b"1", b"2", b"3"]
    assert not reading.all(ReadFailed)


# Reading


@pytest.mark.parametrize("name", TRANSIENT)
def test_reading_goes_on_behind_an_error(
    name: str, cluster: ScriptedCluster, writer: Writer, world: World, place: TopicPartition
) -> None:
    Sent(writer, place).send(3)
    cluster.err(Api.FETCH, code(name), broker=LEADER)
    reading = world.probe()
    reading.reader.assign(*place, 0)
    assert [record.offset for record in reading.read(3)] == [0, 1, 2]
    assert cluster.left(Api.FETCH, LEADER) == 0
    Sent(writer, place).send(1)
    assert reading.read(4)[-1].offset == 3
    assert not reading.all(ReadFailed)
    reading.reader.unassign(*place)


@pytest.mark.parametrize(
    ("name", "failure"),
    [("OFFSET_OUT_OF_RANGE", Failure.OUT_OF_RANGE), ("TOPIC_AUTHORIZATION_FAILED", Failure.UNAUTHORIZED)],
)
def test_reading_stops_with_a_reason(
    name: str, failure: Failure, cluster: ScriptedCluster, writer: Writer, world: World, place: TopicPartition
) -> None:
    Sent(writer, place).send(3)
    cluster.err(Api.FETCH, code(name), broker=LEADER)
    reading = world.probe()
    reading.reader.assign(*place, 0)
    failed = reading.one(ReadFailed)
    assert (failed.topic, failed.partition, failed.failure) == (*place, failure)
    assert not reading.records()
    reading.reader.assign(*place, 1)
    assert [record.offset for record in reading.read(2)] == [1, 2]
    reading.reader.unassign(*place)


ASKED_IN_VAIN = (
    "LEADER_NOT_AVAILABLE",
    "NOT_LEADER_FOR_PARTITION",
    "FENCED_LEADER_EPOCH",
    "KAFKA_STORAGE_ERROR",
    "REQUEST_TIMED_OUT",
    "TOPIC_AUTHORIZATION_FAILED",
    "UNKNOWN_TOPIC_OR_PART",
    "UNKNOWN",
)


@pytest.mark.parametrize("name", ASKED_IN_VAIN)
def test_ends_are_right_or_failed(
    name: str, cluster: ScriptedCluster, writer: Writer, world: World, place: TopicPartition
) -> None:
    """One answer for each question, and no error is taken for an empty log."""
    Sent(writer, place).send(3)
    probe = world.probe()
    cluster.err(Api.LIST_OFFSETS, code(name), broker=LEADER)
    for number in range(2):
        probe.reader.ask_ends([place], number)
        probe.until(lambda: bool(probe.all(Ends)))
        answer = probe.one(Ends)
        assert answer.token == number
        assert answer.offsets == ({} if answer.failure is not None else {place: 3})
    assert answer.failure is None
    cluster.err(Api.LIST_OFFSETS, code(name), broker=LEADER)
    with suppress(AdminFailed):
        assert world.admin.ends([place], 2.0) == {place: (0, 3)}
    assert world.admin.ends([place], 2.0) == {place: (0, 3)}


# Groups


class Member:
    """A member of a group of its own, which owns the one partition there is."""

    def __init__(self, cluster: ScriptedCluster, world: World, topic: str, coordinator: int = COORDINATOR) -> None:
        self.place = (topic, 0)
        cluster.coordinate(f"{world.prefix}{topic}", coordinator)
        self.probe = world.probe(topic, [topic])

    def own(self) -> None:
        self.probe.until(lambda: self.probe.owned() == {self.place})

    def commit(self, offset: int) -> Committed:
        token = object()
        self.probe.reader.commit({self.place: (offset, "m")}, token)
        answer = self.probe.one(Committed)
        assert answer.token is token
        return answer

    def committed(self) -> int | None:
        while True:
            self.probe.reader.ask_committed([self.place], None)
            answer = self.probe.one(Ends)
            if answer.failure is None:
                return answer.offsets.get(self.place)

    def close(self) -> None:
        """Leaves, so that it takes no error that is for another."""
        self.probe.reader.close()


@pytest.mark.parametrize(
    ("name", "failures"),
    [
        ("ILLEGAL_GENERATION", {Failure.NOT_OWNED}),
        ("UNKNOWN_MEMBER_ID", {Failure.NOT_OWNED}),
        ("REBALANCE_IN_PROGRESS", {Failure.UNKNOWN_OUTCOME}),
        ("GROUP_AUTHORIZATION_FAILED", {Failure.UNAUTHORIZED}),
        ("COORDINATOR_NOT_AVAILABLE", {None, Failure.UNKNOWN_OUTCOME}),
        ("COORDINATOR_LOAD_IN_PROGRESS", {None, Failure.UNKNOWN_OUTCOME}),
        ("NOT_COORDINATOR", {None, Failure.UNKNOWN_OUTCOME}),
    ],
)
def test_a_commit_is_answered_once(
    name: str, failures: set[Failure | None], cluster: ScriptedCluster, world: World, topic: str
) -> None:
    with closing(Member(cluster, world, topic)) as member:
        member.own()
        assert member.commit(1).failure is None
        cluster.err(Api.OFFSET_COMMIT, code(name), broker=COORDINATOR)
        answer = member.commit(2)
        assert answer.failure in failures
        assert member.committed() == (2 if answer.failure is None else 1)
        wait(Event(), member.probe.poll, lambda: member.commit(3).failure is None)
        assert member.committed() == 3


@pytest.mark.parametrize(
    "name", ["NOT_COORDINATOR", "COORDINATOR_NOT_AVAILABLE", "COORDINATOR_LOAD_IN_PROGRESS", "REQUEST_TIMED_OUT"]
)
def test_what_another_group_has_committed_is_told_wherever_its_coordinator_goes(
    name: str, cluster: ScriptedCluster, world: World, topic: str
) -> None:
    """And the process lives: librdkafka's administrative client dereferences nothing at the first two."""
    with closing(Member(cluster, world, topic)) as member:
        member.own()
        assert member.commit(7).failure is None
    group, place = f"{world.prefix}{topic}", (topic, 0)
    for errors in (1, 3):
        cluster.err(Api.OFFSET_FETCH, *[code(name)] * errors, broker=COORDINATOR)
        assert world.admin.committed(group, [place]) == {place: 7}
        assert cluster.left(Api.OFFSET_FETCH, COORDINATOR) == 0


@pytest.mark.parametrize("name", ["NOT_COORDINATOR", "COORDINATOR_NOT_AVAILABLE", "UNKNOWN"])
def test_a_coordinator_that_never_answers_fails_the_asking(
    name: str, cluster: ScriptedCluster, world: World, topic: str
) -> None:
    group, place = f"{world.prefix}{topic}", (topic, 0)
    cluster.coordinate(group, COORDINATOR)
    cluster.err(Api.OFFSET_FETCH, *[code(name)] * 20, broker=COORDINATOR)
    with pytest.raises(AdminFailed, match=f"{group}: ") as failed:
        world.admin.committed(group, [place], 0.2)
    assert failed.value.failure is Failure.UNKNOWN_OUTCOME
    while cluster.left(Api.OFFSET_FETCH, COORDINATOR):
        with suppress(AdminFailed):
            world.admin.committed(group, [place], 0.2)
    assert world.admin.committed(group, [place]) == {}


def test_who_may_not_see_a_topic_is_told_so_and_not_of_the_group(
    cluster: ScriptedCluster, world: World, topic: str
) -> None:
    group = f"{world.prefix}{topic}"
    cluster.coordinate(group, COORDINATOR)
    cluster.err(Api.OFFSET_FETCH, code("TOPIC_AUTHORIZATION_FAILED"), broker=COORDINATOR)
    with pytest.raises(AdminFailed, match=f"needs Describe on topic {topic}, see") as failed:
        world.admin.committed(group, [(topic, 0)])
    assert failed.value.failure is Failure.UNAUTHORIZED


def test_who_may_not_see_a_group_is_told_so(cluster: ScriptedCluster, world: World, topic: str) -> None:
    group = f"{world.prefix}{topic}"
    cluster.coordinate(group, COORDINATOR)
    cluster.err(Api.FIND_COORDINATOR, *[code("GROUP_AUTHORIZATION_FAILED")] * 20)
    with pytest.raises(AdminFailed, match=f"needs Describe on group {group}, see") as failed:
        world.admin.committed(group, [(topic, 0)], 3_600.0)
    assert failed.value.failure is Failure.UNAUTHORIZED
    cluster.forgive(Api.FIND_COORDINATOR)
    assert world.admin.committed(group, [(topic, 0)]) == {}


def test_groups_are_joined_behind_errors(cluster: ScriptedCluster, world: World, prefix: str) -> None:
    """Each at a coordinator of its own."""
    errors = [
        (Api.JOIN_GROUP, "COORDINATOR_LOAD_IN_PROGRESS"),
        (Api.JOIN_GROUP, "UNKNOWN_MEMBER_ID"),
        (Api.JOIN_GROUP, "NOT_COORDINATOR"),
        (Api.SYNC_GROUP, "REBALANCE_IN_PROGRESS"),
        (Api.SYNC_GROUP, "UNKNOWN_MEMBER_ID"),
        (Api.SYNC_GROUP, "ILLEGAL_GENERATION"),
        (Api.OFFSET_FETCH, "NOT_COORDINATOR"),
        (Api.API_VERSIONS, "REQUEST_TIMED_OUT"),
    ]
    cluster.err(Api.FIND_COORDINATOR, code("COORDINATOR_NOT_AVAILABLE"), code("NOT_COORDINATOR"))
    members = []
    for (api, name), coordinator in zip(errors, COORDINATORS, strict=True):
        cluster.err(api, code(name), broker=coordinator)
        topic = cluster.topic(f"{prefix}{api.name}-{name}", leader=LEADER)
        members.append(Member(cluster, world, topic, coordinator))
    for member in members:
        member.own()
        member.close()


@pytest.mark.parametrize(
    "name", ["ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID", "REBALANCE_IN_PROGRESS", "NOT_COORDINATOR"]
)
def test_a_member_that_is_sent_away_is_told_and_comes_back(
    name: str, cluster: ScriptedCluster, world: World, writer: Writer, topic: str
) -> None:
    Sent(writer, (topic, 0)).send(1)
    with closing(Member(cluster, world, topic)) as member:
        member.own()
        member.probe.reader.assign(topic, 0, 0)
        member.probe.read(1)
        cluster.err(Api.HEARTBEAT, code(name), broker=COORDINATOR)
        member.probe.until(lambda: cluster.left(Api.HEARTBEAT, COORDINATOR) == 0)
        if name in ("ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID"):
            assert member.probe.one(Revoked).lost
            member.probe.until(lambda: len(member.probe.all(Granted)) == 2)
            member.probe.reader.assign(topic, 0, 1)
        wait(Event(), member.probe.poll, lambda: member.commit(1).failure is None)
        Sent(writer, (topic, 0)).send(1)
        assert [record.offset for record in member.probe.read(2, (topic, 0))] == [0, 1]


def test_who_may_not_join_is_told(cluster: ScriptedCluster, world: World, topic: str) -> None:
    cluster.err(Api.JOIN_GROUP, code("GROUP_AUTHORIZATION_FAILED"), broker=COORDINATOR)
    with closing(Member(cluster, world, topic)) as member:
        failed = member.probe.one(ReadFailed)
    assert (failed.partition, failed.failure) == (-1, Failure.UNAUTHORIZED)
