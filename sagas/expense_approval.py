"""Expense approval: somebody decides, is reminded each day, and after some days their boss has to.

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
from orchestrator.tasks import HumanTask

SMALL_CENTS = 10_000


class Expense(BaseModel):
    id: str
    employee: str
    cents: int
    approvers: list[str] = ["manager", "director"]  # who is asked, one after the other
    times_asked: int = 3  # each of them
    remind_every: timedelta = timedelta(days=1)


class Decision(BaseModel):
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
    async def run(self, expense: Expense) -> str:
        self.expense = expense
        await self.step(Budgets.reserve(expense=expense.id, cents=expense.cents), undo=Budgets.release)
        if expense.cents > SMALL_CENTS:
            await self.ask(expense.approvers[0])
            task = self.human_task(
                Decision,
                title=f"{expense.cents / 100:.2f} for {expense.employee}",
                assignee=expense.approvers[0],
                due=expense.remind_every,
                escalate=self.remind,
            )
            decision = await task
            answer = "yes" if decision.approved else "no"
            await self.tell(expense.employee, f"{task.assignee}: {answer} {decision.why}")
            if not decision.approved:
                raise Abort("Rejected", f"by {task.assignee}: {decision.why}")
        return await self.step(Payroll.pay(to=expense.employee, cents=expense.cents), pivot=True)

    async def remind(self, task: HumanTask[Decision]) -> timedelta:
        """Who is asked is reminded; who was reminded often enough hands the task on to the next."""
        expense = self.expense
        place, times = divmod(task.escalations, expense.times_asked)
        if place == len(expense.approvers):
            await self.tell(expense.employee, f"nobody has decided about {expense.id}")
            raise Abort("NobodyDecided")
        if times == 0:
            task.reassign(assignee=expense.approvers[place])
        await self.ask(expense.approvers[place], times + 1)
        return expense.remind_every

    async def ask(self, approver: str, time: int = 1) -> None:
        await self.tell(approver, f"please decide about {self.expense.id} (request {time} to you)")

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
