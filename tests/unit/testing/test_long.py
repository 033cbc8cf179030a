"""Sagas that go on for long: one that never ends is found soon, and histories are replayed at growing distances."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from pydantic import BaseModel

from orchestrator import Abort, PastRun, Saga, Status, StepFailed
from orchestrator.participant import Participant
from orchestrator.service import Service, command
from orchestrator.testing import Running, SagaTest, prove
from orchestrator.testing.world import MAX_INPUTS


class Much(BaseModel):
    steps: int = 0


class Part(BaseModel):
    number: int = 0


class Shop(Service):
    sell = command(Part, int)
    take_back = command(Part)


shop = Participant(Shop)
shop.handles(Shop.sell)(lambda part: part.number)
shop.handles(Shop.take_back)(lambda part: None)

TRIED = count()


class Sells(Saga[Much, int]):
    async def run(self, much: Much) -> int:
        while True:
            await self.step(Shop.sell(), undo=Shop.take_back)


class Sleeps(Saga[Much, int]):
    async def run(self, much: Much) -> int:
        while True:
            await self.sleep(3600)


class Continues(Saga[Much, int]):
    async def run(self, much: Much) -> int:
        await self.sleep(3600)
        self.continue_as_new(much)


class TriesAgain(Saga[Much, int]):
    async def run(self, much: Much) -> int:
        while True:
            try:
                return await self.step(Shop.sell())
            except StepFailed:
                await self.sleep(60)


@pytest.mark.parametrize(
    ("saga", "last"),
    [
        (Sells, r"shop\.sell, shop\.sell, shop\.sell"),
        (Sleeps, "sleep, sleep, sleep"),
        (Continues, "sleep"),
        (TriesAgain, r"sleep, shop\.sell, sleep"),
    ],
)
def test_a_saga_that_never_ends_is_told_with_what_it_does(saga: type[Saga[Much, int]], last: str) -> None:
    test = SagaTest(saga).fail(Shop.sell, "SoldOut") if saga is TriesAgain else SagaTest(saga).service(shop)
    with pytest.raises(
        AssertionError, match=rf"not at its end after 400 .* asked for last: {last}\. .*\.limit\(4_000\)"
    ):
        test.limit(400).run(Much())


def test_without_a_limit_of_its_own_it_takes_seconds() -> None:
    assert MAX_INPUTS == 10_000
    with pytest.raises(AssertionError, match="not at its end after 10,000 outcomes, timers and signals"):
        SagaTest(Sleeps).run(Much())


def test_a_proof_finds_a_way_that_never_ends_and_tells_its_beginning_and_its_end() -> None:
    with pytest.raises(AssertionError, match="not at its end after 350 outcomes") as found:
        prove(SagaTest(Sells).service(shop).limit(350), Much())
    told = str(found.value)
    assert "  50. success of shop.sell, attempt 1 of step 50\n  ... and 250 more\n  301. success of" in told
    assert len(told.splitlines()) < 110


# -- replays of long histories


class Long(Saga[Much, int]):
    began = 0

    async def run(self, much: Much) -> int:
        type(self).began += 1
        for number in range(much.steps):
            await self.step(Shop.sell(number=self.asked(number)), undo=Shop.take_back)
        if self.fails:
            raise Abort("Enough")
        return much.steps

    fails = False

    def asked(self, number: int) -> int:
        return number


def test_a_long_history_is_replayed_at_growing_distances() -> None:
    Long.began = 0
    SagaTest(Long).service(shop).run(Much(steps=200))
    assert Long.began > 200
    SagaTest(Long).service(shop).run(Much(steps=1200)).assert_completed(1200)
    assert Long.began < 700


class Wavering(Long):
    at = 0

    def asked(self, number: int) -> int:
        return next(TRIED) if number == self.at else number


class Gives(Wavering):
    fails = True


@pytest.mark.parametrize("saga", [Wavering, Gives])
@pytest.mark.parametrize("at", [10, 290, 310, 411])
def test_what_changes_is_found_however_late_it_is(
    saga: type[Wavering], at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saga, "at", at)
    with pytest.raises(AssertionError, match=rf"(?s)is not deterministic\. step {at + 1}: the history has shop\.sell"):
        SagaTest(saga).service(shop).run(Much(steps=412))


class Renews(Wavering):
    """Its second run is short."""

    at = 411

    async def run(self, much: Much) -> int:
        sold = await super().run(much)
        if sold > 1:
            self.continue_as_new(Much(steps=1))
        return sold


def test_a_run_that_another_follows_is_replayed_at_its_end() -> None:
    with pytest.raises(AssertionError, match=r"step 412: the history has shop\.sell"):
        SagaTest(Renews).service(shop).run(Much(steps=412))


def test_a_long_saga_that_is_cancelled_is_undone() -> None:
    end = SagaTest(Long).service(shop).when(Shop.sell, attempt=1).cancel().run(Much(steps=3))
    assert end.status is Status.CANCELED
    saga = SagaTest(Sells).service(shop, takes=1).start(Much()).advance(320).cancel()
    end = saga.finish()
    assert (end.status, len(end.undone_commands)) == (Status.CANCELED, 321)


class Taking(Saga[int, int], name="Sells", version=2):
    async def run(self, sold: int) -> int:
        return sold

    @classmethod
    def migrate(cls, past: PastRun) -> int | None:
        return len(past.results(Shop.sell))


class Sits(Saga[Much, str]):
    async def run(self, much: Much) -> str:
        for _ in range(320):
            await self.step(Shop.sell(), undo=Shop.take_back)
        await self.wait_until(lambda: False)
        return "never"


class Stands(Saga[Much, str], name="Sits", version=2):
    async def run(self, much: Much) -> str:
        for _ in range(320):
            await self.step(Shop.sell(number=7), undo=Shop.take_back)
        return "enough"


@pytest.mark.parametrize(("older", "newer", "result"), [(Sells, Taking, 321), (Sits, Stands, "enough")])
def test_newer_code_goes_on_with_a_long_history(
    older: type[Saga[Much, Any]], newer: type[Saga[Any, Any]], result: int | str
) -> None:
    saga: Running[Any] = SagaTest(older).service(shop, takes=1).start(Much()).advance(320)
    saga.move_version(newer).finish().assert_completed(result)


@pytest.mark.parametrize("saga", [Wavering, Gives])
def test_a_test_may_leave_the_replays_out(saga: type[Wavering]) -> None:
    end = SagaTest(saga).service(shop).without_replay().run(Much(steps=2))
    assert len(end.requests(Shop.sell)) == 2
