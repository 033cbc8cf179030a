"""Sagas with children in the test kit: how they end is said by the test, and a proof has them fail."""

from __future__ import annotations

import pytest
from model.shop import Shop

from orchestrator.errors import Abort, StepFailed
from orchestrator.model.events import Status
from orchestrator.model.messages import ParentClose, Reuse
from orchestrator.participant import Participant
from orchestrator.saga import Saga
from orchestrator.testing import SagaTest, prove

shop = Participant(Shop)


@shop.handles(Shop.reserve)
def reserve(request: object) -> str:
    return "r-1"


@shop.handles(Shop.release)
def release(request: object) -> None:
    return None


@shop.handles(Shop.note)
def note(request: object) -> None:
    return None


class Delivery(Saga[str, str]):
    async def run(self, what: str) -> str:
        return await self.step(Shop.ship(what=what))


class Order(Saga[str, str]):
    async def run(self, what: str) -> str:
        await self.step(Shop.reserve(what=what), undo=Shop.release)
        arrived = await self.child(Delivery, what)
        await self.step(Shop.note(what=arrived))
        return arrived


def test_a_child_ends_as_the_test_says() -> None:
    assert SagaTest(Order).service(shop).child(Delivery, "here").run("tea").assert_completed("here")
    end = SagaTest(Order).service(shop).child_fails(Delivery, "Lost").run("tea")
    assert (end.status, end.error_type) == (Status.COMPENSATED, "Lost")


def test_a_proof_has_children_fail_and_their_undo_refused() -> None:
    proof = prove(SagaTest(Order).service(shop).child(Delivery, "here"), "tea", harmless=[Shop.note])
    assert set(proof.statuses) == {"COMPLETED", "COMPENSATED", "CANCELED", "FAILED"}


def test_a_proof_finds_who_counts_on_a_child_that_cannot_fail() -> None:
    class Careless(Order, name="Order"):
        async def run(self, what: str) -> str:
            await self.step(Shop.note(what=what))
            try:
                return await self.child(Delivery, what)
            except StepFailed:
                raise ValueError("it never fails") from None

    with pytest.raises(AssertionError, match="it is parked, for the code raised ValueError") as caught:
        prove(SagaTest(Careless).service(shop).child(Delivery, "here"), "tea", harmless=[Shop.note])
    assert "(child Delivery) is refused" in str(caught.value)


# -- a crash sends again what children know already


class Twins(Saga[str, str]):
    async def run(self, what: str) -> str:
        return " ".join(await self.gather(self.child(Delivery, what), self.child(Delivery, what)))


class ThenAbort(Saga[str, str]):
    async def run(self, what: str) -> str:
        await self.child(Delivery, what)
        await self.step(Shop.reserve(what=what), undo=Shop.release)
        raise Abort("NotToday")


class Hurried(Saga[str, str]):
    async def late(self, what: str) -> str:
        await self.step(Shop.reserve(what=what), undo=Shop.release)
        return await self.child(Delivery, what)

    async def run(self, what: str) -> str:
        first, _ = await self.race(self.late(what), self.sleep(5))
        await self.step(Shop.note(what=what))
        return "arrived" if first == 0 else "not in time"


class Two(Saga[str, str]):
    """A child that has a child of its own."""

    async def run(self, what: str) -> str:
        await self.step(Shop.reserve(what=what), undo=Shop.release)
        return await self.child(Order, what)


@pytest.mark.parametrize("takes", [0, 2, 10])
@pytest.mark.parametrize("saga", [Order, Twins, ThenAbort, Hurried, Two])
def test_a_crash_changes_nothing_about_children(saga: type[Saga[str, str]], takes: int) -> None:
    test = SagaTest(saga).service(shop).child(Delivery, "here", takes=takes).child(Order, "there", takes=takes)
    proof = prove(test, "tea", harmless=[Shop.note])
    assert proof.cases > 30
    assert proof.statuses["CANCELED"] > 0


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_refused_child_says_is_said_once(fails: bool) -> None:
    test = SagaTest(Twins).child(Delivery, "here")
    if fails:
        test.child_fails(Delivery, "Lost")
    prove(test, "tea", only="refuse 1, crash 1")


# -- ids, as in production


class Named(Saga[list[str], str]):
    """Its children have these ids, one after the other."""

    reuse: Reuse | None = None

    async def run(self, ids: list[str]) -> str:
        return " ".join([await self.child(Delivery, each, id=each, reuse=self.reuse) for each in ids])


class Again(Named):
    reuse = Reuse.ALLOW_DUPLICATE


def test_an_id_is_not_used_twice_while_its_first_saga_runs() -> None:
    class Same(Saga[str, str]):
        async def run(self, what: str) -> str:
            return " ".join(await self.gather(*(self.child(Delivery, what, id="k") for _ in range(2))))

    end = SagaTest(Same).child(Delivery, "here", takes=5).run("tea")
    assert (end.status, end.error_type) == (Status.FAILED, "ChildRefused")
    assert "the id has a saga that is RUNNING" in end.reason
    prove(SagaTest(Same).child(Delivery, "here"), "tea")


def test_an_id_is_used_again_only_where_the_start_says_so() -> None:
    end = SagaTest(Named).child(Delivery, "here").run(["k", "k"])
    assert (end.status, end.error_type) == (Status.COMPENSATED, "ChildRefused")
    assert "the id has a saga that is COMPLETED" in end.reason
    SagaTest(Again).child(Delivery, "here").run(["k", "k"]).assert_completed("here here")
    SagaTest(Named).child(Delivery, "here").run(["k", "l"]).assert_completed("here here")


@pytest.mark.parametrize("name", ["Named", "Delivery"])
def test_a_child_does_not_have_its_parents_id(name: str) -> None:
    class Own(Named, name=name):
        pass

    end = SagaTest(Own).child(Delivery, "here").run(["test"])
    assert (end.status, end.error_type) == (Status.FAILED, "ChildRefused")


def test_a_later_run_uses_the_id_of_a_child_that_did_not_complete() -> None:
    saga = SagaTest(Named).child_fails(Delivery, "Lost").start(["k"])
    assert saga.finish().error_type == "Lost"
    assert saga.restart().finish().error_type == "Lost"
    saga = SagaTest(Named).child(Delivery, "here").start(["k"])
    saga.finish().assert_completed()
    assert saga.restart().finish().error_type == "ChildRefused"


def test_a_child_ends_with_its_terminated_parent_and_leaves_its_id() -> None:
    saga = SagaTest(Named).child(Delivery, "here", takes=60).start(["k"]).advance(1).terminate()
    assert saga.finish().status is Status.TERMINATED
    saga.restart().finish().assert_completed("here")


def test_an_undo_does_not_reach_a_child_whose_id_another_one_took() -> None:
    class Both(Again):
        async def run(self, ids: list[str]) -> str:
            await super().run(ids)
            raise Abort("NotToday")

    end = SagaTest(Both).child(Delivery, "here").run(["k", "k"])
    assert end.status is Status.PARKED
    assert "saga k is not the parent's child any more" in end.reason


# -- children that nobody waits for


class Starter(Saga[str, str]):
    async def run(self, what: str) -> str:
        self.start_child(Delivery, what)
        return what


@pytest.mark.parametrize("takes", [0, 5])
def test_a_child_may_end_after_a_parent_that_does_not_wait_for_it(takes: int) -> None:
    SagaTest(Starter).child(Delivery, "here", takes=takes).run("tea").assert_completed("tea")
    prove(SagaTest(Starter).child(Delivery, "here", takes=takes), "tea")


def test_what_the_test_announced_must_still_come_in_time() -> None:
    with pytest.raises(AssertionError, match="the cancel at 3 s came too late: the saga ended after 0 s"):
        SagaTest(Starter).child(Delivery, "here", takes=5).at(3).cancel().run("tea")


class Twice(Saga[int, str]):
    async def run(self, more: int) -> str:
        if more:
            self.start_child(Delivery, "tea", id="delivery", parent_close=ParentClose.ABANDON)
            await self.step(Shop.note(what="tea"))
            self.continue_as_new(more - 1)
        try:
            return await self.child(Delivery, "tea", id="delivery")
        except StepFailed as failed:
            return f"refused: {failed}"


def test_a_child_that_was_left_to_itself_goes_on_when_its_parent_continues_as_new() -> None:
    end = SagaTest(Twice).answer(Shop.note, None).child(Delivery, "here", takes=60).run(1)
    assert str(end.result).startswith("refused:")
