"""The SQL inbox: what a handler does and what is remembered of it are one transaction.

Every outcome stands in the table under its idempotency key, a failure or retry with its attempt; so does work that is
pending, until it is completed. An `undo` also leaves the row of its `do`, so that a `do` which comes later finds it.
Whoever finds a row, or meets another transaction at it, rolls back and answers what is recorded. Nothing else is
needed: no lease, no fence, no order.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from orchestrator.connectors.sql.statements import Connection, Statements
from orchestrator.connectors.sql.transactions import Dialect, PostgreSQL, SQLite, dialect_of, fetch, roll_back, run
from orchestrator.model.ids import Direction, idempotency_key
from orchestrator.model.messages import Outcome
from orchestrator.participant import rules
from orchestrator.wire.commands import CommandMessage, Ending, Postponed, ReplyMessage
from orchestrator.wire.endings import reply_to

LOGGER = logging.getLogger("orchestrator.connectors.sql")
TRIES = 3
"""For what failed before a handler ran: a stale connection, a lock, a transaction that could not be serialized."""
_SAVEPOINT = "saga_inbox"

Perform = Callable[[Any, bool], Ending]
_PENDING = "pending"


class TransactionEnded(Exception):
    """A handler committed or rolled back the transaction it was lent."""


class SqlInbox:
    """Remembers outcomes in a table of the service's own database.

        payments = Participant(Payments, inbox=SqlInbox(lambda: psycopg.connect("dbname=shop")))

        @payments.handles(Payments.charge)
        def charge(request: Charge, context: HandlerContext) -> Receipt:
            context.connection.execute("INSERT INTO charges ...")

    `connect` makes a connection of psycopg 3, or of sqlite3 with `check_same_thread=False`; one is kept for each
    handler that runs at the same time. The table is made if it is not there (`create_table=False`: is left to you; the
    statement is `schema(...)`). Rows stay for ever unless a `retention` is given and `purge` is called now and then;
    then a command sent more than half of it ago is refused, for its row may be gone. It must cover the longest time
    from a step to its undo.
    """

    def __init__(
        self,
        connect: Callable[[], Connection],
        *,
        table: str = "saga_inbox",
        create_table: bool = True,
        retention: timedelta | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._connect = connect
        self._table = table
        self._create_table = create_table
        self._retention_ms = None if retention is None else retention // timedelta(milliseconds=1)
        self._now_ms = now_ms
        self._idle: list[Connection] = []
        self._dialect: Dialect | None = None
        self._statements: Statements | None = None

    def prepare(self) -> None:
        """Connects, and makes the table where that is asked for. Raises `ConfigurationError` or what connecting raises.

        Happens by itself before the first command.
        """
        connection = self._connect()
        try:
            dialect = self._dialect
            if dialect is None:
                dialect = dialect_of(connection)
                dialect.check(connection)
            statements = dialect.statements(self._table)
            connection.commit()
            self._make_table(connection, dialect, statements)
        except Exception:
            with suppress(Exception):
                connection.close()
            raise
        self._dialect, self._statements = dialect, statements
        self._idle.append(connection)

    def close(self) -> None:
        """Closes the connections that no handler uses."""
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def purge(self) -> int:
        """Deletes rows older than the retention; returns how many. Does nothing without one."""
        if self._retention_ms is None:
            return 0
        with self._connection() as connection:
            self._begin(connection)
            count = run(connection, self._sql.purge, (self._now_ms() - self._retention_ms,))
            self._commit(connection)
        return count

    def process(self, command: CommandMessage, appended_ms: int, perform: Perform) -> tuple[Ending, bool]:
        """Answers from the table, or runs the handler in a transaction; never raises. Whether the handler ran."""
        error: Exception | None = None
        for _ in range(TRIES):
            try:
                with self._connection() as connection:
                    known = self._take_or_answer(connection, command, appended_ms)
                    if known is not None:
                        return known, False
                    reply, recorded = self._run(connection, command, perform)
                break
            except _Meanwhile:
                continue
            except Exception as failure:
                error = failure
                self.close()  # after a restart of the database all that were kept are stale
        else:
            # The table could not be asked, so nothing ran: `retry` asserts nothing.
            return reply_to(error or _Meanwhile()), False
        return (reply if recorded else self._record_apart(command, reply)), True

    def complete(self, command: CommandMessage) -> rules.Answer | rules.Ignore | rules.Reject:
        """Records how pending work ended, and says whether that is to be told. Raises what the database raises."""
        error: Exception | None = None
        for _ in range(TRIES):
            try:
                with self._connection() as connection:
                    return self._complete(connection, command)
            except _Meanwhile:
                continue
            except Exception as failure:
                error = failure
                self.close()
        raise error or _Meanwhile()

    def _complete(self, connection: Connection, command: CommandMessage) -> rules.Answer | rules.Ignore | rules.Reject:
        self._begin(connection)
        decision = rules.decide(command, self._read(connection, command))
        if isinstance(decision, rules.Keep) and isinstance(decision.reply, ReplyMessage):
            reply = decision.reply
            texts = reply.error_type.replace("\0", ""), reply.error_message.replace("\0", "")
            where = _key(command, command.direction), decision.attempt
            if run(connection, self._sql.complete, (reply.outcome.value, reply.payload, *texts, *where)) != 1:
                roll_back(connection)
                raise _Meanwhile
            self._commit(connection)
            return rules.Answer(reply, decision.attempt) if decision.told else rules.IGNORE
        roll_back(connection)
        if isinstance(decision, rules.Answer | rules.Ignore):
            return decision
        return rules.REJECT

    def _take_or_answer(self, connection: Connection, command: CommandMessage, appended_ms: int) -> Ending | None:
        """Takes the command's row and returns None with the transaction open, or what is to be answered."""
        self._begin(connection)
        now_ms, retention_ms = self._now_ms(), self._retention_ms
        old = retention_ms is not None and rules.too_old(command, appended_ms, now_ms, retention_ms)
        late = command.direction == "do" and rules.missed(command, now_ms)
        if not old and not late and self._take(connection, command, now_ms):
            return None
        entry = self._read(connection, command)
        decision = rules.decide(command, entry, appended_ms=appended_ms, now_ms=now_ms, retention_ms=retention_ms)
        if isinstance(decision, rules.Keep):
            # Pending answers this attempt too, by silence; its completion will answer it.
            run(connection, self._sql.ask_again, (decision.attempt, _key(command, command.direction)))
            self._commit(connection)
            return decision.reply
        roll_back(connection)
        if isinstance(decision, rules.Answer | rules.Refuse):
            return decision.reply
        if isinstance(decision, rules.Ignore):
            return Postponed(command.reply_token)
        # The row that was in the way is gone, or belongs to a transaction that was rolled back since.
        raise _Meanwhile

    def _run(self, connection: Connection, command: CommandMessage, perform: Perform) -> tuple[Ending, bool]:
        """Runs the handler and commits; whether the outcome is recorded. What raises here has no effect left."""
        key = _key(command, command.direction)
        unsure = command.attempt > 1 and bool(fetch(connection, self._sql.unsure, (key,))[0][0])
        run(connection, f"SAVEPOINT {_SAVEPOINT}")
        reply = perform(connection, unsure)
        if isinstance(reply, ReplyMessage) and reply.outcome is not Outcome.SUCCESS:
            roll_back(connection)
            return reply, False
        try:
            try:
                run(connection, f"RELEASE SAVEPOINT {_SAVEPOINT}")
            except Exception as error:
                raise _ended_by_handler(connection, error) from error
            self._keep(connection, key, reply)
            self._commit(connection)
        except Exception as error:
            # Also a commit whose answer was lost: what the table says then is what is answered.
            roll_back(connection)
            LOGGER.warning("%s: the handler's transaction could not be committed: %s", key, error)
            return reply_to(error), False
        return reply, True

    def _record_apart(self, command: CommandMessage, reply: Ending) -> Ending:
        """Records how a handler ended whose own transaction is rolled back, unless somebody else's outcome stands."""
        assert isinstance(reply, ReplyMessage)
        error: Exception | None = None
        for _ in range(TRIES):
            try:
                with self._connection() as connection:
                    self._begin(connection)
                    if self._take(connection, command, self._now_ms()):
                        self._keep(connection, _key(command, command.direction), reply)
                        self._commit(connection)
                        return reply
                    decision = rules.decide(command, self._read(connection, command))
                    roll_back(connection)
                    if isinstance(decision, rules.Answer | rules.Refuse):
                        return decision.reply
            except Exception as failure:
                error = failure
                self.close()
        LOGGER.warning("%s: the outcome could not be recorded: %s", command.idempotency_key, error)
        # A failure that nobody remembers must not be told: another attempt may end otherwise.
        return rules.soften(reply)

    def _take(self, connection: Connection, command: CommandMessage, now_ms: int) -> bool:
        """Whether the row is this transaction's. For an undo, the do's row says from now on that it is undone."""
        if command.direction == "undo":
            run(connection, self._sql.mark_undone, _row(command, "do", 0, now_ms))
        return run(connection, self._sql.take, _row(command, command.direction, command.attempt, now_ms)) == 1

    def _keep(self, connection: Connection, key: str, reply: Ending) -> None:
        if isinstance(reply, Postponed):
            values: tuple[Any, ...] = (_PENDING, reply.token, "", "", None, key)
        else:
            # PostgreSQL takes no NUL in a text.
            texts = reply.error_type.replace("\0", ""), reply.error_message.replace("\0", "")
            values = (reply.outcome.value, reply.payload, *texts, reply.retry_after_ms, key)
        if run(connection, self._sql.keep, values) != 1:
            raise TransactionEnded(f"the row of {key} is gone")

    def _read(self, connection: Connection, command: CommandMessage) -> rules.Entry:
        recorded: dict[str, rules.Recorded] = {}
        undone = False
        for row in fetch(connection, self._sql.read, (_key(command, "do"), _key(command, "undo"))):
            direction, attempt, outcome, payload, error_type, error_message, retry_after_ms, is_undone = row
            undone = undone or bool(is_undone)
            if attempt:
                ending: Ending = Postponed(bytes(payload))
                if outcome != _PENDING:
                    ending = ReplyMessage(Outcome(outcome), bytes(payload), error_type, error_message, retry_after_ms)
                recorded[direction] = rules.Recorded(attempt, ending)
        return rules.Entry(recorded.get("do"), recorded.get("undo"), undone)

    def _make_table(self, connection: Connection, dialect: Dialect, statements: Statements) -> None:
        try:
            fetch(connection, statements.probe, ())
        except Exception:
            roll_back(connection)
            if not self._create_table:
                raise
        else:
            connection.rollback()
            return
        for left in reversed(range(TRIES)):
            try:
                run(connection, statements.create)
                dialect.commit(connection)
                return
            except Exception:
                # Two processes that create it at the same time can meet in the database's own catalogue.
                roll_back(connection)
                if not left:
                    raise

    @property
    def _sql(self) -> Statements:
        assert self._statements is not None
        return self._statements

    def _begin(self, connection: Connection) -> None:
        assert self._dialect is not None
        self._dialect.begin(connection)

    def _commit(self, connection: Connection) -> None:
        assert self._dialect is not None
        self._dialect.commit(connection)

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        """A connection outside any transaction; after an exception it is closed, for nobody knows its state."""
        if self._statements is None:
            self.prepare()
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connect()
            # What the user's function left open, such as a SET, is part of the connection.
            connection.commit()
        try:
            yield connection
        except _Meanwhile:
            self._idle.append(connection)
            raise
        except BaseException:
            roll_back(connection)
            with suppress(Exception):
                connection.close()
            raise
        if not getattr(connection, "closed", False):
            self._idle.append(connection)


class _Meanwhile(Exception):
    """Others were quicker, again and again."""


def schema(table: str = "saga_inbox", *, postgresql: bool = True) -> str:
    """The statement that makes the table, for whoever manages the schema elsewhere."""
    return (PostgreSQL() if postgresql else SQLite()).statements(table).create


def _ended_by_handler(connection: Connection, error: Exception) -> Exception:
    """A savepoint that is gone: the handler ended the transaction. In one that failed, the error is the database's."""
    if "savepoint" in str(error).lower():
        return TransactionEnded("the handler ended the inbox's transaction; it must neither commit nor roll back")
    return error


def _key(command: CommandMessage, direction: Direction) -> str:
    return idempotency_key(command.saga_id, command.run, command.sequence, direction)


def _row(command: CommandMessage, direction: Direction, attempt: int, now_ms: int) -> tuple[Any, ...]:
    key = _key(command, direction)
    return key, command.saga_id, command.run, command.sequence, direction, attempt, b"", now_ms
