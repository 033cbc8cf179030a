"""What the SQL inbox promises, on SQLite and on PostgreSQL, in each way a user may configure the connection."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psycopg
import pytest

from orchestrator.connectors.sql import SqlInbox, schema
from orchestrator.errors import ConfigurationError
from orchestrator.model.messages import Outcome
from orchestrator.participant.rules import IGNORE, REJECT, Answer
from orchestrator.wire.commands import CommandMessage, Ending, Postponed, ReplyMessage

from .databases import NOW_MS, Database, command
from .postgres import postgres_server

SUCCESS = ReplyMessage(Outcome.SUCCESS, b'{"payment_id":"p-1"}')
DECLINED = ReplyMessage(Outcome.FAILURE, error_type="CardDeclined", error_message="no money\0 left")
LATER = ReplyMessage(Outcome.RETRY, error_type="Busy", retry_after_ms=700)
PENDING = Postponed(b"k.0")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    with postgres_server() as place:
        yield place


@pytest.fixture(params=["sqlite", "sqlite-auto", "postgres", "postgres-auto", "postgres-serializable"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    if request.param.startswith("sqlite"):
        made = Database(request.param, str(tmp_path / "shop.db"))
    else:
        made = Database(request.param, request.getfixturevalue("postgres"))
    made.clear()
    return made


@pytest.fixture
def inbox(database: Database) -> Iterator[SqlInbox]:
    made = SqlInbox(database.connect, now_ms=lambda: NOW_MS)
    yield made
    made.close()


def completion(reply: ReplyMessage) -> CommandMessage:
    return command()._replace(completion=reply)


class Handler:
    """Has an effect and ends as it is told; remembers whether it was called as unsure."""

    def __init__(self, database: Database, reply: Ending = SUCCESS, by: str = "me") -> None:
        self.database = database
        self.reply = reply
        self.by = by
        self.unsure: list[bool] = []

    def __call__(self, connection: Any, unsure: bool) -> Ending:
        self.unsure.append(unsure)
        self.database.charge(connection, self.by)
        return self.reply


def never(connection: Any, unsure: bool) -> ReplyMessage:
    raise AssertionError("must not run")


def test_effect_and_outcome_are_one(database: Database, inbox: SqlInbox) -> None:
    assert inbox.process(command(), 0, Handler(database)) == (SUCCESS, True)
    assert database.charges() == ["me"]
    for attempt in (1, 2, 9):
        assert inbox.process(command(attempt=attempt), 0, never) == (SUCCESS, False)


@pytest.mark.parametrize("reply", [DECLINED, LATER])
def test_what_a_handler_did_before_it_failed_is_gone_and_its_outcome_stays(
    database: Database, inbox: SqlInbox, reply: ReplyMessage
) -> None:
    assert inbox.process(command(attempt=2), 0, Handler(database, reply)) == (reply, True)
    assert database.charges() == []
    known, ran = inbox.process(command(attempt=1), 0, never)
    assert not ran
    assert (known.outcome, known.error_type, known.retry_after_ms) == (
        reply.outcome,
        reply.error_type,
        reply.retry_after_ms,
    )
    assert known.error_message == reply.error_message.replace("\0", "")


def test_a_higher_attempt_after_a_failure_runs_again(database: Database, inbox: SqlInbox) -> None:
    inbox.process(command(attempt=1), 0, Handler(database, DECLINED))
    handler = Handler(database)
    assert inbox.process(command(attempt=2), 0, handler) == (SUCCESS, True)
    assert database.charges() == ["me"]
    assert handler.unsure == [False]


def test_a_handler_hears_that_an_earlier_execution_may_have_had_an_effect(database: Database, inbox: SqlInbox) -> None:
    inbox.process(command(attempt=1), 0, Handler(database, LATER))
    handler = Handler(database, DECLINED)
    inbox.process(command(attempt=2), 0, handler)
    inbox.process(command(attempt=3), 0, handler)
    assert handler.unsure == [True, True]


def test_an_undo_keeps_its_do_away_though_it_came_first(database: Database, inbox: SqlInbox) -> None:
    assert inbox.process(command("undo"), 0, Handler(database)) == (SUCCESS, True)
    for attempt in (1, 7):
        reply, ran = inbox.process(command(attempt=attempt), 0, never)
        assert (reply.outcome, reply.error_type, ran) == (Outcome.RETRY, "Undone", False)


@pytest.mark.parametrize("reply", [DECLINED, LATER])
def test_an_undo_that_failed_keeps_its_do_away_too_and_runs_again(
    database: Database, inbox: SqlInbox, reply: ReplyMessage
) -> None:
    inbox.process(command(attempt=1), 0, Handler(database, LATER))
    inbox.process(command("undo"), 0, Handler(database, reply))
    assert inbox.process(command(attempt=2), 0, never)[0].error_type == "Undone"
    assert inbox.process(command("undo"), 0, never)[0].outcome is reply.outcome
    assert inbox.process(command("undo", attempt=2), 0, Handler(database, by="undo")) == (SUCCESS, True)
    assert database.charges() == ["undo"]


def test_after_an_undo_a_success_is_still_answered(database: Database, inbox: SqlInbox) -> None:
    inbox.process(command(), 0, Handler(database))
    inbox.process(command("undo"), 0, Handler(database))
    assert inbox.process(command(attempt=3), 0, never) == (SUCCESS, False)


def test_pending_work_is_committed_with_what_the_handler_wrote_and_answers_every_attempt_by_silence(
    database: Database, inbox: SqlInbox
) -> None:
    assert inbox.process(command(attempt=2), 0, Handler(database, PENDING)) == (PENDING, True)
    assert database.charges() == ["me"]
    for attempt in (1, 2, 3):
        assert inbox.process(command(attempt=attempt), 0, never) == (PENDING, False)
    # The highest attempt is remembered: that is the one which the completion answers.
    assert inbox.complete(completion(DECLINED)) == Answer(DECLINED, 3)
    assert inbox.complete(completion(SUCCESS))[0].error_type == "CardDeclined"
    assert inbox.process(command(attempt=3), 0, never)[0].outcome is Outcome.FAILURE
    assert inbox.process(command(attempt=4), 0, Handler(database)) == (SUCCESS, True)


def test_an_undo_does_not_wait_for_pending_work_and_its_completion_is_only_recorded(
    database: Database, inbox: SqlInbox
) -> None:
    inbox.process(command(), 0, Handler(database, PENDING))
    assert inbox.process(command("undo"), 0, Handler(database, by="undo")) == (SUCCESS, True)
    assert inbox.process(command(attempt=2), 0, never)[0].error_type == "Undone"
    assert inbox.complete(completion(SUCCESS)) is IGNORE
    assert inbox.complete(completion(SUCCESS)) is IGNORE
    rows = database.execute("SELECT outcome FROM saga_inbox WHERE direction = 'do'")
    assert [row[0] for row in rows] == ["success"]


def test_what_is_not_pending_is_not_completed(database: Database, inbox: SqlInbox) -> None:
    assert inbox.complete(completion(SUCCESS)) is REJECT
    inbox.process(command(), 0, Handler(database, Postponed(b"k.other")))
    assert inbox.complete(completion(SUCCESS)) is REJECT
    with database.connect() as connection:
        connection.execute("DROP TABLE saga_inbox")
        connection.commit()
    with pytest.raises((sqlite3.Error, psycopg.Error)):
        inbox.complete(completion(SUCCESS))


def test_other_units_are_others(database: Database, inbox: SqlInbox) -> None:
    inbox.process(command(), 0, Handler(database))
    assert inbox.process(command(saga_id="order-8"), 0, Handler(database)) == (SUCCESS, True)


def waits(database: Database) -> bool:
    """Whether a transaction waits for another's row. SQLite does not say; there the order does not matter."""
    if database.kind.startswith("sqlite"):
        return True
    return bool(database.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = ?", "Lock"))


class Overlap:
    """A handler that stops in the middle, and a second command that is processed meanwhile."""

    def __init__(self, database: Database, first: CommandMessage, ends: ReplyMessage) -> None:
        self.database = database
        self.inside, self.go_on = Event(), Event()
        self.ends = ends
        self.results: dict[str, tuple[ReplyMessage, bool]] = {}
        self.inboxes = [SqlInbox(database.connect, now_ms=lambda: NOW_MS) for _ in range(2)]
        self.first = Thread(target=self._process, args=("first", 0, first, self._handle))
        self.first.start()
        assert self.inside.wait(20)

    def _handle(self, connection: Any, unsure: bool) -> ReplyMessage:
        self.database.charge(connection, "first")
        self.inside.set()
        assert self.go_on.wait(20)
        return self.ends

    def _process(self, name: str, inbox: int, message: CommandMessage, handler: Callable[..., ReplyMessage]) -> None:
        self.results[name] = self.inboxes[inbox].process(message, 0, handler)

    def meet(self, second: CommandMessage, handler: Callable[..., ReplyMessage]) -> None:
        thread = Thread(target=self._process, args=("second", 1, second, handler))
        thread.start()
        while not waits(self.database):
            assert thread.is_alive()
        self.go_on.set()
        for each in (self.first, thread):
            each.join(30)
            assert not each.is_alive()
        for inbox in self.inboxes:
            inbox.close()


def test_a_second_execution_waits_and_answers_what_the_first_recorded(database: Database) -> None:
    overlap = Overlap(database, command(), SUCCESS)
    overlap.meet(command(), Handler(database, by="second"))
    assert overlap.results == {"first": (SUCCESS, True), "second": (SUCCESS, False)}
    assert database.charges() == ["first"]


def test_a_higher_attempt_waits_for_the_one_that_runs_and_runs_if_that_failed(database: Database) -> None:
    overlap = Overlap(database, command(attempt=1), DECLINED)
    overlap.meet(command(attempt=2), Handler(database, by="second"))
    # Which of them records first is open; either way one effect is there and the success is what counts.
    assert overlap.results["second"] == (SUCCESS, True)
    assert overlap.results["first"][0].outcome in (Outcome.FAILURE, Outcome.SUCCESS)
    assert database.charges() == ["second"]


def test_an_undo_waits_until_the_running_do_has_ended(database: Database) -> None:
    overlap = Overlap(database, command(), SUCCESS)
    overlap.meet(command("undo"), Handler(database, by="undo"))
    assert overlap.results == {"first": (SUCCESS, True), "second": (SUCCESS, True)}
    assert database.charges() == ["first", "undo"]


def test_an_undo_that_meets_a_do_which_fails_wins(database: Database) -> None:
    overlap = Overlap(database, command(), LATER)
    overlap.meet(command("undo"), Handler(database, by="undo"))
    assert overlap.results["second"] == (SUCCESS, True)
    assert database.charges() == ["undo"]
    with closing(SqlInbox(database.connect)) as inbox:
        assert inbox.process(command(attempt=5), 0, never)[0].outcome is Outcome.RETRY


def test_many_at_once_have_one_effect(database: Database) -> None:
    inbox = SqlInbox(database.connect)
    results: list[tuple[ReplyMessage, bool]] = []
    threads = [
        Thread(target=lambda: results.append(inbox.process(command(attempt=2), 0, Handler(database)))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    inbox.close()
    assert database.charges() == ["me"]
    succeeded = [reply for reply, _ in results if reply.outcome is Outcome.SUCCESS]
    # Where transactions are serialized some may be told to try again; whoever is answered is answered the same.
    assert succeeded
    assert all(reply == SUCCESS for reply in succeeded)
    assert sum(ran and reply.outcome is Outcome.SUCCESS for reply, ran in results) == 1


@pytest.mark.parametrize("killed", [True, False])
def test_a_process_killed_in_the_middle_leaves_nothing_and_one_that_goes_on_is_believed(
    database: Database, killed: bool
) -> None:
    arguments = [sys.executable, "-m", "tests.contract.sql_inbox.zombie", database.kind, database.place]
    inbox = SqlInbox(database.connect)
    inbox.prepare()
    zombie = subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]
    )
    try:
        assert zombie.stdout is not None
        assert zombie.stdin is not None
        assert zombie.stdout.readline() == "holds\n"
        if killed:
            zombie.kill()
        else:
            print(file=zombie.stdin, flush=True)
        zombie.wait(20)
    finally:
        zombie.kill()
        zombie.communicate()
    reply, ran = inbox.process(command(), 0, Handler(database))
    inbox.close()
    assert ran is killed
    assert reply.payload == (SUCCESS.payload if killed else b'"zombie"')
    assert database.charges() == (["me"] if killed else ["zombie"])


@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_a_handler_that_ends_the_transaction_is_found_out(database: Database, inbox: SqlInbox, ends: str) -> None:
    def handler(connection: Any, unsure: bool) -> ReplyMessage:
        database.charge(connection, "me")
        getattr(connection, ends)()
        return SUCCESS

    reply, _ = inbox.process(command(), 0, handler)
    assert reply.outcome is Outcome.RETRY
    assert reply.error_type == ("Interrupted" if ends == "commit" else "TransactionEnded")
    assert database.charges() == (["me"] if ends == "commit" else [])
    # It may have had an effect: that is what stays recorded, and a higher attempt runs, unsure.
    again = Handler(database, DECLINED)
    inbox.process(command(attempt=2), 0, again)
    assert again.unsure == [True]


def test_a_statement_that_fails_inside_a_handler_that_hides_it_is_a_retry(database: Database, inbox: SqlInbox) -> None:
    def handler(connection: Any, unsure: bool) -> ReplyMessage:
        with pytest.raises((sqlite3.Error, psycopg.Error)):
            connection.execute("SELECT * FROM nowhere")
        return SUCCESS

    reply, ran = inbox.process(command(), 0, handler)
    if database.kind.startswith("sqlite"):
        assert (reply, ran) == (SUCCESS, True)
    else:
        assert (reply.outcome, reply.error_type, ran) == (Outcome.RETRY, "InFailedSqlTransaction", True)


def test_a_failure_that_cannot_be_recorded_is_not_told(database: Database, inbox: SqlInbox) -> None:
    def handler(connection: Any, unsure: bool) -> ReplyMessage:
        connection.rollback()
        database.execute("DROP TABLE saga_inbox")
        return DECLINED

    inbox.prepare()
    reply, _ = inbox.process(command(), 0, handler)
    assert (reply.outcome, reply.error_type) == (Outcome.RETRY, "CardDeclined")


def test_without_its_table_nothing_runs(database: Database, inbox: SqlInbox) -> None:
    inbox.prepare()
    database.execute("DROP TABLE saga_inbox")
    reply, ran = inbox.process(command(), 0, never)
    assert (reply.outcome, ran) == (Outcome.RETRY, False)


def test_connections_that_went_stale_are_replaced(database: Database, inbox: SqlInbox) -> None:
    inbox.process(command(), 0, Handler(database))
    for connection in inbox._idle:
        connection.close()
    assert inbox.process(command(saga_id="order-8"), 0, Handler(database)) == (SUCCESS, True)


def test_a_do_after_its_deadline_and_what_is_too_old_are_refused_but_what_is_known_is_answered(
    database: Database,
) -> None:
    day_ms = 86_400_000
    inbox = SqlInbox(database.connect, retention=timedelta(days=2), now_ms=lambda: NOW_MS)
    inbox.process(command(saga_id="known"), 0, Handler(database))
    late = command(deadline_ms=NOW_MS - 1)
    assert inbox.process(late, 0, never)[0].error_type == "DeadlineExceeded"
    old_ms = NOW_MS - day_ms - 1
    assert inbox.process(command(sent_at_ms=old_ms), NOW_MS, never)[0].error_type == "Expired"
    assert inbox.process(command("undo", sent_at_ms=old_ms), NOW_MS, never)[0].error_type == "Expired"
    assert inbox.process(command(saga_id="known", sent_at_ms=old_ms), NOW_MS, never) == (SUCCESS, False)
    inbox.close()


def test_purging_deletes_what_is_older_than_the_retention(database: Database) -> None:
    now_ms = NOW_MS
    inbox = SqlInbox(database.connect, retention=timedelta(days=2), now_ms=lambda: now_ms)
    inbox.process(command(saga_id="old"), 0, Handler(database))
    now_ms += 86_400_000
    inbox.process(command(saga_id="new"), 0, Handler(database))
    now_ms += 86_400_001
    assert inbox.purge() == 1
    assert inbox.process(command(saga_id="new", sent_at_ms=now_ms), 0, never) == (SUCCESS, False)
    inbox.close()


def test_purging_keeps_what_an_undo_said_as_long_as_the_undo_itself(database: Database) -> None:
    """A do that was sent half the retention after the first one is still fresh when the first one's row is old."""
    day_ms, now_ms = 86_400_000, NOW_MS
    inbox = SqlInbox(database.connect, retention=timedelta(days=30), now_ms=lambda: now_ms)
    unknown = ReplyMessage(Outcome.RETRY, b"", "Busy", "")
    assert inbox.process(command(), 0, Handler(database, unknown))[0].outcome is Outcome.RETRY
    now_ms += 29 * day_ms
    late = command(attempt=2, sent_at_ms=now_ms)
    now_ms += day_ms // 2
    inbox.process(command("undo", sent_at_ms=now_ms), now_ms, Handler(database))
    now_ms += day_ms
    inbox.purge()
    assert inbox.process(late, late.sent_at_ms, never)[0].error_type == "Undone"
    inbox.close()


def test_a_table_of_another_name_made_by_hand(database: Database) -> None:
    database.execute("DROP TABLE IF EXISTS my_inbox")
    inbox = SqlInbox(database.connect, table="my_inbox", create_table=False)
    with pytest.raises((sqlite3.Error, psycopg.Error)):
        inbox.prepare()
    database.execute(schema("my_inbox", postgresql=not database.kind.startswith("sqlite")))
    assert inbox.process(command(), 0, Handler(database)) == (SUCCESS, True)
    inbox.close()


def test_names_that_need_quoting_are_refused(tmp_path: Path) -> None:
    inbox = SqlInbox(lambda: sqlite3.connect(tmp_path / "x.db", check_same_thread=False), table="a; DROP TABLE b")
    with pytest.raises(ConfigurationError, match="letters"):
        inbox.prepare()


def test_a_connection_bound_to_its_thread_is_refused(tmp_path: Path) -> None:
    inbox = SqlInbox(lambda: sqlite3.connect(tmp_path / "x.db"))
    with pytest.raises(ConfigurationError, match="check_same_thread=False"):
        inbox.prepare()


def test_an_unknown_driver_is_refused() -> None:
    class Foreign:
        def close(self) -> None: ...

    with pytest.raises(ConfigurationError, match="sqlite3 and psycopg"):
        SqlInbox(Foreign).prepare()  # type: ignore[arg-type]
