"""A saga that people talk to, for tests of all ways to do so."""

from pydantic import BaseModel

from orchestrator.saga import Saga
from orchestrator.signals import signal


class Decision(BaseModel):
    by: str
    approved: bool = True


class Expense(Saga[int, str]):
    decided = signal(Decision)
    noted = signal(str)

    async def run(self, cents: int) -> str:
        decision = await self.receive(Expense.decided)
        return f"{cents} {'approved' if decision.approved else 'denied'} by {decision.by}"
