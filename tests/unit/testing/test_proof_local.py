"""Local steps in a proof: they are refused, fail and are called again like commands."""

import pytest
from pydantic import BaseModel

from orchestrator import LocalContext, Retry, Saga
from orchestrator.testing import SagaTest, prove
from tests.unit.testing.trips import Mails


class Cart(BaseModel):
    pieces: int


def price(cart: Cart) -> int:
    return 250 * cart.pieces


async def book(context: LocalContext, pieces: int) -> str:
    return f"booking {context.idempotency_key}"


async def unbook(booking: str | None, pieces: int) -> None:
    return None


def forget(booking: str | None, pieces: int) -> None:
    raise LookupError("nobody knows")


class Checkout(Saga[Cart, str]):
    async def run(self, cart: Cart) -> str:
        cents = await self.local(price, cart, retry=Retry(maximum_attempts=3))
        booking = await self.local(book, cart.pieces, undo=unbook, retry=Retry(maximum_attempts=2))
        await self.step(Mails.send(who=booking), pivot=True)
        return f"{booking} for {cents}"


class Forgetting(Saga[Cart, str]):
    async def run(self, cart: Cart) -> str:
        booking = await self.local(book, cart.pieces, undo=forget)
        await self.step(Mails.send(who=booking), pivot=True)
        return booking


def test_a_saga_with_local_steps_is_proved() -> None:
    proof = prove(SagaTest(Checkout).answer(Mails.send, None), Cart(pieces=2))
    assert set(proof.statuses) == {"COMPLETED", "COMPENSATED", "CANCELED", "FAILED"}


def test_a_local_undo_that_never_works_is_found() -> None:
    with pytest.raises(AssertionError, match=r"it has no end: <PARKED"):
        prove(SagaTest(Forgetting).answer(Mails.send, None), Cart(pieces=2))
