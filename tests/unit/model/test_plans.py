"""A declared saga runs as one that is written out."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from model.play import Play
from orchestrator.errors import DefinitionError
from orchestrator.model import events as ev
from orchestrator.model.events import Status
from orchestrator.model.messages import Outcome
from orchestrator.plan import each, outcome, parallel, step, takes
from orchestrator.saga import Retry, Saga
from orchestrator.service import Service, command


class Line(BaseModel):
    sku: str


class Order(BaseModel):
    id: str
    lines: list[Line] = []


class Request(BaseModel):
    order_id: str
    note: str = ""


class Receipt(BaseModel):
    number: int


class Refund(BaseModel):
    order_id: str
    receipt: Receipt | None


class Shop(Service, name="plan-shop"):
    reserve = command(Request, str)
    release = command(Request)
    charge = command(Request, Receipt)
    refund = command(Refund)
    ship = command(Request, str)


class Declared(Saga[Order, str], name="Order"):
    order = takes(Order)
    stock = step(Shop.reserve(order_id=order.id), undo=Shop.release)
    paid = step(
        Shop.charge(order_id=order.id, note=stock),
        undo=Shop.refund(order_id=order.id, receipt=outcome(Receipt)),
        retry=Retry(maximum_attempts=2),
    )
    result = step(Shop.ship(order_id=order.id, note=stock), pivot=True)


class Written(Saga[Order, str], name="Order"):
    async def run(self, order: Order) -> str:
        stock = await self.step(Shop.reserve(order_id=order.id), undo=Shop.release)
        await self.step(
            Shop.charge(order_id=order.id, note=stock),
            undo=lambda receipt: Shop.refund(order_id=order.id, receipt=receipt),
            retry=Retry(maximum_attempts=2),
        )
        return await self.step(Shop.ship(order_id=order.id, note=stock), pivot=True)


def completes(play: Play) -> None:
    play.do(1, "A")
    play.do(2, {"number": 7})
    play.do(3, "sent")
    assert play.ending.payload == b'"sent"'


def is_declined(play: Play) -> None:
    play.do(1, "A")
    play.refuse(2, "CardDeclined")
    play.undo(1)
    assert play.status is Status.COMPENSATED


def is_unknown(play: Play) -> None:
    play.do(1, "A")
    play.again(2)
    play.fire(2)
    play.again(2)
    assert play.sent[-1].payload == b'{"order_id":"o-1","receipt":null}'
    play.undo(2)
    play.undo(1)
    assert play.status is Status.COMPENSATED


def fails_late(play: Play) -> None:
    play.do(1, "A")
    play.do(2, {"number": 7})
    play.reply(3, Outcome.FAILURE, "Lost")
    assert play.sent[-1].payload == b'{"order_id":"o-1","receipt":{"number":7}}'


@pytest.mark.parametrize("course", [completes, is_declined, is_unknown, fails_late])
def test_both_styles_give_the_same_history(course: object) -> None:
    journals: list[list[ev.Event]] = []
    for saga in (Declared, Written):
        play = Play(saga)
        play.start({"id": "o-1"})
        assert callable(course)
        course(play)
        journals.append(play.journal)
    assert journals[0] == journals[1]


def test_a_plan_without_a_result_gives_nothing() -> None:
    class Quiet(Saga[Order, None]):
        order = takes(Order)
        stock = step(Shop.reserve(order_id=order.id))

    play = Play(Quiet)
    play.start({"id": "o-1"})
    play.do(1, "A")
    assert play.ending.payload == b"null"


class Parts(BaseModel):
    order_id: str
    parts: tuple[str, ...]
    receipt: Receipt


class Depot(Service, name="plan-depot"):
    pack = command(Parts, str)


class Beside(Saga[Order, str], name="Order"):
    order = takes(Order)
    stock = step(Shop.reserve(order_id=order.id), undo=Shop.release)
    paid, room = parallel(
        step(Shop.charge(order_id=order.id, note=stock), undo=Shop.refund(order_id=order.id, receipt=outcome(Receipt))),
        step(Shop.reserve(order_id=order.id, note="room"), undo=Shop.release),
    )
    parts = each(
        order.lines, lambda line: Shop.reserve(order_id=line.sku), undo=Shop.release, concurrency=2, spread=True
    )
    result = step(Depot.pack(order_id=room, parts=parts, receipt=paid), pivot=True)


class WrittenBeside(Saga[Order, str], name="Order"):
    async def run(self, order: Order) -> str:
        stock = await self.step(Shop.reserve(order_id=order.id), undo=Shop.release)
        paid, room = await self.gather(
            self.step(
                Shop.charge(order_id=order.id, note=stock),
                undo=lambda receipt: Shop.refund(order_id=order.id, receipt=receipt),
            ),
            self.step(Shop.reserve(order_id=order.id, note="room"), undo=Shop.release),
        )
        parts = await self.each(
            order.lines,
            lambda line: self.step(Shop.reserve(order_id=line.sku), undo=Shop.release, spread=True),
            concurrency=2,
        )
        return await self.step(Depot.pack(order_id=room, parts=parts, receipt=paid), pivot=True)


def runs_through(play: Play) -> None:
    play.do(1, "A")
    play.do(3, "R")
    play.do(2, {"number": 7})
    assert [play.step(s).payload for s in play.state.open] == [
        b'{"order_id":"x","note":""}',
        b'{"order_id":"y","note":""}',
    ]
    for sequence, what in ((5, "Y"), (4, "X"), (6, "Z")):
        play.do(sequence, what)
    assert play.step(7).payload == b'{"order_id":"R","parts":["X","Y","Z"],"receipt":{"number":7}}'
    play.do(7, "packed")
    assert play.ending.payload == b'"packed"'


def fails_beside(play: Play) -> None:
    play.do(1, "A")
    play.refuse(3, "Full")
    assert play.undone == [2]
    assert play.sent[-1].payload == b'{"order_id":"o-1","receipt":null}'
    play.undo(2)
    play.undo(1)
    assert play.ending.error_type == "Full"


def fails_at_an_item(play: Play) -> None:
    play.do(1, "A")
    play.do(3, "R")
    play.do(2, {"number": 7})
    play.do(4, "X")
    play.refuse(5, "SoldOut")
    for sequence in (6, 4, 3, 2, 1):
        play.undo(sequence)
    assert (play.ending.status, play.undone) == (Status.COMPENSATED, [6, 4, 3, 2, 1])


@pytest.mark.parametrize("course", [runs_through, fails_beside, fails_at_an_item])
def test_declared_groups_run_as_those_that_are_written_out(course: object) -> None:
    journals: list[list[ev.Event]] = []
    for saga in (Beside, WrittenBeside):
        play = Play(saga)
        play.start({"id": "o-1", "lines": [{"sku": sku} for sku in "xyz"]})
        assert callable(course)
        course(play)
        journals.append(play.journal)
    assert journals[0] == journals[1]
    names = [".".join(command) for command in Beside.definition.commands]
    assert " ".join(names) == "plan-shop.reserve plan-shop.charge plan-shop.reserve plan-shop.reserve plan-depot.pack"


def test_a_group_without_names_runs_and_may_be_the_result() -> None:
    class Pair(Saga[Order, tuple[str, str]]):
        order = takes(Order)
        result = parallel(step(Shop.reserve(order_id=order.id)), step(Shop.ship(order_id=order.id)))

    play = Play(Pair)
    play.start({"id": "o-1"})
    play.do(2, "B")
    play.do(1, "A")
    assert play.ending.payload == b'["A","B"]'


def test_the_replies_of_many_may_be_taken_by_many() -> None:
    class Twice(Saga[Order, tuple[str, ...]]):
        order = takes(Order)
        parts = each(order.lines, lambda line: Shop.reserve(order_id=line.sku))
        result = each(parts, lambda part: Shop.ship(order_id=part))

    play = Play(Twice)
    play.start({"id": "o-1", "lines": [{"sku": "x"}]})
    play.do(1, "A")
    assert play.step(2).payload == b'{"order_id":"A","note":""}'
    play.do(2, "B")
    assert play.ending.payload == b'["B"]'


def test_a_declared_group_takes_declared_steps_once() -> None:
    one = step(Shop.reserve(order_id="a"))
    with pytest.raises(DefinitionError, match="takes steps as they are declared"):
        parallel(one, "another")
    parallel(one, step(Shop.reserve(order_id="b")))
    with pytest.raises(DefinitionError, match="each in one group only"):
        parallel(one, step(Shop.reserve(order_id="c")))
    with pytest.raises(DefinitionError, match="a pivot runs alone"):
        parallel(step(Shop.ship(order_id="a"), pivot=True), step(Shop.ship(order_id="b")))


def test_a_step_may_not_need_a_reply_of_its_own_group_or_of_a_step_without_a_name() -> None:
    with pytest.raises(DefinitionError, match=r"plan-shop\.ship needs the reply of plan-shop\.reserve"):

        class Beside(Saga[Order, None]):
            one = step(Shop.reserve(order_id="a"))
            both = parallel(one, step(Shop.ship(order_id=one)))

    with pytest.raises(DefinitionError, match="give that step a name of its own"):

        class Nameless(Saga[Order, str]):
            result = step(Shop.ship(order_id=step(Shop.reserve(order_id="a"))))


@pytest.mark.parametrize("items", ["a", [1, 2], takes(Order).id, takes(Order)])
def test_each_takes_a_declared_list(items: object) -> None:
    with pytest.raises(DefinitionError, match="takes a declared list"):
        each(items, lambda item: Shop.reserve(order_id="a"))  # type: ignore[arg-type]


def test_each_takes_no_set_for_its_order_differs_between_processes() -> None:
    class Bag(BaseModel):
        skus: set[str]
        kept: frozenset[str]

    bag = takes(Bag)
    for items in (bag.skus, bag.kept):
        with pytest.raises(DefinitionError, match=r"set has another order in each process: declare a list"):
            each(items, lambda sku: Shop.reserve(order_id=sku))  # type: ignore[arg-type]


def test_each_needs_room_for_one_item() -> None:
    with pytest.raises(DefinitionError, match="concurrency=0 must be at least 1"):
        each(takes(Order).lines, lambda line: Shop.reserve(order_id=line.sku), concurrency=0)


def test_an_item_can_only_be_passed_on() -> None:
    with pytest.raises(DefinitionError, match="known only when the saga runs"):
        each(takes(Order).lines, lambda line: Shop.reserve(order_id=f"{line.sku}"))
    with pytest.raises(DefinitionError, match="Line has no field"):
        each(takes(Order).lines, lambda line: Shop.reserve(order_id=line.id))  # type: ignore[attr-defined]
