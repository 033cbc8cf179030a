"""Who answers in a test: participants with and without an inbox, functions, recorded answers, and nobody."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from orchestrator import Failure, HandlerContext, Participant, Saga, Status
from orchestrator.connectors.sql import SqlInbox
from orchestrator.sagas import order_fulfilment as shop
from orchestrator.sagas.order_fulfilment import (
    Inventory,
    Order,
    OrderFulfilment,
    Payments,
    Receipt,
    Reservation,
    Shipping,
)
from orchestrator.testing import SagaTest
from tests.unit.testing.trips import Booking, Cards, Cars, Hotels, Mails, Ticket, Travel, Trip, cards, cars, hotels

ORDER = Order(id="o-1", sku="tea", cents=900)


def travel() -> SagaTest[Trip, str]:
    return SagaTest(Travel).service(hotels, cars, cards).answer(Mails.send, None)


@pytest.fixture
def _books(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_BOOKS", ":memory:")


# -- participants


def test_handlers_of_participants_run_in_the_test_sync_and_async() -> None:
    end = travel().run(Trip(who="ann"))
    end.assert_completed("h-ann test/1-1-0/2/do c-1")
    assert end.effects == [Hotels.book, Cars.book, Cards.charge, Mails.send]
    assert end.attempts(Cars.book) == 2


def test_async_handlers_run_also_where_the_test_has_a_loop_itself() -> None:
    async def test() -> str | None:
        return travel().run(Trip(who="ann")).result

    assert asyncio.run(test()) == "h-ann test/1-1-0/2/do c-1"


@pytest.mark.usefixtures("_books")
def test_participants_with_an_inbox_work_in_its_transactions() -> None:
    test = SagaTest(OrderFulfilment).service(shop.inventory, shop.payments, shop.shipping)
    test.run(ORDER).assert_completed("shipped o-1")
    declined = test.run(Order(id="o-2", sku="gold", cents=900_000))
    declined.assert_compensated(Inventory.release)
    assert declined.reason == "CardDeclined: 9000.00 is over the limit"


def test_what_a_handler_wrote_can_be_read_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_BOOKS", str(tmp_path))
    SagaTest(OrderFulfilment).service(shop.inventory, shop.payments, shop.shipping).run(ORDER)
    with sqlite3.connect(tmp_path / "payments.db") as book:
        assert book.execute("SELECT key, entry FROM book").fetchall() == [("test/1-1-0/2/do", "charged 900 for o-1")]
    book.close()


def test_an_inbox_that_remembers_an_earlier_test_is_no_silent_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_BOOKS", str(tmp_path))
    test = SagaTest(OrderFulfilment).service(shop.inventory, shop.payments, shop.shipping)
    test.run(ORDER)
    with pytest.raises(AssertionError, match=r"inventory\.reserve was answered from its inbox, which remembers"):
        test.run(ORDER)


def test_an_inbox_without_a_database_says_so(tmp_path: Path) -> None:
    broken: list[sqlite3.Connection] = []

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(tmp_path / "db", isolation_level=None, check_same_thread=False)
        if broken:
            connection.close()
        broken.append(connection)
        return connection

    clerks = Participant(Mails, inbox=SqlInbox(connect))
    clerks.handles(Mails.send)(lambda request: broken[0].close())
    test = SagaTest(Travel).service(hotels, cars, cards, clerks)
    with pytest.raises(AssertionError, match=r"mails\.send could not be run in its inbox"):
        test.run(Trip(who="ann"))


def test_recorded_answers_come_before_a_participant_and_then_it_goes_on() -> None:
    end = travel().fail(Cars.book, "Strike").run(Trip(who="ann"))
    assert end.error_type == "Strike"
    end = travel().retry(Cards.charge, times=2).run(Trip(who="ann"))
    assert end.attempts(Cards.charge) == 3
    end.assert_completed()


def test_a_command_without_a_handler_is_named() -> None:
    half = Participant(Cars)
    half.handles(Cars.book)(lambda request: Ticket(number="1"))
    test = SagaTest(Travel).service(hotels, half).fail(Cards.charge, "Broke")
    with pytest.raises(AssertionError, match=r"cars\.free was sent.*no handler.*handles\(Cars\.free\)"):
        test.run(Trip(who="ann"))


# -- functions


def test_a_function_answers_one_command_with_or_without_the_context() -> None:
    async def hotel(request: Booking) -> Ticket:
        await asyncio.sleep(0)
        return Ticket(number=request.who)

    def car(request: Booking, context: HandlerContext) -> Ticket:
        return Ticket(number=f"{context.saga_type} {context.step}")

    test = SagaTest(Travel).handle(Hotels.book, hotel).handle(Cars.book, car).service(cards).answer(Mails.send, None)
    assert test.run(Trip(who="ann")).result == "ann Travel 2 c-1"


def test_beside_a_function_too_a_command_without_a_reply_needs_no_answer() -> None:
    test = (
        SagaTest(Travel).handle(Hotels.book, lambda request: Ticket(number="h")).answer(Cars.book, Ticket(number="k"))
    )
    test.fail(Cards.charge, "Broke").run(Trip(who="ann")).assert_compensated({Cars.free, Hotels.free})
    with pytest.raises(AssertionError, match=r"cars\.book was sent, and this test has no answer for it: add \.answer"):
        SagaTest(Travel).service(hotels).handle(Cars.free, lambda request: None).run(Trip(who="ann"))


def test_a_function_takes_the_place_of_a_participants_handler() -> None:
    def sold_out(request: Booking) -> Ticket:
        raise Failure("SoldOut")

    end = travel().handle(Cars.book, sold_out).run(Trip(who="ann"))
    end.assert_failed("SoldOut")
    assert SagaTest(Travel).service(cars).run is not None
    assert travel().run(Trip(who="ann")).status is Status.COMPLETED, "the participant itself was changed"


def test_what_a_function_asserts_fails_the_test() -> None:
    def strict(request: Booking) -> Ticket:
        assert request.who == "bob"
        return Ticket(number="1")

    with pytest.raises(AssertionError, match="'ann' == 'bob'"):
        travel().handle(Cars.book, strict).run(Trip(who="ann"))


def test_a_handler_that_never_works_ends_the_test_with_its_error() -> None:
    test = travel().handle(Cars.book, lambda request: Ticket(number=[][0]))
    with pytest.raises(AssertionError, match=r"cars\.book was tried 1000 times.*IndexError") as failed:
        test.run(Trip(who="ann"))
    assert isinstance(failed.value.__cause__, IndexError)


def never_works(number: int) -> int:
    raise ValueError(f"no {number}")


def gives_nothing(number: int) -> int:
    return None  # type: ignore[return-value]


class Locally(Saga[int, int]):
    async def run(self, number: int) -> int:
        return await self.local(never_works if number else gives_nothing, number)


def test_a_local_function_that_never_works_ends_the_test_with_its_error() -> None:
    with pytest.raises(AssertionError, match=r"never_works was called 1000 times, .* ValueError: no 7$") as failed:
        SagaTest(Locally).run(7)
    assert isinstance(failed.value.__cause__, ValueError)
    with pytest.raises(AssertionError, match=r"gives_nothing was called 1000 times.* BadResult: .* NoneType"):
        SagaTest(Locally).run(0)


# -- recorded answers


def recorded() -> SagaTest[Trip, str]:
    return (
        SagaTest(Travel)
        .answer(Hotels.book, Ticket(number="h"))
        .answer(Cars.book, Ticket(number="k"))
        .answer(Cards.charge, Ticket(number="c"))
        .answer(Mails.send, None)
    )


def test_a_test_can_be_run_again_its_answers_are_not_used_up() -> None:
    test = recorded().retry(Mails.send, times=2).answer(Mails.send, None)
    assert [test.run(Trip(who="ann")).attempts(Mails.send) for _ in range(2)] == [1, 1]
    scripted = (
        SagaTest(OrderFulfilment).retry(Payments.charge, times=2).answer(Payments.charge, Receipt(payment_id="p"))
    )
    scripted.answer(Inventory.reserve, Reservation(warehouse="A")).answer(Shipping.ship, "there")
    assert [scripted.run(ORDER).attempts(Payments.charge) for _ in range(2)] == [3, 3]


def test_an_answer_may_take_its_time_and_the_timeout_is_faster() -> None:
    end = SagaTest(Travel).answer(Hotels.book, Ticket(number="h"), takes=29).answer(Cars.book, Ticket(number="k"))
    end = end.fail(Cards.charge, "Broke")
    assert end.run(Trip(who="ann")).elapsed == 29 + 3600
    late = SagaTest(Travel).answer(Hotels.book, Ticket(number="h"), takes=100).answer(Cars.book, Ticket(number="k"))
    ended = late.run(Trip(who="ann"))
    assert ended.attempts(Hotels.book) == 2
    ended.assert_compensated({Hotels.free, Cars.free})
    assert ended.elapsed == 100, "the undo waits for what it undoes"


def test_an_answer_in_the_same_moment_as_its_timeout_counts() -> None:
    test = SagaTest(Travel).answer(Hotels.book, Ticket(number="h"), takes=30).service(cars).fail(Cards.charge, "Broke")
    assert test.run(Trip(who="ann")).attempts(Hotels.book) == 1


def test_a_service_may_take_its_time_too() -> None:
    end = SagaTest(Travel).service(hotels, cards).service(cars, takes=60).answer(Mails.send, None).run(Trip(who="ann"))
    assert end.elapsed == 60 + 5 + 60 + 3600


def test_who_is_never_answered_runs_into_its_timeout() -> None:
    test = SagaTest(Travel).never(Hotels.book).answer(Cars.book, Ticket(number="k"))
    end = test.run(Trip(who="ann"))
    assert end.error_type == "Timeout"
    assert end.attempts(Hotels.book) == 2
    assert end.effects == [Cars.book, Cars.free, Hotels.free]
    assert end.elapsed == pytest.approx(30 + 1 + 30)
    end.assert_compensated({Hotels.free, Cars.free})


def test_an_answer_that_is_lost_once_is_given_at_the_next_attempt() -> None:
    test = travel().never(Hotels.book)
    end = test.run(Trip(who="ann"))
    end.assert_completed()
    assert end.attempts(Hotels.book) == 2


def test_without_a_timeout_the_test_says_what_the_saga_waits_for() -> None:
    test = SagaTest(Travel).answer(Hotels.book, Ticket(number="h")).never(Cars.book)
    with pytest.raises(AssertionError, match=r"waits for ever: cars\.book is never answered.*start_to_close"):
        test.run(Trip(who="ann"))


def test_the_service_may_say_when_to_try_again() -> None:
    end = recorded().retry(Cards.charge, after=50).run(Trip(who="ann"))
    assert end.attempts(Cards.charge) == 1, "the first recorded answer comes first"
    test = SagaTest(OrderFulfilment).answer(Inventory.reserve, Reservation(warehouse="A"))
    test.retry(Payments.charge, after=50).answer(Payments.charge, Receipt(payment_id="p")).answer(
        Shipping.ship, "there"
    )
    assert test.run(ORDER).elapsed == 50
