"""What could not be decided is found again among the dead letters, and is taken when it is redriven."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from orchestrator.cli.dead_letters import Letter, _obstacle, handed_in, read_letters, redriven_headers
from orchestrator.client import Client
from orchestrator.config import Settings
from orchestrator.errors import BUGS, NotApplied, QueryFailed, StartRejected, UpdateRejected
from orchestrator.log.base import Record, TopicSpec
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.decide import decide
from orchestrator.model.events import Status
from orchestrator.model.ids import partition_of
from orchestrator.model.rule import Kind
from orchestrator.runtime import journal_writer, partition
from orchestrator.runtime.pauses import Pauses
from orchestrator.runtime.poison import MAX_FAILURES, MAX_REMEMBERED, Poison
from orchestrator.runtime.questions import Questions
from orchestrator.saga import Saga
from orchestrator.wire import headers as h
from orchestrator.wire.commands import CommandMessage, ReplyMessage
from orchestrator.wire.dead_letters import REDRIVES
from orchestrator.wire.journal import read_decision, read_envelope
from tests.expense import Decision, Expense
from tests.shop_world import PARTITIONS, SAGAS, Greeting, Order, OrderFulfilment, World, drive, send_starts, succeed
from tests.unit.test_poison import BAD, GOOD, HOME, calm, failing, work_on

T = TypeVar("T")

AWAY = next(f"away-{n}" for n in range(100) if partition_of(f"away-{n}", PARTITIONS) != HOME)


def breaks(patch: pytest.MonkeyPatch, *kinds: type) -> None:
    """The engine with a bug: some kinds of input of one saga cannot be decided."""
    patch.setattr(partition, "decide", failing(*kinds))


def mend(world: World, patch: pytest.MonkeyPatch) -> None:
    """Another worker, with the bug mended."""
    patch.setattr(partition, "decide", decide)
    world.crash()
    work_on(world)


def letters(world: World) -> list[Letter]:
    return read_letters(world.records(world.topics.dead_letters))


def redrive(world: World, letter: Letter) -> None:
    """As `saga dead-letters redrive` does."""
    assert _obstacle(letter, Settings(development=True)) == ""
    given = handed_in(letter, world.topics)
    assert given.topic is not None
    assert given.partition is not None
    append(world, given.topic, given.partition, given.key, given.value, redriven_headers(given))
    work_on(world)


def append(
    world: World, topic: str, number: int, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]
) -> None:
    writer = world.log.appender()
    writer.append(topic, number, value, key=key, headers=headers, token=None)
    assert [delivery.failure for delivery in writer.poll()] == [None]


def decisions(world: World, saga_id: str = BAD) -> list[ev.Decision]:
    found = []
    for record in world.records(world.topics.journal):
        envelope = read_envelope(record.value or b"")
        if envelope.kind == Kind.DECISION and envelope.body:
            found.append(read_decision(envelope))
    return [each for each in found if each.saga_id == saga_id]


def using(world: World, work: Callable[[Client], Awaitable[T]]) -> T:
    async def main() -> T:
        async with Client(world.log, world.topics, PARTITIONS) as client:
            return await work(client)

    return drive(world, main())


def retry(world: World) -> None:
    using(world, lambda client: client.unpark(BAD, "retry", reason="mended", timeout=60))
    work_on(world)


def untouched(letter: Letter, record: Record) -> None:
    assert (letter.key, letter.value, letter.headers) == (record.key, record.value, tuple(record.headers))
    assert (letter.topic, letter.partition, letter.offset) == (record.topic, record.partition, record.offset)


def test_a_reply_is_one_letter_however_often_it_comes_and_ends_its_step_when_redriven(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    breaks(monkeypatch, msg.Reply)
    send_starts(world, BAD)
    work_on(world)
    calm(world)
    replies = [each for each in world.records(world.topics.replies) if each.key == BAD.encode()]
    assert len(replies) > 1, "each take-over sent the command again"
    (letter,) = letters(world)
    untouched(letter, replies[0])
    assert (letter.kind, letter.saga_id) == ("RuntimeError", BAD)
    assert letter.reason == "deciding it failed 2 times: RuntimeError: a bug"
    (parked,) = [event for each in decisions(world) for event in each.events if isinstance(event, ev.SagaParked)]
    assert parked.reason == "deciding an input failed 2 times"
    assert parked.detail == "Reply: RuntimeError: a bug; it stands among the dead letters"
    world.behave = lambda message: None
    mend(world, monkeypatch)
    world.behave = succeed
    redrive(world, letter)
    assert world.status(BAD) is Status.PARKED
    retry(world)
    assert world.status(BAD) is Status.COMPLETED
    assert len(letters(world)) == 1


def test_a_redriven_record_is_tried_anew_also_by_the_worker_that_gave_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    send_starts(world, BAD, saga_type="Expense", value=b"100")
    world.settle()
    breaks(monkeypatch, msg.Signal)
    using(world, lambda client: client.signal(BAD, Expense.decided, Decision(by="ann")))
    work_on(world)
    (letter,) = letters(world)
    redrive(world, letter)
    first, second = letters(world)
    assert (first.redrives, second.redrives) == (0, 1)
    assert "stands among the dead letters" in str(decisions(world)[-1].events)
    monkeypatch.setattr(partition, "decide", decide)
    redrive(world, second)
    assert world.status(BAD) is Status.PARKED
    retry(world)
    assert world.status(BAD) is Status.COMPLETED
    redrive(world, second)
    assert len(letters(world)) == 2
    assert world.status(BAD) is Status.COMPLETED


def test_what_was_redriven_and_taken_is_a_repeat_and_parks_nobody_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    send_starts(world, BAD, saga_type="Expense", value=b"100")
    world.settle()
    breaks(monkeypatch, msg.Signal)
    headers = h.write_headers({h.INPUT_TYPE: "signal", h.SIGNAL: "noted", h.MESSAGE_ID: "note-1"})
    noted = (world.topics.inbox, HOME, BAD.encode(), b'"a word"', headers)
    append(world, *noted)
    work_on(world)
    (letter,) = letters(world)
    monkeypatch.setattr(partition, "decide", decide)
    redrive(world, letter)
    retry(world)
    assert world.status(BAD) is Status.RUNNING
    append(world, *noted)
    work_on(world)
    assert world.status(BAD) is Status.RUNNING
    assert len(letters(world)) == 1


def test_a_forged_copy_of_what_could_not_be_decided_is_no_more_than_forged(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    breaks(monkeypatch, msg.Reply)
    send_starts(world, BAD)
    work_on(world)
    assert len(letters(world)) == 1
    parked = len([event for each in decisions(world) for event in each.events if isinstance(event, ev.SagaParked)])
    reply = next(each for each in world.records(world.topics.replies) if each.key == BAD.encode())
    headers = [(name, b"forged" if name == h.REPLY_TOKEN else value) for name, value in reply.headers]
    append(world, reply.topic, reply.partition, reply.key, reply.value, headers)
    work_on(world)
    assert "token" in letters(world)[-1].reason
    assert len(letters(world)) == 2
    assert parked == len(
        [event for each in decisions(world) for event in each.events if isinstance(event, ev.SagaParked)]
    )


def test_who_waits_for_a_start_is_told_and_a_redrive_starts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    breaks(monkeypatch, msg.Start)

    async def work(client: Client) -> None:
        handle = await client.start(OrderFulfilment, Order(id=BAD), id=BAD)
        with pytest.raises(StartRejected, match="RuntimeError: a bug; it stands among the dead letters"):
            await handle.result(timeout=600)

    using(world, work)
    (letter,) = letters(world)
    calm(world)
    mend(world, monkeypatch)
    redrive(world, letter)
    assert world.status(BAD) is Status.COMPLETED


def test_who_asks_for_an_operation_an_update_or_a_query_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    send_starts(world, BAD, saga_type="Expense", value=b"100")
    world.settle()
    breaks(monkeypatch, msg.Pause, msg.Update)
    monkeypatch.setattr(Questions, "ask", lambda self, query: 1 / 0)
    monkeypatch.setattr(Pauses, "set", lambda self, *given: 1 / 0)

    async def work(client: Client) -> None:
        with pytest.raises(NotApplied, match="a bug; it stands among the dead letters"):
            await client.pause(BAD, timeout=600)
        with pytest.raises(UpdateRejected, match="a bug"):
            await client.update(BAD, Expense.raise_to, 200)
        with pytest.raises(QueryFailed, match="ZeroDivisionError"):
            await client.query(BAD, Expense.who, "nobody")
        with pytest.raises(NotApplied, match="ZeroDivisionError"):
            await client.pause_all(service="payments", timeout=600)

    using(world, work)
    assert [letter.kind for letter in letters(world) if letter.saga_id == BAD] == ["RuntimeError"] * 2
    assert {letter.kind for letter in letters(world) if letter.saga_id != BAD} == {"ZeroDivisionError"}
    calm(world)
    monkeypatch.undo()
    mend(world, monkeypatch)
    update, pause = sorted((x for x in letters(world) if x.saga_id == BAD), key=lambda x: x.topic or "")
    redrive(world, pause)
    retry(world)
    assert world.status(BAD) is Status.PAUSED
    redrive(world, update)
    assert update.topic == world.topics.inbox


class Asking(Saga[str, str]):
    async def run(self, name: str) -> str:
        return await self.child(Greeting, name, id=AWAY)


def test_a_child_s_end_is_taken_by_the_parked_parent_when_it_is_redriven(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(sagas=(*SAGAS, Asking))
    breaks(monkeypatch, msg.ChildEnded, msg.TimerDue, msg.Signal)
    send_starts(world, BAD, saga_type="Asking", value=b'"you"')
    world.settle()
    using(world, lambda client: client.signal(BAD, Expense.noted, "what parks it"))
    work_on(world)
    assert world.status(BAD) is Status.PARKED
    world.advance(3_600_000)
    work_on(world)
    signal, ended = letters(world)
    assert (signal.topic, ended.topic) == (world.topics.inbox, world.topics.internal)
    calm(world)
    owner = world.engine.tenures[HOME].partition
    assert owner is not None
    assert owner.intake._taken[partition_of(AWAY, PARTITIONS)] == 1, "its number is taken: what follows is no gap"
    mend(world, monkeypatch)
    redrive(world, ended)
    retry(world)
    assert world.status(BAD) is Status.COMPLETED
    redrive(world, ended)
    assert len(letters(world)) == 2, "what comes twice is known"


def test_what_was_forwarded_is_counted_and_goes_in_by_its_own_topic_when_redriven(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    send_starts(world, BAD, saga_type="Expense", value=b"100")
    world.settle()
    breaks(monkeypatch, msg.Signal)
    wrong = (HOME + 1) % PARTITIONS
    signal = [*h.write_headers({h.INPUT_TYPE: "signal", h.SIGNAL: "decided"}), ("colour", b"green")]
    append(world, world.topics.inbox, wrong, BAD.encode(), b'{"by":"ann"}', signal)
    start = h.write_headers({h.SAGA_TYPE: "OrderFulfilment"})
    append(world, world.topics.inbox, wrong, GOOD.encode(), Order(id=GOOD).model_dump_json().encode(), start)
    work_on(world)
    assert (world.status(BAD), world.status(GOOD)) == (Status.PARKED, Status.COMPLETED)
    assert world.engine.counters["gaps"] == 0
    (letter,) = letters(world)
    assert letter.topic == world.topics.internal
    assert letter.headers[: len(signal)] == tuple(signal)
    mend(world, monkeypatch)
    redrive(world, letter)
    retry(world)
    assert world.status(BAD) is Status.COMPLETED
    taken = world.log.records(world.topics.inbox, HOME)[-1]
    assert taken.value == b'{"by":"ann"}'
    names = [name for name, _ in taken.headers]
    assert (names.count("colour"), names.count(h.MESSAGE_ID), names.count(REDRIVES)) == (1, 1, 1)
    assert "internal-counter" not in names
    assert letters(world) == [letter]


def test_what_makes_a_decision_too_large_is_a_letter_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    most = journal_writer.MAX_RECORD_BYTES
    monkeypatch.setattr(journal_writer, "MAX_RECORD_BYTES", 4_000)

    def behave(message: CommandMessage) -> ReplyMessage | None:
        if message.saga_id == BAD:
            return ReplyMessage(msg.Outcome.SUCCESS, b'{"warehouse":"' + b"x" * 4_000 + b'"}')
        return succeed(message)

    world.behave = behave
    send_starts(world, BAD)
    work_on(world)
    calm(world)
    (letter,) = letters(world)
    assert letter.kind == "DecisionTooLarge"
    assert "at most 4000 fit the journal" in letter.reason
    monkeypatch.setattr(journal_writer, "MAX_RECORD_BYTES", most)
    world.behave = succeed
    mend(world, monkeypatch)
    redrive(world, letter)
    retry(world)
    assert world.status(BAD) is Status.COMPLETED


def test_nothing_passes_it_before_its_letter_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    send_starts(world, BAD, saga_type="Expense", value=b"100")
    world.settle()
    dead = world.topics.dead_letters
    world.log.delete(dead)
    breaks(monkeypatch, msg.Signal)
    using(world, lambda client: client.signal(BAD, Expense.decided, Decision(by="ann")))
    send_starts(world, GOOD)
    work_on(world)
    owner = world.engine.tenures[HOME].partition
    assert owner is not None
    found = owner.runs.find(BAD)
    assert found is not None
    assert (found.state.status, owner.intake.consumed("inbox")) == (Status.RUNNING, 1)
    mend(world, monkeypatch)
    assert (world.status(BAD), world.status(GOOD)) == (Status.COMPLETED, Status.COMPLETED)
    world.log.create(TopicSpec(dead, PARTITIONS, 1, {}))
    work_on(world)
    assert letters(world) == []


class Died(BaseException):
    """The process is gone, here and now."""


def dies(*arguments: object) -> None:
    raise Died


def test_a_crash_behind_the_letter_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    send_starts(world, BAD, saga_type="Expense", value=b"100")
    work_on(world, 2)
    breaks(monkeypatch, msg.Signal)
    headers = h.write_headers({h.SAGA_ID: BAD, "input-type": "signal", "signal": "decided"})
    value = Decision(by="ann").model_dump_json().encode()
    at = partition_of(BAD, PARTITIONS)
    world.log.appender().append(world.topics.inbox, at, value, key=BAD.encode(), headers=headers, token=None)
    with monkeypatch.context() as patch:
        patch.setattr(partition.Partition, "_set_aside", dies)
        with pytest.raises(Died):
            work_on(world)
    (letter,) = letters(world)
    world.crash()
    work_on(world)
    assert world.status(BAD) is Status.PARKED
    assert len(letters(world)) == 2, "the next worker found out for itself"
    mend(world, monkeypatch)
    for each in letters(world):
        redrive(world, each)
    retry(world)
    assert world.status(BAD) is Status.COMPLETED
    assert letters(world)[0] == letter


def test_a_saga_that_cannot_even_be_parked_stops_nobody_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any, **named: Any) -> Any:
        raise SystemExit("another bug")

    assert issubclass(SystemExit, BUGS)
    world = World()
    send_starts(world, BAD, saga_type="Expense", value=b"100")
    work_on(world, 2)
    breaks(monkeypatch, msg.Signal)
    monkeypatch.setattr("orchestrator.model.turn.Turn.park", broken)
    using(world, lambda client: client.signal(BAD, Expense.decided, Decision(by="ann")))
    work_on(world)
    calm(world)
    (letter,) = letters(world)
    assert world.status(BAD) is Status.RUNNING
    mend(world, monkeypatch)
    redrive(world, letter)
    assert world.status(BAD) is Status.COMPLETED


class Twice(Saga[int, str]):
    """Continues as new once."""

    async def run(self, round: int) -> str:
        await self.sleep(1)
        if round == 1:
            self.continue_as_new(2)
        return "done"


def test_a_next_run_that_cannot_begin_is_parked_as_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(sagas=(*SAGAS, Twice))
    send_starts(world, BAD, saga_type="Twice", value=b"1")
    world.settle()
    breaks(monkeypatch, msg.Continue)
    work_on(world)
    calm(world)
    assert world.status(BAD) is Status.PARKED
    started = [each for each in decisions(world) if isinstance(each.events[0], ev.SagaStarted)]
    assert [each.events[-1] for each in started][1:] == [
        ev.SagaParked("deciding an input failed 2 times", "Continue: RuntimeError: a bug")
    ]
    assert letters(world) == []
    mend(world, monkeypatch)
    retry(world)
    assert world.status(BAD) is Status.COMPLETED


def test_a_timer_has_no_letter_and_rings_for_the_next_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    send_starts(world, BAD, saga_type="Greeting", value=b'"you"')
    world.settle()
    breaks(monkeypatch, msg.TimerDue)
    world.advance(3_600_000)
    work_on(world)
    calm(world)
    (parked,) = [event for each in decisions(world) for event in each.events if isinstance(event, ev.SagaParked)]
    assert parked.detail == "TimerDue: RuntimeError: a bug"
    assert letters(world) == []
    mend(world, monkeypatch)
    retry(world)
    assert world.status(BAD) is Status.COMPLETED


def test_a_refused_command_is_sent_again_by_the_next_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    topic = world.topics.commands("inventory")
    world.log.delete(topic)
    breaks(monkeypatch, msg.SendFailed)
    send_starts(world, BAD)
    work_on(world)
    assert world.status(BAD) is Status.PARKED
    assert letters(world) == []
    owner = world.engine.tenures[HOME].partition
    assert owner is not None
    assert owner.quiet, "a hand-over waits for nothing"
    world.log.create(TopicSpec(topic, PARTITIONS, 1, {}))
    world._commands.assign(topic, HOME, 0)
    mend(world, monkeypatch)
    assert len(world.records(topic)) == 1
    retry(world)
    assert world.status(BAD) is Status.COMPLETED


def measure(name: str) -> int:
    return len(name)


class Measured(Saga[str, int]):
    async def run(self, name: str) -> int:
        return await self.local(measure, name)


def test_a_local_step_s_result_has_no_letter_and_is_had_again_by_the_next_owner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(sagas=(*SAGAS, Measured))
    breaks(monkeypatch, msg.Reply)
    send_starts(world, BAD, saga_type="Measured", value=b'"tea"')
    work_on(world)
    calm(world)
    assert world.status(BAD) is Status.PARKED
    assert letters(world) == []
    mend(world, monkeypatch)
    retry(world)
    assert world.status(BAD) is Status.COMPLETED


class Odd(Exception):
    """Says nothing that could be written down."""

    def __str__(self) -> str:
        return "\ud800" * 5_000


def test_what_is_remembered_of_failures_is_bounded() -> None:
    poison = Poison()
    for number in range(MAX_REMEMBERED + 5):
        given = msg.Signal(BAD, f"m-{number}", "noted")
        for _ in range(MAX_FAILURES):
            assert poison.find(given, None) is None
            poison.note(given, None, Odd())
        failed = poison.find(given, None)
        assert failed is not None
        assert failed.kind == "Odd"
        assert len(failed.reason.encode()) < 1_100
    assert poison.find(msg.Signal(BAD, "m-4", "noted"), None) is None
    assert poison.find(msg.Signal(BAD, "m-5", "noted"), None) is not None
