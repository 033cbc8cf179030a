"""Sagas that hold keys and call entities in the test kit; entities by themselves."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from pydantic import BaseModel

from orchestrator.entities import Entity, OperationCall, operation
from orchestrator.errors import Abort, DefinitionError, QueryFailed, SagaNotFound, UpdateFailed
from orchestrator.model.events import Status
from orchestrator.questions import query
from orchestrator.saga import Saga
from orchestrator.service import Service, command
from orchestrator.testing import SagaTest, prove


class Work(BaseModel):
    what: str


class Shop(Service):
    reserve = command(Work, str)
    release = command(Work)
    ship = command(Work, str)


class Tally(Entity[int]):
    @operation
    async def add(self, amount: int) -> int:
        if amount > 9:
            raise Abort("TooMuch")
        self.state += amount
        return self.state

    @operation
    async def ship(self, what: str) -> str:
        return await self.step(Shop.ship(what=what), undo=Shop.release)

    @operation
    async def count(self) -> int:
        self.state += 1
        return [][self.state]

    @operation
    async def sell(self, what: str) -> str:
        return await self.step(Shop.ship(what=what), pivot=True)

    @query
    def total(self, times: int = 1) -> int:
        return times * self.state

    @query
    def share(self) -> float:
        return 1 / self.state


class Order(Saga[str, str], locks=lambda what: [what, "all"]):
    async def run(self, what: str) -> str:
        await self.step(Shop.reserve(what=what), undo=Shop.release)
        await self.entity(Tally, "orders").call(Tally.add(1), undo=Tally.add(-1))
        async with self.lock("dock", timeout=5):
            await self.step(Shop.ship(what=what), undo=Shop.release)
        return what


def order() -> SagaTest[str, str]:
    return SagaTest(Order).answer(Shop.reserve, "r-1")


def test_a_saga_with_locks_and_calls_is_completed_or_compensated_whatever_goes_wrong() -> None:
    proof = prove(order().answer(Shop.ship, "s-1").call(Tally.add, 1), "tea")
    assert "COMPLETED" in repr(proof)
    assert "CANCELED" in repr(proof)


def test_a_call_is_undone_with_its_saga() -> None:
    end = order().fail(Shop.ship, "NoDock").call(Tally.add, 1).run("tea")
    assert (end.status, end.effects) == (Status.COMPENSATED, [Shop.reserve, Shop.release])


def test_a_refused_call_fails_the_saga() -> None:
    end = order().call_fails(Tally.add, "Closed", "for today").run("tea")
    assert (end.status, end.error_type, end.reason) == (Status.COMPENSATED, "Closed", "Closed: for today")


def test_a_call_that_the_test_says_nothing_about_is_named() -> None:
    with pytest.raises(AssertionError, match=r"Tally.add was called, and this test has no answer for it: add .call"):
        order().run("tea")


def test_an_entity_by_itself() -> None:
    tally = SagaTest(Tally).answer(Shop.ship, "s-1").entity(Tally)
    assert [tally.call(Tally.add(2)), tally.call(Tally.add(3))] == [2, 5]
    with pytest.raises(UpdateFailed, match="TooMuch"):
        tally.call(Tally.add(10))
    assert tally.call(Tally.ship("tea")) == "s-1"
    assert tally.running.effects == [Shop.ship]
    tally.call(Tally.delete())
    assert tally.running.status is Status.COMPLETED


def test_an_entity_that_waits_for_ever_is_said_to() -> None:
    tally = SagaTest(Tally).never(Shop.ship).entity(Tally)
    with pytest.raises(AssertionError, match=r"ship never ends: the saga waits for ever: shop\.ship is never answered"):
        tally.call(Tally.ship("tea"))


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (Tally.count(), r"(?s)count is not done: the entity is parked, .*return \[\]\[self.state\].*IndexError"),
        (Tally.sell("tea"), "(?s)sell is not done.*a pivot must be awaited alone: .*an entity's operation"),
    ],
)
def test_an_operation_with_a_mistake_says_what_it_is(call: OperationCall[Tally, object], why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        SagaTest(Tally).entity(Tally).call(call)


def test_what_an_entity_says_about_itself() -> None:
    tally = SagaTest(Tally).entity(Tally)
    with pytest.raises(SagaNotFound, match="it begins with its first operation"):
        tally.query(Tally.total)
    tally.call(Tally.add(2))
    assert (tally.query(Tally.total), tally.query(Tally.total, times=3)) == (2, 6)
    tally.call(Tally.add(-2))
    with pytest.raises(QueryFailed, match="ZeroDivisionError"):
        tally.query(Tally.share)


def test_an_entity_goes_on_in_another_run_with_its_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.saga.SUGGEST_AFTER_OUTCOMES", 5)
    tally = SagaTest(Tally).entity(Tally)
    assert [tally.call(Tally.add(1)) for _ in range(12)] == list(range(1, 13))
    assert len({decision.run for decision in tally.running.world.decisions}) == 3


# -- mistakes that are found where the class is


class Needy(BaseModel):
    cents: int


@dataclass
class Plain:
    log: list[str] = field(default_factory=list)


def test_a_state_that_cannot_begin_is_found_at_once() -> None:
    with pytest.raises(DefinitionError, match=r"Purse: its state cannot be made without arguments \(cents: Field req"):

        class Purse(Entity[Needy]):
            pass

    with pytest.raises(DefinitionError, match="give what is missing a default, or define `initial`"):

        class Perhaps(Entity[int | None]):
            pass

    class Given(Entity[Needy]):
        def initial(self) -> Needy:
            return Needy(cents=5)

        @query
        def cents(self) -> int:
            return self.state.cents

        @operation
        async def look(self) -> int:
            return self.cents()

    assert SagaTest(Given).entity(Given).call(Given.look()) == 5


def test_a_state_may_be_of_a_class_that_is_not_complete_yet() -> None:
    class Early(BaseModel):
        later: Later | None = None

    class Holder(Entity[Early]):
        pass

    assert Holder.definition.name == "Holder"


class Later(BaseModel):
    pass


def test_an_entity_has_no_run_of_its_own() -> None:
    with pytest.raises(DefinitionError, match="Runner: an entity has no run or declared steps of its own"):

        class Runner(Entity[int]):
            async def run(self, state: int | None, /) -> int:
                return 1


# -- all or nothing


class Diary(Entity[Plain]):
    seen = 0

    def __init__(self) -> None:
        super().__init__()
        self.limit = 3

    @property
    def last(self) -> str:
        return self.state.log[-1]

    @last.setter
    def last(self, line: str) -> None:
        self.state.log.append(line)

    @operation
    async def write(self, line: str) -> int:
        self.last = line
        if len(self.state.log) > self.limit:
            raise Abort("Full")
        return self.random.randrange(1)

    @operation
    async def miscount(self) -> None:
        self.seen += 1

    @operation
    async def hide(self) -> None:
        self._seen = 1

    @query
    def lines(self) -> list[str]:
        return self.state.log


def test_what_an_operation_does_to_the_state_is_all_or_nothing() -> None:
    diary = SagaTest(Diary).entity(Diary)
    for line in ("a", "b", "c"):
        diary.call(Diary.write(line))
    with pytest.raises(UpdateFailed, match="Full"):
        diary.call(Diary.write("d"))
    assert diary.query(Diary.lines) == ["a", "b", "c"]


@pytest.mark.parametrize(("call", "name"), [(Diary.miscount(), "seen"), (Diary.hide(), "_seen")])
def test_an_operation_that_sets_anything_else_is_refused(call: OperationCall[Diary, None], name: str) -> None:
    with pytest.raises(
        AssertionError, match=rf"Diary: an operation sets self\.{name}, .* make it a part of self\.state"
    ):
        SagaTest(Diary).entity(Diary).call(call)
