"""A run whose code is let go of is freed at once: a worker looks for what is left in circles far too seldom."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from weakref import ref

import pytest

from model.play import SAGA_ID
from model.shop import Shop
from orchestrator.errors import StepFailed
from orchestrator.model import messages as msg
from orchestrator.model.decide import decide
from orchestrator.model.messages import Outcome
from orchestrator.model.turn import Execution, Moment
from orchestrator.questions import update
from orchestrator.saga import Saga
from orchestrator.signals import signal


class Waits(Saga[None, None]):
    go = signal()

    async def run(self, _: None) -> None:
        await self.receive(self.go)


class Sleeps(Saga[None, None]):
    async def run(self, _: None) -> None:
        await self.sleep(3_600)


class Steps(Saga[None, str]):
    async def run(self, _: None) -> str:
        return await self.step(Shop.reserve(what="tea"), undo=Shop.release)


class Groups(Saga[None, None]):
    async def run(self, _: None) -> None:
        await self.gather(self.gather(self.step(Shop.reserve()), self.one()), self.sleep(5))

    async def one(self) -> None:
        try:
            await self.step(Shop.charge())
        except StepFailed:
            await self.step(Shop.note())


class Conditions(Saga[None, None]):
    ready = False

    async def run(self, _: None) -> None:
        await self.gather(self.wait_until(lambda: self.ready), self.wait_until(lambda: self.ready, timeout=5))


class Cleans(Saga[None, None]):
    async def run(self, _: None) -> None:
        try:
            await self.sleep(5)
        finally:
            await self.step(Shop.note())


class Updates(Saga[None, None]):
    async def run(self, _: None) -> None:
        await self.sleep(5)

    @update
    async def add(self, what: str) -> str:
        return await self.step(Shop.reserve(what=what))


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def decided(saga: type[Saga[None, object]], *inputs: Callable[[str], msg.Input]) -> Execution:
    execution: Execution | None = None
    run = ""
    for offset, given in enumerate((lambda _: msg.Start(SAGA_ID, "m", saga.definition.name, b"null"), *inputs)):
        execution, _, run = decide(execution, saga.definition, given(run), Moment(1_000_000 + offset, 1, offset, 4))
    assert execution is not None
    return execution


def add(run: str) -> msg.Input:
    return msg.Update(SAGA_ID, "u", "Updates", "add", b'{"what":"tea"}')


def refuse(run: str) -> msg.Input:
    return msg.Reply(SAGA_ID, run, 3, False, 1, Outcome.FAILURE, b"", "Declined", "")


@pytest.mark.parametrize(
    ("saga", "inputs"),
    [
        (Waits, ()),
        (Sleeps, ()),
        (Steps, ()),
        (Groups, ()),
        (Groups, (refuse,)),
        (Conditions, ()),
        (Cleans, ()),
        (Updates, (add,)),
    ],
)
def test_a_run_that_is_let_go_of_leaves_nothing_behind(
    saga: type[Saga[None, object]], inputs: tuple[Callable[[str], msg.Input], ...]
) -> None:
    execution = decided(saga, *inputs)
    assert execution.driver is not None
    driver, subject = ref(execution.driver), ref(execution.driver.subject)
    execution.detach()
    assert (driver(), subject()) == (None, None)
