"""The programming model on a real broker: both styles, what stops and waits for a person, and conditions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.client import Client
from orchestrator.errors import Abort, SagaFailed
from orchestrator.model.events import Status, StepSucceeded, Undone
from orchestrator.model.messages import Outcome, Override
from orchestrator.plan import step, takes
from orchestrator.saga import Retry, Saga
from orchestrator.visibility import Visibility
from orchestrator.wire.commands import CommandMessage, ReplyMessage
from tests.shop_cluster import shop
from tests.shop_world import PARTITIONS, Inventory, Order, Payments, Shipping, succeed
from tests.waiting import eventually

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]

TWICE = Retry(initial_interval=0.05, maximum_attempts=2)


class Regretted(Saga[Order, str]):
    """Charges, and thinks better of it."""

    async def run(self, order: Order) -> str:
        await self.step(Payments.charge(order_id=order.id, cents=order.cents), undo=Payments.refund, undo_retry=TWICE)
        raise Abort("Regretted")


class Forward(Saga[Order, str]):
    """What comes after the shipment is tried again, and never undone."""

    async def run(self, order: Order) -> str:
        stock = await self.step(Inventory.reserve(order_id=order.id), undo=Inventory.release)
        await self.step(Shipping.ship(order_id=order.id, warehouse=stock.warehouse), pivot=True)
        return await self.step(Payments.charge(order_id=order.id, cents=order.cents), retry=TWICE)


class Declared(Saga[Order, str]):
    """The declarative style; shipping refuses in the end."""

    order = takes(Order)
    stock = step(Inventory.reserve(order_id=order.id), undo=Inventory.release)
    paid = step(Payments.charge(order_id=order.id, cents=order.cents), undo=Payments.refund)
    result = step(Shipping.ship(order_id=order.id, warehouse=stock.warehouse), pivot=True)


class Watched(Saga[Order, str]):
    """Looks at its own data until it is as it should be, or the time is up."""

    async def run(self, order: Order) -> str:
        found: list[str] = []

        async def look() -> None:
            await self.sleep(timedelta(milliseconds=300))
            found.append(await self.step(Payments.charge(order_id=order.id, cents=order.cents)))

        async def wait() -> bool:
            return await self.wait_until(lambda: bool(found))

        _, seen = await self.gather(look(), wait())
        late = await self.wait_until(lambda: len(found) > 1, timeout=0.2)
        return f"{seen} {late} {found}"


@dataclass
class Bank:
    """A service for whoever asks; payments do not work until it is mended."""

    broken: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    asked: list[tuple[str, str, int]] = field(default_factory=list)

    def __call__(self, message: CommandMessage) -> ReplyMessage | None:
        self.asked.append((message.saga_id, message.command_type, message.attempt))
        if message.command_type in self.broken:
            return ReplyMessage(Outcome.RETRY, b"", "Closed", "the bank is closed")
        if message.command_type in self.refused:
            return ReplyMessage(Outcome.FAILURE, b"", "Refused")
        return succeed(message)


@dataclass
class Place:
    client: Client
    bank: Bank
    visibility: Visibility

    def wait_until_parked(self, *ids: str) -> None:

        def all_parked() -> bool:
            assert self.visibility.catch_up(timeout_s=60)
            return {run.saga_id for run in self.visibility.list(status="PARKED").runs} >= set(ids)

        assert eventually(all_parked, 60)


def run(broker: str, prefix: str, folder: Path, main: Callable[[Place], Coroutine[Any, Any, None]]) -> None:
    """A worker for the sagas above, their services, a client, and what can be seen of them."""
    bank = Bank()

    async def begin(visibility: Visibility) -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            await main(Place(client, bank, visibility))

    with (
        shop(broker, prefix, bank, (Declared, Regretted, Forward, Watched)) as (log, topics),
        Visibility(folder / "visibility.sqlite", log, topics, PARTITIONS) as visibility,
    ):
        asyncio.run(begin(visibility))


def test_a_declared_saga_goes_through_or_is_undone(broker: str, prefix: str, tmp_path: Path) -> None:
    async def main(place: Place) -> None:
        done = await place.client.start(Declared, Order(id="done"), id="done")
        assert await done.result(timeout=60) == "shipped"
        place.bank.refused = {"ship"}
        undone = await place.client.start(Declared, Order(id="undone"), id="undone")
        with pytest.raises(SagaFailed) as caught:
            await undone.result(timeout=60)
        assert (caught.value.status, caught.value.error_type) == (Status.COMPENSATED, "Refused")
        commands = [command for id, command, _ in place.bank.asked if id == "undone"]
        assert commands == ["reserve", "charge", "ship", "refund", "release"]

    run(broker, prefix, tmp_path, main)


def test_a_person_decides_about_an_undo_that_failed_for_good(broker: str, prefix: str, tmp_path: Path) -> None:
    async def main(place: Place) -> None:
        bank = place.bank
        bank.broken = {"refund"}
        handles = {name: await place.client.start(Regretted, Order(id=name), id=name) for name in ("r", "s", "t")}
        place.wait_until_parked("r", "s", "t")
        bank.broken.clear()
        await place.client.unpark("r", Override.RETRY, reason="the bank is open again", by="Ann")
        await place.client.unpark("s", Override.SKIP, reason="paid back in cash", by="Ann")
        await place.client.terminate("t", by="Ann")
        ends = {}
        for name, handle in handles.items():
            with pytest.raises(SagaFailed) as caught:
                await handle.result(timeout=60)
            ends[name] = (caught.value.status, caught.value.undone)
        assert ends == {
            "r": (Status.COMPENSATED, Undone.ALL),
            "s": (Status.COMPENSATED, Undone.PARTIAL),
            "t": (Status.TERMINATED, Undone.PARTIAL),
        }
        assert [attempt for id, command, attempt in bank.asked if (id, command) == ("r", "refund")] == [1, 2, 3]
        assert [attempt for id, command, attempt in bank.asked if (id, command) == ("s", "refund")] == [1, 2]

    run(broker, prefix, tmp_path, main)


def test_after_the_pivot_there_is_only_forward(broker: str, prefix: str, tmp_path: Path) -> None:
    async def main(place: Place) -> None:
        place.bank.broken = {"charge"}
        handles = [await place.client.start(Forward, Order(id=name), id=name) for name in ("again", "by-hand")]
        place.wait_until_parked("again", "by-hand")
        assert "release" not in {command for _, command, _ in place.bank.asked}
        place.bank.broken.clear()
        await place.client.unpark("again", Override.RETRY, by="Ann")
        await place.client.unpark("by-hand", Override.SET_RESULT, payload=b'"in cash"', reason="saw it", by="Ann")
        assert [await handle.result(timeout=60) for handle in handles] == ["receipt", "in cash"]
        assert place.visibility.catch_up(timeout_s=60)
        details = place.visibility.show("by-hand")
        assert details is not None
        by = [entry.event.by for entry in details.history if isinstance(entry.event, StepSucceeded)]
        assert by == ["", "", "Ann"]  # the first two were answered by their services

    run(broker, prefix, tmp_path, main)


def test_a_saga_waits_for_a_condition_on_its_own_data(broker: str, prefix: str, tmp_path: Path) -> None:
    async def main(place: Place) -> None:
        handle = await place.client.start(Watched, Order(id="w"), id="w")
        assert await handle.result(timeout=60) == "True False ['receipt']"

    run(broker, prefix, tmp_path, main)
