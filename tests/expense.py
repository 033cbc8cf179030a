"""A saga that people talk to, for tests of all ways to do so."""

from pydantic import BaseModel

from orchestrator.errors import Abort, StepFailed
from orchestrator.promises import promise
from orchestrator.questions import query, update
from orchestrator.saga import Saga
from orchestrator.service import Service, command
from orchestrator.signals import signal


class Decision(BaseModel):
    by: str
    approved: bool = True


class Ask(BaseModel):
    token: str


class Shipping(Service):
    """Its topic is there; nobody has to answer."""

    ask = command(Ask)


class Expense(Saga[int, str]):
    decided = signal(Decision)
    noted = signal(str)
    decision: Decision | None = None
    cents = 0

    @query
    def who(self, otherwise: str) -> str:
        return otherwise if self.decision is None else self.decision.by

    @update
    async def raise_to(self, cents: int) -> int:
        was, self.cents = self.cents, cents
        return was

    @raise_to.validator
    def _positive(self, cents: int) -> None:
        if cents <= 0:
            raise ValueError("an expense is more than nothing")

    @update
    async def wait_for(self, note: str) -> str:
        heard = await self.receive(Expense.noted)
        if heard != note:
            raise Abort("Unheard", heard)
        return heard

    async def run(self, cents: int) -> str:
        self.cents = cents
        self.decision = decision = await self.receive(Expense.decided)
        return f"{self.cents} {'approved' if decision.approved else 'denied'} by {decision.by}"


class Approval(Saga[int, str]):
    """Two people approve: the boss by the token that a service was sent, the auditor by name."""

    approved = promise(Decision)

    async def run(self, cents: int) -> str:
        boss, auditor = self.promise(Approval.approved, "boss"), self.promise(Approval.approved, "auditor")
        await self.step(Shipping.ask(token=boss.token))
        try:
            first, second = await self.gather(boss, auditor)
        except StepFailed as failed:
            return f"{failed.error_type}: {failed.message}"
        return f"{cents} approved by {first.by} and {second.by}"


class Auditor(Saga[str, str]):
    """Decides about an expense by itself."""

    async def run(self, expense_id: str) -> str:
        self.signal(expense_id, Expense.decided, Decision(by="auditor", approved=False))
        return "audited"
