"""Sagas with children in the test kit: how they end is said by the test, and a proof has them fail."""

from __future__ import annotations

import pytest
from model.shop import Shop

from orchestrator.errors import StepFailed
from orchestrator.model.events import Status
from orchestrator.participant import Participant
from orchestrator.saga import Saga
from orchestrator.testing import SagaTest, prove

shop = Participant(Shop)


@shop.handles(Shop.reserve)
def reserve(request: object) -> str:
    return "r-1"


@shop.handles(Shop.release)
def release(request: object) -> None:
    return None


@shop.handles(Shop.note)
def note(request: object) -> None:
    return None


class Delivery(Saga[str, str]):
    async def run(self, what: str) -> str:
        return await self.step(Shop.ship(what=what))


class Order(Saga[str, str]):
    async def run(self, what: str) -> str:
        await self.step(Shop.reserve(what=what), undo=Shop.release)
        arrived = await self.child(Delivery, what)
        await self.step(Shop.note(what=arrived))
        return arrived


def test_a_child_ends_as_the_test_says() -> None:
    assert SagaTest(Order).service(shop).child(Delivery, "here").run("tea").assert_completed("here")
    end = SagaTest(Order).service(shop).child_fails(Delivery, "Lost").run("tea")
    assert (end.status, end.error_type) == (Status.COMPENSATED, "Lost")


def test_a_proof_has_children_fail_and_their_undo_refused() -> None:
    proof = prove(SagaTest(Order).service(shop).child(Delivery, "here"), "tea", harmless=[Shop.note])
    assert set(proof.statuses) == {"COMPLETED", "COMPENSATED", "CANCELED", "FAILED"}


def test_a_proof_finds_who_counts_on_a_child_that_cannot_fail() -> None:
    class Careless(Order, name="Order"):
        async def run(self, what: str) -> str:
            await self.step(Shop.note(what=what))
            try:
                return await self.child(Delivery, what)
            except StepFailed:
                raise ValueError("it never fails") from None

    with pytest.raises(AssertionError, match="it is parked, for the code raised ValueError") as caught:
        prove(SagaTest(Careless).service(shop).child(Delivery, "here"), "tea", harmless=[Shop.note])
    assert "(child Delivery) is refused" in str(caught.value)
