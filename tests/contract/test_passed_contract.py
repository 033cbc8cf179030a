"""Offsets without a record, as transactions leave them behind their last: every log tells that they are passed."""

from __future__ import annotations

import random
import time

import pytest

from orchestrator.log.base import Happening, Passed, Record
from tests.contract.log_world import Probe, World

LONGER_THAN_A_FETCH_S = 0.5
"""A broker that has nothing new answers after a tenth of a second; only then it is known that the end is reached."""


def told(probe: Probe) -> list[int | str]:
    """The offsets of records, and how far it has come without one."""
    return [tell(happening) for happening in probe.happened]


def tell(happening: Happening) -> int | str:
    if isinstance(happening, Record):
        return happening.offset
    assert isinstance(happening, Passed), happening
    return f"passed, {happening.offset} is next"


def read_on(probe: Probe) -> None:
    """Takes what comes until nothing has woken the reader for so long."""
    while probe.wake.wait(LONGER_THAN_A_FETCH_S):
        probe.wake.clear()
        probe.poll()


@pytest.mark.parametrize("commit", [True, False])
def test_the_end_of_a_transaction_is_passed_behind_its_records(world: World, commit: bool) -> None:
    topic = world.topic()
    probe = world.probe()
    probe.reader.assign(topic, 0, 0)
    world.write_in_transaction(topic, 0, 3, commit=commit)
    probe.until(lambda: bool(probe.all(Passed)))
    assert told(probe) == [0, 1, 2, "passed, 4 is next"]
    assert probe.all(Passed) == [Passed(topic, 0, 4)]
    probe.reader.ask_ends([(topic, 0)], None)
    probe.until(lambda: len(probe.happened) == 5)
    assert getattr(probe.happened.pop(), "offsets", None) == {(topic, 0): 4}
    assert world.writer().append(topic, 0).offset == 4
    world.write_in_transaction(topic, 0, 1)
    probe.until(lambda: len(probe.all(Passed)) == 2)
    read_on(probe)
    assert told(probe) == [0, 1, 2, "passed, 4 is next", 4, 5, "passed, 7 is next"]


def test_where_the_last_offset_is_a_record_nothing_more_is_told_and_nobody_is_woken(world: World) -> None:
    topic, writer = world.topic(), world.writer()
    world.write_in_transaction(topic, 0, 2)
    writer.append(topic, 0)
    probe = world.probe()
    probe.reader.assign(topic, 0, 0)
    for offset in (4, 5):
        probe.read(offset - 1)
        probe.wake.clear()
        probe.poll()
        assert not probe.wake.wait(LONGER_THAN_A_FETCH_S)
        assert writer.append(topic, 0).offset == offset
    probe.read(5)
    assert told(probe) == [0, 1, 3, 4, 5]


def test_reading_may_begin_at_an_offset_without_a_record(world: World) -> None:
    topic = world.topic()
    world.write_in_transaction(topic, 0, 2)
    world.write_in_transaction(topic, 1, 2)
    probe = world.probe()
    probe.reader.assign(topic, 0, 2)
    probe.reader.assign(topic, 1, 3)
    probe.until(lambda: bool(probe.happened))
    read_on(probe)
    assert probe.happened == [Passed(topic, 0, 3)]


def test_nothing_is_passed_while_a_partition_is_paused(world: World) -> None:
    topic = world.topic()
    probe = world.probe()
    probe.reader.assign(topic, 0, 0)
    probe.reader.pause(topic, 0)
    world.write_in_transaction(topic, 0, 2)
    read_on(probe)
    assert probe.happened == []
    probe.reader.resume(topic, 0)
    probe.until(lambda: len(probe.happened) == 3)
    assert told(probe) == [0, 1, "passed, 3 is next"]


def test_pause_and_resume_pass_it_once_and_in_its_place(world: World) -> None:
    topic = world.topic(partitions=1)
    world.write_in_transaction(topic, 0, 2_000)
    probe = world.probe()
    probe.reader.assign(topic, 0, 0)
    chance = random.Random(5)
    while len(probe.records()) < 2_000:
        probe.reader.pause(topic, 0)
        probe.happened += probe.reader.poll(chance.randrange(1, 200))
        probe.reader.resume(topic, 0)
        probe.read(min(2_000, len(probe.records()) + chance.randrange(1, 200)))
    probe.until(lambda: bool(probe.all(Passed)))
    for _ in range(2):
        probe.reader.pause(topic, 0)
        read_on(probe)
        probe.reader.resume(topic, 0)
        read_on(probe)
    read_on(probe)
    assert told(probe) == [*range(2_000), "passed, 2001 is next"]


def test_what_an_assignment_that_was_moved_has_passed_is_not_told(world: World) -> None:
    topic = world.topic(partitions=1)
    world.write_in_transaction(topic, 0, 300)
    probe = world.probe()
    chance = random.Random(7)
    for _ in range(25):
        at = chance.randrange(0, 301)
        probe.reader.assign(topic, 0, at)
        probe.happened.clear()
        if chance.random() < 0.6:
            probe.wake.clear()
            probe.wake.wait(chance.random() * 0.2)
        probe.happened += probe.reader.poll(chance.randrange(1, 400))
        seen = told(probe)
        assert seen == [*range(at, 300), "passed, 301 is next"][: len(seen)]
    probe.until(lambda: bool(probe.all(Passed)))
    assert told(probe) == [*range(at, 300), "passed, 301 is next"]


def test_a_full_answer_holds_no_more_than_was_asked_for(world: World) -> None:
    topic = world.topic(partitions=1)
    world.write_in_transaction(topic, 0, 3)
    world.write_in_transaction(topic, 0, 2)
    probe = world.probe()
    probe.reader.assign(topic, 0, 0)
    while not probe.all(Passed):
        happened = probe.reader.poll(2)
        assert len(happened) <= 2
        probe.happened += happened
        time.sleep(0.01)
    assert told(probe) == [0, 1, 2, 4, 5, "passed, 7 is next"]
