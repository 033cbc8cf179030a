"""Sagas that hold keys and call entities in the test kit; entities by themselves."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from orchestrator.entities import Entity, operation
from orchestrator.errors import Abort, UpdateFailed
from orchestrator.model.events import Status
from orchestrator.saga import Saga
from orchestrator.service import Service, command
from orchestrator.testing import SagaTest, prove


class Work(BaseModel):
    what: str


class Shop(Service):
    reserve = command(Work, str)
    release = command(Work)
    ship = command(Work, str)


class Tally(Entity[int]):
    @operation
    async def add(self, amount: int) -> int:
        if amount > 9:
            raise Abort("TooMuch")
        self.state += amount
        return self.state

    @operation
    async def ship(self, what: str) -> str:
        return await self.step(Shop.ship(what=what), undo=Shop.release)


class Order(Saga[str, str], locks=lambda what: [what, "all"]):
    async def run(self, what: str) -> str:
        await self.step(Shop.reserve(what=what), undo=Shop.release)
        await self.entity(Tally, "orders").call(Tally.add(1), undo=Tally.add(-1))
        async with self.lock("dock", timeout=5):
            await self.step(Shop.ship(what=what), undo=Shop.release)
        return what


def order() -> SagaTest[str, str]:
    return SagaTest(Order).answer(Shop.reserve, "r-1")


def test_a_saga_with_locks_and_calls_is_completed_or_compensated_whatever_goes_wrong() -> None:
    proof = prove(order().answer(Shop.ship, "s-1").call(Tally.add, 1), "tea")
    assert "COMPLETED" in repr(proof)
    assert "CANCELED" in repr(proof)


def test_a_call_is_undone_with_its_saga() -> None:
    end = order().fail(Shop.ship, "NoDock").call(Tally.add, 1).run("tea")
    assert (end.status, end.effects) == (Status.COMPENSATED, [Shop.reserve, Shop.release])


def test_a_refused_call_fails_the_saga() -> None:
    end = order().call_fails(Tally.add, "Closed", "for today").run("tea")
    assert (end.status, end.error_type, end.reason) == (Status.COMPENSATED, "Closed", "Closed: for today")


def test_a_call_that_the_test_says_nothing_about_is_named() -> None:
    with pytest.raises(AssertionError, match=r"Tally.add was called, and this test has no answer for it: add .call"):
        order().run("tea")


def test_an_entity_by_itself() -> None:
    tally = SagaTest(Tally).answer(Shop.ship, "s-1").entity(Tally)
    assert [tally.call(Tally.add(2)), tally.call(Tally.add(3))] == [2, 5]
    with pytest.raises(UpdateFailed, match="TooMuch"):
        tally.call(Tally.add(10))
    assert tally.call(Tally.ship("tea")) == "s-1"
    assert tally.running.effects == [Shop.ship]
    tally.call(Tally.delete())
    assert tally.running.status is Status.COMPLETED


def test_an_entity_that_waits_for_ever_is_said_to() -> None:
    tally = SagaTest(Tally).never(Shop.ship).entity(Tally)
    with pytest.raises(AssertionError, match="ship never ends"):
        tally.call(Tally.ship("tea"))
