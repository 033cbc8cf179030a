"""What an owner keeps, marks and hands back, also where something breaks in the middle of it."""

from collections import Counter
from dataclasses import replace

import pytest

from orchestrator.errors import Disconnected
from orchestrator.log.base import Delivery, Failure
from orchestrator.log.memory_link import Link, Sent
from orchestrator.model.events import Status
from orchestrator.model.ids import partition_of
from orchestrator.model.rule import Kind
from orchestrator.model.starts import MAX_WAITERS
from orchestrator.provisioning import apply, plan
from orchestrator.runtime.progress import Progress
from orchestrator.runtime.tenure import Phase
from orchestrator.store.memory import MemoryStores
from orchestrator.wire import headers as h
from orchestrator.wire.commands import CommandMessage, reply_headers
from orchestrator.wire.journal import read_envelope
from tests.shop_world import PARTITIONS, SERVICES, World, send_starts, succeed

IDS = [f"o-{number}" for number in range(400) if partition_of(f"o-{number}", PARTITIONS) == 0]


def send(world: World, saga_id: str, value: bytes = b"", **more: str | int) -> None:
    headers = h.write_headers({h.SAGA_ID: saga_id, **{name.replace("_", "-"): text for name, text in more.items()}})
    writer = world.log.appender()
    writer.append(world.topics.inbox, 0, value, key=saga_id.encode(), headers=headers, token=None)


def steps(world: World, times: int) -> None:
    for _ in range(times):
        world.step()
        world.now_ms += 1


def with_few_warm(world: World, warm: int) -> None:
    """The same worker begins again on its own stores."""
    stores = world.engine._stores
    stores.release()  # type: ignore[attr-defined]
    world.crash()
    world.engine._stores = stores
    world.engine.config = replace(world.engine.config, warm=warm)
    world.settle()


class Slow(Link):
    """What lands is reported later, if told so."""

    def __init__(self) -> None:
        self.held: list[Sent] = []
        self.slow = False

    def append(self, sent: Sent) -> None:
        sent.land()
        if self.slow:
            self.held.append(sent)
        else:
            sent.report()

    def go(self) -> None:
        self.slow = False
        for sent in self.held:
            sent.report()
        self.held = []


class Cut(Link):
    """Lets `left` records through; what follows is lost with the process."""

    def __init__(self) -> None:
        self.left: int | None = None

    def append(self, sent: Sent) -> None:
        if self.left is None or self.left > 0:
            super().append(sent)
        if self.left:
            self.left -= 1


def test_runs_in_memory_are_bounded() -> None:
    world = World()
    with_few_warm(world, 10)
    for saga_id in IDS[:60]:
        send_starts(world, saga_id)
    for _ in range(10):
        world.advance(2_000)
    assert len(world.owned().runs.live) <= 10
    assert world.owned().runs.find(IDS[0]) is not None


def test_runs_that_have_ended_leave_memory_once_they_are_stored_and_those_that_wait_stay() -> None:
    world = World()
    answer = world.behave
    world.behave = lambda message: None if message.saga_id == IDS[0] else answer(message)
    for saga_id in IDS[:5]:
        send_starts(world, saga_id)
    for _ in range(5):
        world.advance(2_000)
    assert list(world.owned().runs.live) == [IDS[0]]
    assert [world.status(saga_id) for saga_id in IDS[:5]] == [Status.RUNNING] + 4 * [Status.COMPLETED]


def test_a_run_stays_in_memory_while_its_cut_waits_and_takes_its_reply() -> None:
    world = World()
    for saga_id in IDS[:3]:
        send_starts(world, saga_id)
    for _ in range(5):
        world.advance(2_000)
    with_few_warm(world, 2)
    owned, link = world.owned(), Slow()
    world.engine._journal._appender = world.log.appender(link=link)
    commands: list[CommandMessage] = []
    world.behave = lambda message: commands.append(message)  # type: ignore[func-returns-value]
    world.now_ms += 10
    owned._cut_mono = world.now_ms
    send_starts(world, IDS[10])
    steps(world, 20)
    link.slow = True
    send_starts(world, IDS[11])
    steps(world, 5)
    world.now_ms += 500
    world.step()
    assert owned._changes._cut_at is not None
    for saga_id in IDS[:3]:
        send(world, saga_id, input_type="cancel")
    steps(world, 5)
    message = commands[0]
    reply = succeed(message)
    assert reply is not None
    headers = reply_headers(message, reply)
    writer = world.log.appender()
    writer.append(message.reply_to, 0, reply.payload, key=IDS[10].encode(), headers=headers, token=None)
    steps(world, 5)
    link.go()
    world.behave = succeed
    for _ in range(5):
        world.advance(2_000)
    assert world.records(world.topics.dead_letters) == []
    execution = owned.runs.find(IDS[10])
    assert execution is not None
    assert execution.state.status is Status.COMPLETED


def test_a_refused_command_is_not_marked_as_sent_before_its_refusal_is_journaled() -> None:
    world = World()
    owned, link = world.owned(), Cut()
    world.log.delete(world.topics.commands("inventory"))
    world.engine._journal._appender = world.log.appender(link=link)
    send_starts(world, IDS[0])
    while owned.counters["confirmed"] < 1:
        world.engine.step(world.now_ms)
        world.now_ms += 1
    send(world, IDS[1], b'"you"', saga_type="Greeting")
    link.left = 1
    for _ in range(10):
        world.engine.step(world.now_ms)
        world.now_ms += 1
    world.crash()
    apply(world.log.admin(), plan(world.topics, partitions=PARTITIONS, replication=1, services=SERVICES))
    for partition in range(PARTITIONS):
        world._commands.assign(world.topics.commands("inventory"), partition, 0)
    for _ in range(30):
        world.advance(5_000)
    assert world.status(IDS[0]) is Status.COMPLETED


def test_a_store_that_breaks_while_leaving_does_not_keep_the_worker() -> None:
    world = World()
    for saga_id in IDS[:3]:
        send_starts(world, saga_id)
    steps(world, 60)
    world.engine._stores.damage(0)  # type: ignore[attr-defined]
    world.engine.leave(world.now_ms)
    for _ in range(50):
        world.engine.step(world.now_ms)
        world.now_ms += 100
    assert world.engine.left


def stores_of(world: World) -> MemoryStores:
    assert isinstance(world.engine._stores, MemoryStores)
    return world.engine._stores


def test_a_full_disk_wipes_and_halts_nothing_and_all_goes_on_where_there_is_room() -> None:
    world = World()
    send_starts(world, *IDS[:3])
    steps(world, 5)
    stores_of(world).full = True
    for _ in range(60):
        world.advance(1_000)
    claims = sum(read_envelope(record.value).kind == Kind.CLAIM for record in world.records(world.topics.journal))
    assert claims <= PARTITIONS * (1 + 60 // 10 + 1), "it is not claimed again and again"
    assert Phase.HALTED not in {tenure.phase for tenure in world.engine.tenures.values()}
    stores_of(world).full = False
    for _ in range(30):
        world.advance(1_000)
    assert world.engine.counters["store_wipes"] == 0
    assert {tenure.phase for tenure in world.engine.tenures.values()} == {Phase.OWNING}
    assert {world.status(saga_id) for saga_id in IDS[:3]} == {Status.COMPLETED}


def test_a_full_disk_at_the_last_mark_ends_one_partition_and_not_the_worker() -> None:
    world = World()
    world.behave = lambda message: None
    owned = world.owned()
    send_starts(world, IDS[0])
    owned._cut_mono = world.now_ms + 1
    steps(world, 12)
    assert owned._changes.gathered
    owned._cut_mono = world.now_ms

    stores_of(world).full = True
    world.engine.leave(world.now_ms)
    for _ in range(60):
        world.engine.step(world.now_ms)
        world.now_ms += 100
    assert world.engine.left


def test_a_partition_that_is_granted_again_while_it_is_left_is_taken_over_again() -> None:
    world = World()
    engine, tenure = world.engine, world.engine.tenures[0]
    engine._revoke(tenure, world.now_ms)
    assert tenure.phase is Phase.LEAVING
    engine._grant(0, world.now_ms)
    engine._end_epoch(tenure, world.now_ms, "another owner claimed the partition")
    for _ in range(100):
        world.advance(500)
    assert engine.tenures[0].phase is Phase.OWNING


def test_a_journal_that_was_made_for_another_number_of_partitions_is_not_owned() -> None:
    world = World()
    world.crash()
    world.engine._owner = replace(
        world.engine._owner, genesis=lambda: replace(world.new_engine()._owner.genesis(), partitions=8)
    )
    for _ in range(5):
        world.advance(2_000)
    assert {tenure.phase for tenure in world.engine.tenures.values()} == {Phase.HALTED}
    assert "was made for 4 partitions, not 8" in world.engine.tenures[0].halted_because


def test_an_end_answers_a_bounded_number_at_once_and_the_others_when_they_ask_again() -> None:
    world = World()
    world.behave = lambda message: None
    send_starts(world, IDS[0])
    world.settle()

    def attach(number: int) -> None:
        address = {"reply_to": world.topics.answers, "reply_partition": 0, "correlation_id": f"c-{number}"}
        send(world, IDS[0], input_type="attach", **address)

    for number in range(MAX_WAITERS + 50):
        attach(number)
    world.settle()
    world.behave = succeed
    send(world, IDS[0], input_type="cancel")
    for _ in range(5):
        world.advance(2_000)
    answers = world.records(world.topics.answers)
    assert len(answers) == MAX_WAITERS
    attach(MAX_WAITERS + 1)
    world.settle()
    told = Counter(dict(record.headers)["correlation-id"] for record in world.records(world.topics.answers))
    assert told[b"c-%d" % (MAX_WAITERS + 1)] == 1


def test_a_decision_confirmed_beside_a_later_one_leaves_its_own_time_in_the_store() -> None:
    world = World()
    owned, link = world.owned(), Slow()
    world.engine._journal._appender = world.log.appender(link=link)
    link.slow = True
    world.now_ms += 500  # the store's turn comes with the first decision
    send_starts(world, IDS[0])
    steps(world, 1)
    at = owned._changes._cut_at
    assert at is not None
    world.now_ms += 70
    send_starts(world, IDS[1])
    steps(world, 1)
    link.go()
    steps(world, 2)
    record = world.log.records(world.topics.journal, 0)[at]
    stored = Progress(owned.store).at
    assert (stored.offset, stored.clock_ms) == (at, record.timestamp_ms)


def lose_place(world: World) -> None:
    """The reader stands outside the inbox; time for the next take-over passes."""
    world.engine._clients.inputs.assign(world.topics.inbox, 0, 1_000)
    for _ in range(10):
        world.advance(1_000)


def test_failed_reads_count_until_something_is_read_again() -> None:
    world = World()
    for saga_id in IDS[:5]:
        epoch = world.owned().progress.at.offset
        lose_place(world)
        assert world.owned().progress.at.offset > epoch, "another epoch began"
        send_starts(world, saga_id)
        world.settle()
        assert world.status(saga_id) is Status.COMPLETED


def test_a_topic_that_cannot_be_read_again_and_again_halts_the_partition() -> None:
    world = World()
    for _ in range(3):
        assert world.engine.tenures[0].phase is Phase.OWNING
        lose_place(world)
    assert world.engine.tenures[0].phase is Phase.HALTED
    assert "saga.inbox cannot be read" in world.engine.tenures[0].halted_because


def test_a_client_that_is_unusable_ends_the_worker_with_a_word_to_whoever_runs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A supervisor starts another; a traceback would say that nobody had thought of it."""
    world = World()
    gone = Delivery((None, None), None, 0, Failure.FATAL, "out of order sequence number")
    monkeypatch.setattr(world.engine._journal, "poll", lambda: [gone])
    with pytest.raises(Disconnected, match="producer is unusable, start it again: out of order sequence number"):
        world.step()
