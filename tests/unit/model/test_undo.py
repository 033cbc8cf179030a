"""Going back: in which order, and what happens to an undo that does not succeed."""

from __future__ import annotations

import pytest

from model.play import Play
from model.shop import Shop
from orchestrator.errors import Abort, StepFailed
from orchestrator.model import events as ev
from orchestrator.model.events import Status, Undone
from orchestrator.model.messages import Outcome, Override
from orchestrator.model.state import StepStatus
from orchestrator.model.turn import ENDED_KEEP_MS
from orchestrator.saga import Retry, Saga


class Shopping(Saga[None, None]):
    """Helpers for the sagas below: a step with an undo, named by what it is for."""

    async def run(self, _: None) -> None:
        raise NotImplementedError

    async def get(self, what: str) -> str:
        return await self.step(Shop.reserve(what=what), undo=Shop.release)


class InARow(Shopping):
    async def run(self, _: None) -> None:
        await self.get("a")
        await self.get("b")
        await self.get("c")
        raise Abort("Enough", "no more")


class SideBySide(Shopping):
    async def run(self, _: None) -> None:
        await self.get("a")
        await self.gather(self.get("b"), self.get("c"), self.get("d"))
        await self.get("e")
        raise Abort("Enough")


class Nested(Shopping):
    """Two lines of two steps each, beside each other."""

    async def line(self, first: str, second: str) -> None:
        await self.get(first)
        await self.get(second)

    async def run(self, _: None) -> None:
        await self.gather(self.line("a", "c"), self.line("b", "d"))
        raise Abort("Enough")


class Onward(Shopping):
    """Goes on where a step could not be done."""

    async def run(self, _: None) -> None:
        try:
            await self.step(Shop.reserve(), undo=Shop.release, retry=Retry(maximum_attempts=1))
        except StepFailed:
            await self.get("b")


def one_undone(retry: Retry | None = None, start_to_close: float | None = None) -> Play:
    class One(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.step(Shop.reserve(), undo=Shop.release, undo_retry=retry, start_to_close=start_to_close)
            raise Abort("Enough")

    play = Play(One)
    play.start()
    play.do(1, "A")
    return play


def test_steps_are_undone_one_by_one_in_reverse_order() -> None:
    play = Play(InARow)
    play.start()
    for sequence in (1, 2, 3):
        play.do(sequence, "x")
    assert play.undone == [3]
    play.undo(3)
    assert play.undone == [3, 2]
    play.undo(2)
    assert play.undone == [3, 2, 1]
    play.undo(1)
    assert play.ending == ev.SagaEnded(
        Status.COMPENSATED, Undone.ALL, b"", "Enough", "no more", forget_at_ms=play.now_ms + ENDED_KEEP_MS
    )


def test_parallel_steps_are_undone_in_parallel_between_those_before_and_after() -> None:
    play = Play(SideBySide)
    play.start()
    for sequence in (1, 3, 2, 4, 5):
        play.do(sequence, "x")
    assert play.undone == [5]
    play.undo(5)
    assert play.undone == [5, 4, 3, 2]
    play.undo(3)
    play.undo(4)
    assert play.undone == [5, 4, 3, 2], "the step before the group waits for the whole group"
    play.undo(2)
    assert play.undone == [5, 4, 3, 2, 1]


def test_lines_beside_each_other_are_each_undone_in_reverse() -> None:
    play = Play(Nested)
    play.start()
    play.do(1, "x")
    play.do(2, "x")
    assert [play.step(s).payload for s in (3, 4)] == [b'{"what":"c"}', b'{"what":"d"}']
    play.do(3, "x")
    play.do(4, "x")
    assert play.undone == [4, 3]
    play.undo(4)
    assert play.undone == [4, 3, 2]
    play.undo(2)
    assert play.undone == [4, 3, 2], "the other line is not back yet"
    play.undo(3)
    assert play.undone == [4, 3, 2, 1]


def test_a_long_step_beside_a_line_of_short_ones_is_undone_in_its_place() -> None:
    class Long(Shopping):
        async def short(self) -> None:
            await self.get("b")
            await self.get("c")

        async def run(self, _: None) -> None:
            await self.gather(self.get("a"), self.short())
            raise Abort("Enough")

    play = Play(Long)
    play.start()
    play.do(2, "x")
    play.do(3, "x")
    play.do(1, "x")
    assert play.undone == [3], "2 ended before 3 began; 1 comes after 2 in the order of scheduling"
    play.undo(3)
    assert play.undone == [3, 2, 1]


def test_a_refused_step_is_not_undone_and_an_unknown_one_is() -> None:
    class Mixed(Shopping):
        async def run(self, _: None) -> None:
            await self.gather(self.get("a"), self.get("b"), self.get("c"))

    play = Play(Mixed)
    play.start()
    play.do(1, "x")
    play.refuse(2)
    assert [play.step(s).status for s in (1, 2, 3)] == ["UNDOING", "REFUSED", "UNDOING"]
    assert play.step(3).cause == "canceled"


def test_steps_that_were_let_go_of_together_are_undone_together() -> None:
    class Mixed(Shopping):
        async def run(self, _: None) -> None:
            await self.get("a")
            await self.gather(self.get("b"), self.get("c"), self.get("d"))

    play = Play(Mixed)
    play.start()
    play.do(1, "x")
    play.refuse(4)
    assert play.undone == [3, 2]
    play.undo(2)
    play.undo(3)
    assert play.undone == [3, 2, 1]


def test_a_step_without_an_undo_is_left_as_it_is() -> None:
    class Bare(Shopping):
        async def run(self, _: None) -> None:
            await self.step(Shop.note())
            raise Abort("Enough")

    play = Play(Bare)
    play.start()
    play.do(1)
    assert play.ending.status is Status.FAILED


def test_an_undo_is_sent_the_same_request_a_call_or_what_is_made_of_the_reply() -> None:
    class Ways(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.step(Shop.reserve(what="same"), undo=Shop.release)
            await self.step(Shop.reserve(what="b"), undo=Shop.release(what="call"))
            await self.step(Shop.reserve(what="c"), undo=lambda reply: Shop.release(what=f"of {reply}"))
            raise Abort("Enough")

    play = Play(Ways)
    play.start()
    for sequence in (1, 2, 3):
        play.do(sequence, "A")
    for sequence in (3, 2, 1):
        play.undo(sequence)
    assert [sent.payload for sent in play.sent if sent.undo] == [
        b'{"what":"of A"}',
        b'{"what":"call"}',
        b'{"what":"same"}',
    ]


def test_the_undo_of_an_unknown_step_is_sent_what_is_made_of_none() -> None:
    class Unsure(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.step(
                Shop.reserve(), undo=lambda reply: Shop.release(what=f"of {reply}"), retry=Retry(maximum_attempts=1)
            )

    play = Play(Unsure)
    play.start()
    play.again(1)
    assert play.sent[-1].payload == b'{"what":"of None"}'


def test_an_undo_goes_to_the_partition_of_its_step() -> None:
    class Spread(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.step(Shop.reserve(), undo=Shop.release, spread=True)
            raise Abort("Enough")

    play = Play(Spread)
    play.start()
    assert play.step(1).partition == play.of(ev.StepScheduled)[0].partition


def test_an_undo_that_cannot_yet_is_retried_by_its_own_policy() -> None:
    play = one_undone(Retry(initial_interval=5, maximum_attempts=2))
    play.undo(1, Outcome.RETRY, "Busy")
    assert play.state.due_of(1) == play.now_ms + 5_000
    play.fire(1)
    assert (play.sent[-1].undo, play.sent[-1].attempt) == (True, 2)
    play.undo(1, Outcome.RETRY, "Busy")
    assert play.status is Status.PARKED
    assert play.state.parked == {1: "undo attempt 2 was the last: Busy no details"}


def test_by_default_an_undo_is_tried_ten_times() -> None:
    play = one_undone()
    for _ in range(9):
        play.undo(1, Outcome.RETRY, "Busy")
        play.fire(1)
    assert play.status is Status.COMPENSATING
    play.undo(1, Outcome.RETRY, "Busy")
    assert play.status is Status.PARKED
    assert play.step(1).undo_attempt == 10


def test_an_undo_without_an_answer_is_tried_again() -> None:
    play = one_undone(start_to_close=10)
    play.fire(1)
    assert play.of(ev.UndoBackedOff)[0].error_type == "Timeout"
    play.fire(1)
    assert play.state.due_of(1) == play.now_ms + 10_000
    play.undo(1)
    assert play.ending.status is Status.COMPENSATED


def test_an_undo_that_kafka_refuses_is_tried_again() -> None:
    play = one_undone()
    play.send_failed(1, undo=True)
    assert play.of(ev.UndoBackedOff)[0].error_type == "SendFailed"


def test_a_refused_undo_is_parked() -> None:
    play = one_undone()
    play.undo(1, Outcome.FAILURE, "Gone")
    assert play.state.parked == {1: "the undo was refused: Gone: no details"}


@pytest.mark.parametrize("outcome", [Outcome.RETRY, Outcome.FAILURE])
def test_only_a_success_counts_of_an_undo_that_is_not_under_way(outcome: Outcome) -> None:
    play = one_undone()
    play.undo(1, Outcome.RETRY, "Busy")
    (event,) = play.undo(1, outcome, "Busy")
    assert event == ev.InputAbsorbed("Reply", "the undo is UNDO_BACKING_OFF", 1, 1)
    play.fire(1)
    (event,) = play.undo(1, outcome, "Busy", attempt=1)
    assert event == ev.InputAbsorbed("Reply", "the undo is UNDOING", 1, 1)


@pytest.mark.parametrize("parked", [False, True])
def test_a_success_of_any_attempt_ends_an_undo(parked: bool) -> None:
    play = one_undone()
    play.undo(1, Outcome.FAILURE if parked else Outcome.RETRY, "Busy")
    play.undo(1)
    assert (play.ending.status, play.ending.undone) == (Status.COMPENSATED, Undone.ALL)


def test_a_person_retries_a_parked_undo() -> None:
    play = one_undone()
    play.undo(1, Outcome.FAILURE, "Gone")
    play.retry(1)
    assert play.of(ev.UndoAttempted) == [ev.UndoAttempted(1, 2, "ann", reason="looked at it")]
    play.undo(1)
    assert play.ending.undone is Undone.ALL


def test_a_person_skips_a_parked_undo_and_the_end_says_so() -> None:
    play = one_undone()
    play.undo(1, Outcome.FAILURE, "Gone")
    play.unpark(Override.SKIP, 1)
    assert play.of(ev.UndoSkipped) == [ev.UndoSkipped(1, "looked at it", "ann")]
    assert (play.ending.status, play.ending.undone) == (Status.COMPENSATED, Undone.PARTIAL)


def test_a_person_says_that_a_parked_undo_was_done_by_hand() -> None:
    play = one_undone()
    play.undo(1, Outcome.FAILURE, "Gone")
    play.unpark(Override.SET_RESULT)
    assert play.of(ev.UndoSucceeded) == [ev.UndoSucceeded(1, 1, "ann", "looked at it")]
    assert play.ending.undone is Undone.ALL


def test_a_parked_undo_holds_the_others_back() -> None:
    play = Play(InARow)
    play.start()
    for sequence in (1, 2, 3):
        play.do(sequence, "x")
    play.undo(3, Outcome.FAILURE, "Gone")
    assert play.undone == [3]
    play.unpark(Override.SKIP)
    assert play.undone == [3, 2]


def test_a_parked_undo_of_a_step_that_the_saga_went_on_from_holds_the_code() -> None:
    play = Play(Onward)
    play.start()
    play.again(1)
    play.undo(1, Outcome.FAILURE, "Gone")
    play.do(2, "x")
    assert play.status is Status.PARKED
    play.unpark(Override.SKIP)
    assert play.status is Status.COMPLETED


def test_an_error_of_the_undo_is_not_taken_for_the_steps_own_by_a_replay() -> None:
    class Reading(Shopping):
        async def run(self, _: None) -> None:
            try:
                await self.step(Shop.reserve(), undo=Shop.release, retry=Retry(maximum_attempts=1))
            except StepFailed as failed:
                await self.step(Shop.note(what=failed.error_type))
                await self.step(Shop.note(what=failed.error_type))

    play = Play(Reading)
    play.start()
    play.again(1, "Busy")
    play.undo(1, Outcome.RETRY, "Gone")
    play.crash()
    play.do(2)
    assert play.step(3).payload == b'{"what":"Busy"}'


def test_undoing_needs_no_code() -> None:
    play = Play(InARow)
    play.start()
    for sequence in (1, 2, 3):
        play.do(sequence, "x")
    play.lose_code()
    for sequence in (3, 2, 1):
        play.undo(sequence)
    assert play.ending.status is Status.COMPENSATED


def test_a_late_reply_to_a_do_changes_nothing_while_it_is_undone() -> None:
    play = one_undone()
    assert play.do(1, "B") == [ev.InputAbsorbed("Reply", "late: the step is UNDOING", 1, 1)]
    play.undo(1)
    assert play.undo(1) == [ev.InputAbsorbed("Reply", "the saga has ended", 1, 1)]


def test_a_late_reply_to_an_undo_changes_nothing_where_the_saga_goes_on() -> None:
    play = Play(Onward)
    play.start()
    play.again(1)
    play.undo(1)
    assert play.undo(1) == [ev.InputAbsorbed("Reply", "late: the step is UNDONE", 1, 1)]


def test_what_was_undone_already_counts_for_the_end() -> None:
    play = Play(Onward)
    play.start()
    play.again(1)
    play.refuse(2)
    assert play.status is Status.COMPENSATING, "it waits for the undo that is under way"
    play.undo(1)
    assert (play.ending.status, play.ending.undone) == (Status.COMPENSATED, Undone.ALL)


def test_an_undo_under_way_is_waited_for_by_what_came_before_its_step() -> None:
    class Twice(Shopping):
        async def run(self, _: None) -> None:
            await self.get("a")
            try:
                await self.step(Shop.reserve(), undo=Shop.release, retry=Retry(maximum_attempts=1))
            except StepFailed:
                raise Abort("Enough") from None

    play = Play(Twice)
    play.start()
    play.do(1, "x")
    play.again(2)
    assert play.undone == [2]
    play.undo(2)
    assert play.undone == [2, 1]


def test_an_undo_function_that_raises_parks_the_saga_and_keeps_the_success() -> None:
    class Careless(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.step(Shop.reserve(), undo=lambda reply: Shop.release(what=str(reply and reply.nothing)))

    play = Play(Careless)
    play.start()
    play.do(1, "A")
    assert play.step(1).status is StepStatus.DONE
    assert "the undo of step 1 raised AttributeError" in play.state.parked[0]
    play.cancel()
    play.undo(1)
    assert play.ending.undone is Undone.ALL


def test_an_undo_function_that_ignores_none_is_found_when_the_step_is_asked_for() -> None:
    class Careless(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.step(Shop.charge(), undo=lambda receipt: Shop.refund(receipt=receipt.number))

    play = Play(Careless)
    play.start()
    assert "the code raised AttributeError" in play.state.parked[0]
    assert play.sent == []


def test_an_undo_may_use_the_sagas_randomness_without_changing_it() -> None:
    class Tagged(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.step(Shop.reserve(), undo=lambda reply: Shop.release(what=str(self.random.random())))
            await self.step(Shop.note(what=str(self.uuid())))
            await self.step(Shop.note(what=str(self.uuid())))

    play = Play(Tagged)
    play.start()
    play.do(1, "A")
    play.do(2)
    numbers = [play.step(1).undo_payload, play.of(ev.StepScheduled)[0].undo_payload]
    assert numbers[0] == numbers[1]
    assert play.step(2).payload != play.step(3).payload


def test_the_pivot_is_the_point_of_no_return() -> None:
    class Pivoted(Shopping):
        async def run(self, _: None) -> None:
            await self.get("a")
            await self.step(Shop.note(), pivot=True)
            await self.sleep(60)

    play = Play(Pivoted)
    play.start()
    play.do(1, "x")
    play.do(2)
    play.cancel()
    assert (play.ending.status, play.ending.undone) == (Status.CANCELED, Undone.NONE)
    assert play.undone == []


def test_past_the_pivot_only_what_nobody_knows_is_undone() -> None:
    class Pivoted(Shopping):
        async def run(self, _: None) -> None:
            await self.get("a")
            await self.step(Shop.note(), pivot=True)
            await self.get("c")
            await self.get("d")

    play = Play(Pivoted)
    play.start()
    play.do(1, "x")
    play.do(2)
    play.do(3, "x")
    play.cancel()
    assert play.undone == [4]
    play.undo(4)
    assert (play.ending.status, play.ending.undone) == (Status.CANCELED, Undone.PARTIAL)
