"""Local steps and side effects as sagas write them, run by the test kit."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from orchestrator import Failure, LocalContext, Retry, RetryLater, Saga, StepFailed, local, takes
from orchestrator.errors import DefinitionError
from orchestrator.functions import FUNCTIONS, LocalFunction, find_function, local_function
from orchestrator.model.budget import MAX_BYTES
from orchestrator.model.effects import LocalCall
from orchestrator.model.events import Recorded, Status, StepKind, StepScheduled
from orchestrator.model.messages import Outcome
from orchestrator.testing import SagaTest, prove


class Item(BaseModel):
    sku: str
    price: Decimal = Decimal(1)


CALLS: list[Any] = []


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    CALLS.clear()


def price(item: Item, pieces: int = 1) -> Decimal:
    CALLS.append(("price", item.sku, pieces))
    return item.price * pieces


async def due(item: Item, *days: int) -> date:
    CALLS.append(("due", item.sku, days))
    return date(2030, 1, sum(days))


def book(context: LocalContext, sku: str) -> str:
    CALLS.append((context.direction, context.idempotency_key, context.attempt))
    if context.attempt == 1:
        raise RetryLater(after=60)
    return f"booked {sku}"


def unbook(context: LocalContext, booked: str | None, sku: str) -> None:
    CALLS.append((context.direction, booked, sku))


def refuse(sku: str) -> None:
    raise Failure("SoldOut", sku)


def hang_up(sku: str) -> str:
    CALLS.append("hang up")
    raise ConnectionError("gone")


class Shop:
    @staticmethod
    def close(sku: str) -> None:
        CALLS.append("closed")


class Order(Saga[Item, str]):
    async def run(self, item: Item) -> str:
        cost, day = await self.gather(self.local(price, item, 3), self.local(due, item, 1, 2))
        booked = await self.local(book, item.sku, undo=unbook)
        if item.sku == "none":
            await self.local(refuse, item.sku)
        return f"{booked} for {cost} on {day}"


def test_arguments_and_results_are_typed_and_recorded() -> None:
    end = SagaTest(Order).run(Item(sku="tea", price=Decimal("1.10")))
    end.assert_completed("booked tea for 3.30 on 2030-01-03")
    assert CALLS[:2] == [("price", "tea", 3), ("due", "tea", (1, 2))]
    assert [event.command for event in end.journal if isinstance(event, StepScheduled)] == [
        f"{__name__}:{name}" for name in ("price", "due", "book")
    ]


def test_a_call_that_is_retried_keeps_its_key_and_waits_as_told() -> None:
    end = SagaTest(Order).run(Item(sku="tea"), id="o-1")
    (first, key, one), (second, same, two) = CALLS[2:4]
    assert (first, second) == ("do", "do")
    assert (one, two) == (1, 2)
    assert key == same
    assert key.startswith("o-1/")
    assert key.endswith("/3/do")
    assert end.elapsed == 60


def test_a_refused_step_undoes_those_before_with_their_results_and_arguments() -> None:
    end = SagaTest(Order).run(Item(sku="none"))
    assert end.status is Status.COMPENSATED
    assert end.error_type == "SoldOut"
    assert CALLS[-1] == ("undo", "booked none", "none")


def test_whatever_happens_on_the_way_a_saga_of_local_steps_completes_or_is_undone() -> None:
    for sku in ("tea", "none"):
        prove(SagaTest(Order), Item(sku=sku))


class Unsure(Saga[str, str]):
    async def run(self, sku: str) -> str:
        try:
            await self.local(hang_up, sku, undo=Shop.close, retry=Retry(maximum_attempts=2))
        except StepFailed as failed:
            return str(failed)
        return "not reached"


class Undoing(Saga[str, str]):
    async def run(self, sku: str) -> str:
        try:
            await self.local(hang_up, sku, undo=unbook, retry=Retry(maximum_attempts=2))
        except StepFailed as failed:
            return f"{failed}, unknown: {failed.unknown}"
        return "not reached"


def test_a_step_whose_attempts_are_used_up_is_undone_without_a_result() -> None:
    end = SagaTest(Undoing).run("tea")
    end.assert_completed(f"local {__name__}:hang_up: ConnectionError: gone, unknown: True")
    assert CALLS == ["hang up", "hang up", ("undo", None, "tea")]


def test_an_undo_that_takes_something_else_is_a_bug_that_says_so() -> None:
    end = SagaTest(Unsure).run("tea")
    assert end.status is Status.PARKED
    assert "Shop.close takes 1 arguments, not 2" in end.reason


class Plan(Saga[Item, date]):
    item = takes(Item)
    cost = local(price, item, 2)
    result = local(due, item, 4)


def test_a_declared_saga_computes_by_local_steps() -> None:
    SagaTest(Plan).run(Item(sku="tea")).assert_completed(date(2030, 1, 4))
    assert CALLS == [("price", "tea", 2), ("due", "tea", (4,))]


def test_what_stands_in_is_called_instead_and_its_assertions_fail_the_test() -> None:
    async def tomorrow(item: Item, *days: int) -> date:
        return date(2031, 1, 1)

    test = SagaTest(Order).stand_in(price, lambda item, pieces=1: Decimal(7)).stand_in(due, tomorrow)
    test.run(Item(sku="tea")).assert_completed("booked tea for 7 on 2031-01-01")
    with pytest.raises(pytest.fail.Exception, match="never tea"):
        test.stand_in(book, lambda context, sku: pytest.fail("never tea")).run(Item(sku="tea"))


class Draw(Saga[str, tuple[int, str]]):
    async def run(self, kind: str) -> tuple[int, str]:
        number = self.side_effect(draw, returns=int)
        await self.local(Shop.close, kind)
        named = self.side_effect(lambda: f"{random.random()}" if kind != "typed" else 3, returns=str)  # type: ignore[arg-type, return-value]
        await self.sleep(1)
        return number, named


def draw() -> int:
    CALLS.append("drawn")
    return random.randrange(1_000_000)


def test_a_side_effect_is_made_once_and_recorded() -> None:
    end = SagaTest(Draw).run("any")
    assert end.status is Status.COMPLETED
    assert CALLS == ["drawn", "closed"]
    values = [event for event in end.journal if isinstance(event, Recorded)]
    assert [(value.kind, value.name) for value in values] == [(StepKind.VALUE, "draw"), (StepKind.VALUE, "<lambda>")]
    assert end.result is not None
    assert b"%d" % end.result[0] == values[0].payload


def test_a_side_effect_of_another_type_is_a_bug() -> None:
    end = SagaTest(Draw).run("typed")
    assert end.status is Status.PARKED
    assert "Input should be a valid string" in end.reason


class Late(Saga[str, int]):
    async def run(self, sku: str) -> int:
        return self.side_effect(due, returns=int)  # type: ignore[arg-type, return-value]


def test_an_async_side_effect_is_refused_with_the_way_out() -> None:
    assert "await self.local(due) instead" in SagaTest(Late).run("tea").reason


def nested() -> Callable[[], int]:
    def inner() -> int:
        return 1

    return inner


def untyped(sku):  # type: ignore[no-untyped-def]
    return sku


def without_result(sku: str):  # type: ignore[no-untyped-def]
    return sku


def unresolved(sku: Missing) -> None:  # type: ignore[name-defined]  # noqa: F821
    return None


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        (nested(), (), "must find it by its name"),
        (lambda: 1, (), "must find it by its name"),
        (Shop().__init__, (), "must find it by its name"),  # type: ignore[misc]
        (untyped, ("tea",), "parameter 'sku' has no type"),
        (without_result, ("tea",), "its result has no type"),
        (unresolved, ("tea",), "an annotation names what cannot be found"),
        (price, (), "takes 1 to 2 arguments, not 0"),
        (price, (Item(sku="tea"), 1, 2), "takes 1 to 2 arguments, not 3"),
    ],
)
def test_a_function_that_could_not_be_called_again_is_refused(
    function: Callable[..., Any], arguments: tuple[Any, ...], words: str
) -> None:
    with pytest.raises(DefinitionError, match=words):
        LocalFunction(function).encode(arguments)


def test_arguments_of_another_type_are_refused_before_anything_is_recorded() -> None:
    with pytest.raises(ValidationError):
        local_function(price).encode(("tea",))


def test_a_function_is_found_by_the_name_in_the_journal() -> None:
    name = f"{__name__}:Shop.close"
    assert find_function(name).function is Shop.close
    for unknown in (f"{__name__}:Shop.open", "no.such.module:price", "nothing"):
        with pytest.raises(DefinitionError, match="While sagas wait for it"):
            find_function(unknown)


def call_of(function: str, payload: bytes) -> LocalCall:
    return LocalCall("o-1", "1-2-0", "Order", 1, "do", 1, function, payload, None)


def large(size: int) -> str:
    return "x" * size


def exits(code: int) -> None:
    raise SystemExit(code)


@pytest.mark.parametrize(
    ("function", "payload", "error_type", "words"),
    [
        ("no.such.module:price", b"[]", "DefinitionError", "there is no function"),
        (f"{__name__}:price", b'["tea"]', "DefinitionError", "does not take what the saga passes"),
        (f"{__name__}:price", b"5", "DefinitionError", "does not take what the saga passes"),
        (f"{__name__}:large", b"[%d]" % MAX_BYTES, "BadResult", "returned 262146 bytes"),
        (f"{__name__}:untyped", b"[]", "DefinitionError", "takes 1 arguments, not 0"),
        (f"{__name__}:exits", b"[3]", "SystemExit", "3"),
    ],
)
def test_whatever_goes_wrong_may_be_tried_again(function: str, payload: bytes, error_type: str, words: str) -> None:
    assert not FUNCTIONS.is_async(function)
    reply = FUNCTIONS.perform(call_of(function, payload))
    assert (reply.outcome, reply.error_type) == (Outcome.RETRY, error_type)
    assert words in reply.error_message


def test_an_async_function_is_awaited_and_its_failure_told() -> None:
    assert FUNCTIONS.is_async(f"{__name__}:due")
    reply = asyncio.run(FUNCTIONS.perform_async(call_of(f"{__name__}:due", b'[{"sku": "tea"}, 2]')))
    assert (reply.outcome, reply.payload) == (Outcome.SUCCESS, b'"2030-01-02"')
    reply = asyncio.run(FUNCTIONS.perform_async(call_of(f"{__name__}:due", b'[{"sku": "tea"}, 200]')))
    assert (reply.outcome, reply.error_type) == (Outcome.RETRY, "ValueError")
