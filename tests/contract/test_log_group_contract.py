"""What every log does, run on each implementation: asking for offsets, groups, administration."""

from __future__ import annotations

import pytest

from orchestrator.log.base import AdminFailed, Committed, Ends, Failure, Record, Revoked, TopicSpec
from tests.contract.log_world import Probe, World, wait

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


def test_what_was_missing_is_found_when_it_is_there(world: World) -> None:
    topic = world.prefix + "topic"
    probe = world.probe()
    for _ in range(3):
        probe.reader.ask_ends([(topic, 0)], "before")
        assert probe.one(Ends).failure is Failure.UNKNOWN_TOPIC
        with pytest.raises(AdminFailed):
            world.admin.ends([(topic, 0)])
    world.topic()
    world.writer().fill(topic, 0, 1)
    assert world.admin.ends([(topic, 0)]) == {(topic, 0): (0, 1)}
    probe.reader.ask_ends([(topic, 0)], "after")
    assert probe.one(Ends).offsets == {(topic, 0): 1}


def test_starts_are_told_as_ends_are(world: World) -> None:
    topic = world.topic()
    world.writer().fill(topic, 0, 5)
    world.admin.trim({(topic, 0): 3})
    probe = world.probe()
    probe.reader.ask_starts([(topic, 0), (topic, 1)], "start")
    starts = probe.one(Ends)
    assert (starts.token, dict(starts.offsets), starts.failure) == ("start", {(topic, 0): 3, (topic, 1): 0}, None)
    probe.reader.ask_starts([(world.prefix + "none", 0)], "none")
    assert probe.one(Ends).failure is Failure.UNKNOWN_TOPIC


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


def test_offsets_are_found_by_time(world: World) -> None:
    topic, writer = world.topic(message_timestamp_type="LogAppendTime"), world.writer()
    times: list[int] = []
    while len(set(times)) < 3:
        times.append(writer.append(topic, 0).timestamp_ms)
    keys = [(topic, 0), (topic, 1)]
    for timestamp_ms in (0, *times):
        later = sum(earlier < timestamp_ms for earlier in times)
        assert world.admin.offsets_at(keys, timestamp_ms) == {(topic, 0): later, (topic, 1): 0}
    assert world.admin.offsets_at(keys, times[-1] + 1) == {(topic, 0): len(times), (topic, 1): 0}
    assert world.admin.offsets_at([], 0) == {}
    world.admin.trim({(topic, 0): 2})
    assert world.admin.offsets_at([(topic, 0)], 0) == {(topic, 0): 2}


def test_the_offsets_of_any_group_can_be_seen(world: World) -> None:
    topic = world.topic()
    member = world.probe("g")
    member.reader.assign(topic, 0, 0)
    member.reader.commit({(topic, 0): (7, "mine")}, "done")
    assert member.one(Committed).failure is None
    keys = [(topic, 0), (topic, 1)]
    assert world.admin.committed(world.prefix + "g", keys) == {(topic, 0): 7}
    assert world.admin.committed(world.prefix + "nobody", keys) == {}
    assert world.admin.committed(world.prefix + "g", []) == {}


def test_a_topic_takes_what_was_committed_for_it_along(world: World) -> None:
    topic, other = world.topic(), world.topic("other")
    member = world.probe("g")
    for name in (topic, other):
        member.reader.assign(name, 0, 0)
    member.reader.commit({(topic, 0): (7, ""), (other, 0): (8, "")}, "done")
    assert member.one(Committed).failure is None
    member.reader.unassign(topic, 0)
    world.admin.delete([topic])
    group, keys = world.prefix + "g", [(topic, 0), (other, 0)]
    wait(member.wake, lambda: None, lambda: world.admin.committed(group, keys) == {(other, 0): 8})


def test_a_group_without_members_takes_commits_for_what_is_assigned_and_paused(world: World) -> None:
    topic = world.topic()
    first, second = world.probe("g"), world.probe("g")
    for partition, probe in enumerate((first, second)):
        probe.reader.assign(topic, partition, 0)
        probe.reader.pause(topic, partition)
        probe.reader.commit({(topic, partition): (partition + 3, "seen")}, "done")
        assert probe.one(Committed).failure is None
    first.reader.ask_committed([(topic, 0), (topic, 1)], "asked")
    ends = first.one(Ends)
    assert ends.offsets == {(topic, 0): 3, (topic, 1): 4}
    assert ends.metadata == {(topic, 0): "seen", (topic, 1): "seen"}


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
