"""Entities and locks on a real broker, over several partitions."""

from __future__ import annotations

import asyncio
from threading import Event
from typing import Any

import pytest
from pydantic import BaseModel

from orchestrator.client import Client
from orchestrator.entities import Entity, operation
from orchestrator.errors import Abort, SagaFailed, UpdateFailed
from orchestrator.model.events import Status
from orchestrator.model.messages import Outcome
from orchestrator.questions import query
from orchestrator.saga import Saga
from orchestrator.wire.commands import CommandMessage, ReplyMessage
from tests.shop_cluster import shop
from tests.shop_world import Inventory, succeed

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]


class Balance(BaseModel):
    cents: int = 0


class Account(Entity[Balance]):
    @operation
    async def deposit(self, cents: int) -> int:
        self.state.cents += cents
        return self.state.cents

    @operation
    async def withdraw(self, cents: int) -> int:
        if self.state.cents < cents:
            raise Abort("Insufficient")
        self.state.cents -= cents
        return self.state.cents

    @query
    def balance(self) -> int:
        return self.state.cents


class Purchase(Saga[str, int]):
    async def run(self, what: str) -> int:
        account = self.entity(Account, "ann")
        left = await account.call(Account.withdraw(5), undo=Account.deposit(5))
        await self.step(Inventory.reserve(order_id=what), undo=Inventory.release)
        return left


class Exclusive(Saga[str, str], locks=lambda what: ["shelf/1", "shelf/2"]):
    async def run(self, what: str) -> str:
        await self.step(Inventory.reserve(order_id=what), undo=Inventory.release)
        await self.step(Inventory.reserve(order_id=f"{what} again"), undo=Inventory.release)
        return what


def refuse_bad(message: CommandMessage) -> ReplyMessage | None:
    bad = b"bad" in message.payload and message.direction == "do"
    return ReplyMessage(Outcome.FAILURE, b"", "Bad") if bad else succeed(message)


def test_clients_and_sagas_ask_an_entity(broker: str, prefix: str) -> None:
    async def main() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            account = client.entity(Account, "ann")
            assert await account.call(Account.deposit(20), operation_id="once") == 20
            assert await account.call(Account.deposit(20), operation_id="once") == 20
            with pytest.raises(UpdateFailed, match="Insufficient"):
                await account.call(Account.withdraw(21))
            handles = [await client.start(Purchase, what, id=f"p-{what}") for what in ("tea", "cup")]
            assert sorted([await handle.result(timeout=60) for handle in handles]) == [10, 15]
            bad = await client.start(Purchase, "bad", id="p-bad")
            with pytest.raises(SagaFailed) as failed:
                await bad.result(timeout=60)
            assert failed.value.status == Status.COMPENSATED
            assert await account.query(Account.balance) == 10
            await account.call(Account.delete())
            assert await account.call(Account.deposit(1)) == 1

    with shop(broker, prefix, refuse_bad, (Account, Purchase)):
        asyncio.run(main())


def test_sagas_hold_keys_one_after_the_other_until_all_is_undone(broker: str, prefix: str) -> None:
    order: list[str] = []
    begun = Event()

    def note(message: CommandMessage) -> ReplyMessage | None:
        order.append(message.saga_id)
        begun.set()
        bad = message.saga_id == "e-0" and b"again" in message.payload and message.direction == "do"
        return ReplyMessage(Outcome.FAILURE, b"", "Bad") if bad else succeed(message)

    async def main() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            handles: list[Any] = [await client.start(Exclusive, "first", id="e-0")]
            await asyncio.to_thread(begun.wait, 60)
            handles += [await client.start(Exclusive, "x", id=f"e-{number}") for number in range(1, 5)]
            with pytest.raises(SagaFailed):
                await handles[0].result(timeout=60)
            for handle in handles[1:]:
                assert await handle.result(timeout=60) == "x"

    with shop(broker, prefix, note, (Exclusive,)):
        asyncio.run(main())
    assert order[:3] == ["e-0"] * 3, "done, refused, undone"
    later = order[3:]
    assert sorted(later) == sorted([f"e-{number}" for number in range(1, 5)] * 2)
    assert all(one == two for one, two in zip(later[::2], later[1::2], strict=True)), "nobody came between"
