"""Children, continue as new and starting an id again, on a real broker."""

from __future__ import annotations

import asyncio
from collections import Counter
from threading import Lock
from typing import Any

import pytest

from orchestrator.client import Client
from orchestrator.errors import NotApplied, SagaAlreadyExists, SagaFailed
from orchestrator.model.events import Status
from orchestrator.model.messages import ChildCancellation, Conflict, Outcome, ParentClose, Reuse
from orchestrator.saga import Saga
from orchestrator.signals import signal
from orchestrator.wire.commands import CommandMessage, ReplyMessage
from tests.shop_cluster import shop
from tests.shop_world import Inventory, Payments, succeed

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]


class Part(Saga[str, str]):
    async def run(self, what: str) -> str:
        await self.step(Inventory.reserve(order_id=what), undo=Inventory.release)
        return await self.step(Payments.charge(order_id=what, cents=1), undo=Payments.refund)


class Whole(Saga[str, list[str]]):
    async def run(self, last: str) -> list[str]:
        parts = await self.gather(*(self.child(Part, name) for name in ("one", "two", "three")))
        return [*parts, await self.child(Part, last)]


class Countdown(Saga[int, str]):
    async def run(self, left: int) -> str:
        await self.step(Inventory.reserve(order_id=str(left)))
        if left:
            self.continue_as_new(left - 1)
        return "lift off"


class Delivery(Saga[str, str]):
    told = signal(str)

    async def run(self, what: str) -> str:
        receipt = await self.step(Payments.charge(order_id="fee", cents=1))
        await self.step(Inventory.reserve(order_id=what), undo=Inventory.release)
        await self.step(Payments.charge(order_id=what, cents=1), undo=Payments.refund)
        return receipt + await self.receive(Delivery.told)


class Services:
    """A charge of what is "bad" is refused while `strict`."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.keys: list[str] = []
        self.strict = True
        self._lock = Lock()

    def __call__(self, message: CommandMessage) -> ReplyMessage | None:
        if self.strict and message.command_type == "charge" and b'"bad"' in message.payload:
            return ReplyMessage(Outcome.FAILURE, b"", "Declined", "the card was declined")
        with self._lock:
            self.done[message.command_type] += 1
            self.keys.append(message.idempotency_key)
        return succeed(message)


def test_children_are_started_heard_and_undone_over_partitions(broker: str, prefix: str) -> None:
    services = Services()

    async def main() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            whole = await client.start(Whole, "four", id="whole")
            assert await whole.result(timeout=60) == ["receipt"] * 4
            broken = await client.start(Whole, "bad", id="broken")
            with pytest.raises(SagaFailed) as caught:
                await broken.result(timeout=60)
            assert (caught.value.status, caught.value.error_type) == (Status.COMPENSATED, "Declined")

    with shop(broker, prefix, services, (Whole, Part)):
        asyncio.run(main())
    assert services.done == {"reserve": 8, "charge": 7, "refund": 3, "release": 4}


def test_runs_follow_one_another_and_an_id_is_used_again_as_the_start_says(broker: str, prefix: str) -> None:
    services = Services()

    async def main() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            handle = await client.start(Countdown, 3, id="rocket")
            assert await handle.result(timeout=60) == "lift off"
            assert services.done["reserve"] == 4
            await (await client.start(Countdown, 3, id="rocket")).result(timeout=60)
            assert services.done["reserve"] == 4, "by default whoever starts it again is told how it ended"
            again = await client.start(Countdown, 1, id="rocket", reuse=Reuse.ALLOW_DUPLICATE)
            await again.result(timeout=60)
            assert services.done["reserve"] == 6
            refused = await client.start(Countdown, 1, id="rocket", reuse=Reuse.REJECT_DUPLICATE)
            with pytest.raises(SagaAlreadyExists):
                await refused.result(timeout=60)
            fresh = await client.start(Countdown, 0, id="other", conflict=Conflict.FAIL)
            assert await fresh.result(timeout=60) == "lift off"

    with shop(broker, prefix, services, (Countdown,)):
        asyncio.run(main())


def test_a_person_has_sagas_run_again(broker: str, prefix: str) -> None:
    """Redriven after its undo, then reset: what stands is kept, all else happens again, nothing is undone twice."""
    services = Services()

    async def main() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            handle = await client.start(Delivery, "bad", id="d-1")
            with pytest.raises(SagaFailed):
                await handle.result(timeout=60)
            assert services.done == {"charge": 1, "reserve": 1, "release": 1}
            services.strict = False
            await client.redrive("d-1", reason="the bank is back", timeout=30)
            again = await client.attach(Delivery, "d-1")
            await again.signal(Delivery.told, ", told")
            assert await again.result(timeout=60) == "receipt, told"
            assert services.done == {"charge": 2, "reserve": 2, "release": 1}
            await client.reset("d-1", to=4, reason="only told again", timeout=30)
            assert await (await client.attach(Delivery, "d-1")).result(timeout=60) == "receipt, told"
            assert services.done == {"charge": 2, "reserve": 2, "release": 1}
            await client.reset("d-1", to=2, timeout=30)
            await client.fork("d-1", to=2, new_id="d-2", timeout=30)
            await (await client.attach(Delivery, "d-2")).signal(Delivery.told, ", too")
            assert await (await client.attach(Delivery, "d-2")).result(timeout=60) == "receipt, too"
            assert await (await client.attach(Delivery, "d-1")).result(timeout=60) == "receipt, told"
            with pytest.raises(NotApplied, match="restart it"):
                await client.redrive("d-1", timeout=30)
            await client.restart("d-2", payload=b'"other"', timeout=30)
            await (await client.attach(Delivery, "d-2")).cancel()

    with shop(broker, prefix, services, (Delivery,)):
        asyncio.run(main())
    undone = [key for key in services.keys if key.endswith("/undo")]
    assert len(set(services.keys)) == len(services.keys)
    assert len([key for key in undone if key.startswith("d-1/")]) == 3, "the release, then the refund and the second"


class Waiter(Saga[int, int]):
    told = signal(int)

    async def run(self, number: int) -> int:
        return number + await self.receive(Waiter.told)


class Leaving(Saga[str, None]):
    """Starts two sagas that it does not wait for, one that ends with it and one that does not."""

    told = signal(int)

    async def run(self, prefix: str) -> None:
        self.start_child(Waiter, 1, id=f"{prefix}-ends", parent_close=ParentClose.TERMINATE)
        self.start_child(Waiter, 2, id=f"{prefix}-stays", parent_close=ParentClose.ABANDON)
        self.start_child(Waiter, 3, id=f"{prefix}-stops", parent_close=ParentClose.REQUEST_CANCEL)
        await self.receive(Leaving.told)


async def ending(client: Client, saga: type[Saga[Any, Any]], id: str) -> str:
    try:
        await (await client.attach(saga, id)).result(timeout=60)
    except SagaFailed as failed:
        return failed.status
    return Status.COMPLETED


def test_an_id_that_is_taken_is_refused_or_ended_as_the_start_says(broker: str, prefix: str) -> None:
    async def main() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            first = await client.start(Waiter, 1, id="w")
            with pytest.raises(SagaAlreadyExists):
                await (await client.start(Waiter, 9, id="w", conflict=Conflict.FAIL)).result(timeout=60)
            second = await client.start(Waiter, 2, id="w", conflict=Conflict.TERMINATE_EXISTING)
            third = await client.start(Waiter, 3, id="w", reuse=Reuse.TERMINATE_IF_RUNNING)
            for ended in (first, second):
                with pytest.raises(SagaFailed) as caught:
                    await ended.result(timeout=60)
                assert caught.value.status == Status.TERMINATED
            await third.signal(Waiter.told, 5)
            assert await third.result(timeout=60) == 8
            refused = await client.start(Waiter, 4, id="w", reuse=Reuse.ALLOW_DUPLICATE_FAILED_ONLY)
            with pytest.raises(SagaAlreadyExists):
                await refused.result(timeout=60)

    with shop(broker, prefix, Services(), (Waiter,)):
        asyncio.run(main())


def test_what_becomes_of_children_when_their_parent_is_terminated(broker: str, prefix: str) -> None:
    async def main() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            await client.start(Leaving, "c", id="parent")
            await client.terminate("parent", timeout=30)
            assert await ending(client, Waiter, "c-ends") == Status.TERMINATED
            assert await ending(client, Waiter, "c-stops") == Status.CANCELED
            await client.signal("c-stays", Waiter.told, 5)
            assert await ending(client, Waiter, "c-stays") == Status.COMPLETED

    with shop(broker, prefix, Services(), (Leaving, Waiter)):
        asyncio.run(main())


class Errand(Saga[str, str]):
    told = signal(str)

    async def run(self, what: str) -> str:
        await self.step(Inventory.reserve(order_id=what), undo=Inventory.release)
        return await self.receive(Errand.told)


class Sender(Saga[str, str]):
    """Sends somebody on an errand, with what is to become of that if it is cancelled itself as its input."""

    async def run(self, cancellation: str) -> str:
        asked = ChildCancellation(cancellation)
        return await self.child(Errand, "", id=f"errand-{asked}", cancellation=asked, undo=False)


def test_what_becomes_of_children_when_their_parent_is_cancelled(broker: str, prefix: str) -> None:
    came: list[tuple[str, str]] = []

    def behave(message: CommandMessage) -> ReplyMessage | None:
        came.append((message.saga_id, message.command_type))
        return None if came[-1] == ("errand-TRY_CANCEL", "release") else succeed(message)

    async def until_came(count: int, command: str) -> None:
        async with asyncio.timeout(60):
            while sum(each[1] == command for each in came) < count:
                await asyncio.sleep(0.05)

    async def main() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            for cancellation in ChildCancellation:
                await client.start(Sender, cancellation.value, id=f"sender-{cancellation}")
            await until_came(3, "reserve")
            for cancellation in ChildCancellation:
                await client.cancel(f"sender-{cancellation}", timeout=30)
            assert await ending(client, Sender, "sender-WAIT_CANCELLATION_COMPLETED") == Status.CANCELED
            assert ("errand-WAIT_CANCELLATION_COMPLETED", "release") in came
            assert await ending(client, Sender, "sender-TRY_CANCEL") == Status.CANCELED
            await until_came(2, "release")  # which is not answered: the errand cannot have ended
            assert await ending(client, Sender, "sender-ABANDON") == Status.CANCELED
            await client.signal("errand-ABANDON", Errand.told, "done")
            assert await ending(client, Errand, "errand-ABANDON") == Status.COMPLETED

    with shop(broker, prefix, behave, (Sender, Errand)):
        asyncio.run(main())
    assert sorted(each for each in came if each[1] == "release") == [
        ("errand-TRY_CANCEL", "release"),
        ("errand-WAIT_CANCELLATION_COMPLETED", "release"),
    ]
