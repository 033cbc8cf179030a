"""The public stream: what is told, in which order, and that nothing is left out over crashes and failures."""

from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

import orjson
import pytest

from orchestrator.errors import Disconnected
from orchestrator.log.base import Failure, TopicSpec
from orchestrator.log.memory import MemoryAppender
from orchestrator.log.memory_link import Link, Sent
from orchestrator.model.ids import partition_of
from orchestrator.model.messages import Outcome
from orchestrator.runtime import lifecycle as published
from orchestrator.runtime.lifecycle import Lifecycle
from orchestrator.wire.headers import read_headers
from tests.shop_world import PARTITIONS, World, refuse, send_starts, succeed

COMPLETED = ["started", "step-done", "step-done", "step-done", "ended"]


class Followed:
    """A world with one publisher, stepped by hand."""

    def __init__(self, seed: int = 1) -> None:
        self.world = World(seed=seed)
        self.lifecycle = self.publisher()

    def publisher(self, log: Any = None) -> Lifecycle:
        return Lifecycle(log or self.world.log, self.world.topics, self.world.feeds)

    def crash(self) -> None:
        """Engine and publisher die together, as the threads of one process."""
        self.world.crash()
        self.lifecycle = self.publisher()

    def start(self, *ids: str) -> None:
        send_starts(self.world, *ids)
        self.world.settle()

    def publish(self, *publishers: Lifecycle) -> None:
        """Until nothing is left to publish."""
        quiet = 0
        while quiet < 3:
            self.world.settle()
            busy = [publisher.step(self.world.now_ms) for publisher in publishers or (self.lifecycle,)]
            quiet = 0 if any(busy) else quiet + 1
            self.world.now_ms += 600

    def told(self, saga_id: str | None = None) -> list[dict[str, object]]:
        records = self.world.records(self.world.topics.lifecycle)
        told = [orjson.loads(record.value or b"") for record in records]
        return [event for event in told if saga_id in (None, event["saga_id"])]

    def names(self, saga_id: str) -> list[object]:
        return [event["event"] for event in self.told(saga_id)]

    def once(self, saga_id: str) -> list[object]:
        """The events without those that were told again."""
        return list({event["event_id"]: event["event"] for event in self.told(saga_id)}.values())


@pytest.fixture
def followed() -> Iterator[Followed]:
    followed = Followed()
    yield followed
    followed.lifecycle.close()


def test_a_completed_saga_is_told_from_start_to_end(followed: Followed) -> None:
    followed.start("o-1")
    followed.publish()
    events = followed.told("o-1")
    assert [event["event"] for event in events] == ["started", "step-done", "step-done", "step-done", "ended"]
    assert [event.get("command") for event in events] == [None, "reserve", "charge", "ship", None]
    assert events[1]["service"] == "inventory"
    assert events[-1]["status"] == "COMPLETED"
    assert {event["saga_type"] for event in events} == {"OrderFulfilment"}
    assert str(events[0]["at"]).endswith("+00:00")


def test_records_are_keyed_by_saga_and_carry_their_place_in_the_journal(followed: Followed) -> None:
    followed.start("o-1")
    followed.publish()
    partition = partition_of("o-1", PARTITIONS)
    records = followed.world.log.records(followed.world.topics.lifecycle, partition)
    assert {record.key for record in records} == {b"o-1"}
    first = read_headers(records[0].headers)
    assert first["event-id"] == f"1-{partition}-2-0"
    assert (first["event-type"], first["saga-type"], first["saga-id"]) == ("started", "OrderFulfilment", "o-1")
    assert first["event-id"] == orjson.loads(records[0].value or b"")["event_id"]


def test_an_undone_saga_is_told_in_the_order_of_its_undo(followed: Followed) -> None:
    followed.world.behave = refuse("ship")
    followed.start("o-1")
    followed.publish()
    events = followed.told("o-1")
    assert [(event["event"], event.get("command")) for event in events] == [
        ("started", None),
        ("step-done", "reserve"),
        ("step-done", "charge"),
        ("step-refused", "ship"),
        ("compensating", None),
        ("step-undone", "refund"),
        ("step-undone", "release"),
        ("ended", None),
    ]
    assert (events[-1]["status"], events[-1]["undone"], events[-1]["error_type"]) == ("COMPENSATED", "all", "Declined")


def test_a_parked_saga_is_told_without_payloads(followed: Followed) -> None:
    followed.world.behave = refuse("charge", outcome=Outcome.RETRY)
    followed.start("o-1")
    followed.world.advance(60_000)
    followed.publish()
    parked = followed.told("o-1")[-1]
    assert (parked["event"], parked["command"]) == ("parked", "charge")
    assert parked["reason"]
    assert b"warehouse" not in b"".join(r.value or b"" for r in followed.world.records(followed.world.topics.lifecycle))


def test_nothing_is_told_twice_without_a_failure(followed: Followed) -> None:
    followed.start("o-1")
    followed.publish()
    before = followed.told()
    followed.world.engine.leave(followed.world.now_ms)
    followed.world.settle()
    followed.publish()
    followed.crash()
    followed.start("o-2")
    followed.publish()
    assert followed.told("o-1") == before
    assert followed.names("o-2") == COMPLETED


def test_what_an_owner_did_not_publish_its_successor_does(followed: Followed) -> None:
    followed.start(*(f"o-{n}" for n in range(20)))
    followed.crash()
    followed.publish()
    assert all(followed.names(f"o-{n}") == COMPLETED for n in range(20))


def test_a_crash_in_the_middle_leaves_nothing_out(followed: Followed) -> None:
    for round_ in range(12):
        followed.start(*(f"o-{round_}-{n}" for n in range(5)))
        for _ in range(round_):
            followed.lifecycle.step(followed.world.now_ms)
            followed.world.now_ms += 300
        followed.crash()
    followed.publish()
    assert all(followed.once(f"o-{round_}-{n}") == COMPLETED for round_ in range(12) for n in range(5))


def test_a_successor_in_the_middle_of_a_run_knows_its_type_and_steps(followed: Followed) -> None:
    followed.world.behave = lambda message: None if message.command_type == "charge" else succeed(message)
    followed.start("o-1")
    followed.publish()
    assert followed.names("o-1") == ["started", "step-done"]
    followed.crash()
    followed.world.behave = succeed
    (command,) = followed.world.records(followed.world.topics.commands("payments"))
    followed.world._serve(command)
    followed.publish()
    event = followed.told("o-1")[2]
    assert (event["event"], event["command"], event["saga_type"]) == ("step-done", "charge", "OrderFulfilment")
    assert followed.names("o-1") == COMPLETED


def test_what_does_not_fit_is_read_from_the_journal(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "MAX_WAITING", 3)
    monkeypatch.setattr(published, "BATCH", 2)
    monkeypatch.setattr(published, "MAX_OPEN", 4)
    for round_ in range(4):
        followed.start(*(f"o-{round_}-{n}" for n in range(30)))
        assert max(len(feed.told) for feed in followed.world.feeds.values()) == 3
        followed.publish()
        assert all(followed.names(f"o-{round_}-{n}") == COMPLETED for n in range(30))
    assert followed.lifecycle.published == 4 * 30 * 5


def test_what_is_left_out_between_others_is_read_from_the_journal(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "MAX_WAITING", 3)
    monkeypatch.setattr(published, "BATCH", 2)
    followed.publish()
    for round_ in range(6):
        followed.start(*(f"o-{round_}-{n}" for n in range(6)))
        # Makes room: what comes next stands behind what was left out, in one batch with what was not.
        followed.lifecycle.step(followed.world.now_ms)
    followed.publish()
    assert all(followed.names(f"o-{round_}-{n}") == COMPLETED for round_ in range(6) for n in range(6))


def test_what_another_owner_has_published_meanwhile_is_not_told_again(followed: Followed) -> None:
    followed.start("o-1")
    partition = partition_of("o-1", PARTITIONS)
    feed = followed.world.feeds[partition]
    last = feed.told[-1].after
    group, journal = followed.world.log.group("saga-lifecycle"), followed.world.topics.journal
    group.offsets[journal, partition] = (last.offset, f"{last.nonce.hex()}:{last.seq}")
    followed.publish()
    assert followed.names("o-1") == []
    saga_id = next(f"o-{n}" for n in range(2, 100) if partition_of(f"o-{n}", PARTITIONS) == partition)
    followed.start(saga_id)
    followed.publish()
    assert followed.names(saga_id) == COMPLETED


@pytest.mark.parametrize("metadata", ["", "zz:1", "00:x", f"{'ab' * 16}:3"])
def test_a_position_that_does_not_fit_the_journal_begins_at_its_beginning(followed: Followed, metadata: str) -> None:
    followed.start("o-1")
    partition = partition_of("o-1", PARTITIONS)
    followed.world.log.group("saga-lifecycle").offsets[followed.world.topics.journal, partition] = (4, metadata)
    followed.publish()
    assert followed.names("o-1") == COMPLETED


def test_a_publisher_that_is_replaced_goes_on_from_the_committed_position(followed: Followed) -> None:
    followed.start("o-1")
    followed.publish()
    followed.start("o-2")
    followed.lifecycle.step(followed.world.now_ms)
    followed.lifecycle = followed.publisher()
    followed.publish()
    assert followed.names("o-1") == COMPLETED
    assert followed.once("o-2") == COMPLETED


def test_a_journal_that_was_cut_below_is_told_from_the_claim_on(
    followed: Followed, caplog: pytest.LogCaptureFixture
) -> None:
    followed.start("o-1")
    partition = partition_of("o-1", PARTITIONS)
    claim = followed.world.feeds[partition].claim_offset
    followed.world.log.admin().trim({(followed.world.topics.journal, partition): claim})
    followed.publish()
    assert followed.names("o-1") == COMPLETED
    assert "is not told" in caplog.text


def test_decisions_that_do_not_count_are_not_told(followed: Followed) -> None:
    followed.start("o-1")
    partition = partition_of("o-1", PARTITIONS)
    journal = followed.world.topics.journal
    record = followed.world.log.records(journal, partition)[2]
    followed.world.log.appender().append(journal, partition, record.value, token=None)
    followed.crash()
    followed.publish()
    assert followed.names("o-1").count("started") == 1


class Unsteady(Link):
    """Fails the appends whose number is in `failing`, landed or not."""

    def __init__(self, failing: dict[int, bool], failure: Failure | None = Failure.UNKNOWN_OUTCOME) -> None:
        self.failing = failing
        self.failure = failure
        self.count = 0

    def append(self, sent: Sent) -> None:
        self.count += 1
        lands = self.failing.get(self.count)
        if lands is not False:
            sent.land()
        if lands is None:
            sent.report()
        elif self.failure is None:
            sent.report(with_offset=False)
        else:
            sent.fail(self.failure)


class UnsteadyLog:
    def __init__(self, world: World, link: Link) -> None:
        self._world = world
        self._link = link
        self.reader: Callable[..., Any] = world.log.reader

    def appender(self, *, wake: Event, linger_ms: float = 0.0) -> MemoryAppender:
        return self._world.log.appender(wake=wake, link=self._link)


@pytest.mark.parametrize("failing", [{1: True}, {2: False}, {3: True, 4: False}, {5: False, 6: True, 7: False}])
@pytest.mark.parametrize("failure", [Failure.UNKNOWN_OUTCOME, Failure.UNKNOWN_TOPIC, None])
def test_after_a_failure_all_from_it_on_is_told_again_in_order(
    followed: Followed, failing: dict[int, bool], failure: Failure | None
) -> None:
    if failure is None:
        failing = dict.fromkeys(failing, True)
    followed.lifecycle.close()
    followed.lifecycle = followed.publisher(UnsteadyLog(followed.world, Unsteady(failing, failure)))
    followed.world.behave = refuse("ship")
    followed.start("o-1")
    followed.publish()
    wanted = ["started", "step-done", "step-done", "step-refused", "compensating", "step-undone", "step-undone"]
    names = followed.names("o-1")
    assert names[-len(wanted) - 1 + min(failing) - 1 :] == [*wanted, "ended"][min(failing) - 1 :]
    assert set(names) == {*wanted, "ended"}


def test_a_client_that_is_of_no_use_any_more_is_said_to_be(followed: Followed) -> None:
    followed.lifecycle.close()
    log = UnsteadyLog(followed.world, Unsteady({1: False}, Failure.FATAL))
    followed.lifecycle = followed.publisher(log)
    followed.start("o-1")
    with pytest.raises(Disconnected):
        followed.publish()


def test_nothing_to_do_is_said_to_be_nothing(followed: Followed) -> None:
    followed.start("o-1")
    followed.publish()
    assert not followed.lifecycle.step(followed.world.now_ms)


def test_a_missing_topic_is_waited_for(followed: Followed) -> None:
    topic = followed.world.topics.lifecycle
    followed.world.log.delete(topic)
    followed.start("o-1")
    for _ in range(20):
        followed.lifecycle.step(followed.world.now_ms)
        followed.world.now_ms += 600
    followed.world.log.create(TopicSpec(topic, PARTITIONS, 1, {}))
    followed.publish()
    assert followed.names("o-1") == ["started", "step-done", "step-done", "step-done", "ended"]
