"""Expense approval: somebody decides, is reminded each day, and after some days their boss is asked.

Run it: `saga dev orchestrator.sagas.expense_approval`. See `docs/expense_approval.md`.
"""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel

from orchestrator.errors import Abort, Failure
from orchestrator.participant import HandlerContext
from orchestrator.saga import Saga
from orchestrator.sagas.books import bookkeeper, enter
from orchestrator.service import Service, command
from orchestrator.signals import signal

SMALL_CENTS = 10_000


class Expense(BaseModel):
    id: str
    employee: str
    cents: int
    approvers: list[str] = ["manager", "director"]  # who is asked, one after the other
    times_asked: int = 3  # each of them
    remind_every: timedelta = timedelta(days=1)


class Decision(BaseModel):
    by: str
    approved: bool
    why: str = ""


class Claim(BaseModel):
    expense: str
    cents: int


class Message(BaseModel):
    to: str
    text: str


class Payment(BaseModel):
    to: str
    cents: int


class Budgets(Service):
    reserve = command(Claim)
    release = command(Claim)


class Mail(Service):
    send = command(Message)


class Payroll(Service):
    pay = command(Payment, str)


class ExpenseApproval(Saga[Expense, str]):
    decided = signal(Decision)

    async def run(self, expense: Expense) -> str:
        await self.step(Budgets.reserve(expense=expense.id, cents=expense.cents), undo=Budgets.release)
        if expense.cents > SMALL_CENTS:
            decision = await self.decision(expense)
            await self.tell(expense.employee, f"{decision.by}: {'yes' if decision.approved else 'no'} {decision.why}")
            if not decision.approved:
                raise Abort("Rejected", f"by {decision.by}: {decision.why}")
        return await self.step(Payroll.pay(to=expense.employee, cents=expense.cents), pivot=True)

    async def decision(self, expense: Expense) -> Decision:
        """Of the first who decides: each is asked and reminded, and then the next one is asked as well."""
        asked: set[str] = set()
        for approver in expense.approvers:
            asked.add(approver)
            for time in range(1, expense.times_asked + 1):
                await self.tell(approver, f"please decide about {expense.id} (request {time} to you)")
                decision = await self.decision_by(asked, expense.remind_every)
                if decision is not None:
                    return decision
        await self.tell(expense.employee, f"nobody has decided about {expense.id}")
        raise Abort("NobodyDecided")

    async def decision_by(self, asked: set[str], within: timedelta) -> Decision | None:
        """None where the time is up; what others say does not count."""
        until = self.now() + within
        while self.now() < until:
            decision = await self.receive(self.decided, timeout=until - self.now())
            if decision is None or decision.by in asked:
                return decision
            await self.tell(decision.by, "this is not for you to decide")
        return None

    async def tell(self, to: str, text: str) -> None:
        await self.step(Mail.send(to=to, text=text))


# The services. Each keeps a book, see `orchestrator.sagas.books`.

BUDGET_CENTS = 1_000_000

budgets = bookkeeper(Budgets)
mail = bookkeeper(Mail)
payroll = bookkeeper(Payroll)


@budgets.handles(Budgets.reserve)
def reserve(claim: Claim, context: HandlerContext) -> None:
    if claim.cents > BUDGET_CENTS:
        raise Failure("OverBudget", f"{claim.cents / 100:.2f} is more than there is")
    enter(context, f"reserved {claim.cents}")


@budgets.handles(Budgets.release)
def release(claim: Claim, context: HandlerContext) -> None:
    enter(context, f"released {claim.cents}")


@mail.handles(Mail.send)
def send(message: Message, context: HandlerContext) -> None:
    enter(context, f"to {message.to}: {message.text}")


@payroll.handles(Payroll.pay)
def pay(payment: Payment, context: HandlerContext) -> str:
    enter(context, f"paid {payment.cents} to {payment.to}")
    return f"payment-{context.saga_id}"
