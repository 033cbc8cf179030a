"""What a person may do about a step or a saga, whatever its policy and code say: retry now, skip, set, undo."""

from __future__ import annotations

import pytest

from model.play import INBOX, SAGA_ID, Play
from model.shop import Shop
from model.shopping import Careful, Plain, Two, started
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.events import Status
from orchestrator.model.messages import Outcome, Override
from orchestrator.saga import Retry, Saga


class Sold(Saga[None, None]):
    async def run(self, _: None) -> None:
        await self.step(Shop.reserve(what="tea"), undo=Shop.release)
        await self.step(Shop.note(what="sold"), pivot=True)
        await self.step(Shop.charge(what="tea"), undo=Shop.refund(receipt=None))


def compensate(play: Play) -> list[ev.Event]:
    return play.take(msg.Compensate(SAGA_ID, play.message_id(), None, "wrong customer", "ann"))


# -- steps between two attempts


@pytest.mark.parametrize("sequence", [0, 1])
def test_a_step_that_backs_off_is_tried_at_once(sequence: int) -> None:
    play = started(Plain, "tea")
    play.again(1)
    assert play.retry(sequence) == [ev.StepAttempted(1, 2, "ann", reason="looked at it")]
    assert play.sent[-1].attempt == 2
    play.do(1, "x")
    assert play.status is Status.RUNNING


def test_what_a_person_has_tried_again_keeps_its_deadline() -> None:
    play = started(Careful)
    play.again(1)
    deadline_ms = play.step(1).deadline_ms
    play.retry(1)
    assert play.step(1).deadline_ms == deadline_ms is not None


def test_an_undo_that_backs_off_is_tried_at_once_or_skipped() -> None:
    play = started(Plain, "tea")
    play.do(1, "x")
    play.refuse(2)
    play.undo(1, Outcome.RETRY)
    assert play.retry(1) == [ev.UndoAttempted(1, 2, "ann", reason="looked at it")]
    play.undo(1, Outcome.RETRY)
    play.unpark(Override.SKIP, 1)
    assert play.ending.undone is ev.Undone.PARTIAL


def test_the_result_of_a_step_that_backs_off_is_set() -> None:
    play = started(Two)
    play.again(1)
    play.unpark(Override.SET_RESULT, 1, b'"by hand"')
    assert play.step(1).result == b'"by hand"'
    (event,) = play.of(ev.StepSucceeded)
    assert event.by == "ann"
    assert isinstance(play.do(1, "late")[0], ev.InputAbsorbed)


class Numbered(Saga[None, int]):
    async def run(self, _: None) -> int:
        return (await self.step(Shop.charge(what="tea"))).number + 1


@pytest.mark.parametrize("wrong", [b'"x"', b"garbage{", b"null"])
def test_a_result_that_the_code_could_not_read_is_not_set(wrong: bytes) -> None:
    play = started(Numbered)
    play.again(1)
    (refused,) = play.unpark(Override.SET_RESULT, 1, wrong)
    assert isinstance(refused, ev.InputAbsorbed)
    assert refused.reason.startswith("the result does not fit step 1: ")
    (refused,) = play.unpark(Override.SKIP, 1)
    assert isinstance(refused, ev.InputAbsorbed)
    assert refused.reason.startswith("the code cannot go on without the result of step 1: set one")
    play.unpark(Override.SET_RESULT, 1, b'{"number": 7}')
    assert play.ending.payload == b"8"


def test_of_several_steps_none_is_skipped_where_one_cannot_be() -> None:
    class Both(Saga[None, None]):
        async def run(self, _: None) -> None:
            park = Retry(maximum_attempts=1, exhausted="park")
            charge, note = Shop.charge(what="a"), Shop.note(what="b")
            await self.gather(self.step(charge, retry=park), self.step(note, retry=park))

    play = started(Both)
    for sequence in (1, 2):
        play.again(sequence)
    parked = sorted(play.state.parked)
    play.take(msg.Unpark(SAGA_ID, play.message_id(), Override.SKIP, 0, None, None, "", "ann", INBOX))
    (answered,) = play.of(ev.InputAnswered)
    assert "the code cannot go on without the result of step" in answered.reason
    assert sorted(play.state.parked) == parked


def test_an_attempt_that_may_be_running_is_left_alone() -> None:
    play = started(Two)
    for sequence in (0, 1):
        for action in Override:
            (event,) = play.unpark(action, sequence)
            assert isinstance(event, ev.InputAbsorbed)
            assert event.reason == "it is neither parked nor between two attempts"


def test_to_skip_without_a_number_leaves_alone_what_only_backs_off() -> None:
    play = started(Two)
    play.again(1)
    assert isinstance(play.unpark(Override.SKIP)[0], ev.InputAbsorbed)


# -- compensation by force


def test_what_was_done_is_undone_without_asking_the_code() -> None:
    play = started(Plain, "tea")
    play.do(1, "x")
    compensate(play)
    assert play.of(ev.CompensationStarted) == [
        ev.CompensationStarted(ev.Cause.FAILED, "Forced", "wrong customer", "ann")
    ]
    assert play.undone == [2]
    play.undo(2)
    play.undo(1)
    assert play.status is Status.COMPENSATED
    assert play.ending.error_type == "Forced"


def test_also_past_the_pivot() -> None:
    play = started(Sold)
    play.do(1, "x")
    play.do(2)
    play.do(3, {"number": 1})
    assert play.status is Status.COMPLETED

    play = started(Sold)
    play.do(1, "x")
    play.do(2)
    compensate(play)
    play.undo(3)
    assert play.undone == [3, 1]
    play.undo(1)
    assert play.status is Status.COMPENSATED
    assert play.ending.undone is ev.Undone.PARTIAL


def test_not_while_the_pivot_is_under_way_unless_it_is_parked() -> None:
    play = started(Sold)
    play.do(1, "x")
    assert "its pivot is under way" in compensate(play)[0].reason  # type: ignore[union-attr]
    play.refuse(2)
    assert play.status is Status.COMPENSATING
    assert compensate(play)[0].reason == "it is being undone already"  # type: ignore[union-attr]


def test_it_reaches_what_is_paused_parked_or_without_code() -> None:
    play = started(Plain, "tea")
    play.do(1, "x")
    play.rules.add("type:Plain")
    play.do(2, {"number": 3})
    assert play.status is Status.COMPLETED or play.status is Status.PAUSED
    compensate(play)
    play.undo(2)
    play.undo(1)
    assert play.status is Status.COMPENSATED

    play = started(Two)
    play.do(1, "x")
    play.lose_code()
    play.do(2, "y")
    assert play.status is Status.WAITING_FOR_CODE
    compensate(play)
    assert play.undone == [2]

    class Bug(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.step(Shop.reserve(what="tea"), undo=Shop.release)
            raise ValueError("a bug")

    play = started(Bug)
    play.do(1, "x")
    assert play.status is Status.PARKED
    compensate(play)
    play.undo(1)
    assert play.status is Status.COMPENSATED
