"""Code that changes under running sagas, and what goes along with them, on a real broker."""

import asyncio
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from click.testing import CliRunner

from orchestrator import HandlerContext, Participant, Saga, inject, per_call
from orchestrator.cli import saga as command_line
from orchestrator.cli.application import load_sagas
from orchestrator.client import Client
from orchestrator.client.client import Outgoing
from orchestrator.demo.processes import Process
from orchestrator.interceptors import Around
from orchestrator.log.kafka import KafkaLog
from orchestrator.migrations import PastRun
from orchestrator.model.definition import StepRequest
from orchestrator.model.events import SagaParked
from orchestrator.model.versions import by_type, of_start
from orchestrator.participant.runner import Runner
from orchestrator.provisioning import apply, plan
from orchestrator.topics import TopicNames
from orchestrator.visibility import Visibility
from orchestrator.wire.commands import CommandMessage, ReplyMessage
from tests.shop_cluster import shop
from tests.shop_world import PARTITIONS, Charge, Inventory, Order, OrderFulfilment, Payments, Shipping, succeed

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]


class ShipFirst(Saga[Order, str], name="OrderFulfilment"):
    """The goods go out before the card is charged."""

    async def run(self, order: Order) -> str:
        stock = await self.step(Inventory.reserve(order_id=order.id), undo=Inventory.release)
        shipped = await self.step(Shipping.ship(order_id=order.id, warehouse=stock.warehouse))
        await self.step(Payments.charge(order_id=order.id, cents=order.cents))
        return shipped


class Before(Saga[Order, str], name="Delivery"):
    async def run(self, order: Order) -> str:
        await self.step(Inventory.reserve(order_id=order.id))
        return await self.step(Shipping.ship(order_id=order.id, warehouse="A"))


class After(Before, name="Delivery"):
    async def run(self, order: Order) -> str:
        if self.patched("charge first"):
            await self.step(Payments.charge(order_id=order.id, cents=order.cents))
        await self.step(Inventory.reserve(order_id=order.id))
        shipped = await self.step(Shipping.ship(order_id=order.id, warehouse="A"))
        return f"charged and {shipped}" if self.patched("charge first") else shipped


class Settled(Before, name="Delivery"):
    """No run goes the old way any more."""

    async def run(self, order: Order) -> str:
        self.deprecate_patch("charge first")
        await self.step(Payments.charge(order_id=order.id, cents=order.cents))
        await self.step(Inventory.reserve(order_id=order.id))
        return "charged and " + await self.step(Shipping.ship(order_id=order.id, warehouse="A"))


class First(Before, name="Versioned", pinned=True):
    pass


class Second(Saga[Order, str], name="Versioned", version=2):
    async def run(self, order: Order) -> str:
        return "second " + await self.step(Shipping.ship(order_id=order.id, warehouse="B"))


class Moved(Before, name="Moved"):
    pass


class MovedOn(Saga[list[str], str], name="Moved", version=2):
    """Takes over what the first version has come to."""

    async def run(self, taken: list[str]) -> str:
        return f"from {taken[0]}: " + await self.step(Payments.charge(order_id=self.id, cents=1))

    @classmethod
    def migrate(cls, past: PastRun) -> list[str] | None:
        return [f"{stock.warehouse} {past.input['id']}" for stock in past.results(Inventory.reserve)]


class Silent:
    """Participants that do not answer one command of certain sagas; `asked` is set once they all were sent it."""

    def __init__(self, command: str, *saga_ids: str) -> None:
        self.command, self.left = command, set(saga_ids)
        self.silent_for = frozenset(saga_ids)
        self.asked = Event()

    def __call__(self, message: CommandMessage) -> ReplyMessage | None:
        if message.command_type != self.command or message.saga_id not in self.silent_for:
            return succeed(message)
        self.left.discard(message.saga_id)
        if not self.left:
            self.asked.set()
        return None


async def results(broker: str, prefix: str, saga: type[Saga[Order, str]], *ids: str) -> list[str]:
    """Starts or attaches to them, and waits."""
    async with Client.connect(broker, prefix=prefix) as client:
        handles = [await client.start(saga, Order(id=saga_id), id=saga_id) for saga_id in ids]
        return [await handle.result(timeout=60) for handle in handles]


async def start(broker: str, prefix: str, saga: type[Saga[Order, str]], *ids: str) -> None:
    async with Client.connect(broker, prefix=prefix) as client:
        await client.start_many(saga, [(saga_id, Order(id=saga_id)) for saga_id in ids])


@contextmanager
def looking(log: KafkaLog, topics: TopicNames, tmp_path: Path) -> Iterator[Visibility]:
    with Visibility(tmp_path / "visibility.sqlite", log, topics, PARTITIONS) as visibility:
        assert visibility.catch_up(timeout_s=60)
        yield visibility


def await_parked(visibility: Visibility, count: int) -> None:
    while visibility.counts().get("PARKED", 0) != count:
        assert visibility.catch_up(timeout_s=60)


def test_new_code_is_checked_before_and_parks_only_what_diverges(broker: str, prefix: str, tmp_path: Path) -> None:
    silent = Silent("charge", "o-1", "o-2", "o-3")
    with shop(broker, prefix, silent, [OrderFulfilment]):
        asyncio.run(start(broker, prefix, OrderFulfilment, "o-1", "o-2", "o-3"))
        assert silent.asked.wait(60)
    arguments = ["replay-check", f"{__name__}:ShipFirst", "-b", broker, "--prefix", prefix]
    done = CliRunner().invoke(command_line, arguments)
    assert done.exit_code == 1, done.output
    assert "3 of 3 OrderFulfilment diverge at payments.charge\n" in done.output
    environment = {"SAGA_STATE_DIRECTORY": str(tmp_path / "state")}
    done = CliRunner().invoke(command_line, [*arguments, "--where", "id in ('o-1', 'o-3')"], env=environment)
    assert "2 of 2 OrderFulfilment diverge at payments.charge\n" in done.output, done.output
    assert CliRunner().invoke(command_line, [*arguments[:1], "tests.shop_world", *arguments[2:]]).exit_code == 0

    with shop(broker, prefix, succeed, [ShipFirst, Before]) as (log, topics):
        assert asyncio.run(results(broker, prefix, Before, "other")) == ["shipped"]
        with looking(log, topics, tmp_path) as visibility:
            await_parked(visibility, 3)
            details = visibility.show("o-1")
        assert details is not None
        (parked,) = [entry.event for entry in details.history if isinstance(entry.event, SagaParked)]
        assert parked.reason == "the code diverges from the history"
        assert "!    2  payments.charge    shipping.ship" in parked.detail

    async def retry() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            for saga_id in ("o-1", "o-2", "o-3"):
                await client.unpark(saga_id, "retry")

    with shop(broker, prefix, succeed, [OrderFulfilment]):
        asyncio.run(retry())
        assert asyncio.run(results(broker, prefix, OrderFulfilment, "o-1", "o-2", "o-3")) == ["shipped"] * 3


def test_a_patch_keeps_running_sagas_on_their_way_until_it_is_deprecated(broker: str, prefix: str) -> None:
    silent = Silent("ship", "old")
    with shop(broker, prefix, silent, [Before]):
        asyncio.run(start(broker, prefix, Before, "old"))
        assert silent.asked.wait(60)
    silent = Silent("ship", "patched")
    with shop(broker, prefix, silent, [After]):
        assert asyncio.run(results(broker, prefix, After, "new", "old")) == ["charged and shipped", "shipped"]
        asyncio.run(start(broker, prefix, After, "patched"))
        assert silent.asked.wait(60)
    with shop(broker, prefix, succeed, [Settled]):
        assert asyncio.run(results(broker, prefix, Settled, "patched", "newest")) == ["charged and shipped"] * 2


def test_pinned_sagas_keep_their_version_and_a_person_moves_one(broker: str, prefix: str, tmp_path: Path) -> None:
    silent = Silent("reserve", "a", "b")
    with shop(broker, prefix, silent, [First]):
        asyncio.run(start(broker, prefix, First, "a", "b"))
        assert silent.asked.wait(60)

    async def move(version: int) -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            await client.move_version("b", version, reason="a mistake", by="ann")

    with shop(broker, prefix, Silent("reserve", "b"), [First, Second]) as (log, topics):
        assert asyncio.run(results(broker, prefix, Second, "a", "c")) == ["shipped", "second shipped"]
        asyncio.run(move(2))
        with looking(log, topics, tmp_path) as visibility:
            await_parked(visibility, 1)
            counted = visibility.versions(type="Versioned")
            assert [(each.version, each.pinned, each.open, each.parked) for each in counted] == [
                (2, False, 0, 0),
                (2, True, 1, 1),
                (1, True, 0, 0),
            ]
            asyncio.run(move(1))
            await_parked(visibility, 0)
    with shop(broker, prefix, succeed, [First, Second]):
        assert asyncio.run(results(broker, prefix, First, "b")) == ["shipped"]


SHARED = """
from orchestrator import Saga


class One(Saga[None, int], name="Shared"):
    async def run(self, _: None) -> int:
        return 1


class Two(One, name="Shared", version=2):
    async def run(self, _: None) -> int:
        return 2
"""


def test_a_worker_gives_a_version_to_a_share_of_the_ids(
    broker: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shared.py").write_text(SHARED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    one, two = load_sagas(("shared",))
    log, topics = KafkaLog(broker), TopicNames(prefix)
    with closing(log.admin()) as admin:
        apply(admin, plan(topics, partitions=PARTITIONS, replication=1, services=[]))
    environment = {
        "SAGA_BOOTSTRAP_SERVERS": broker,
        "SAGA_PREFIX": prefix,
        "SAGA_PARTITIONS": str(PARTITIONS),
        "SAGA_DEVELOPMENT": "true",
        "SAGA_STATE_DIRECTORY": str(tmp_path / "state"),
        "SAGA_METRICS_PORT": "0",
    }
    ids = [f"s-{number}" for number in range(20)]

    async def work() -> list[int]:
        async with Client.connect(broker, prefix=prefix) as client:
            handles = await client.start_many(one, [(saga_id, None) for saga_id in ids])
            return [await handle.result(timeout=60) for handle in handles]

    worker = Process("worker", ["worker", "shared", "--share", "Shared:2=40"], tmp_path, environment)
    worker.start()
    try:
        got = asyncio.run(work())
    finally:
        assert worker.stop() == 0, worker.tail(40)
    newest = by_type([one.definition, two.definition], {("Shared", 2): 40.0})["Shared"]
    expected = [of_start(newest, saga_id) for saga_id in ids]
    assert got == [each.version for each in expected if each is not None]
    assert set(got) == {1, 2}
    with looking(log, topics, tmp_path) as visibility:
        counted = {each.version: each.total for each in visibility.versions(type="Shared")}
        assert counted == {1: got.count(1), 2: got.count(2)}


def test_new_code_takes_over_what_old_code_has_done(broker: str, prefix: str) -> None:
    silent = Silent("ship", "m")
    with shop(broker, prefix, silent, [Moved]):
        asyncio.run(start(broker, prefix, Moved, "m"))
        assert silent.asked.wait(60)
    with shop(broker, prefix, succeed, [MovedOn]):
        assert asyncio.run(results(broker, prefix, Moved, "m")) == ["from A m: receipt"]


class Tenant:
    def __init__(self, name: str) -> None:
        self.name = name


def tenant(context: HandlerContext = inject(HandlerContext)) -> Tenant:
    return Tenant(context.baggage["tenant"])


class Doubled(Around):
    def step(self, saga: Saga[Any, Any], request: StepRequest) -> StepRequest:
        return replace(request, spread=True)


class Charging(Saga[Order, str], around=[Doubled()]):
    async def run(self, order: Order) -> str:
        return f"{self.baggage['tenant']}: " + await self.step(Payments.charge(order_id=order.id, cents=1))


def test_baggage_reaches_handlers_that_are_given_what_they_need(broker: str, prefix: str) -> None:
    calls: list[str] = []

    @contextmanager
    def noted(request: Any, context: HandlerContext) -> Iterator[None]:
        calls.append(f"{context.saga_id} of {context.baggage['tenant']}")
        yield

    payments = Participant(Payments, provide=[per_call(tenant)], around=[noted])

    @payments.handles(Payments.charge)
    def charge(request: Charge, tenant: Tenant = inject(Tenant)) -> str:
        return f"charged to {tenant.name}"

    @payments.handles(Payments.refund)
    def refund(request: Charge) -> None:
        return None

    def with_tenant(sent: Outgoing) -> Outgoing:
        return replace(sent, baggage={**sent.baggage, "tenant": "acme & co"})

    async def work() -> str:
        async with Client.connect(broker, prefix=prefix, around=[with_tenant]) as client:
            return await (await client.start(Charging, Order(id="o-1"), id="o-1")).result(timeout=60)

    with shop(broker, prefix, lambda message: None, [Charging]) as (log, topics):
        runner = Runner(payments, log, topics=topics)
        thread = Thread(target=runner.run)
        thread.start()
        try:
            assert asyncio.run(work()) == "acme & co: charged to acme & co"
        finally:
            runner.stop()
            thread.join(60)
    assert calls == ["o-1 of acme & co"]
