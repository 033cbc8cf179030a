"""Visibility over the journals of a real engine: what it shows is what the owner knows."""

import random
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from threading import Event

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import InvalidRequest, VisibilityStopped
from orchestrator.log.base import Failure, TopicSpec
from orchestrator.log.memory import MemoryLog, MemoryReader
from orchestrator.log.memory_link import Link
from orchestrator.model import events as ev
from orchestrator.model.events import Status
from orchestrator.model.ids import partition_of
from orchestrator.model.messages import Outcome
from orchestrator.model.retries import RetryPolicy
from orchestrator.topics import TopicNames
from orchestrator.visibility import Visibility, event_data
from orchestrator.visibility.database import load_position
from orchestrator.visibility.views import Views
from orchestrator.wire import headers as h
from orchestrator.wire.commands import CommandMessage, ReplyMessage
from orchestrator.wire.journal import Claim, claim_record, read_envelope, write_envelope
from tests.shop_world import PARTITIONS, REPLIES, World, refuse, send_starts


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "visibility.sqlite"


def start(world: World, *ids: str, saga: str = "OrderFulfilment") -> None:
    send_starts(world, *ids, saga_type=saga, value=None if saga == "OrderFulfilment" else b'"Ada"')


def ask(world: World, saga_id: str, kind: str) -> None:
    topic = world.topics.inbox if kind == "cancel" else world.topics.operations
    headers = h.write_headers({h.INPUT_TYPE: kind})
    partition = partition_of(saga_id, PARTITIONS)
    world.log.appender().append(topic, partition, None, key=saga_id.encode(), headers=headers, token=None)


def ran(*ids: str, **given: object) -> World:
    world = World(**given)  # type: ignore[arg-type]
    start(world, *ids)
    world.settle()
    return world


def open_on(world: World, path: Path) -> Visibility:
    return Visibility(path, world.log, world.topics, PARTITIONS)


def rows(visibility: Visibility) -> list[tuple[object, ...]]:
    tables = ("runs", "decisions", "positions", "nonces")
    return [row for table in tables for row in visibility.database.execute(f"SELECT * FROM {table} ORDER BY 1, 2")]


def test_a_list_shows_runs_and_their_ends(path: Path) -> None:
    world = ran("o-1")
    world.behave = refuse("ship")
    start(world, "o-2")
    world.settle()
    start(world, "g-1", saga="Greeting")
    world.settle()
    with open_on(world, path) as visibility:
        assert visibility.catch_up()
        found = {run.saga_id: run for run in visibility.list().runs}
        assert [run.saga_id for run in visibility.list().runs] == ["g-1", "o-2", "o-1"]
        assert visibility.counts() == {"COMPLETED": 1, "COMPENSATED": 1, "RUNNING": 1}
        assert visibility.counts(type="Greeting") == {"RUNNING": 1}
    assert (found["o-1"].status, found["o-1"].saga_type, found["o-1"].undone) == (
        "COMPLETED",
        "OrderFulfilment",
        "none",
    )
    failed = found["o-2"]
    assert (failed.status, failed.undone, failed.cause, failed.error_type) == (
        "COMPENSATED",
        "all",
        "failed",
        "Declined",
    )
    assert failed.ended_at_ms is not None
    assert found["g-1"].ended_at_ms is None


def test_what_its_owner_has_forgotten_is_listed_on_as_it_ended(path: Path) -> None:
    world = World(ended_keep_ms=5_000)
    start(world, "order-1")
    world.settle()
    with open_on(world, path) as visibility:
        assert visibility.catch_up()
        (before,) = visibility.list().runs
        world.advance(6_000)
        start(world, "order-1")
        world.settle()
        assert visibility.catch_up()
        again, forgotten = visibility.list().runs
        assert (forgotten.run, forgotten.status, forgotten.updated_at_ms) == (
            before.run,
            Status.COMPLETED,
            before.updated_at_ms,
        )
        assert (again.status, again.run != before.run) == (Status.COMPLETED, True)


def test_show_gives_steps_and_history(path: Path) -> None:
    world = World()
    world.behave = refuse("ship")
    start(world, "o-1")
    world.settle()
    with open_on(world, path) as visibility:
        visibility.catch_up()
        details = visibility.show("o-1")
        assert details is not None
        assert visibility.show("o-1", details.run.run) == details
        assert visibility.show("o-1", "1-0-0") is None
        assert visibility.show("nobody") is None
        few = visibility.show("o-1", history=2)
        assert few is not None
        assert few.history == details.history[-2:]
    assert orjson.loads(details.input)["id"] == "o-1"
    assert [(step.command, step.status, step.undo_command) for step in details.steps] == [
        ("reserve", "UNDONE", "release"),
        ("charge", "UNDONE", "refund"),
        ("ship", "REFUSED", None),
    ]
    assert details.steps[2].error_type == "Declined"
    names = [type(entry.event).__name__ for entry in details.history]
    assert names[0] == "SagaStarted"
    assert names[-1] == "SagaEnded"
    assert names.index("CompensationStarted") < names.index("UndoScheduled")
    assert len(details.history) == details.run.events
    places = [(entry.offset, entry.index) for entry in details.history]
    assert places == sorted(places)
    assert details.history[0].source == "inbox"


def test_a_parked_run_says_why_until_it_is_freed(world: World, path: Path) -> None:
    world.behave = refuse("charge", outcome=Outcome.RETRY)
    start(world, "o-1")
    world.settle()
    world.advance(60_000)
    with open_on(world, path) as visibility:
        visibility.catch_up()
        (run,) = visibility.list(status=Status.PARKED).runs
        assert run.parked_reason
        details = visibility.show("o-1")
        assert details is not None
        assert [step.parked_reason for step in details.steps] == [None, run.parked_reason]
        world.behave = refuse()
        ask(world, "o-1", "retry")
        world.settle()
        visibility.catch_up()
        (run,) = visibility.list().runs
        assert (run.status, run.parked_reason) == ("COMPLETED", None)


@pytest.mark.parametrize("status", ["COMPLETED", None])
@pytest.mark.parametrize("type", ["OrderFulfilment", None])
def test_pages_hold_every_run_once(path: Path, status: str | None, type: str | None) -> None:
    ids = [f"o-{number}" for number in range(57)]
    world = ran(*ids)
    with open_on(world, path) as visibility:
        visibility.catch_up()
        seen: list[str] = []
        after = None
        while True:
            page = visibility.list(type=type, status=status, limit=10, after=after)
            seen += [run.saga_id for run in page.runs]
            after = page.next
            if after is None:
                break
        assert len(seen) == 57
        assert set(seen) == set(ids)
        assert visibility.list(type="Greeting").runs == ()
        assert visibility.list(limit=57, type=type, status=status).next is None
        starts = [run.started_at_ms for run in visibility.list(type=type, status=status).runs]
        assert starts == sorted(starts, reverse=True)


@pytest.mark.parametrize(
    "asked", [{"status": "DONE"}, {"limit": 0}, {"limit": 5000}, {"after": "x"}, {"after": "e30="}]
)
def test_what_cannot_be_asked_is_refused(world: World, path: Path, asked: dict[str, object]) -> None:
    with open_on(world, path) as visibility, pytest.raises(InvalidRequest):
        visibility.list(**asked)  # type: ignore[arg-type]


def test_it_goes_on_where_it_stopped(path: Path) -> None:
    world = ran("o-1")
    with open_on(world, path) as visibility:
        visibility.catch_up()
    start(world, "o-2")
    world.settle()
    with open_on(world, path) as visibility:
        before = {p: load_position(visibility.database, p).last_offset for p in range(PARTITIONS)}
        assert any(offset >= 0 for offset in before.values())
        visibility.catch_up()
        assert {run.saga_id for run in visibility.list().runs} == {"o-1", "o-2"}
        resumed = rows(visibility)
    with open_on(world, path.with_name("fresh")) as fresh:
        fresh.catch_up()
        assert rows(fresh) == resumed


def test_records_that_do_not_count_are_not_shown(path: Path) -> None:
    world = ran("o-1")
    partition = partition_of("o-1", PARTITIONS)
    journal = world.topics.journal
    records = world.log.records(journal, partition)
    zombie = world.log.appender()
    # A repeated decision and a claim whose nonce was seen before: what a producer may send twice.
    for record in (records[-1], records[1], records[2]):
        zombie.append(journal, partition, record.value, token=None)
    with open_on(world, path) as visibility, open_on(ran("o-1"), path.with_name("other")) as clean:
        visibility.catch_up()
        clean.catch_up()
        assert visibility.show("o-1") == clean.show("o-1")
        count = visibility.database.execute("SELECT COUNT(*) FROM nonces").fetchone()
        assert count == clean.database.execute("SELECT COUNT(*) FROM nonces").fetchone()


def test_a_second_owner_s_decisions_count_and_the_first_s_do_not_any_more(world: World, path: Path) -> None:
    start(world, "g-1", saga="Greeting")
    world.settle()
    with open_on(world, path) as visibility:
        visibility.catch_up()
        world.crash()
        world.settle()
        world.advance(3_600_000)
        visibility.catch_up()
        (run,) = visibility.list().runs
        assert run.status == "COMPLETED"


def test_a_journal_that_was_made_anew_is_read_anew(path: Path) -> None:
    with open_on(ran("o-1", "o-2"), path) as visibility:
        visibility.catch_up()
    with open_on(ran("o-3", "o-4", "o-5", seed=2), path) as visibility:
        visibility.catch_up()
        assert {run.saga_id for run in visibility.list().runs} == {"o-3", "o-4", "o-5"}


def test_a_journal_that_was_made_anew_and_is_shorter_is_read_anew(path: Path) -> None:
    with open_on(ran(*(f"o-{n}" for n in range(40))), path) as visibility:
        visibility.catch_up()
    with open_on(ran("x"), path) as visibility:
        visibility.catch_up()
        assert [run.saga_id for run in visibility.list().runs] == ["x"]


def test_other_partitions_keep_their_rows_when_one_is_read_anew(path: Path) -> None:
    world = ran(*(f"o-{n}" for n in range(20)))
    with open_on(world, path) as visibility:
        visibility.catch_up()
        expected = rows(visibility)
        # As if partition 2 had been read from another journal.
        visibility.database.execute("UPDATE positions SET record_hash = x'00' WHERE partition = 2")
    with open_on(world, path) as visibility:
        visibility.catch_up()
        assert rows(visibility) == expected


def test_a_cut_journal_is_followed_on_by_who_had_read_it(path: Path) -> None:
    world = ran("o-1")
    partition = partition_of("o-1", PARTITIONS)
    with open_on(world, path) as visibility:
        visibility.catch_up()
    end = len(world.log.records(world.topics.journal, partition))
    world.log.admin().trim({(world.topics.journal, partition): end})
    ask(world, "o-1", "terminate")
    world.settle()
    with open_on(world, path) as visibility:
        assert visibility.catch_up()
        details = visibility.show("o-1")
        assert details is not None
        assert isinstance(details.history[-1].event, ev.InputAbsorbed)
    with (
        open_on(world, path.with_name("late")) as late,
        pytest.raises(VisibilityStopped, match=f"partition {partition}: the journal was cut"),
    ):
        late.catch_up()


def test_a_rewritten_journal_stops_its_partition_and_no_other(path: Path) -> None:
    world = ran(*(f"o-{n}" for n in range(20)))
    partition = partition_of("o-1", PARTITIONS)
    records = world.log.partitions[world.topics.journal, partition].records
    at = len(records) - 2
    rewritten = replace(read_envelope(records[at].value), effects_sent=0)
    records[at] = records[at]._replace(value=write_envelope(rewritten))
    with open_on(world, path) as visibility:
        with pytest.raises(VisibilityStopped, match=f"partition {partition}: .*truncated or rewritten"):
            visibility.catch_up()
        shown = {run.saga_id for run in visibility.list(limit=100).runs}
        assert {f"o-{n}" for n in range(20)} == shown
        assert load_position(visibility.database, partition).last_offset == at


def test_a_record_of_newer_software_stops_its_partition(path: Path) -> None:
    world = ran("o-1", "o-2", "o-3", "o-4")
    partition = partition_of("o-1", PARTITIONS)
    world.log.appender().append(world.topics.journal, partition, b"\x7fnot ours", token=None)
    with open_on(world, path) as visibility:
        with pytest.raises(VisibilityStopped, match=f"partition {partition}"):
            visibility.catch_up()
        assert set(visibility.halted) == {partition}
        # All that came before it is there, in every partition.
        assert visibility.counts() == {"COMPLETED": 4}


def test_without_a_journal_it_says_what_to_do(path: Path) -> None:
    with (
        Visibility(path, MemoryLog(lambda: 0), TopicNames(), 4) as visibility,
        pytest.raises(VisibilityStopped, match="saga topics"),
    ):
        visibility.catch_up()


class Silent(Link):
    """The broker answers no question."""

    def request(self, kind: str, perform: Callable[[], None], fail: Callable[[Failure], None]) -> None: ...


class SilentLog:
    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self.appender = log.appender
        self.admin = log.admin

    def reader(self, group: str | None = None, topics: Iterable[str] = (), *, wake: Event) -> MemoryReader:
        return self._log.reader(group, topics, wake=wake, link=Silent())


def test_a_broker_without_an_answer_is_not_waited_for_longer_than_asked(path: Path) -> None:
    log = MemoryLog(lambda: 0)
    log.create(TopicSpec("saga.journal", 1, 1, {}))
    with Visibility(path, SilentLog(log), TopicNames(), 1) as visibility:
        assert visibility.catch_up(timeout_s=0.01) is False


def test_two_followers_share_one_file(path: Path) -> None:
    world = ran("o-1")
    with open_on(world, path) as one, open_on(world, path) as two:
        one.catch_up()
        assert two.show("o-1") == one.show("o-1")
        start(world, "o-2")
        world.settle()
        two.step()
        start(world, "o-3")
        world.settle()
        one.catch_up()
        two.catch_up()
        assert {run.saga_id for run in two.list().runs} == {"o-1", "o-2", "o-3"}
        shared = rows(one)
    with open_on(world, path.with_name("alone")) as alone:
        alone.catch_up()
        assert rows(alone) == shared


def test_another_thread_reads_by_a_connection_of_its_own(path: Path) -> None:
    world = ran("o-1")
    with open_on(world, path) as visibility:
        visibility.catch_up()
        views = Views.open(path)
        assert views.show("o-1") == visibility.show("o-1")
        with pytest.raises(sqlite3.OperationalError):
            views._database.execute("DELETE FROM runs")
        views.close()


@pytest.mark.parametrize("spoiled", ["not a database, and long enough to be sure of that" * 100, ""])
def test_a_file_that_is_no_database_is_thrown_away(path: Path, spoiled: str) -> None:
    path.parent.mkdir()
    path.write_text(spoiled)
    with open_on(ran("o-1"), path) as visibility:
        assert visibility.catch_up()
        assert visibility.counts() == {"COMPLETED": 1}


def test_a_file_of_another_version_is_emptied(path: Path) -> None:
    world = ran("o-1")
    with open_on(world, path) as visibility:
        visibility.catch_up()
        visibility.database.execute("PRAGMA user_version = 1")
    with open_on(world, path) as visibility:
        assert visibility.counts() == {}
        visibility.catch_up()
        assert visibility.counts() == {"COMPLETED": 1}


def test_the_file_is_for_its_owner_only(world: World, path: Path) -> None:
    with open_on(world, path):
        assert path.stat().st_mode & 0o077 == 0


def test_a_claim_alone_moves_the_position_only(path: Path) -> None:
    world = ran("o-1")
    partition = partition_of("o-1", PARTITIONS)
    claim = claim_record(b"n" * 16, Claim("w", "", (), "1"))
    with open_on(world, path) as visibility:
        visibility.catch_up()
        before = visibility.show("o-1")
        world.log.appender().append(world.topics.journal, partition, claim, token=None)
        visibility.catch_up()
        assert visibility.show("o-1") == before
        assert load_position(visibility.database, partition).rule.nonce == b"n" * 16


def test_an_event_is_shown_without_what_has_its_default() -> None:
    shown = event_data(ev.StepSucceeded(1, 2, b'{"a": 1}'))
    assert shown == {"sequence": 1, "attempt": 2, "payload": {"a": 1}}
    assert event_data(ev.StepSucceeded(1, 2, b"\xff"))["payload"] == "\ufffd"
    policy = event_data(ev.StepScheduled(1, 0, "s", "c", b"", 0, retry=RetryPolicy(maximum_attempts=3)))["retry"]
    assert policy == {"type": "RetryPolicy", "maximum_attempts": 3}


class Moody:
    """Participants that succeed, refuse, ask for retries or say nothing, as the seed has it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def __call__(self, message: CommandMessage) -> ReplyMessage | None:
        mood = self.random.choices(["success", "failure", "retry", "silence"], [6, 2, 3, 1])[0]
        if mood == "silence":
            return None
        outcome = Outcome(mood)
        return ReplyMessage(outcome, REPLIES.get(message.command_type, b"null"), "Moody" if mood != "success" else "")


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_every_list_agrees_with_what_the_owner_knows(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    world = World(seed=seed)
    world.behave = Moody(seed)
    chance = random.Random(seed)
    path = tmp_path_factory.mktemp("visibility") / "v.sqlite"
    with open_on(world, path) as visibility:
        ids = [f"s-{number}" for number in range(8)]
        start(world, *ids[:5])
        start(world, *ids[5:], saga="Greeting")
        for _ in range(12):
            saga_id = chance.choice(ids)
            what = chance.choice(["cancel", "terminate", "retry", "skip", "set-result", "time", "crash", "look"])
            if what == "time":
                world.now_ms += chance.choice([100, 5_000, 4_000_000])
            elif what == "crash":
                world.crash()
            elif what == "look":
                visibility.step()
            else:
                ask(world, saga_id, what)
            world.settle()
        visibility.catch_up()
        for run in visibility.list(limit=100).runs:
            details = visibility.show(run.saga_id, history=10_000)
            assert details is not None
            partition = world.engine.tenures[run.partition].partition
            assert partition is not None
            execution = partition.runs.find(run.saga_id)
            assert execution is not None
            state = execution.state
            assert (run.status, run.run) == (state.status, state.run)
            assert (run.error_type, run.error_message) == (state.error_type, state.error_message)
            assert run.undone == state.undone
            assert [step.status for step in details.steps] == [step.status for step in state.steps.values()]
            assert details.result == state.result
            assert (run.parked_reason is None) == (not state.parked)
        assert {run.saga_id for run in visibility.list(limit=100).runs} == set(ids)
