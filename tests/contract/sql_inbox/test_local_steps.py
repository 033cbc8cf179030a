"""Local steps in the transactions of a database: the effect and the outcome are one, whoever calls how often."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator import Failure, LocalContext, Saga, transactional
from orchestrator.connectors.sql import SqlInbox
from orchestrator.errors import DefinitionError
from orchestrator.functions import FUNCTIONS, local_function
from orchestrator.model.effects import LocalCall
from orchestrator.model.events import Status
from orchestrator.model.ids import Direction
from orchestrator.model.messages import Outcome
from orchestrator.testing import SagaTest

PLACE: list[Path] = []


def connect() -> sqlite3.Connection:
    return sqlite3.connect(PLACE[-1], timeout=20, check_same_thread=False)


INBOX = SqlInbox(connect)


@transactional(INBOX)
def book(context: LocalContext, sku: str) -> str:
    context.connection.execute("INSERT INTO bookings VALUES (?, ?)", (context.idempotency_key, sku))
    if sku == "none":
        raise Failure("SoldOut")
    if sku == "bug" and context.attempt == 1:
        raise ValueError("a bug")
    return f"booked {sku}"


@transactional(INBOX)
def unbook(context: LocalContext, booked: str | None, sku: str) -> None:
    key = context.idempotency_key.removesuffix("undo") + "do"
    context.connection.execute("DELETE FROM bookings WHERE key = ?", (key,))


def fail(sku: str) -> None:
    raise Failure("Full")


class Booking(Saga[str, str]):
    async def run(self, sku: str) -> str:
        booked = await self.local(book, sku, undo=unbook)
        if sku == "full":
            await self.local(fail, sku)
        return booked


@pytest.fixture(scope="module", autouse=True)
def _database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    PLACE.append(tmp_path_factory.mktemp("shop") / "shop.db")
    with closing(connect()) as connection:
        connection.execute("CREATE TABLE bookings (key TEXT, sku TEXT)")
        connection.commit()
    INBOX.prepare()
    yield
    INBOX.close()


@pytest.fixture(autouse=True)
def _empty() -> None:
    with closing(connect()) as connection:
        connection.execute("DELETE FROM bookings")
        connection.execute("DELETE FROM saga_inbox")
        connection.commit()


def bookings() -> list[str]:
    with closing(connect()) as connection:
        return [sku for (sku,) in connection.execute("SELECT sku FROM bookings")]


def call(direction: Direction = "do", attempt: int = 1, sku: str = "tea") -> LocalCall:
    function, payload = (book, f'["{sku}"]') if direction == "do" else (unbook, f'[null,"{sku}"]')
    name = local_function(function).name
    return LocalCall("s-1", "1-2-0", "Booking", 1, direction, attempt, name, payload.encode(), None)


def test_a_call_that_is_made_again_is_answered_and_not_run() -> None:
    first, again, third = FUNCTIONS.perform(call()), FUNCTIONS.perform(call()), FUNCTIONS.perform(call(attempt=2))
    assert first.outcome is Outcome.SUCCESS
    assert first == again
    assert third.payload == first.payload == b'"booked tea"'
    assert bookings() == ["tea"]


def test_an_exception_takes_the_effect_back() -> None:
    assert FUNCTIONS.perform(call(sku="bug")).outcome is Outcome.RETRY
    assert bookings() == []
    assert FUNCTIONS.perform(call(attempt=2, sku="bug")).outcome is Outcome.SUCCESS
    assert bookings() == ["bug"]


def test_a_late_call_behind_its_undo_has_no_effect() -> None:
    assert FUNCTIONS.perform(call("undo")).outcome is Outcome.SUCCESS
    assert FUNCTIONS.perform(call()).outcome is Outcome.RETRY
    assert bookings() == []


def test_a_saga_books_and_takes_back_in_transactions() -> None:
    assert SagaTest(Booking).run("tea", id="s-1").result == "booked tea"
    assert SagaTest(Booking).run("full", id="s-2").status is Status.COMPENSATED
    assert SagaTest(Booking).run("none", id="s-3").status is Status.FAILED
    assert SagaTest(Booking).run("bug", id="s-4").result == "booked bug"
    assert bookings() == ["tea", "bug"]


def test_what_cannot_be_in_a_transaction_is_refused() -> None:
    @transactional(INBOX)
    def plain(sku: str) -> None: ...

    plain.__qualname__ = "plain"
    with pytest.raises(DefinitionError, match="takes a LocalContext"):
        local_function(plain).encode(("tea",))
    with pytest.raises(DefinitionError, match="plain, not async"):

        @transactional(INBOX)
        async def later(context: LocalContext) -> None: ...
