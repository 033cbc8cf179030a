"""The public stream: what is told, in which order, and that nothing is left out over crashes and failures."""

from collections.abc import Iterator
from pathlib import Path
from threading import Event

import orjson
import pytest

from orchestrator.errors import Disconnected
from orchestrator.log.base import Failure, TopicSpec
from orchestrator.log.memory import MemoryAppender
from orchestrator.log.memory_link import Link, Sent
from orchestrator.model.ids import partition_of
from orchestrator.model.messages import Outcome
from orchestrator.visibility import Lifecycle, Visibility
from orchestrator.wire import headers as h
from orchestrator.wire.headers import read_headers
from tests.shop_world import PARTITIONS, Order, World, refuse


class Followed:
    """A world with visibility and one publisher, stepped by hand."""

    def __init__(self, path: Path, seed: int = 1) -> None:
        self.world = World(seed=seed)
        self.visibility = Visibility(path, self.world.log, self.world.topics, PARTITIONS)
        self.lifecycle = self.publisher()

    def publisher(self, log: object = None) -> Lifecycle:
        return Lifecycle(log or self.world.log, self.world.topics, self.visibility.views)  # type: ignore[arg-type]

    def start(self, *ids: str) -> None:
        client = self.world.log.appender()
        for saga_id in ids:
            value = Order(id=saga_id).model_dump_json().encode()
            headers = h.write_headers({h.SAGA_TYPE: "OrderFulfilment"})
            partition = partition_of(saga_id, PARTITIONS)
            client.append(self.world.topics.inbox, partition, value, key=saga_id.encode(), headers=headers, token=None)
        self.world.settle()

    def publish(self, *publishers: Lifecycle) -> None:
        """Until nothing is left to publish."""
        self.visibility.catch_up()
        quiet = 0
        while quiet < 3:
            busy = [publisher.step(self.world.now_ms) for publisher in publishers or (self.lifecycle,)]
            quiet = 0 if any(busy) else quiet + 1
            self.world.now_ms += 600

    def told(self, saga_id: str | None = None) -> list[dict[str, object]]:
        records = self.world.records(self.world.topics.lifecycle)
        told = [orjson.loads(record.value or b"") for record in records]
        return [event for event in told if saga_id in (None, event["saga_id"])]

    def names(self, saga_id: str) -> list[object]:
        return [event["event"] for event in self.told(saga_id)]


@pytest.fixture
def followed(tmp_path: Path) -> Iterator[Followed]:
    followed = Followed(tmp_path / "v.sqlite")
    yield followed
    followed.lifecycle.close()
    followed.visibility.close()


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
    assert first["event-id"] == f"{partition}-2-0"
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


def test_the_position_is_the_group_s_and_nothing_is_told_twice_without_a_failure(followed: Followed) -> None:
    followed.start("o-1")
    followed.publish()
    before = followed.told()
    followed.lifecycle.close()
    followed.lifecycle = followed.publisher()
    followed.start("o-2")
    followed.publish()
    assert followed.told("o-1") == before
    assert followed.names("o-2")[-1] == "ended"


def test_a_publisher_in_the_middle_of_a_run_knows_its_type_and_steps(followed: Followed) -> None:
    followed.world.behave = refuse("charge", outcome=Outcome.RETRY)
    followed.start("o-1")
    followed.publish()
    assert followed.names("o-1") == ["started", "step-done"]
    followed.lifecycle.close()
    followed.lifecycle = followed.publisher()
    followed.world.behave = refuse()
    followed.world.advance(60_000)
    followed.publish()
    event = followed.told("o-1")[2]
    assert (event["event"], event["command"], event["saga_type"]) == ("step-done", "charge", "OrderFulfilment")


def test_two_publishers_share_the_partitions(followed: Followed) -> None:
    other = followed.publisher()
    followed.publish(followed.lifecycle, other)
    followed.start(*(f"o-{n}" for n in range(30)))
    followed.publish(followed.lifecycle, other)
    assert followed.lifecycle.published
    assert other.published
    ids = [event["event_id"] for event in followed.told()]
    assert len(ids) == len(set(ids)) == 30 * 5
    other.close()
    followed.start("o-99")
    followed.publish()
    assert followed.names("o-99")[-1] == "ended"


def test_decisions_that_do_not_count_are_not_told(followed: Followed) -> None:
    followed.start("o-1")
    partition = partition_of("o-1", PARTITIONS)
    journal = followed.world.topics.journal
    record = followed.world.log.records(journal, partition)[2]
    followed.world.log.appender().append(journal, partition, record.value, token=None)
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
        self.reader = world.log.reader

    def appender(self, *, wake: Event) -> MemoryAppender:
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
    followed.visibility.catch_up()
    for _ in range(20):
        followed.lifecycle.step(followed.world.now_ms)
        followed.world.now_ms += 600
    followed.world.log.create(TopicSpec(topic, PARTITIONS, 1, {}))
    followed.publish()
    assert followed.names("o-1") == ["started", "step-done", "step-done", "step-done", "ended"]
