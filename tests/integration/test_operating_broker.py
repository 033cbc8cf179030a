"""What people do about running sagas, on a real broker."""

import asyncio
import json
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from click.testing import CliRunner

from orchestrator import cli
from orchestrator.attributes import Double, Keyword
from orchestrator.client import Client
from orchestrator.errors import NotApplied, ResultTimeout, SagaFailed, SagaNotFound, StepFailed
from orchestrator.log.base import Log
from orchestrator.model import messages as msg
from orchestrator.model.decide import decide
from orchestrator.model.events import Status
from orchestrator.model.messages import Outcome
from orchestrator.runtime import partition
from orchestrator.saga import Saga
from orchestrator.topics import TopicNames
from orchestrator.visibility import Visibility, Wait
from orchestrator.wire.commands import CommandMessage, ReplyMessage
from tests.expense import Expense
from tests.shop_cluster import shop
from tests.shop_world import PARTITIONS, Greeting, Order, OrderFulfilment, refuse, succeed

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]


async def pause(client: Client, saga_id: str) -> None:
    """Pauses a saga that was just started: an operation goes ahead of starts, so that its id may not be known yet."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await client.pause(saga_id, timeout=60)
            except SagaNotFound:
                continue


def test_sagas_are_paused_and_resumed(broker: str, prefix: str) -> None:
    async def main() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            assert await client.pause_all(service="payments", timeout=60) == "service:payments"
            order = await client.start(OrderFulfilment, Order(id="o-1"), id="o-1")
            with pytest.raises(ResultTimeout):
                await order.result(timeout=1)
            assert await client.resume_all(service="payments", timeout=60) == "service:payments"
            assert await order.result(timeout=60) == "shipped"
            await client.start(Greeting, "Ada", id="g-1")
            await pause(client, "g-1")
            with pytest.raises(NotApplied, match="it is paused already"):
                await client.pause("g-1", timeout=60)
            await client.resume("g-1", timeout=60)
            await client.cancel("g-1", timeout=60)
            with pytest.raises(SagaNotFound):
                await client.pause("nobody", timeout=60)

    with shop(broker, prefix):
        asyncio.run(main())


def test_a_person_retries_sets_a_result_and_has_it_undone(broker: str, prefix: str, tmp_path: Path) -> None:
    async def main(log: Log, topics: TopicNames) -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            retried = await client.start(OrderFulfilment, Order(id="o-1"), id="o-1")
            undone = await client.start(OrderFulfilment, Order(id="o-2"), id="o-2")
            with Visibility(tmp_path / "v.sqlite", log, topics, PARTITIONS) as visibility:
                for saga_id in ("o-1", "o-2"):
                    wait = await parked(visibility, saga_id)
                    assert wait.what == "a person: payments.charge is parked"
                    assert f"saga park skip {saga_id} --step 2" in wait.frees
            await client.unpark("o-1", "set-result", step=2, payload=b'"by hand"', by="ann", timeout=60)
            assert await retried.result(timeout=60) == "shipped"
            await client.compensate("o-2", reason="wrong customer", by="ann", timeout=60)
            with pytest.raises(SagaFailed, match="COMPENSATED: Forced: wrong customer"):
                await undone.result(timeout=60)

    with shop(broker, prefix, refuse("charge", outcome=Outcome.RETRY)) as (log, topics):
        asyncio.run(main(log, topics))


def test_a_person_says_that_a_parked_undo_is_done(broker: str, prefix: str, tmp_path: Path) -> None:
    def behave(message: CommandMessage) -> ReplyMessage | None:
        refused = message.command_type in ("charge", "release")
        return ReplyMessage(Outcome.FAILURE, b"", "Down") if refused else succeed(message)

    async def main(log: Log, topics: TopicNames) -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            order = await client.start(OrderFulfilment, Order(id="o-1"), id="o-1")
            with Visibility(tmp_path / "v.sqlite", log, topics, PARTITIONS) as visibility:
                wait = await parked(visibility, "o-1")
                assert wait.what == "a person: inventory.release is parked"
                assert f"saga park set-result o-1 --step {wait.step} --result JSON" in wait.frees
            how: dict[str, Any] = {"step": wait.step, "payload": b"null", "by": "ann", "timeout": 60}
            await client.unpark("o-1", "set-result", reason="put back by hand", **how)
            with pytest.raises(SagaFailed, match="Down") as caught:
                await order.result(timeout=60)
            assert (caught.value.status, caught.value.undone) == (Status.COMPENSATED, "all")

    with shop(broker, prefix, behave) as (log, topics):
        asyncio.run(main(log, topics))


def test_who_reschedules_or_moves_to_another_version_hears_what_came_of_it(broker: str, prefix: str) -> None:
    async def main() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            await client.start(Greeting, "Ada", id="g-1", start_delay=3_600)
            with pytest.raises(SagaNotFound):
                await client.reschedule("nobody", start_delay=0, timeout=60)
            await client.reschedule("g-1", start_delay=0, timeout=60)
            with pytest.raises(NotApplied, match="the saga has begun already"):
                await client.reschedule("g-1", start_delay=0, timeout=60)
            with pytest.raises(NotApplied, match="the saga's worker has no version 77 of Greeting, but 1"):
                await client.move_version("g-1", 77, timeout=60)

    def say(*words: str) -> tuple[int, str]:
        run = CliRunner().invoke(cli.saga, [*words, "-b", broker, "--prefix", prefix])
        return run.exit_code, run.output.strip() or str(run.exception)

    with shop(broker, prefix):
        asyncio.run(main())
        assert say("move-version", "g-1", "--to", "1") == (0, "g-1: move-version is applied")
        code, words = say("move-version", "nobody", "--newest")
        assert (code, "there is no saga 'nobody'" in words) == (1, True)
        code, words = say("reschedule", "g-1", "--start-delay", "5")
        assert (code, "the saga has begun already" in words) == (1, True)


async def parked(visibility: Visibility, saga_id: str) -> Wait:
    async with asyncio.timeout(60):
        while True:
            await asyncio.to_thread(lambda: None)
            assert visibility.catch_up(60)
            found = visibility.why(saga_id)
            if found is not None and found.status == "PARKED":
                return found.waits[0]


class Asking(Saga[str, str]):
    async def run(self, name: str) -> str:
        try:
            return await self.child(Greeting, name, id="c-1")
        except StepFailed as failed:
            return failed.error_type


def test_what_cannot_be_decided_is_found_again_and_redriven(
    broker: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGA_STATE_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("SAGA_BOOTSTRAP_SERVERS", broker)
    monkeypatch.setenv("SAGA_PREFIX", prefix)
    monkeypatch.setenv("SAGA_DEVELOPMENT", "true")
    mended = Event()

    def broken(execution: Any, definition: Any, given: Any, moment: Any) -> Any:
        if isinstance(given, msg.Signal | msg.ChildEnded) and given.saga_id == "e-1" and not mended.is_set():
            raise RuntimeError("a bug")
        return decide(execution, definition, given, moment)

    async def letters(count: int) -> list[dict[str, Any]]:
        async with asyncio.timeout(60):
            while len(found := (await told("dead-letters", "list"))["dead_letters"]) < count:
                await asyncio.sleep(0.2)
        return found

    async def told(*words: str) -> Any:
        run = CliRunner().invoke(cli.saga, [*words, "--json"])
        assert run.exit_code == 0, run.output
        return json.loads(run.stdout)

    async def main() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            parent = await client.start(Asking, "Ada", id="e-1")
            await parent.signal(Expense.noted, "what parks it")
            (signal,) = await letters(1)
            child = await client.attach(Greeting, "c-1")
            await client.cancel("c-1")
            with pytest.raises(SagaFailed, match="CANCELED"):
                await child.result(timeout=60)
            _, ended = await letters(2)
            assert [x["reason"] for x in (signal, ended)] == ["deciding it failed 2 times: RuntimeError: a bug"] * 2
            assert [x["topic"] for x in (signal, ended)] == [f"{prefix}saga.inbox", f"{prefix}saga.internal"]
            assert (signal["error"], signal["value"]) == ("RuntimeError", "what parks it")
            mended.set()
            (redriven,) = (await told("dead-letters", "redrive", ended["place"]))["redriven"]
            assert redriven["to"].startswith(f"{prefix}saga.operations-")
            await client.unpark("e-1", "retry", reason="mended", timeout=60)
            assert await parent.result(timeout=60) == "Canceled"

    monkeypatch.setattr(partition, "decide", broken)
    with shop(broker, prefix, sagas=(Asking, Greeting)):
        asyncio.run(main())


class Tagged(Greeting, name="Greeting"):
    customer = Keyword()
    amount = Double()


def test_sagas_are_found_by_what_they_tell(broker: str, prefix: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            for number, customer in enumerate(("ann", "bob", "ann")):
                told = [Tagged.customer(customer), Tagged.amount(number)]
                await client.start(Tagged, customer, id=f"g-{number}", attributes=told, summary=f"number {number}")
            await pause(client, "g-2")

    with shop(broker, prefix) as (log, topics):
        asyncio.run(main())
        with Visibility(tmp_path / "v.sqlite", log, topics, PARTITIONS) as visibility:
            assert visibility.catch_up(60)
            found = visibility.find("customer = 'ann' and amount >= 0", "amount desc")
            assert [(run.saga_id, run.summary) for run in found] == [("g-2", "number 2"), ("g-0", "number 0")]
            assert visibility.count("status = 'PAUSED'", "customer") == {"ann": 1}
