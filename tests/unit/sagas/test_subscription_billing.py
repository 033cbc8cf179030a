"""Subscription billing: every way it can end. The services' own handlers answer; months pass at once."""

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.sagas import subscription_billing as club
from orchestrator.sagas.subscription_billing import (
    Cancellation,
    Cashier,
    Letters,
    Membership,
    Subscription,
    SubscriptionBilling,
)
from orchestrator.testing import End, SagaTest

DAY = 24 * 3600
ADA = Subscription(customer="Ada", cents=900)
cancelled = SubscriptionBilling.cancelled
MOVED = Cancellation(why="moved")


@pytest.fixture(autouse=True)
def _fresh_books(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_BOOKS", ":memory:")


def in_club() -> SagaTest[Subscription, str]:
    return SagaTest(SubscriptionBilling).service(club.cashier, club.membership, club.letters)


def charged(end: End[str]) -> int:
    """How often money came."""
    return end.effects.count(Cashier.charge)


def dates(end: End[str], begun: datetime) -> list[str]:
    """When the cashier was asked to charge."""
    asked = [sent for sent in end.sent if sent.command is Cashier.charge and sent.direction == "do"]
    return [f"{begun + timedelta(seconds=sent.at):%d.%m.%y}" for sent in asked]


def test_a_year_as_agreed_is_twelve_charges() -> None:
    begun = datetime(2025, 3, 10, 8, 30, tzinfo=UTC)
    end = in_club().run(ADA.model_copy(update={"months": 12}), now=begun)
    end.assert_completed("12 months as agreed")
    assert (charged(end), end.elapsed) == (12, 365 * DAY)
    assert dates(end, begun)[9:] == ["10.12.25", "10.01.26", "10.02.26"]
    assert [charge.month for charge in end.requests(Cashier.charge)] == list(range(1, 13))
    assert Cashier.refund not in end.effects


def test_a_month_that_has_no_such_day_ends_on_its_last_one_and_the_next_on_that_day_again() -> None:
    begun = datetime(2023, 11, 30, 23, 59, tzinfo=UTC)
    end = in_club().run(ADA.model_copy(update={"months": 5}), now=begun)
    assert dates(end, begun) == ["30.11.23", "30.12.23", "30.01.24", "29.02.24", "30.03.24"]


def test_an_outage_does_not_move_the_date() -> None:
    begun = datetime(2025, 1, 31, tzinfo=UTC)
    away = in_club().retry(Cashier.charge, "Away", after=timedelta(days=40))
    end = away.run(ADA.model_copy(update={"months": 4}), now=begun)
    assert dates(end, begun) == ["31.01.25", "12.03.25", "12.03.25", "31.03.25", "30.04.25"]
    assert end.elapsed == (datetime(2025, 5, 31, tzinfo=UTC) - begun).total_seconds()


def test_who_cancels_may_come_to_the_end_of_the_month() -> None:
    end = in_club().at(40 * DAY).signal(cancelled, MOVED).run(ADA)
    end.assert_completed("cancelled after month 2")
    assert (charged(end), end.elapsed) == (2, 61 * DAY)
    assert end.effects[-2:] == [Membership.end, Letters.send]


def test_a_declined_card_is_tried_again_and_the_month_is_not_longer_for_it() -> None:
    late = ADA.model_copy(update={"customer": club.LATE, "months": 2})
    end = in_club().run(late)
    end.assert_completed("2 months as agreed")
    assert [charge.attempt for charge in end.requests(Cashier.charge)] == [1, 2, 1, 2]
    assert (charged(end), end.elapsed) == (2, 61 * DAY)


def test_after_three_tries_the_access_ends() -> None:
    end = in_club().run(ADA.model_copy(update={"customer": club.BROKE}))
    end.assert_completed("not paid for month 1")
    assert (charged(end), end.elapsed) == (0, 6 * DAY)
    assert end.effects == [Letters.send, Letters.send, Letters.send, Membership.end, Letters.send]


def test_who_cancels_while_the_card_is_declined_is_not_asked_again() -> None:
    end = in_club().at(DAY).signal(cancelled, MOVED).run(ADA.model_copy(update={"customer": club.BROKE}))
    end.assert_completed("not paid for month 1")
    assert (len(end.requests(Cashier.charge)), end.elapsed) == (1, DAY)


def test_an_access_that_cannot_be_granted_is_not_paid_for() -> None:
    end = in_club().fail(Membership.grant, "Full").run(ADA)
    end.assert_failed("Full")
    end.assert_compensated(Cashier.refund)


@pytest.mark.parametrize("days", [7, 40])
def test_a_cashier_that_is_away_charges_each_month_once(days: int) -> None:
    away = in_club().retry(Cashier.charge, "Away", after=timedelta(days=days))
    end = away.run(ADA.model_copy(update={"months": 2}))
    end.assert_completed("2 months as agreed")
    assert (charged(end), end.elapsed) == (2, 61 * DAY)
