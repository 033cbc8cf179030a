"""An input topic's last offset may hold no record, as somebody's transaction leaves it: nobody waits for one there."""

from contextlib import closing
from itertools import groupby

import pytest

from orchestrator.archive.journals import whole_journal
from orchestrator.log import spans
from orchestrator.log.base import Passed, Record
from orchestrator.model.events import Status
from orchestrator.model.ids import partition_of
from orchestrator.runtime import partition
from orchestrator.wire.inputs import INBOX, INTERNAL, OPERATIONS, REPLIES, input_topics
from tests.shop_world import PARTITIONS, World, send_starts
from tests.unit.test_forgetting import KEEP_MS, forgotten

HOME = partition_of("hello", PARTITIONS)
HOUR_MS = 3_600_000


def asleep(role: str | None = None) -> World:
    """A saga that sleeps for an hour, on a partition one of whose inputs ends with a mark."""
    world = World()
    send_starts(world, "hello", saga_type="Greeting", value=b'"x"')
    world.settle()
    if role is not None:
        mark(world, role)
        world.settle()
    assert world.status("hello") is Status.RUNNING
    return world


def mark(world: World, role: str) -> None:
    world.log.mark(input_topics(world.topics)[role], HOME)


def awake(world: World) -> bool:
    world.advance(HOUR_MS)
    world.advance(1_000)
    return world.status("hello") is Status.COMPLETED


@pytest.mark.parametrize("role", [REPLIES, INTERNAL, OPERATIONS, INBOX])
def test_a_timer_fires_where_an_input_topic_ends_without_a_record(role: str) -> None:
    assert awake(asleep(role))


def test_a_timer_that_is_due_already_waits_for_the_mark_and_no_longer() -> None:
    world = asleep()
    world.now_ms += HOUR_MS
    mark(world, REPLIES)
    world.settle()
    assert world.status("hello") is Status.COMPLETED


@pytest.mark.parametrize("seen", [True, False])
def test_a_next_owner_passes_it_too(seen: bool) -> None:
    world = asleep(REPLIES if seen else None)
    world.advance(2_000)
    world.crash()
    if not seen:
        mark(world, REPLIES)
    world.settle()
    assert world.owned(HOME).intake.consumed(REPLIES) == 1
    assert awake(world)


def test_the_position_behind_it_is_journaled() -> None:
    world = asleep(REPLIES)
    assert world.owned(HOME).intake.consumed(REPLIES) == 1
    world.advance(1_000)
    assert world.owned(HOME).progress.at.input_positions[REPLIES] == 1
    before = len(world.records(world.topics.journal))
    world.advance(60_000)
    assert len(world.records(world.topics.journal)) == before


def test_a_saga_that_ended_is_forgotten_where_the_inbox_ends_without_a_record() -> None:
    world = World(ended_keep_ms=KEEP_MS)
    send_starts(world, "order-7")
    world.settle()
    world.log.mark(world.topics.inbox, partition_of("order-7", PARTITIONS))
    world.settle()
    world.advance(KEEP_MS)
    world.advance(1_000)
    assert forgotten(world) == ["order-7"]


def test_it_does_not_overtake_records_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition, "BATCH", 1)
    ids = [name for name in (f"order-{number}" for number in range(100)) if partition_of(name, PARTITIONS) == HOME][:5]
    world = World()
    send_starts(world, *ids)
    mark(world, INBOX)
    positions = []
    for _ in range(30):
        world.step()
        world.now_ms += 1
        positions.append(world.owned(HOME).intake.consumed(INBOX))
    assert [position for position, _ in groupby(positions)] == [1, 2, 3, 4, 5, 6]
    assert world.owned(HOME).intake.depths()[INBOX] == 0


def test_it_does_not_overtake_a_record_whose_dead_letter_is_under_way() -> None:
    world = World()
    intake = world.owned(HOME).intake
    intake.put(INBOX, Record(world.topics.inbox, HOME, 0, world.now_ms, b"hello", b"rubbish"))
    intake.put(INBOX, Passed(world.topics.inbox, HOME, 2))
    assert intake.next() is None
    assert intake.next() is None
    assert (intake.blocked, intake.ready, intake.consumed(INBOX)) == (True, False, 0)
    world.settle()
    assert len(world.records(world.topics.dead_letters)) == 1
    assert (intake.blocked, intake.waiting, intake.waiting_bytes, intake.consumed(INBOX)) == (False, 0, 0, 2)


def test_a_span_and_a_journal_may_end_without_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "WITHIN_S", 0.1)
    world = asleep()
    topic = world.topics.journal
    written = list(world.log.records(topic, HOME))
    world.log.mark(topic, HOME)
    with closing(world.log.admin()) as admin:
        (bounds,) = admin.ends([(topic, HOME)]).values()
    assert bounds == (0, len(written) + 1)
    assert list(spans.records_in(world.log, {(topic, HOME): bounds})) == written
    assert list(spans.records_in(world.log, {(topic, HOME): (bounds[1] - 1, bounds[1])})) == []
    assert list(whole_journal(world.log, topic, {HOME: bounds}, None)) == written
