"""Running again what was stopped without its code: what nobody let go of is not taken for something that is over."""

from __future__ import annotations

import pytest

from model.play import INBOX, SAGA_ID, Play
from model.shop import Shop
from model.shopping import started
from orchestrator.model import messages as msg
from orchestrator.model.events import Status
from orchestrator.model.updates import UpdateRejected
from orchestrator.questions import update
from orchestrator.saga import Saga


class Working(Saga[None, str]):
    async def run(self, _: None) -> str:
        return await self.step(Shop.reserve(), undo=Shop.release)


class Waiting(Saga[None, str]):
    async def run(self, _: None) -> str:
        await self.sleep(60)
        return "slept"


def compensate(play: Play) -> None:
    play.take(msg.Compensate(SAGA_ID, play.message_id(), None, "enough", "ann"))


def test_a_step_that_was_under_way_is_done_again() -> None:
    play = started(Working)
    compensate(play)
    play.undo(1)
    play.take(msg.Redrive(SAGA_ID, "redrive", by="ann"))
    play.do(1, "x")
    assert play.state.result == b'"x"'


def test_a_wait_that_was_under_way_is_waited_for_again() -> None:
    play = started(Waiting)
    compensate(play)
    assert play.status is Status.FAILED
    play.take(msg.Redrive(SAGA_ID, "redrive", by="ann"))
    play.fire(1)
    assert play.state.result == b'"slept"'


def test_undo_answers_that_were_held_for_code_count_once_none_is_needed() -> None:
    class Racing(Saga[None, str]):
        async def run(self, _: None) -> str:
            await self.race(self.step(Shop.reserve(), undo=Shop.release), self.step(Shop.note()))
            return await self.step(Shop.reserve())

    play = started(Racing)
    play.do(2)
    play.lose_code()
    play.undo(1)
    assert play.status is Status.WAITING_FOR_CODE
    compensate(play)
    assert play.status is Status.COMPENSATED


@pytest.mark.parametrize("kind", [msg.Redrive, msg.Reset])
def test_what_was_done_past_the_pivot_stays_where_it_was_cancelled(kind: type[msg.Redrive] | type[msg.Reset]) -> None:
    class Cleaning(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.step(Shop.reserve(), pivot=True)
            try:
                await self.step(Shop.note())
            finally:
                await self.step(Shop.reserve(), undo=Shop.release)

    play = started(Cleaning)
    play.do(1, "x")
    play.cancel()
    play.do(3, "x")
    assert play.status is Status.CANCELED
    again = msg.Reset(SAGA_ID, "m", 2, None, "", "ann", INBOX)
    if kind is msg.Redrive:
        play.take(msg.Redrive(SAGA_ID, "m", None, "", "ann", INBOX))
    else:
        play.take(again)
    assert "past its pivot and stays" in play.answers[-1].error_message
    assert play.status is Status.CANCELED


def test_no_update_is_taken_once_the_code_has_ended() -> None:
    class Racing(Saga[None, None]):
        @update
        async def ask(self) -> None:
            pass

        async def run(self, _: None) -> None:
            await self.race(self.step(Shop.reserve(), undo=Shop.release), self.step(Shop.note()))

    play = started(Racing)
    play.do(2)
    with pytest.raises(UpdateRejected, match="code has ended"):
        play.take(msg.Update(SAGA_ID, "m", "u", "ask", b"{}", INBOX))
    play.undo(1)
    assert play.status is Status.COMPLETED
