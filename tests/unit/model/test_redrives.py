"""Redrives with another input: the next run has what still stands, and its code sees what a person corrected."""

from __future__ import annotations

import pytest

from model.play import SAGA_ID, Play
from model.shop import Shop
from orchestrator.errors import Abort
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.events import Following, Status, Undone
from orchestrator.model.messages import Outcome, Override
from orchestrator.retry import Retry
from orchestrator.saga import Saga


class Order(Saga[str, str]):
    """What needs no undo comes first; what is asked for depends on the input throughout."""

    async def run(self, what: str) -> str:
        price = await self.step(Shop.ship(what=f"price of {what}"))
        if what == "nothing":
            raise Abort("NothingToDo", "it is empty")
        await self.step(Shop.reserve(what=what), undo=Shop.release)
        receipt = await self.step(Shop.charge(what=f"{price} for {what}"), retry=Retry(maximum_attempts=1))
        return f"{what} {receipt.number}"


def undone(what: str = "buk") -> Play:
    """It was refused at its third step, and its second was undone."""
    play = Play(Order)
    play.start(what)
    play.do(1, "9")
    play.do(2, "r-1")
    play.refuse(3, "NoSuchThing")
    play.undo(2)
    assert play.status is Status.COMPENSATED
    return play


def reason_of(events: list[ev.Event]) -> str:
    (event,) = [event for event in events if isinstance(event, ev.InputAbsorbed)]
    return event.reason


def test_an_undone_saga_goes_on_with_another_input() -> None:
    play = undone()
    first = play.state.run
    play.redrive(value="book")
    follows = play.of(ev.RunFollows)[-1]
    assert (follows.cause, follows.payload, follows.until) == (Following.RESET, b'"book"', 2)
    assert play.state.run != first
    assert play.state.payload == b'"book"'
    assert [event.sequence for event in play.of(ev.StepInherited)] == [1], "the price still stands"
    assert play.sent[-1].payload == b'{"what":"book"}'
    play.do(2, "r-2")
    assert play.sent[-1].payload == b'{"what":"9 for book"}'
    play.do(3, {"number": 7})
    assert play.state.result == b'"book 7"'


def test_without_another_input_it_has_the_one_it_had() -> None:
    play = undone()
    play.redrive()
    assert play.state.payload == b'"buk"'


def test_code_that_ended_by_itself_is_asked_again_with_another_input() -> None:
    play = Play(Order)
    play.start("nothing")
    play.do(1, "9")
    assert play.status is Status.FAILED
    play.redrive(value="book")
    assert play.sent[-1].payload == b'{"what":"book"}'


def test_an_input_with_which_the_code_goes_another_way_parks_the_saga() -> None:
    class Either(Saga[str, str]):
        async def run(self, what: str) -> str:
            if what == "a":
                await self.step(Shop.note(what=what))
            else:
                await self.step(Shop.ship(what=what))
            return str(await self.step(Shop.charge(what=what)))

    play = Play(Either)
    play.start("a")
    play.do(1)
    play.refuse(2)
    play.redrive(value="b")
    assert play.status is Status.PARKED
    assert "the code diverges from the history" in play.state.parked[0]
    play.take(msg.Compensate(SAGA_ID, play.message_id()))
    play.redrive(value="a")
    play.do(2, {"number": 1})
    assert play.status is Status.COMPLETED


def test_an_input_that_does_not_fit_is_rejected_and_nothing_happens() -> None:
    play = undone()
    assert play.rejected(lambda: play.redrive(value={"not": "a text"})).startswith("the input does not fit the saga")
    assert play.rejected(lambda: play.redrive(value="x" * 300_000)).startswith("the input has 300002 bytes")
    assert play.status is Status.COMPENSATED


def test_a_parked_step_is_given_another_request_and_not_its_saga_another_input() -> None:
    class Parks(Saga[str, str]):
        async def run(self, what: str) -> str:
            retry = Retry(maximum_attempts=1, exhausted="park")
            return str(await self.step(Shop.charge(what=what), retry=retry))

    play = Play(Parks)
    play.start("book")
    play.reply(1, Outcome.RETRY)
    assert play.status is Status.PARKED
    assert reason_of(play.redrive(value="pen")).startswith("it is parked, and keeps its input")
    play.redrive()
    assert play.status is Status.RUNNING


def test_a_terminated_saga_goes_on_with_its_own_input_alone() -> None:
    play = Play(Order)
    play.start("buk")
    play.do(1, "9")
    play.do(2, "r-1")
    play.terminate()
    assert reason_of(play.redrive(value="book")).startswith("it was terminated")
    play.redrive()
    assert play.status is Status.RUNNING
    assert play.state.payload == b'"buk"'


@pytest.mark.parametrize("value", ["book", None])
def test_a_saga_under_way_or_completed_is_not_redriven(value: str | None) -> None:
    play = Play(Order)
    play.start("book")
    assert "it is under way" in reason_of(play.redrive(value=value))
    play.do(1, "9")
    play.do(2, "r")
    play.do(3, {"number": 1})
    assert "it is COMPLETED: restart it" in reason_of(play.redrive(value=value))


def test_what_a_person_did_not_have_undone_still_stands() -> None:
    play = Play(Order)
    play.start("book")
    play.do(1, "9")
    play.do(2, "r-1")
    play.refuse(3, "NoSuchThing")
    play.undo(2, Outcome.FAILURE, "Locked")
    play.unpark(Override.SKIP, 2)
    assert (play.status, play.state.undone) == (Status.COMPENSATED, Undone.PARTIAL)
    play.redrive()
    assert [event.sequence for event in play.of(ev.StepInherited)] == [1, 2]
    assert (play.sent[-1].name, play.sent[-1].sequence) == ("charge", 3)
    play.refuse(3, "NoSuchThing")
    assert play.undone == [2], "not asked for again: somebody has seen to it"
    assert (play.status, play.state.undone) == (Status.COMPENSATED, Undone.PARTIAL)
    play.reset(2)
    assert (play.sent[-1].name, play.sent[-1].sequence) == ("reserve", 2), "who wants it again says so"
