"""What stands around a saga's code: changes of steps and runs that are replayed with it."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel

from orchestrator import Saga, Service, StepFailed, command
from orchestrator.errors import DefinitionError
from orchestrator.interceptors import Around
from orchestrator.lint import check
from orchestrator.model.definition import StepRequest
from orchestrator.model.events import StepScheduled
from orchestrator.model.retries import RetryPolicy
from orchestrator.testing import SagaTest


class Order(BaseModel):
    id: str


class Shop(Service):
    note = command(Order)
    sell = command(Order, str)


class Patient(Around):
    """Every step of which nothing else is said is tried three times."""

    def step(self, saga: Saga[Any, Any], request: StepRequest) -> StepRequest:
        return request if request.retry else replace(request, retry=RetryPolicy(maximum_attempts=3))


class Noted(Around):
    """Each run is noted with a service first; what it gives is marked."""

    async def run(self, saga: Saga[Any, Any], input: Any, go_on: Callable[[Any], Awaitable[Any]]) -> Any:
        await saga.step(Shop.note(id=saga.id))
        try:
            return f"<{await go_on(input.model_copy(update={'id': input.id.upper()}))}>"
        except StepFailed as failed:
            return f"failed: {failed.error_type}"


class Sale(Saga[Order, str], around=[Noted(), Patient()]):
    async def run(self, order: Order) -> str:
        return await self.step(Shop.sell(id=order.id))


class Discount(Sale, name="Discount", around=[]):
    pass


def test_they_change_steps_input_and_result_and_replay() -> None:
    end = SagaTest(Sale).answer(Shop.sell, "sold").run(Order(id="o-1"))
    assert end.result == "<sold>"
    assert end.effects == [Shop.note, Shop.sell]
    assert [sent.request.id for sent in end.sent] == ["test", "O-1"]
    scheduled = [event for event in end.journal if isinstance(event, StepScheduled)]
    assert [event.retry for event in scheduled] == [RetryPolicy(maximum_attempts=3)] * 2


def test_the_first_is_the_outermost_and_sees_what_is_raised() -> None:
    end = SagaTest(Sale).retry(Shop.sell, "Busy", times=3).run(Order(id="o-1"))
    assert (end.result, end.attempts(Shop.sell)) == ("failed: Busy", 3)


def test_a_subclass_inherits_them_or_says_its_own() -> None:
    class Same(Sale, name="Same"):
        pass

    assert SagaTest(Same).answer(Shop.sell, "sold").run(Order(id="o-1")).result == "<sold>"
    assert SagaTest(Discount).answer(Shop.sell, "sold").run(Order(id="o-1")).result == "sold"


def test_they_are_read_by_the_linter_like_the_saga() -> None:
    class Careless(Around):
        def step(self, saga: Saga[Any, Any], request: StepRequest) -> StepRequest:
            return self.spread(request)

        def spread(self, request: StepRequest) -> StepRequest:
            return replace(request, spread=random.random() < 0.5)

    class Spread(Sale, name="Spread", around=[Careless()]):
        pass

    with pytest.raises(DefinitionError, match=r"Careless.spread calls random.random\(\): use self.random"):
        check(Spread)


def test_what_is_no_object_of_around_is_refused_with_the_class() -> None:
    for wrong in (object(), Patient):
        with pytest.raises(DefinitionError, match=r"Wrong: around=\[...\] takes objects of classes derived from"):

            class Wrong(Saga[Order, str], around=[wrong]):  # type: ignore[list-item]
                async def run(self, order: Order) -> str:
                    return ""
