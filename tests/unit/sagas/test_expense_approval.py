"""Expense approval: every way it can end. The services' own handlers answer; days pass at once."""

from datetime import timedelta

import pytest

from orchestrator.errors import UpdateRejected
from orchestrator.sagas import expense_approval as office
from orchestrator.sagas.expense_approval import Budgets, Decision, Expense, ExpenseApproval, Mail, Payroll
from orchestrator.testing import End, SagaTest

DAY = 24 * 3600
LAPTOP = Expense(id="e-1", employee="Ada", cents=120_000)
YES = Decision(approved=True)


@pytest.fixture(autouse=True)
def _fresh_books(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_BOOKS", ":memory:")


def in_office() -> SagaTest[Expense, str]:
    return SagaTest(ExpenseApproval).service(office.budgets, office.mail, office.payroll)


def mailed(end: End[str]) -> list[str]:
    """To whom, in order."""
    return [message.to for message in end.requests(Mail.send)]


def test_a_small_expense_is_paid_without_a_question() -> None:
    end = in_office().run(LAPTOP.model_copy(update={"cents": office.SMALL_CENTS}))
    end.assert_completed("payment-test")
    assert (end.effects, end.elapsed) == ([Budgets.reserve, Payroll.pay], 0)


def test_the_manager_says_yes_on_the_second_day() -> None:
    end = in_office().complete_task(YES, by="manager", after=1.5 * DAY).run(LAPTOP)
    end.assert_completed("payment-test")
    assert (mailed(end), end.elapsed) == (["manager", "manager", "Ada"], 1.5 * DAY)


def test_a_no_gives_the_budget_back() -> None:
    no = Decision(approved=False, why="buy a used one")
    end = in_office().complete_task(no, by="manager").run(LAPTOP)
    end.assert_failed("Rejected")
    end.assert_compensated(Budgets.release)
    assert end.requests(Mail.send)[-1].text == "manager: no buy a used one"


def test_after_three_days_the_director_has_to_decide() -> None:
    end = in_office().complete_task(YES, by="director", after=3.5 * DAY).run(LAPTOP)
    end.assert_completed("payment-test")
    assert mailed(end) == ["manager"] * 3 + ["director", "Ada"]
    assert end.requests(Mail.send)[-1].text == "director: yes "


def test_only_who_is_asked_has_a_say() -> None:
    saga = in_office().start(LAPTOP).advance(0.5 * DAY)
    with pytest.raises(UpdateRejected, match="the task Decision is manager's"):
        saga.complete_task(Decision(approved=False), by="director")
    saga.advance(3 * DAY)
    with pytest.raises(UpdateRejected, match="the task Decision is director's"):
        saga.complete_task(YES, by="manager")
    saga.complete_task(YES, by="director").finish().assert_completed("payment-test")


def test_when_nobody_decides_the_budget_is_given_back_after_six_days() -> None:
    end = in_office().run(LAPTOP)
    end.assert_failed("NobodyDecided")
    end.assert_compensated(Budgets.release)
    assert (mailed(end), end.elapsed) == (["manager"] * 3 + ["director"] * 3 + ["Ada"], 6 * DAY)


def test_an_employee_who_withdraws_gives_the_budget_back() -> None:
    end = in_office().at(2 * DAY + 1).cancel("found another one").run(LAPTOP)
    assert end.status == "CANCELED"
    end.assert_compensated(Budgets.release)


def test_what_is_over_budget_is_refused_at_once() -> None:
    end = in_office().run(LAPTOP.model_copy(update={"cents": 2 * office.BUDGET_CENTS}))
    end.assert_failed("OverBudget")
    assert end.effects == []


def test_reminders_come_as_often_as_the_expense_says() -> None:
    hasty = LAPTOP.model_copy(update={"times_asked": 2, "remind_every": timedelta(hours=1), "approvers": ["manager"]})
    end = in_office().run(hasty)
    assert (mailed(end), end.elapsed) == (["manager", "manager", "Ada"], 2 * 3600)
