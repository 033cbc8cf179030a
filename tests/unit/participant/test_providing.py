"""What handlers need besides their request: provided by type, made once or for each call, ended with that."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from pydantic import BaseModel

from orchestrator import Failure, HandlerContext, Participant, Service, command, inject, per_call
from orchestrator.errors import DefinitionError
from orchestrator.model.messages import Outcome
from orchestrator.testing import HandlerTest


class Charge(BaseModel):
    cents: int


class Payments(Service):
    charge = command(Charge, str)
    refund = command(Charge)


class Settings:
    def __init__(self) -> None:
        self.currency = "EUR"


class Database:
    def __init__(self, currency: str) -> None:
        self.currency = currency
        self.rows: list[int] = []


class Session:
    def __init__(self, database: Database, tenant: str) -> None:
        self.database = database
        self.tenant = tenant


happened: list[str] = []


def database(settings: Settings = inject(Settings)) -> Iterator[Database]:
    happened.append("connect")
    yield Database(settings.currency)
    happened.append("disconnect")


def session(
    database: Database = inject(Database), context: HandlerContext = inject(HandlerContext)
) -> Iterator[Session]:
    happened.append(f"begin {context.attempt}")
    try:
        yield Session(database, context.saga_id)
    except Failure:
        happened.append("rollback")
        raise
    happened.append("commit")


@contextmanager
def traced(request: Any, context: HandlerContext) -> Iterator[None]:
    happened.append(f"> {request.cents}")
    try:
        yield
    finally:
        happened.append("<")


def payments(**options: Any) -> Participant:
    participant = Participant(Payments, provide=[Settings, database, per_call(session)], **options)

    @participant.handles(Payments.charge)
    def charge(request: Charge, session: Session = inject(Session)) -> str:
        if request.cents > 100:
            raise Failure("TooMuch")
        session.database.rows.append(request.cents)
        return f"{len(session.database.rows)} {session.database.currency} {session.tenant}"

    @participant.handles(Payments.refund)
    async def refund(request: Charge, context: HandlerContext, *, database: Database = inject(Database)) -> None:
        database.rows.remove(request.cents)

    return participant


def test_what_lives_long_is_made_once_and_what_lives_for_a_call_each_time() -> None:
    happened.clear()
    participant = payments(around=[traced])
    test = HandlerTest(participant)
    assert test.call(Payments.charge(cents=5), id="a").reply == "1 EUR a"
    assert test.call(Payments.charge(cents=6), id="b", attempt=2).reply == "2 EUR b"
    refused = test.call(Payments.charge(cents=600), id="c")
    assert (refused.outcome, refused.error_type) == (Outcome.FAILURE, "TooMuch")
    assert test.call(Payments.refund(cents=5), id="d").outcome is Outcome.SUCCESS
    participant.close()
    assert happened == [
        *("> 5", "connect", "begin 1", "commit", "<"),
        *("> 6", "begin 2", "commit", "<"),
        *("> 600", "begin 1", "rollback", "<"),
        *("> 5", "<"),
        "disconnect",
    ]


def test_a_test_gives_something_else_instead() -> None:
    happened.clear()
    participant = payments()
    fake = Database("XXX")
    with participant.override({Database: fake}):
        assert HandlerTest(participant).call(Payments.charge(cents=5), id="a").reply == "1 XXX a"
    assert "connect" not in happened
    assert HandlerTest(participant).call(Payments.charge(cents=5), id="a").reply == "1 EUR a"


def test_a_provider_that_fails_has_the_command_tried_again() -> None:
    def broken() -> Database:
        raise ConnectionError("no route")

    participant = Participant(Payments, provide=[broken])

    @participant.handles(Payments.charge)
    def charge(request: Charge, database: Database = inject(Database)) -> str:
        raise AssertionError("never reached")

    called = HandlerTest(participant).call(Payments.charge(cents=5))
    assert (called.outcome, called.error_type, called.error_message) == (
        Outcome.RETRY,
        "ConnectionError",
        "no route",
    )


def test_what_is_around_may_refuse_before_the_handler_runs() -> None:
    @contextmanager
    def closed(request: Any, context: HandlerContext) -> Iterator[None]:
        raise Failure("Closed")
        yield

    happened.clear()
    called = HandlerTest(payments(around=[closed, traced])).call(Payments.charge(cents=5))
    assert (called.outcome, called.error_type, happened) == (Outcome.FAILURE, "Closed", [])


class Other:
    pass


def test_wrong_declarations_are_found_at_once() -> None:
    participant = payments()
    participant.handlers.clear()
    with pytest.raises(DefinitionError, match=r"nobody provides Other for 'other'; provided are Database, Handler"):

        @participant.handles(Payments.charge)
        def charge(request: Charge, other: Other = inject(Other)) -> str:
            return ""

    def untyped():  # type: ignore[no-untyped-def]
        return 1

    async def late() -> Other:
        return Other()

    def needs_call(context: HandlerContext = inject(HandlerContext)) -> Other:
        return Other()

    def needs_itself(other: Other = inject(Other)) -> Other:
        return other

    def says(*provide: Any) -> str:
        with pytest.raises(DefinitionError) as caught:
            Participant(Payments, provide=provide)
        return str(caught.value)

    assert "a provider is a plain function with its class as the return type" in says(untyped)
    assert "a provider is a plain function" in says(late)
    assert "two providers of Settings" in says(Settings, Settings)
    assert "cannot need HandlerContext, which lives for one call: make it per_call(...)" in says(needs_call)
    assert "the provider of Other needs itself" in says(needs_itself)
    assert "the provider of Database: nobody provides Settings" in says(database)
    assert "the provider of Database: nobody gives it 'currency'. Write `= inject(...)` behind" in says(Database)
    assert "the provider of Session: nobody gives it 'database'" in says(per_call(Session))

    def makes(database: Database) -> Other:
        return Other()

    assert "the provider of Other: nobody gives it 'database'" in says(makes)


def test_what_stands_around_handlers_is_a_plain_context_manager() -> None:
    @asynccontextmanager
    async def late(request: Any, context: HandlerContext) -> AsyncIterator[None]:
        yield

    async def later(request: Any, context: HandlerContext) -> None:
        pass

    def bare(request: Any, context: HandlerContext) -> Iterator[None]:
        yield

    for wrong in (late, later, bare, object()):
        with pytest.raises(DefinitionError, match=r"around=\[...\] takes plain .* write @contextmanager"):
            payments(around=[wrong])
