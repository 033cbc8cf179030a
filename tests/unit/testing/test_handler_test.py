"""One handler alone: mocked attempts, repeats, undo before do, and what it says when it is used wrongly."""

import pytest

from orchestrator import HandlerContext, Participant
from orchestrator.model.messages import Outcome
from orchestrator.sagas import order_fulfilment as shop
from orchestrator.sagas.order_fulfilment import Inventory, Payments, Receipt
from orchestrator.testing import HandlerTest
from tests.unit.testing.trips import Cards, Cars, Hotels, Ticket, cards, cars, hotels


def test_a_handler_is_called_with_a_request_and_gives_a_typed_reply() -> None:
    called = HandlerTest(hotels).call(Hotels.book(who="ann"))
    assert called.reply == Ticket(number="h-ann")
    assert called.outcome is Outcome.SUCCESS
    assert called.ran


def test_a_refusal() -> None:
    called = HandlerTest(hotels).call(Hotels.book(who="nobody"))
    assert (called.outcome, called.error_type, called.error_message) == (
        "failure",
        "NoName",
        "a hotel wants to know",
    )
    with pytest.raises(AssertionError, match=r"hotels\.book answered failure NoName: a hotel wants to know"):
        assert called.reply


def test_each_attempt_is_one_call() -> None:
    test = HandlerTest(cars)
    first = test.call(Cars.book(who="ann"))
    assert (first.outcome, first.retry_after) == ("retry", 5.0)
    again = test.call(Cars.book(who="ann"))
    assert (again.outcome, again.ran) == ("retry", False)
    second = test.call(Cars.book(who="ann"), attempt=2)
    assert second.reply == Ticket(number="test/1-1-0/1/do")
    assert test.call(Cars.book(who="ann"), attempt=1).reply == second.reply, "a success answers every attempt"


def test_another_step_and_another_saga_have_other_keys() -> None:
    test = HandlerTest(cars)
    assert test.call(Cars.book(who="ann"), attempt=2, step=7, id="o-9").reply == Ticket(number="o-9/1-1-0/7/do")


def test_a_do_behind_its_undo_is_refused() -> None:
    test = HandlerTest(hotels)
    assert test.undo(Hotels.free(who="ann")).reply is None
    late = test.call(Hotels.book(who="ann"))
    assert (late.outcome, late.error_type, late.ran) == ("retry", "Undone", False)


def test_what_a_handler_raised_is_kept() -> None:
    called = HandlerTest(cards).call(Cards.charge(who="broken"))
    assert (called.outcome, called.error_type) == ("retry", "KeyError")
    assert isinstance(called.raised, KeyError)
    with pytest.raises(AssertionError, match=r"cards\.charge answered retry KeyError") as failed:
        assert called.reply
    assert failed.value.__cause__ is called.raised


def test_pending_has_no_outcome_and_answers_repeats_by_silence() -> None:
    test = HandlerTest(cards)
    called = test.call(Cards.charge(who="later"))
    assert called.outcome is None
    with pytest.raises(AssertionError, match=r"cards\.charge raised Pending"):
        assert called.reply
    assert test.call(Cards.charge(who="later"), attempt=2).ran is False


def test_the_context_of_a_call() -> None:
    seen: list[HandlerContext] = []
    drivers = Participant(Cars)
    drivers.handles(Cars.free)(lambda request, context: seen.append(context))
    test = HandlerTest(drivers)
    test.call(Cars.free(who="ann"), attempt=3, deadline=60)
    test.undo(Cars.free(who="ann"))
    assert [(each.attempt, each.direction) for each in seen] == [(3, "do"), (1, "undo")]
    assert [each.deadline_ms for each in seen] == [1_000_000_060_000, None]


def test_with_its_inbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_BOOKS", ":memory:")
    test = HandlerTest(shop.payments)
    charge = Payments.charge(order_id="o-1", cents=900)
    assert test.call(charge).reply == Receipt(payment_id="payment-o-1")
    assert test.call(charge).ran is False
    assert test.call(Payments.charge(order_id="o-1", cents=900_000), step=2).error_type == "CardDeclined"


def test_a_command_of_another_service_or_without_handler_is_named() -> None:
    with pytest.raises(AssertionError, match=r"participant of Payments has no handler of inventory\.reserve"):
        HandlerTest(shop.payments).call(Inventory.reserve(order_id="o", sku="tea"))
    with pytest.raises(AssertionError, match=r"participant of Hotels has no handler of hotels\.free"):
        HandlerTest(Participant(Hotels)).call(Hotels.free(who="ann"))
