"""The way in: what is far too large becomes a dead letter that says so, and what comes behind it goes on."""

from collections.abc import Mapping

import pytest

from orchestrator.log.base import Record, TopicSpec
from orchestrator.model.events import Status
from orchestrator.model.ids import partition_of
from orchestrator.wire.dead_letters import SHORTENED
from orchestrator.wire.headers import MAX_HEADER_BYTES
from tests.shop_world import PARTITIONS, World

HOME = partition_of("o-1", PARTITIONS)
AT_HOME = next(f"o-{n}" for n in range(2, 100) if partition_of(f"o-{n}", PARTITIONS) == HOME)
LARGE = 2 << 20
DEEP = b"[" * 100_000 + b"]" * 100_000
INPUT = b'{"id":"o-1"}'
START = {"saga-id": "o-1", "saga-type": "OrderFulfilment"}


def append(world: World, topic: str, value: bytes, headers: Mapping[str, str]) -> None:
    writer = world.log.appender()
    encoded = [(name, content.encode()) for name, content in headers.items()]
    writer.append(topic, HOME, value, key=b"o-1", headers=encoded, token=None)
    assert [delivery.failure for delivery in writer.poll()] == [None]
    world.settle()


def letters(world: World) -> list[tuple[str, Record]]:
    """Each dead letter with its reason."""
    records = world.records(world.topics.dead_letters)
    return [(dict(record.headers)["__connect.errors.exception.message"].decode(), record) for record in records]


@pytest.mark.parametrize(
    ("value", "headers", "words"),
    [
        (b'"' + b"x" * LARGE + b'"', START, "does not fit OrderFulfilment"),
        (b"x" * LARGE, {**START, "saga-type": "Unknown"}, "has 2097152 bytes, at most 262144"),
        (INPUT, {**START, "filler": "x" * LARGE}, "the headers have 20"),
        (b"[" * LARGE, START, "does not fit OrderFulfilment"),
    ],
)
def test_a_start_of_two_mebibytes_is_a_whole_dead_letter(value: bytes, headers: dict[str, str], words: str) -> None:
    world = World()
    append(world, world.topics.inbox, value, headers)
    append(world, world.topics.inbox, INPUT, START)
    ((reason, letter),) = letters(world)
    assert words in reason
    assert letter.value == value
    assert set(headers.items()) <= {(name, content.decode(errors="replace")) for name, content in letter.headers}
    assert world.status("o-1") is Status.COMPLETED


def test_a_reply_of_two_mebibytes_is_a_whole_dead_letter() -> None:
    world = World()
    world.behave = lambda message: None
    append(world, world.topics.inbox, INPUT, START)
    (command,) = world.records(world.topics.commands("inventory"))
    echoed = {name: content.decode() for name, content in command.headers}
    append(world, world.topics.replies, b"x" * LARGE, {**echoed, "outcome": "success"})
    ((reason, letter),) = letters(world)
    assert "it carries 2097152 bytes, at most 262144" in reason
    assert len(letter.value or b"") == LARGE
    append(world, world.topics.replies, b'{"warehouse":"A"}', {**echoed, "outcome": "success"})
    assert len(world.records(world.topics.commands("payments"))) == 1


def test_what_is_nested_a_hundred_thousand_times_stops_nobody() -> None:
    world = World()
    world.behave = lambda message: None
    append(world, world.topics.inbox, DEEP, START)
    append(world, world.topics.inbox, INPUT, START)
    (command,) = world.records(world.topics.commands("inventory"))
    echoed = {name: content.decode() for name, content in command.headers}
    append(world, world.topics.replies, DEEP, {**echoed, "outcome": "success"})
    ((reason, letter),) = letters(world)
    assert "does not fit OrderFulfilment" in reason
    assert letter.value == DEEP
    execution = world.owned(HOME).runs.find("o-1")
    assert execution is not None
    assert ["recursion limit exceeded" in why for why in execution.state.parked.values()] == [True]
    append(world, world.topics.inbox, INPUT.replace(b"o-1", AT_HOME.encode()), {**START, "saga-id": AT_HOME})
    assert len(world.records(world.topics.commands("inventory"))) == 2


def test_dead_letters_that_take_less_hold_the_reason_and_the_place() -> None:
    world = World()
    dead = world.topics.dead_letters
    world.log.delete(dead)
    world.log.create(TopicSpec(dead, PARTITIONS, 1, {"max.message.bytes": "1048588"}))
    append(world, world.topics.inbox, b"x" * LARGE, {**START, "saga-type": "Unknown"})
    append(world, world.topics.inbox, INPUT, START)
    ((reason, letter),) = letters(world)
    assert "has 2097152 bytes" in reason
    assert (letter.key, letter.value) == (None, None)
    assert letter.headers[0] == SHORTENED
    assert dict(letter.headers)["__connect.errors.offset"] == b"0"
    assert world.status("o-1") is Status.COMPLETED


def test_a_dead_letter_that_is_refused_is_sent_again_after_a_pause_and_nothing_is_lost() -> None:
    world = World()
    dead = world.topics.dead_letters
    world.log.delete(dead)
    append(world, world.topics.inbox, b"no json", START)
    refused = sum(step(world) for _ in range(50))
    assert refused < 5
    assert world.engine.counters["dead_letters"] == 0
    world.log.create(TopicSpec(dead, PARTITIONS, 1, {}))
    world.advance(1_000)
    ((reason, letter),) = letters(world)
    assert "does not fit OrderFulfilment" in reason
    assert letter.value == b"no json"


def test_a_record_with_as_many_headers_as_fit_comes_through_from_the_wrong_partition() -> None:
    world = World()
    wrong = (HOME + 1) % PARTITIONS
    writer = world.log.appender()
    room = MAX_HEADER_BYTES - len("saga-type" + "OrderFulfilment" + "filler")
    for saga_id, filler in (("o-1", b"x" * room), (AT_HOME, b"")):
        headers = [("saga-type", b"OrderFulfilment"), ("filler", filler)]
        value = b'{"id":"' + saga_id.encode() + b'"}'
        writer.append(world.topics.inbox, wrong, value, key=saga_id.encode(), headers=headers, token=None)
    world.settle()
    assert letters(world) == []
    assert (world.status("o-1"), world.status(AT_HOME)) == (Status.COMPLETED, Status.COMPLETED)


def step(world: World) -> bool:
    """One step a millisecond later; whether the engine found something to do."""
    world.now_ms += 1
    return world.step()


def test_starts_are_not_read_while_too_many_bytes_wait() -> None:
    world = World()
    partition = world.engine.tenures[HOME].partition
    assert partition is not None
    for offset in range(9):
        partition.take("inbox", Record(world.topics.inbox, HOME, offset, 0, b"o-1", b"x" * LARGE))
    assert partition.intake.waiting_bytes == 9 * LARGE
    assert partition.congested
    world.settle()
    assert partition.intake.waiting_bytes == 0
    assert not partition.congested
