"""Updates in a test of a saga: asked by hand, planned, in a proof; and what it says where one is never done."""

import pytest
from model.shop import Shop

from orchestrator import Abort, Entity, Saga, Status, UpdateRejected, operation, query, signal, update
from orchestrator.testing import SagaTest, prove


class Cart(Saga[str, list[str]]):
    heard = signal(str)

    def __init__(self) -> None:
        self.items: list[str] = []
        self.closed = False

    @query
    def count(self) -> int:
        return len(self.items)

    @update
    async def add(self, item: str, times: int = 1) -> int:
        self.items += [item] * times
        return len(self.items)

    @add.validator
    def _known(self, item: str, times: int = 1) -> None:
        if not item:
            raise ValueError("which item?")

    @update
    async def buy(self, item: str) -> str:
        return await self.step(Shop.reserve(what=item), undo=Shop.release)

    @update
    async def check_out(self) -> None:
        self.closed = True

    @update
    async def refuse(self) -> None:
        raise Abort("Unwilling")

    @update
    async def broken(self) -> None:
        raise KeyError("tea")

    @update
    async def leave(self) -> None:
        raise SystemExit(3)

    @update
    async def wrong(self) -> int:
        return "many"  # type: ignore[return-value]

    @update
    async def sell(self) -> str:
        return await self.step(Shop.ship(what="tea"), pivot=True)

    @update
    async def begin_again(self) -> None:
        self.continue_as_new("bob")

    @update
    async def listen(self) -> str:
        return await self.receive(Cart.heard)

    async def run(self, customer: str) -> list[str]:
        await self.wait_until(lambda: self.closed)
        return self.items


def cart() -> SagaTest[str, list[str]]:
    return SagaTest(Cart).answer(Shop.reserve, "r-1").answer(Shop.ship, "s-1").answer(Shop.release, None)


# -- planned


def test_updates_are_asked_for_in_their_order_and_at_their_time() -> None:
    test = cart().update(Cart.add, "tea", times=2).update(Cart.add, "cup").at(60).update(Cart.check_out)
    end = test.run("ann").assert_completed(["tea", "tea", "cup"])
    assert end.elapsed == 60


def test_one_is_asked_for_while_a_command_is_under_way() -> None:
    test = cart().update(Cart.buy, "tea").when(Shop.reserve).update(Cart.add, "cup").at(1).update(Cart.check_out)
    test.run("ann").assert_completed(["cup"])


def test_one_that_is_refused_or_comes_too_late_fails_the_test() -> None:
    with pytest.raises(UpdateRejected, match=r"which item\?"):
        cart().update(Cart.add, "").run("ann")
    with pytest.raises(AssertionError, match="the update at 9 s came too late: the saga ended after 0 s"):
        cart().update(Cart.check_out).at(9).update(Cart.add, "tea").run("ann")


def test_a_saga_that_waits_for_an_update_is_proved() -> None:
    test = cart().update(Cart.buy, "tea").update(Cart.refuse).at(5).update(Cart.check_out)
    proof = prove(test, "ann")
    assert proof.cases > 30
    assert set(proof.statuses) == {"COMPLETED", "CANCELED"}
    with pytest.raises(AssertionError, match=r"no end: the saga waits for ever, for a condition: ask .* \.update\("):
        prove(cart(), "ann")


# -- never done


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (Cart.broken, "raised KeyError"),
        (Cart.leave, "raised SystemExit"),
        (Cart.wrong, "raised ValidationError"),
        (Cart.sell, "a pivot must be awaited alone"),
        (Cart.begin_again, "an update does not continue the saga as new: let run do it"),
    ],
)
def test_a_bug_in_an_update_parks_the_saga_and_is_told(asked: object, words: str) -> None:
    saga = cart().start("ann")
    with pytest.raises(AssertionError, match=r"update \w+ is not done: the saga is parked, for the update") as caught:
        saga.update(asked)  # type: ignore[arg-type]
    assert words in str(caught.value)
    assert saga.status is Status.PARKED


def test_an_update_that_waits_for_ever_says_for_what() -> None:
    saga = cart().start("ann")
    with pytest.raises(
        AssertionError, match=r"update listen is never done: .* signal heard: tell it by \.signal\(\.\.\.\)"
    ):
        saga.update(Cart.listen)
    assert saga.query(Cart.count) == 0


class Shelf(Entity[int]):
    def initial(self) -> int:
        return 0

    @operation
    async def fill(self) -> None:
        raise KeyError("tea")


def test_an_operation_with_a_bug_is_told_as_well() -> None:
    with pytest.raises(AssertionError, match=r"fill is not done: the entity is parked, for .*\n(.*\n)*KeyError: 'tea'"):
        SagaTest(Shelf).entity(Shelf).call(Shelf.fill())


class Ledger(Saga[int, int]):
    """A page at a time."""

    def __init__(self) -> None:
        self.full = False

    async def run(self, page: int) -> int:
        await self.wait_until(lambda: self.full)
        if page < 2:
            self.continue_as_new(page + 1)
        return page

    @update
    async def turn(self) -> str:
        self.full = True
        return "turned"


def test_an_update_after_which_the_run_ends_gives_its_result() -> None:
    saga = SagaTest(Ledger).start(1)
    assert [saga.update(Ledger.turn), saga.update(Ledger.turn)] == ["turned", "turned"]
    saga.finish().assert_completed(2)
