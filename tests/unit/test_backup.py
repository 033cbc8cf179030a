"""A backup of a shop, taken at any moment, and the shop that is made from it on another log."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.archive.shelf import SegmentDamaged
from orchestrator.backup.manifest import read_manifest, shelf_of
from orchestrator.backup.rebasing import rebased_ledger
from orchestrator.backup.restoring import Restore
from orchestrator.backup.taking import Backup
from orchestrator.depot import Depot
from orchestrator.errors import SagaError
from orchestrator.log.base import Record
from orchestrator.log.memory import MemoryLog
from orchestrator.model.events import Status
from orchestrator.model.ids import epoch_number, partition_of
from orchestrator.model.messages import Outcome
from orchestrator.participant.ledger import LedgerView
from orchestrator.runtime.lifecycle import Lifecycle
from orchestrator.saga import Saga
from orchestrator.topics import TopicNames
from orchestrator.wire.commands import CommandMessage, ReplyMessage
from orchestrator.wire.headers import SAGA_TYPE, write_headers
from orchestrator.wire.journal import read_envelope, read_genesis
from orchestrator.wire.ledger import Claim, Execution, Release, write_record
from orchestrator.wire.segments import SegmentRecord
from tests.shop_world import PARTITIONS, SAGAS, SERVICES, Order, Payments, World, send_starts, succeed


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    return Depot(str(tmp_path / "backup"))


def hold(*commands: str) -> Callable[[CommandMessage], ReplyMessage | None]:
    return lambda message: None if message.command_type in commands else succeed(message)


def taken(world: World, depot: Depot) -> None:
    Backup(world.log, world.topics, PARTITIONS, None, depot, lambda line: None).run(world.now_ms)


def restored(world: World, depot: Depot, left_out: int = 0) -> World:
    """Another world, made from a backup of the first."""
    other = World.__new__(World)
    other.__dict__.update(world.__dict__)
    other.log = MemoryLog(lambda: other.now_ms)
    restore = Restore(other.log, world.topics, depot, lambda line: None)
    restore.check(PARTITIONS)
    restore.run(1, other.now_ms, SERVICES)
    assert restore.left_out == left_out
    other._commands, other._replies = other.log.reader(), other.log.appender()
    for service in SERVICES:
        for partition in range(PARTITIONS):
            other._commands.assign(other.topics.commands(service), partition, 0)
    other.behave = succeed
    other.engine = other.new_engine()
    other.settle()
    return other


def journals(world: World) -> list[Record]:
    return world.records(world.topics.journal)


def test_sagas_under_way_go_on_in_another_cluster_and_end(depot: Depot) -> None:
    world = World()
    send_starts(world, "done-1", "done-2")
    world.settle()
    world.behave = hold("charge")
    ids = [f"order-{number}" for number in range(12)]
    send_starts(world, *ids)
    world.settle()
    taken(world, depot)
    other = restored(world, depot)
    other.advance(400_000)  # what was sent is sent again
    assert {other.status(saga_id) for saga_id in ids} == {Status.COMPLETED}
    assert len(journals(other)) > len(journals(world))


def test_offsets_stay_and_epochs_are_higher_than_any_before(depot: Depot) -> None:
    world = World()
    send_starts(world, "a", "b", "c")
    world.settle()
    world.crash()
    world.settle()
    taken(world, depot)
    other = restored(world, depot)
    for number in range(PARTITIONS):
        before = world.log.records(world.topics.journal, number)
        after = other.log.records(world.topics.journal, number)
        genesis = read_genesis(read_envelope(after[0].value))
        assert (genesis.incarnation, genesis.partitions) == (2, PARTITIONS)
        assert genesis.topic_ids[world.topics.inbox] == other.log.topics[world.topics.inbox].topic_id
        for was, now in zip(before[1:], after[1:], strict=False):
            assert read_envelope(was.value).body == read_envelope(now.value).body
            assert read_envelope(was.value).nonce == read_envelope(now.value).nonce
        assert other.owned(number).progress.at.incarnation == 2
    send_starts(other, "d")
    other.settle()
    topic = other.topics.commands("inventory")
    epochs = {record.key: int(dict(record.headers)["epoch"]) for record in other.records(topic)}
    assert epochs.pop(b"d") >= epoch_number(2, 0) > max(epochs.values())


def test_what_was_not_consumed_is_consumed_there(depot: Depot) -> None:
    world = World()
    world.behave = hold("reserve")
    send_starts(world, "a", "b")
    world.settle()
    world.engine.leave(world.now_ms)
    while not world.engine.left:
        world.step()
        world.now_ms += 100
    send_starts(world, *[f"late-{number}" for number in range(8)])
    waiting = world.records(world.topics.commands("inventory"))
    for record in waiting:
        world._serve(record._replace())  # answered, and nobody reads it
    world.behave = succeed
    for record in waiting:
        world._serve(record)
    taken(world, depot)
    other = restored(world, depot)
    for saga_id in ("a", "b", *[f"late-{number}" for number in range(8)]):
        assert other.status(saga_id) is Status.COMPLETED


def test_commands_that_no_service_has_consumed_are_there_with_all_they_say(depot: Depot) -> None:
    world = World()
    world.behave = hold("reserve")
    send_starts(world, "a", "b")
    world.settle()
    taken(world, depot)
    other = restored(world, depot)
    topic = world.topics.commands("inventory")
    sent = [(r.key, r.value, r.headers) for r in world.records(topic)]
    found = [(r.key, r.value, r.headers) for r in other.records(topic)]
    assert sent
    assert found[: len(sent)] == sent
    assert other.status("a") is Status.COMPLETED


def with_a_command() -> tuple[World, Record]:
    """A world in which one command waits for its service, and that command."""
    world = World()
    world.behave = hold("reserve")
    send_starts(world, "a")
    world.settle()
    (record,) = world.records(world.topics.commands("inventory"))
    return world, record


def test_what_is_no_command_is_copied_for_the_service_to_refuse(depot: Depot) -> None:
    world, record = with_a_command()
    strange = [(name, b"no run" if name == "saga-run" else value) for name, value in record.headers]
    appender = world.log.appender()
    for value, headers in ((b"\xff", [("saga-id", b"\xff")]), (b"", []), (record.value, strange)):
        appender.append(record.topic, record.partition, value, token=None, key=b"a", headers=headers)
    taken(world, depot)
    log = MemoryLog(lambda: world.now_ms)
    restore = Restore(log, world.topics, depot, lambda line: None)
    restore.run(1, world.now_ms)
    assert restore.left_out == 0
    assert len(log.records(record.topic, record.partition)) == 4


def test_a_command_that_no_journal_knows_is_left_out(depot: Depot) -> None:
    world, record = with_a_command()
    headers = [(name, b"later" if name == "saga-id" else value) for name, value in record.headers]
    appender = world.log.appender()
    appender.append(record.topic, record.partition, record.value, token=None, key=b"later", headers=headers)
    taken(world, depot)
    restore = Restore(MemoryLog(lambda: world.now_ms), world.topics, depot, lambda line: None)
    restore.run(1, world.now_ms)
    assert restore.left_out == 1


def test_journals_are_copied_up_to_where_they_fit_each_other(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start in another partition's inbox is forwarded, and the sender's journal is copied up to an earlier end."""
    world = World()
    world.behave = hold("charge")
    send_starts(world, *[f"order-{number}" for number in range(12)])
    world.settle()
    place = (world.topics.journal, 0)
    backup = Backup(world.log, world.topics, PARTITIONS, None, depot, lambda line: None)
    bounds = backup._bounds
    early = bounds(world.topics.journal)[place]
    stray = next(saga_id for saga_id in map("stray-{}".format, range(99)) if partition_of(saga_id, PARTITIONS) == 1)
    headers = write_headers({SAGA_TYPE: "OrderFulfilment"})
    order = Order(id=stray).model_dump_json().encode()
    world.log.appender().append(world.topics.inbox, 0, order, key=stray.encode(), headers=headers, token=None)
    world.settle()
    late = bounds(world.topics.journal)[place]
    monkeypatch.setattr(
        backup, "_bounds", lambda topic: {**bounds(topic), **({place: early} if topic == place[0] else {})}
    )
    backup.run(world.now_ms)
    copied = read_manifest(depot).of_topic(world.topics.journal)[place]
    assert early[1] < copied[1] <= late[1]
    other = restored(world, depot)
    assert other.status(stray) is Status.COMPLETED
    started = [record for record in journals(other) if stray.encode() in (record.value or b"")]
    assert {record.partition for record in started} == {0, 1}


def test_what_is_missing_or_does_not_fit_is_told_before_anything_is_written(depot: Depot, tmp_path: Path) -> None:
    world = World()
    send_starts(world, "a")
    world.settle()
    with pytest.raises(SagaError, match=r"has no backup\.json: it is no backup"):
        Restore(world.log, world.topics, depot, lambda line: None)
    taken(world, depot)
    with pytest.raises(SagaError, match="is not empty: a backup needs a place of its own"):
        taken(world, depot)
    restore = Restore(world.log, world.topics, depot, lambda line: None)
    with pytest.raises(SagaError, match=r"saga\.inbox, .*not empty"):
        restore.check(PARTITIONS)
    with pytest.raises(SagaError, match="has 4 partitions: set `partitions` to that, not 12"):
        restore.check(12)
    empty = MemoryLog(lambda: 0)
    with pytest.raises(SagaError, match=r"saga\.journal would be x-saga\.journal here: set `prefix`"):
        Restore(empty, TopicNames("x-"), depot, lambda line: None).check(PARTITIONS)
    manifest = json.loads(depot.read("backup.json"))
    depot.write("backup.json", json.dumps(manifest | {"format": 2}).encode())
    with pytest.raises(SagaError, match="of another version"):
        Restore(empty, world.topics, depot, lambda line: None)


def test_a_damaged_backup_writes_no_journal(depot: Depot) -> None:
    world = World()
    send_starts(world, "a", "b", "c", "d")
    world.settle()
    taken(world, depot)
    shelf = shelf_of(depot, world.topics.journal, PARTITIONS - 1)
    depot.write(f"{shelf.folder}/{shelf.segments()[0].name}", b"something else")
    log = MemoryLog(lambda: 0)
    with pytest.raises(SegmentDamaged, match="is not what was written"):
        Restore(log, world.topics, depot, lambda line: None).run(1, 0)
    assert not any(log.records(world.topics.journal, number) for number in range(PARTITIONS))


def test_of_a_ledger_only_what_counts_stays_and_under_a_claim_that_is_released() -> None:
    def outcome(claim: int, saga_id: str) -> bytes:
        return write_record(Execution(claim, saga_id, "1", 1, False, 1, ReplyMessage(Outcome.SUCCESS, b"1")))

    ledger = [
        write_record(Claim(b"a" * 16, "one", 1_000, 1_000)),
        outcome(70, "first"),
        write_record(Claim(b"b" * 16, "two", 1_000, 1_000)),
        outcome(70, "late, of a claim that another one followed"),
        outcome(72, "second"),
        write_record(Release(72, True)),
        outcome(72, "third"),
    ]
    records = [SegmentRecord(70 + at, 5_000 + at, None, value) for at, value in enumerate(ledger)]
    view = LedgerView(1 << 60)
    for offset, value in enumerate(rebased_ledger(records)):
        view.apply(Record("ledger", 0, offset, 9_000, None, value))
    assert [view.memory.get((saga_id, "1", 1)) is not None for saga_id in ("first", "second", "third")] == [True] * 3
    assert len(view.memory) == 3
    assert view.open_claims == {}
    assert view.current == 0


# -- what comes while it is taken


def taken_while(world: World, depot: Depot, meanwhile: Callable[[], object]) -> None:
    """A backup during which something happens once the journals are copied."""
    backup = Backup(world.log, world.topics, PARTITIONS, None, depot, lambda line: None)
    fit = backup._fit

    def and_then(journals: Any) -> None:
        fit(journals)
        meanwhile()

    backup._fit = and_then  # type: ignore[method-assign]
    backup.run(world.now_ms)


def here(partition: int, name: str) -> str:
    """An id that lives on a partition."""
    return next(each for each in (f"{name}-{n}" for n in range(99)) if partition_of(each, PARTITIONS) == partition)


class Kid(Saga[str, str]):
    async def run(self, name: str) -> str:
        return f"hello {name}"


class Late(Saga[str, str]):
    async def run(self, name: str) -> str:
        await self.sleep(60)
        return await self.child(Kid, name, id=here(1, "late-kid"))


class Early(Saga[str, str]):
    async def run(self, name: str) -> str:
        return await self.child(Kid, name, id=here(1, "early-kid"))


def test_messages_that_no_copied_journal_sent_are_left_out_and_their_numbers_are_free(depot: Depot) -> None:
    world = World(sagas=(*SAGAS, Kid, Late, Early))
    late, early = here(0, "late"), here(0, "early")
    send_starts(world, late, saga_type="Late", value=b'"ann"')
    world.settle()

    def meanwhile() -> None:
        send_starts(world, early, saga_type="Early", value=b'"ben"')
        world.settle()

    taken_while(world, depot, meanwhile)
    other = restored(world, depot, left_out=2)  # the start of a child, and its end
    other.advance(70_000)
    other.advance(70_000)
    assert other.status(late) is Status.COMPLETED
    with pytest.raises(KeyError):
        other.status(early)  # it came after what the backup is of


class Timed(Saga[Order, str]):
    async def run(self, order: Order) -> str:
        await self.step(Payments.charge(order_id=order.id, cents=1), undo=Payments.refund, schedule_to_close=10)
        return "paid"


def test_an_undo_that_no_copied_journal_decided_is_left_out(depot: Depot) -> None:
    world = World(sagas=(*SAGAS, Timed))
    world.behave = hold("charge")
    send_starts(world, "t-1", saga_type="Timed")
    world.settle()

    def meanwhile() -> None:
        world.behave = hold("charge", "refund")
        world.advance(11_000)

    taken_while(world, depot, meanwhile)
    payments = world.topics.commands("payments")
    assert [dict(record.headers)["command-type"] for record in world.records(payments)] == [b"charge", b"refund"]
    other = restored(world, depot, left_out=1)
    assert {dict(record.headers)["command-type"] for record in other.records(payments)} == {b"charge"}


def test_what_was_published_is_not_published_again(depot: Depot) -> None:
    world = World()
    send_starts(world, "a", "b", "c", "d", "e")
    world.settle()
    publish(world)
    before = [dict(record.headers)["event-id"] for record in world.records(world.topics.lifecycle)]

    def meanwhile() -> None:
        send_starts(world, "f", "g", "h", "i")
        world.settle()
        publish(world)

    taken_while(world, depot, meanwhile)
    other = restored(world, depot, left_out=12)  # the commands of those that came later
    send_starts(other, "new")
    other.settle()
    publish(other)
    after = [dict(record.headers)["event-id"] for record in other.records(other.topics.lifecycle)]
    assert len(before) > 10
    assert set(before) < set(after)
    assert len(after) == len(set(after))


def publish(world: World) -> None:
    lifecycle = Lifecycle(world.log, world.topics, world.feeds)
    for _ in range(50):
        lifecycle.step(world.now_ms)
        world.advance(100)
    lifecycle.close()


def test_a_second_restore_has_an_incarnation_of_its_own(depot: Depot) -> None:
    world = World()
    send_starts(world, "a")
    world.settle()
    taken(world, depot)
    for incarnation, expected in ((None, 2), (7, 7)):
        log = MemoryLog(lambda: 0)
        Restore(log, world.topics, depot, lambda line: None).run(1, 0, incarnation=incarnation)
        for number in range(PARTITIONS):
            genesis = read_genesis(read_envelope(log.records(world.topics.journal, number)[0].value))
            assert genesis.incarnation == expected
    with pytest.raises(SagaError, match="incarnation 1: the backup is of 1, so it must be higher"):
        Restore(MemoryLog(lambda: 0), world.topics, depot, lambda line: None).run(1, 0, incarnation=1)
