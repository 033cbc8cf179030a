"""A saga whose owner lacks its code: nothing is lost, and all is decided in order once there is code."""

from __future__ import annotations

from model.play import SAGA_ID, Play
from model.shop import Shop
from model.shopping import Two, started
from orchestrator.errors import Abort
from orchestrator.model import messages as msg
from orchestrator.model.events import Status
from orchestrator.model.messages import Outcome
from orchestrator.saga import Retry, Saga


class Patient(Saga[None, str], name="Order"):
    async def run(self, _: None) -> str:
        await self.sleep(5)
        return "rested"


def test_an_unknown_type_waits_for_its_code_and_loses_nothing() -> None:
    play = started(Two, known=False)
    assert play.names == ["SagaStarted", "CodeMissing"]
    assert play.status is Status.WAITING_FOR_CODE
    play.find_code()
    assert play.status is Status.RUNNING
    assert [sent.name for sent in play.sent] == ["reserve"]


def test_what_comes_for_a_saga_without_code_is_decided_in_order_once_there_is_code() -> None:
    class Racing(Saga[None, str], name="Order"):
        async def run(self, _: None) -> str:
            await self.gather(self.wait(), self.step(Shop.reserve(what="b")))
            return "never"

        async def wait(self) -> None:
            await self.sleep(5)
            raise Abort("TooLate")

    play = started(Racing)
    play.lose_code()
    play.fire(1)
    play.do(2, "in time")
    play.cancel()
    assert play.names[3:] == ["CodeMissing", "InputHeld", "InputHeld", "InputHeld"]
    play.find_code()
    assert play.state.mailbox == []
    assert play.ending.error_type == "TooLate"
    assert play.names.count("HeldInputTaken") == 1, "the saga ended with the first of them"


def test_a_reply_is_held_and_then_counts() -> None:
    play = started(Two)
    play.lose_code()
    play.do(1, "x")
    assert play.status is Status.WAITING_FOR_CODE
    assert play.step(1).status == "RUNNING"
    play.find_code()
    assert play.step(1).status == "DONE"
    assert play.sent[-1].sequence == 2


def test_what_no_honest_sender_sends_is_not_held_either() -> None:
    play = started(Two)
    play.lose_code()
    assert "never issued" in play.rejected(lambda: play.do(1, "x", attempt=5))
    assert "no step 7" in play.rejected(
        lambda: play.take(msg.Reply(SAGA_ID, play.state.run, 7, False, 1, Outcome.SUCCESS))
    )
    assert "at most" in play.rejected(lambda: play.do(1, "x" * 300_000))
    assert "at most" in play.rejected(lambda: play.unpark(msg.Override.SET_RESULT, 1, b"x" * 300_000))


def test_a_cancellation_after_the_first_step_waits_for_the_code_that_may_clean_up() -> None:
    play = started(Two)
    play.lose_code()
    play.cancel()
    assert play.status is Status.WAITING_FOR_CODE
    play.find_code()
    assert play.undone == [1]


def test_a_person_may_decide_about_a_parked_step_before_there_is_code() -> None:
    class Parking(Saga[None, str], name="Order"):
        async def run(self, _: None) -> str:
            return await self.step(Shop.reserve(), retry=Retry(maximum_attempts=1, exhausted="park"))

    play = started(Parking)
    play.again(1)
    play.lose_code()
    play.unpark(msg.Override.SET_RESULT, 1, b'"x"')
    assert play.status is Status.PARKED
    play.find_code()
    assert play.ending.payload == b'"x"'


def test_terminating_needs_no_code() -> None:
    play = started(Two)
    play.lose_code()
    play.do(1, "x")
    play.terminate()
    assert play.status is Status.TERMINATED
    assert play.state.mailbox == []


def test_code_that_is_there_already_is_not_found_again() -> None:
    play = started(Two)
    assert play.find_code() == []
    play = started(Two, known=False)
    assert play.take(msg.CodeArrived(SAGA_ID, play.state.run)) == [], "an owner without code"


def test_a_start_that_does_not_fit_the_code_found_later_parks_the_saga() -> None:
    class Strict(Saga[int, None], name="Order"):
        async def run(self, number: int) -> None:
            await self.sleep(number)

    play = Play(Strict, known=False)
    play.start("not a number")
    play.find_code()
    assert "ValidationError" in play.state.parked[0]


def test_a_timer_is_held_once_however_often_an_owner_hears_of_it() -> None:
    play = started(Patient)
    play.lose_code()
    play.fire(1)
    play.fire(1)
    assert play.names[2:] == ["CodeMissing", "InputHeld"]
    play.find_code()
    assert (play.state.mailbox, play.status) == ([], Status.COMPLETED)
