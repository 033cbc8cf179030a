"""Talking to a saga over a real broker, with a worker: what a client and a bare producer can say, and hear."""

import asyncio
import json
from queue import Queue
from threading import Event

import pytest

from orchestrator.client import Client
from orchestrator.correlator import Correlator
from orchestrator.errors import UpdateRejected
from orchestrator.log.kafka import KafkaLog
from orchestrator.model.ids import partition_of
from orchestrator.model.messages import Outcome
from orchestrator.saga import Saga
from orchestrator.signals import signal
from orchestrator.topics import TopicNames
from orchestrator.wire.commands import CommandMessage, ReplyMessage
from tests.expense import Approval, Auditor, Decision, Expense
from tests.shop_cluster import shop
from tests.shop_world import PARTITIONS

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]


def bare(log: KafkaLog, topics: TopicNames, saga_id: str, value: bytes, **headers: str) -> None:
    """A record as any producer can write it."""
    appender = log.appender(wake=Event())
    given = [(name.replace("_", "-"), text.encode()) for name, text in headers.items()]
    partition = partition_of(saga_id, PARTITIONS)
    appender.append(topics.inbox, partition, value, key=saga_id.encode(), headers=given, token=None)
    appender.close(10.0)


def test_signals_before_with_and_after_the_start(broker: str, prefix: str) -> None:
    async def main(log: KafkaLog, topics: TopicNames) -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            await client.signal("e-1", Expense.decided, Decision(by="ann"))
            before = await client.start(Expense, 100, id="e-1")
            along = await client.start(Expense, 200, id="e-2", signal=(Expense.decided, Decision(by="bob")))
            after = await client.start(Expense, 300, id="e-3")
            await after.signal(Expense.decided, Decision(by="cid", approved=False))
            by_hand = await client.start(Expense, 400, id="e-4")
            bare(log, topics, "e-4", b'{"by": "dan"}', input_type="signal", signal="decided")
            results = [await handle.result(timeout=60) for handle in (before, along, after, by_hand)]
            assert results == ["100 approved by ann", "200 approved by bob", "300 denied by cid", "400 approved by dan"]

    with shop(broker, prefix) as (log, topics):
        asyncio.run(main(log, topics))


def test_a_saga_tells_another_one(broker: str, prefix: str) -> None:
    async def main() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            before = await client.start(Auditor, "e-2", id="a-2")
            assert await before.result(timeout=60) == "audited"
            handles = [await client.start(Expense, cents, id=id) for cents, id in ((100, "e-1"), (200, "e-2"))]
            await client.start(Auditor, "e-1", id="a-1")
            results = [await handle.result(timeout=60) for handle in handles]
            assert results == ["100 denied by auditor", "200 denied by auditor"]

    with shop(broker, prefix):
        asyncio.run(main())


def test_promises_by_token_and_by_name(broker: str, prefix: str) -> None:
    async def main(log: KafkaLog, topics: TopicNames, tokens: Queue[str]) -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            handle = await client.start(Approval, 900, id="a-1")
            await handle.complete_promise(Approval.approved, Decision(by="bob"), key="auditor")
            token = await asyncio.to_thread(tokens.get, timeout=60)
            bare(log, topics, "anybody", b'{"by": "ann"}', input_type="promise", promise_token=token)
            assert await handle.result(timeout=60) == "900 approved by ann and bob"
            denied = await client.start(Approval, 900, id="a-2")
            await client.fail(await asyncio.to_thread(tokens.get, timeout=60), "Denied", "too dear")
            assert await denied.result(timeout=60) == "Denied: too dear"

    tokens: Queue[str] = Queue()

    def pass_on(message: CommandMessage) -> ReplyMessage:
        tokens.put(json.loads(message.payload)["token"])
        return ReplyMessage(Outcome.SUCCESS, b"null")

    with shop(broker, prefix, pass_on) as (log, topics):
        asyncio.run(main(log, topics, tokens))


def test_queries_of_running_and_ended_sagas(broker: str, prefix: str) -> None:
    async def main() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            handle = await client.start(Expense, 900, id="e-1")
            assert await handle.query(Expense.who, "nobody") == "nobody"
            await handle.signal(Expense.decided, Decision(by="ann"))
            assert await handle.query(Expense.who, "nobody") == "ann"
            assert await handle.result(timeout=60) == "900 approved by ann"
            assert await client.query("e-1", Expense.who, "nobody") == "ann"

    with shop(broker, prefix):
        asyncio.run(main())


def test_updates_with_a_validator_and_their_stages(broker: str, prefix: str) -> None:
    async def main() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            handle = await client.start(Expense, 900, id="e-1")
            assert await handle.update(Expense.raise_to, 1000) == 900
            with pytest.raises(UpdateRejected, match="more than nothing"):
                await handle.update(Expense.raise_to, -1)
            waiting = await handle.start_update(Expense.wait_for, "dear")
            await waiting.accepted()
            await handle.signal(Expense.noted, "dear")
            assert await waiting.result() == "dear"
            await handle.signal(Expense.decided, Decision(by="ann"))
            assert await handle.result(timeout=60) == "1000 approved by ann"

    with shop(broker, prefix):
        asyncio.run(main())


class Invoicing(Saga[str, str]):
    paid = signal(int)

    async def run(self, invoice: str) -> str:
        first = await self.receive(Invoicing.paid, key=invoice)
        return f"{first} {await self.receive(Invoicing.paid, key=invoice)}"


def test_signals_by_a_business_key(broker: str, prefix: str) -> None:
    async def main(log: KafkaLog, topics: TopicNames) -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            await client.signal_by_key(Invoicing.paid, "i-1", 5)  # before anybody listens
            handle = await client.start(Invoicing, "i-1", id="order-7")
            keeper = "saga.key/Invoicing.paid/i-1"
            told = {"saga_type": "saga.correlator", "reuse_policy": "ALLOW_DUPLICATE", "signal": "told"}
            bare(log, topics, keeper, b"{}", **told, signal_value='{"payload": "7", "ttl_ms": 1000}')
            assert await handle.result(timeout=60) == "5 7"
            await (await client.attach(Correlator, keeper)).result(timeout=60)  # it is over: nobody listens

    with shop(broker, prefix, sagas=(Invoicing, Correlator)) as (log, topics):
        asyncio.run(main(log, topics))
