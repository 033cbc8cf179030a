"""Why a saga does not go on: from its history, for every way of waiting."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from model.play import SAGA_ID, Play
from model.shop import Shop, Work
from model.shopping import Plain, Two

from orchestrator.cli.why import lines_of
from orchestrator.client import Client
from orchestrator.entities import Entity, operation
from orchestrator.errors import RetryLater
from orchestrator.model import messages as msg
from orchestrator.model.events import Status
from orchestrator.model.evolve import evolve
from orchestrator.model.messages import Outcome
from orchestrator.model.state import SagaState
from orchestrator.promises import promise
from orchestrator.saga import Retry, Saga
from orchestrator.signals import signal
from orchestrator.testing import SagaTest
from orchestrator.visibility import Visibility, Wait, Why
from orchestrator.visibility.why import Trace, why
from tests.shop_world import (
    PARTITIONS,
    Charge,
    Inventory,
    Payments,
    Reservation,
    World,
    drive,
    send_starts,
    succeed,
)


def explain(play: Play, *rules: str) -> Why:
    """As visibility does, from the events alone; each decision a second after the one before."""
    state, trace = SagaState(SAGA_ID, play.state.run), Trace()
    for number, events in enumerate(play.decisions):
        for event in events:
            evolve(state, event, number * 1_000)
            trace.note(event, number * 1_000)
    return why(state, trace, rules)


def only(found: Why) -> Wait:
    (wait,) = found.waits
    return wait


def play_of(saga: type[Saga[Any, Any]], value: object = None) -> Play:
    play = Play(saga)
    play.start(value)
    return play


def test_a_reply_that_has_not_come() -> None:
    play = play_of(Plain, "tea")
    play.do(1, "x")
    found = explain(play)
    assert only(found) == Wait("the reply to shop.charge", 2, 1_000, None, 1, "", ("a reply of the service shop",))
    assert found.status == "RUNNING"
    assert explain(play, "service:shop", "type:Plain").notes == (
        "type:Plain is paused: it waits when it would go on",
        "service:shop is paused: step 2 is not attempted again until then",
    )


def test_a_pause_between_two_attempts() -> None:
    play = play_of(Plain, "tea")
    play.again(1, "Busy")
    wait = only(explain(play))
    assert (wait.what, wait.error, wait.due_ms) == (
        "attempt 2 of shop.reserve",
        "Busy: no details",
        play.step(1).due_ms,
    )
    assert f"saga park retry {SAGA_ID} --step 1 (at once)" in wait.frees


def test_a_circuit_that_is_open() -> None:
    play = Play(Plain)
    play.open_circuits = frozenset({"shop"})
    play.start("tea")
    assert only(explain(play)).what == "the circuit of shop to close: shop.reserve is held"


def test_an_undo_under_way_in_pause_and_parked() -> None:
    play = play_of(Plain, "tea")
    play.do(1, "x")
    play.refuse(2)
    assert only(explain(play)).what == "the reply to shop.release"
    play.undo(1, Outcome.RETRY, "Busy")
    wait = only(explain(play))
    assert (wait.what, wait.error) == ("attempt 2 of shop.release", "Busy: no details")
    play.retry(1)
    play.undo(1, Outcome.FAILURE, "Gone")
    wait = only(explain(play))
    assert wait.what == "a person: shop.release is parked"
    assert "the undo was refused" in wait.error
    assert f"saga park skip {SAGA_ID} --step 1" in wait.frees


def test_a_signal_a_time_and_a_condition() -> None:
    class Waiting(Saga[None, None]):
        told = signal(str)
        other = signal(str)

        async def run(self, _: None) -> None:
            await self.receive(Waiting.told, timeout=60)
            await self.sleep(10)
            await self.wait_until(lambda: False)

    play = play_of(Waiting)
    wait = only(explain(play))
    assert (wait.what, wait.frees) == ("the signal told", (f"saga signal {SAGA_ID} told VALUE", "its time"))
    play.signal("other", "x")
    assert explain(play).notes == ("1 signals are kept that its code has not asked for: other",)
    play.signal("told", "x")
    assert only(explain(play)).what == "its time"
    play.fire(2)
    assert only(explain(play)).what == "a condition in its code to hold"


def test_a_promise_a_child_a_key_and_a_condition_with_a_time() -> None:
    class Part(Saga[str, str]):
        async def run(self, what: str) -> str:
            return what

    class Waiting(Saga[str, None]):
        paid = signal(int)
        approved = promise(str)

        async def run(self, how: str) -> None:
            if how == "promise":
                await self.receive(self.promise(Waiting.approved), timeout=50)
            elif how == "child":
                await self.child(Part, "a", id="part-1")
            elif how == "key":
                await self.receive(Waiting.paid, key="inv-1")
            else:
                await self.wait_until(lambda: False, timeout=9)

    def told(how: str) -> tuple[str, tuple[str, ...]]:
        wait = only(explain(play_of(Waiting, how)))
        return wait.what, wait.frees

    promise_frees = (
        f"saga promise complete {SAGA_ID} approved RESULT",
        f"saga promise fail {SAGA_ID} approved ERROR_TYPE",
    )
    assert told("promise") == ("the promise approved", (*promise_frees, "its time"))
    assert told("child") == ("the child part-1", ("what holds that saga up: saga why part-1",))
    assert told("key") == ("the signal paid/inv-1", ("saga signal Waiting.paid VALUE --key inv-1",))
    assert told("condition") == ("a condition in its code to hold", ("a signal that makes it true", "its time"))


def test_a_bug_in_its_code_and_a_parked_step() -> None:
    class Bug(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.step(Shop.note(what="n"), retry=Retry(maximum_attempts=1, exhausted="park"))
            raise ValueError("a bug")

    play = play_of(Bug)
    play.again(1)
    assert only(explain(play)).what == "a person: shop.note is parked"
    play.unpark(msg.Override.SKIP)
    wait = only(explain(play))
    assert wait.what == "a person: the code raised ValueError: Traceback (most recent call last):"
    assert wait.since_ms == 2_000


def test_code_that_no_worker_has_and_a_pause() -> None:
    play = play_of(Two)
    play.lose_code()
    play.do(1, "a")
    code, step = explain(play).waits
    assert code.what == "the code of Order; 1 inputs are kept until then"
    assert step.what == "the reply to shop.reserve"
    play.pause()
    assert explain(play).waits[0] == Wait(
        "the end of its pause by ann: wait", 0, 2_000, frees=(f"saga resume {SAGA_ID}", f"saga cancel {SAGA_ID}")
    )


@pytest.mark.parametrize(
    ("rule", "way"),
    [
        ("partition", "saga resume --partition with the partition's number"),
        ("type:Order", "saga resume --type Order"),
        ("service:shop", "saga resume --service shop"),
        ("step:shop.reserve", "saga resume --step shop.reserve"),
        ("step:Order:shop.reserve", "saga resume --step shop.reserve --type Order"),
    ],
)
def test_a_rule(rule: str, way: str) -> None:
    play = Play(Two)
    play.rules.add(rule)
    play.start()
    assert only(explain(play)).frees == (way,)


def test_a_cancel_that_waits_for_the_pivot_and_the_end() -> None:
    class Sold(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.step(Shop.note(what="sold"), pivot=True)

    play = play_of(Sold)
    play.cancel()
    assert explain(play).notes == ("it is to stop, once the outcome of its pivot is known",)
    play.do(1)
    assert (explain(play).status, explain(play).waits, explain(play).notes) == ("COMPLETED", (), ())


def test_what_is_undone_waits_for_no_pivot_and_is_canceled_no_more() -> None:
    class Broken(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.step(Shop.reserve(what="tea"), undo=Shop.release)
            raise KeyError

    play = play_of(Broken)
    play.do(1, "x")
    play.cancel()
    play.pause()
    found = explain(play)
    assert (found.waits[0].frees, found.notes) == ((f"saga resume {SAGA_ID}",), ())


def test_a_time_that_is_up_waits_for_whoever_parked_it() -> None:
    class Short(Saga[None, None], execution_timeout=60):
        async def run(self, _: None) -> None:
            await self.step(Shop.note(what="sold"), pivot=True)
            await self.step(Shop.note(what="told"), retry=Retry(maximum_attempts=1))

    play = play_of(Short)
    play.do(1)
    play.again(2)
    play.fire(0)
    assert explain(play).notes == ("it is to stop, once it goes on",)


def test_it_is_told_in_a_few_lines() -> None:
    wait = Wait("attempt 2 of shop.reserve", 1, 1_000, 91_000, 1, "Busy", ("its time",))
    found = Why("o-1", "1-3-0", "Order", "RUNNING", (wait,), ("type:Order is paused",))
    assert lines_of(found, 31_000) == [
        "o-1  RUNNING  (Order, run 1-3-0)",
        "  step 1: waits for attempt 2 of shop.reserve",
        "    since 1970-01-01 00:00:01.000 UTC (30 s), until 1970-01-01 00:01:31.000 UTC (in 60 s), attempt 1",
        "    last error: Busy",
        "    freed by: its time",
        "  note: type:Order is paused",
    ]


def test_it_is_found_by_visibility_with_the_rules_of_the_partition(tmp_path: Path) -> None:
    world = World()
    world.behave = lambda message: None if message.command_type == "charge" else succeed(message)
    send_starts(world, "o-1")
    world.settle()

    async def pause(client: Client) -> None:
        await client.pause_all(type="OrderFulfilment")

    async def main() -> None:
        async with Client(world.log, world.topics, PARTITIONS) as client:
            await pause(client)

    drive(world, main())
    with Visibility(tmp_path / "v.sqlite", world.log, world.topics, PARTITIONS) as visibility:
        assert visibility.catch_up(5)
        found = visibility.why("o-1")
        assert visibility.why("nobody") is None
    assert found is not None
    assert found.status == Status.RUNNING
    assert only(found).what == "the reply to payments.charge"
    assert found.notes == ("type:OrderFulfilment is paused: it waits when it would go on",)


def test_a_key_that_another_saga_holds_and_a_call_that_is_not_answered() -> None:
    class Tally(Entity[int]):
        @operation
        async def add(self, amount: int) -> int:
            return amount

    class Both(Saga[None, None]):
        async def run(self, nothing: None) -> None:
            await self.gather(self.lock("shelf/1"), self.entity(Tally, "all").call(Tally.add(1), undo=Tally.add(-1)))

    play = play_of(Both)
    lock, call = explain(play).waits
    assert (lock.what, lock.frees) == ("the lock shelf/1", ("whoever holds it: saga locks show shelf/1",))
    assert (call.what, call.frees) == ("Tally/all to answer add", ("what holds that saga up: saga why Tally/all",))
    play.cancel()
    assert only(explain(play)).what == "Tally/all to answer add, which is undone if it was carried out"


class Shopping(Saga[Work, str], name="OrderFulfilment"):
    async def run(self, work: Work) -> str:
        await self.step(Inventory.reserve(order_id=work.what))
        return await self.step(Payments.charge(order_id=work.what, cents=900), retry=Retry(initial_interval=8))


def refused(request: Charge) -> str:
    raise RetryLater(error_type="Unavailable", message="connection refused")


def test_the_page_shows_what_the_verb_says() -> None:
    begun = datetime(2026, 11, 25, 13, 0, 43, 120_000, tzinfo=UTC)
    test = SagaTest(Shopping).answer(Inventory.reserve, Reservation(warehouse="A")).handle(Payments.charge, refused)
    saga = test.start(Work(what="tea"), id="order-7", now=begun).advance(55)
    state, trace = SagaState("order-7", saga.world.state.run), Trace()
    for decision in saga.world.decisions:
        for event in decision.events:
            evolve(state, event, decision.at_ms)
            trace.note(event, decision.at_ms)
    lines = lines_of(why(state, trace, ("service:payments",)), saga.world.now_ms)
    page = Path(__file__).parents[2] / "docs" / "operating.md"
    assert "```console\n$ saga why order-7\n" + "\n".join(lines) + "\n```\n" in page.read_text()


def test_an_entity_names_the_sagas_that_wait_for_it() -> None:
    class Clerk(Entity[int]):
        @operation
        async def stamp(self) -> None:
            await self.step(Shop.note(what="stamped"))

    play = play_of(Clerk)
    for number in range(12):
        update_id, caller = f"s-{number:02}/1-2-0/1/do/1", msg.Parent(f"s-{number:02}", "1-2-0", 1)
        play.take(msg.Update(SAGA_ID, update_id, update_id, "stamp", b"{}", None, "Clerk", caller))
    named = ", ".join(f"s-{number:02}" for number in range(10))
    assert explain(play).notes == (f"it is waited for by {named} and 2 more",)


class Kid(Saga[str, None], locks=lambda key: [key]):
    async def run(self, key: str) -> None:
        return None


class Parent(Saga[str, None], locks=lambda key: [key]):
    async def run(self, key: str) -> None:
        await self.child(Kid, key, id="kid")


@pytest.mark.parametrize(
    ("waiter", "what", "frees"),
    [
        (
            "kid",
            "the lock shelf/1, which its parent p-1 holds: where that waits for its child neither goes on",
            ("saga cancel p-1", "saga locks release shelf/1"),
        ),
        ("k-2", "the lock shelf/1, which p-1 holds", ("what holds that saga up: saga why p-1",)),
    ],
)
def test_who_holds_a_key_is_named(tmp_path: Path, waiter: str, what: str, frees: tuple[str, ...]) -> None:
    world = World(sagas=(Kid, Parent))

    async def main() -> None:
        async with Client(world.log, world.topics, PARTITIONS) as client:
            await client.start(Parent, "shelf/1", id="p-1")
            await client.start(Kid, "shelf/1", id="k-2")

    drive(world, main())
    world.settle()
    with Visibility(tmp_path / "v.sqlite", world.log, world.topics, PARTITIONS) as visibility:
        assert visibility.catch_up(5)
        found = visibility.why(waiter)
    assert found is not None
    assert (only(found).what, only(found).frees) == (what, frees)
