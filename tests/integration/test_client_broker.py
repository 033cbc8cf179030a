"""The client over a real broker, with a worker and participants."""

import asyncio

import pytest

from orchestrator.client import Client
from orchestrator.errors import ConfigurationError, ResultTimeout, SagaFailed, SagaNotFound
from orchestrator.log.base import TopicSpec
from orchestrator.log.kafka import KafkaLog
from orchestrator.model.events import Status
from orchestrator.provisioning import apply, audit, check, plan
from orchestrator.topics import TopicNames
from tests.shop_cluster import shop
from tests.shop_world import Greeting, Order, OrderFulfilment

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]


def test_start_wait_attach_cancel_and_terminate(broker: str, prefix: str) -> None:
    async def main() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            handle = await client.start(OrderFulfilment, Order(id="o-1"), id="o-1")
            assert await handle.result(timeout=60) == "shipped"
            again = await client.start(OrderFulfilment, Order(id="o-1"), id="o-1")
            assert await again.result(timeout=60) == "shipped"
        async with Client.connect(broker, prefix=prefix, client_id="another") as client:
            assert await (await client.attach(OrderFulfilment, "o-1")).result(timeout=60) == "shipped"
            with pytest.raises(SagaNotFound):
                await (await client.attach(OrderFulfilment, "nobody")).result(timeout=60)
            one = await client.start(Greeting, "Ada", id="g-1")
            two = await client.start(Greeting, "Bob", id="g-2")
            with pytest.raises(ResultTimeout):
                await one.result(timeout=0.05)
            await one.cancel(reason="enough")
            await client.terminate(two.id)
            for handle, status in ((one, Status.CANCELED), (two, Status.TERMINATED)):
                with pytest.raises(SagaFailed) as caught:
                    await handle.result(timeout=60)
                assert caught.value.status == status

    with shop(broker, prefix):
        asyncio.run(main())


def test_many_starts_all_give_their_result(broker: str, prefix: str) -> None:
    async def main() -> list[str]:
        async with Client.connect(broker, prefix=prefix) as client:
            handles = await client.start_many(OrderFulfilment, ((f"o-{n}", Order(id=f"o-{n}")) for n in range(1000)))
            return list(await asyncio.gather(*(handle.result(timeout=120) for handle in handles)))

    with shop(broker, prefix):
        assert asyncio.run(main()) == ["shipped"] * 1000


def test_without_topics_the_client_says_what_to_do(broker: str, prefix: str) -> None:
    async def main() -> None:
        async with Client.connect(broker, prefix=prefix):
            pass

    with pytest.raises(ConfigurationError, match=f"no topic {prefix}saga.inbox .*saga topics apply"):
        asyncio.run(main())


def test_what_was_applied_is_found_as_planned(broker: str, prefix: str) -> None:
    names = TopicNames(prefix)
    admin = KafkaLog(broker).admin()
    specs = plan(names, partitions=3, replication=1, services=["payments"])
    admin.create([TopicSpec(names.replies, 2, 1, {"cleanup.policy": "compact"})])
    assert set(apply(admin, specs)) == {spec.name for spec in specs} - {names.replies}
    findings = check(admin, names, specs)
    assert {finding.topic for finding in findings} == {names.replies}
    assert any("2 partitions, not 3" in finding.problem for finding in findings)
    assert any("cleanup.policy is compact" in finding.problem for finding in findings)
    with pytest.raises(ConfigurationError, match=r"saga\.replies"):
        audit(admin, names, partitions=3, replication=1)
    admin.delete([names.replies])
    assert apply(admin, specs) == [names.replies]
    assert check(admin, names, specs) == []
    audit(admin, names, partitions=3, replication=1)
    admin.close()
