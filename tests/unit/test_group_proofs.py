"""Sagas with groups are completed or fully compensated, whatever crashes, repeats, overtakes or fails."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from orchestrator.groups import Done
from orchestrator.model.events import Status
from orchestrator.saga import Retry, Saga
from orchestrator.service import Service, command
from orchestrator.testing import SagaTest, prove

TWICE = Retry(maximum_attempts=2)


class Wish(BaseModel):
    what: str


class Depot(Service):
    reserve = command(Wish, str)
    release = command(Wish)
    pay = command(Wish, str)
    refund = command(Wish)


class Buying(Saga[str, str]):
    async def buy(self, what: str) -> str:
        await self.step(Depot.reserve(what=what), undo=Depot.release, retry=TWICE)
        return await self.step(Depot.pay(what=what), undo=Depot.refund, retry=TWICE)

    async def run(self, what: str) -> str:
        raise NotImplementedError


class Racing(Buying):
    async def run(self, what: str) -> str:
        place, _ = await self.race(self.buy("a"), self.buy("b"), self.sleep(5))
        return str(place)


class Scope(Buying):
    async def run(self, what: str) -> str:
        (settled,) = await self.settle(self.buy("a"))
        return settled.value if isinstance(settled, Done) else await self.buy("b")


class Each(Buying):
    async def run(self, what: str) -> str:
        results = await self.each("ab", self.buy, concurrency=1, tolerated_failures=1)
        return str(len(results))


@pytest.mark.parametrize("saga", [Racing, Scope, Each])
def test_a_saga_with_a_group_is_completed_or_compensated(saga: type[Saga[str, str]]) -> None:
    proof = prove(SagaTest(saga).answer(Depot.reserve, "x").answer(Depot.pay, "y"), "tea")
    assert proof.statuses[Status.COMPLETED]
    assert proof.statuses[Status.CANCELED]
    assert proof.cases > 100
