"""New code against the journal of a running shop: which runs diverge, and where."""

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from orchestrator import Retry, Saga
from orchestrator.cli import replay_check as verb
from orchestrator.cli import saga as command_line
from orchestrator.log.base import Record
from orchestrator.migrations import PastRun
from orchestrator.model.definition import Definition
from orchestrator.runtime.replay_check import ReplayCheck, Report
from orchestrator.store.memory import MemoryStores
from orchestrator.visibility import Visibility
from orchestrator.wire.commands import CommandMessage, ReplyMessage
from tests.shop_world import (
    PARTITIONS,
    Greeting,
    Inventory,
    Order,
    OrderFulfilment,
    Payments,
    Shipping,
    World,
    refuse,
    send_starts,
    succeed,
)

VERSIONS = Path(__file__).parents[2] / "docs" / "versions.md"
NAMED = ("order-17", "order-22", "order-9")


class ShipFirst(Saga[Order, str], name="OrderFulfilment"):
    """The card is charged after the goods went out."""

    async def run(self, order: Order) -> str:
        stock = await self.step(Inventory.reserve(order_id=order.id), undo=Inventory.release)
        shipped = await self.step(Shipping.ship(order_id=order.id, warehouse=stock.warehouse))
        await self.step(Payments.charge(order_id=order.id, cents=order.cents))
        return shipped


class Broken(Saga[Order, str], name="OrderFulfilment"):
    async def run(self, order: Order) -> str:
        stock = await self.step(Inventory.reserve(order_id=order.id), undo=Inventory.release)
        return {"B": "never"}[stock.warehouse]


class Patient(OrderFulfilment, name="OrderFulfilment"):
    """The same steps, tried more often: what a step is asked with may change."""

    async def run(self, order: Order) -> str:
        stock = await self.step(Inventory.reserve(order_id=order.id), undo=Inventory.release)
        await self.step(Payments.charge(order_id=order.id, cents=1), retry=Retry(maximum_attempts=9))
        return await self.step(Shipping.ship(order_id=order.id, warehouse=stock.warehouse), pivot=True)


class Impatient(Greeting, name="Greeting"):
    async def run(self, name: str) -> str:
        return f"hello {name}"


@pytest.fixture(scope="module")
def world() -> World:
    """Three orders wait for their charge, one for its stock; two are done, one is undone, one greeting sleeps."""
    world = World()
    send_starts(world, "done-1", "done-2")
    world.settle()

    def behave(message: CommandMessage) -> ReplyMessage | None:
        wanted = {"charge": "slow", "reserve": "out"}.get(message.command_type, "")
        return None if wanted and message.saga_id.startswith(wanted) else succeed(message)

    world.behave = refuse("charge")
    send_starts(world, "undone-1")
    world.settle()
    world.behave = behave
    send_starts(world, "slow-1", "slow-2", "slow-3", "out-1")
    send_starts(world, "sleeper", saga_type="Greeting", value=b'"eve"')
    world.settle()
    return world


def checked(
    world: World,
    *sagas: type[Saga[Any, Any]],
    ended: bool = False,
    only: Collection[tuple[str, str]] | None = None,
) -> Report:
    definitions = {saga.definition.name: saga.definition for saga in sagas}
    check = ReplayCheck(definitions, MemoryStores(), ended=ended, only=only)
    for record in world.records(world.topics.journal):
        check.feed(record.partition, record.offset, record.timestamp_ms, record.value)
    report = check.report()
    check.close()
    return report


def as_the_page_says(said: str) -> str:
    """What the verb says of this shop, with the names and numbers of the page."""
    said = said[: said.index("read and replayed")].replace("3 of 4 ", "3 of 41,207 ")
    for own, named in zip(sorted(set(re.findall(r"slow-\d", said)), key=said.index), NAMED, strict=True):
        said = said.replace(own, named)
    return f"```\n{said}```\n"


def found(report: Report) -> dict[tuple[str, str], list[str]]:
    return {place: sorted(each.saga_id for each in sagas) for place, sagas in report.groups().items()}


def test_code_that_runs_there_replays_every_run(world: World) -> None:
    report = checked(world, OrderFulfilment, Greeting, ended=True)
    assert (report.checked, report.diverging) == ({"OrderFulfilment": 7, "Greeting": 1}, [])
    assert checked(world, Patient, Greeting, ended=True).diverging == []


def test_what_diverges_is_named_with_its_step(world: World) -> None:
    report = checked(world, ShipFirst)
    assert (report.checked, report.unknown) == ({"OrderFulfilment": 4}, {"Greeting": 1})
    assert found(report) == {("OrderFulfilment", "payments.charge"): ["slow-1", "slow-2", "slow-3"]}
    first = report.diverging[0].difference
    assert first.step == 2
    assert first.message.startswith("step 2: the history has payments.charge, the code asks for shipping.ship\n")
    assert "!    2  payments.charge    shipping.ship      running" in first.message


def test_a_hook_that_takes_runs_over_is_asked(world: World) -> None:
    class TakenOver(OrderFulfilment, name="OrderFulfilment", version=2):
        @classmethod
        def migrate(cls, past: PastRun) -> Order | None:
            stock = past.results(Inventory.reserve)
            return Order(id=past.input["id"], sku=stock[0].warehouse)

    class Declining(ShipFirst, name="OrderFulfilment", version=2):
        @classmethod
        def migrate(cls, past: PastRun) -> Order | None:
            return None

    report = checked(world, TakenOver, ended=True)
    assert found(report) == {("OrderFulfilment", "the migration"): ["out-1"]}
    assert report.diverging[0].difference.message == "the hook raises IndexError('list index out of range')"
    assert found(checked(world, Declining)) == {("OrderFulfilment", "payments.charge"): ["slow-1", "slow-2", "slow-3"]}


def test_runs_that_ended_are_checked_when_asked_for(world: World) -> None:
    everywhere = ["done-1", "done-2", "slow-1", "slow-2", "slow-3", "undone-1"]
    assert found(checked(world, ShipFirst, ended=True)) == {("OrderFulfilment", "payments.charge"): everywhere}


def test_only_runs_that_a_filter_finds_are_checked(world: World, tmp_path: Path) -> None:
    with Visibility(tmp_path / "v.sqlite", world.log, world.topics, PARTITIONS) as visibility:
        assert visibility.catch_up(5)
        slow = visibility.matching("id in ('slow-1', 'slow-3', 'done-1') and type = 'OrderFulfilment'")
        assert {saga_id for saga_id, _ in slow} == {"slow-1", "slow-3", "done-1"}
        assert len(visibility.matching(None)) == 8
    report = checked(world, ShipFirst, only=slow)
    assert (report.checked, report.unknown) == ({"OrderFulfilment": 2}, {})
    assert found(report) == {("OrderFulfilment", "payments.charge"): ["slow-1", "slow-3"]}
    assert checked(world, ShipFirst, ended=True, only=slow).total == 3
    assert checked(world, ShipFirst, only=()).total == 0


def test_code_that_raises_or_ends_early_is_found_too(world: World) -> None:
    assert found(checked(world, Broken)) == {("OrderFulfilment", "payments.charge"): ["slow-1", "slow-2", "slow-3"]}
    (sleeper,) = checked(world, Impatient).diverging
    assert (sleeper.difference.at, sleeper.parked) == ("sleep", False)


def test_the_verb_says_it_in_words_in_json_and_by_its_exit_code(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def check_journal(
        log: Any,
        journal: str,
        definitions: Mapping[str, Definition],
        *,
        ended: bool,
        only: Collection[tuple[str, str]] | None,
        archive: object,
    ) -> Report:
        assert only is None
        assert archive is None
        asked.append(ended)
        return checked(world, ShipFirst if len(asked) < 3 else OrderFulfilment, ended=ended)

    monkeypatch.setattr(verb, "check_journal", check_journal)
    arguments = ["replay-check", "orchestrator.sagas.order_fulfilment", "-b", "127.0.0.1:1"]
    done = CliRunner().invoke(command_line, arguments)
    assert done.exit_code == 1
    said = done.output.replace("not checked, for the given modules do not define them: 1 Greeting\n", "")
    assert said != done.output
    assert as_the_page_says(said) in VERSIONS.read_text()
    told = json.loads(CliRunner().invoke(command_line, [*arguments, "--all", "--json"]).stdout.splitlines()[-1])
    assert (told["checked"], told["diverging"], told["unknown_by_type"]) == (7, 6, {"Greeting": 1})
    assert [(place["at"], place["count"], len(place["sagas"])) for place in told["places"]] == [
        ("payments.charge", 6, 6)
    ]
    assert asked == [False, True]
    fine = CliRunner().invoke(command_line, arguments)
    assert (fine.exit_code, "0 of 4 open runs diverge" in fine.output) == (0, True)


def test_a_journal_that_was_cut_cannot_be_checked(world: World) -> None:
    check = ReplayCheck({}, MemoryStores())
    record: Record = world.records(world.topics.journal)[1]
    with pytest.raises(Exception, match="the journal has no genesis before"):
        check.feed(record.partition, record.offset, record.timestamp_ms, record.value)
