"""A decision stays small enough for one journal record: what does not fit follows in decisions of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from model.play import SAGA_ID, Play
from model.shop import Shop
from orchestrator.errors import Abort, StepFailed
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.budget import MAX_BYTES, MAX_EFFECTS, MAX_EVENTS
from orchestrator.model.definition import Definition, StepRequest
from orchestrator.model.driver import Asked
from orchestrator.model.events import Status
from orchestrator.model.messages import Override
from orchestrator.saga import Retry, Saga

HALF = MAX_BYTES // 2


class Wide(Saga[int, int]):
    async def run(self, width: int) -> int:
        await self.gather(*[self.step(Shop.reserve(what=str(n)), undo=Shop.release) for n in range(width)])
        raise Abort("Enough")


def effects_of(decision: tuple[ev.Event, ...]) -> int:
    return sum(isinstance(event, ev.StepScheduled | ev.UndoScheduled) for event in decision)


def test_a_fan_out_of_a_thousand_is_scheduled_in_parts_of_two_hundred() -> None:
    play = Play(Wide)
    play.start(1_000)
    assert [effects_of(decision) for decision in play.decisions] == [MAX_EFFECTS] * 5
    assert [type(decision[-1]).__name__ for decision in play.decisions] == ["ContinueDue"] * 4 + ["StepScheduled"]
    assert [type(decision[0]).__name__ for decision in play.decisions[1:]] == ["Continued"] * 4
    assert [sent.sequence for sent in play.sent] == list(range(1, 1_001))
    assert {event.after for event in play.of(ev.StepScheduled)} == {0}, "they are parallel all the same"


def test_a_fan_out_is_undone_in_parts_too() -> None:
    play = Play(Wide, checked=False)
    play.start(450)
    for sequence in range(1, 451):
        play.do(sequence, "x")
    assert [effects_of(decision) for decision in play.decisions[-3:]] == [200, 200, 50]
    assert play.undone == list(range(450, 0, -1))


def test_what_is_left_of_a_decision_is_due_at_once_and_before_anything_else() -> None:
    play = Play(Wide)
    play._decide(msg.Start(SAGA_ID, "m", "Wide", b"201"))
    assert play.state.continue_due
    assert play.state.due_of(0) == 0
    play.take(msg.TimerDue(SAGA_ID, play.state.run, 0, 0))
    assert not play.state.continue_due
    assert len(play.sent) == 201


def test_going_on_where_nothing_is_left_changes_nothing() -> None:
    play = Play(Wide)
    play.start(3)
    assert play.take(msg.Continue(SAGA_ID, play.state.run)) == []


def test_the_rest_of_a_decision_waits_for_code_that_is_missing() -> None:
    play = Play(Wide)
    play._decide(msg.Start(SAGA_ID, "m", "Wide", b"201"))
    play.lose_code()
    play.take(msg.Continue(SAGA_ID, play.state.run))
    assert play.status is Status.WAITING_FOR_CODE
    play.find_code()
    assert len(play.sent) == 201


def test_a_group_that_is_cancelled_while_it_is_being_scheduled_is_let_go_of() -> None:
    play = Play(Wide)
    play._decide(msg.Start(SAGA_ID, "m", "Wide", b"450"))
    play._decide(msg.Cancel(SAGA_ID, "c"))
    while play.state.continue_due:
        play._decide(msg.Continue(SAGA_ID, play.state.run))
    assert play.status is Status.COMPENSATING
    assert not play.state.open


@pytest.mark.parametrize("way", ["cancelled", "failed", "cancelled without code"])
def test_thousands_of_open_steps_are_let_go_of_in_parts(way: str) -> None:
    wide = MAX_EVENTS + 500

    class Sleepers(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.gather(self.step(Shop.note()), *[self.sleep(60) for _ in range(wide)])

    play = Play(Sleepers, cold=False)
    play.start()
    if way == "cancelled without code":
        play.crash()
        play.definition = Wide.definition
        play.do(1)
    if way == "failed":
        play.refuse(1)
    else:
        play.cancel()
    assert play.names.count("WaitCanceled") == wide
    assert max(len(decision) for decision in play.decisions) <= MAX_EVENTS + 5
    assert play.state.ended


def test_a_parked_step_does_not_hold_back_the_rest_of_a_cancellation() -> None:
    class Cleaning(Saga[None, None]):
        async def run(self, _: None) -> None:
            try:
                await self.step(Shop.reserve(), retry=Retry(maximum_attempts=1, exhausted="park"))
            finally:
                await self.gather(*[self.step(Shop.note()) for _ in range(MAX_EFFECTS + 50)])

    play = Play(Cleaning)
    play.start()
    play.again(1)
    play.cancel()
    assert play.state.parked == {}
    assert len(play.state.open) == MAX_EFFECTS + 50


@pytest.mark.parametrize("size", [HALF - 100, HALF + 100])
def test_payloads_share_a_decision_as_far_as_they_fit(size: int) -> None:
    class Heavy(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.gather(*[self.step(Shop.note(what="x" * size)) for _ in range(4)])

    play = Play(Heavy)
    play.start()
    expected = [2, 2] if size < HALF else [1, 1, 1, 1]
    assert [effects_of(decision) for decision in play.decisions] == expected


def test_the_undo_counts_as_much_as_the_step() -> None:
    class Heavy(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.gather(*[self.step(Shop.note(), undo=Shop.release(what="x" * (HALF + 100))) for _ in range(3)])

    play = Play(Heavy)
    play.start()
    assert [effects_of(decision) for decision in play.decisions] == [1, 1, 1]


def test_a_large_reply_leaves_the_next_step_to_the_next_decision() -> None:
    class Echo(Saga[None, None]):
        async def run(self, _: None) -> None:
            what = await self.step(
                Shop.reserve(), undo=lambda reply: Shop.release(what="x" * len(reply)) if reply else Shop.release()
            )
            await self.step(Shop.note(what=what))

    play = Play(Echo)
    play.start()
    play.do(1, "x" * (MAX_BYTES - 100))
    assert [len(decision) for decision in play.decisions] == [2, 2, 2]
    assert len(play.sent) == 2


def test_a_large_result_follows_in_a_decision_of_its_own() -> None:
    class Echo(Saga[None, str]):
        async def run(self, _: None) -> str:
            return await self.step(Shop.reserve())

    play = Play(Echo)
    play.start()
    play.do(1, "x" * (MAX_BYTES - 100))
    assert play.names == ["SagaStarted", "StepScheduled", "StepSucceeded", "ContinueDue", "Continued", "SagaEnded"]


def asks(payload: bytes = b"", undo: bytes | Callable[[bytes | None], bytes] | None = None) -> Definition:
    async def body(context: object, start: bytes) -> bytes:
        request = StepRequest("shop", "note", payload, None if undo is None else "release", undo)
        await Asked(request)
        return b"x" * (MAX_BYTES + 1)

    return Definition("Large", body)


@pytest.mark.parametrize(
    ("definition", "reason"),
    [
        (asks(b"x" * (MAX_BYTES + 1)), "a step's payload is too large: shop.note: 262145 bytes, at most 262144"),
        (asks(b"x", b"x" * MAX_BYTES), "a step's payload is too large: shop.note: 262145 bytes, at most 262144"),
    ],
)
def test_a_step_that_fits_no_record_parks_the_saga(definition: Definition, reason: str) -> None:
    play = Play(definition)
    play.start()
    assert play.state.parked == {0: f"{reason}; pass a reference"}
    assert play.sent == []


def test_a_result_that_fits_no_record_parks_the_saga() -> None:
    play = Play(asks())
    play.start()
    play.do(1)
    assert play.state.parked[0].startswith("the saga's result is too large: 262145 bytes")


def test_an_undo_that_fits_no_record_parks_the_saga_and_keeps_the_one_for_an_unknown_outcome() -> None:
    play = Play(asks(b"", lambda reply: b"short" if reply is None else b"x" * (MAX_BYTES + 1)))
    play.start()
    play.do(1)
    assert play.state.parked[0].startswith("an undo's payload is too large: step 1: 262145 bytes")
    assert play.step(1).undo_payload == b"short"


def test_a_result_that_a_person_sets_must_fit_a_record() -> None:
    class Parking(Saga[None, str]):
        async def run(self, _: None) -> str:
            return await self.step(Shop.reserve(), retry=Retry(maximum_attempts=1, exhausted="park"))

    play = Play(Parking)
    play.start()
    play.again(1)
    large = b"x" * (MAX_BYTES + 1)
    assert "262145 bytes" in play.rejected(lambda: play.unpark(Override.SET_RESULT, 1, large))


def test_held_inputs_are_taken_in_parts_and_in_their_order() -> None:
    class Several(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.gather(*[self.step(Shop.reserve()) for _ in range(5)])

    play = Play(Several)
    play.start()
    play.lose_code()
    for sequence in (3, 1, 5, 2, 4):
        play.do(sequence, "x" * HALF)
    before = len(play.decisions)
    play.find_code()
    assert len(play.decisions) - before >= 5
    assert play.state.mailbox == []
    assert [event.sequence for event in play.of(ev.StepSucceeded)] == [3, 1, 5, 2, 4]
    assert play.status is Status.COMPLETED


def test_what_is_left_of_a_decision_comes_before_the_next_held_input() -> None:
    class Following(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.gather(self.one(), self.step(Shop.reserve(what="b")))

        async def one(self) -> None:
            what = await self.step(Shop.reserve(what="a"))
            await self.step(Shop.note(what=what))

    play = Play(Following)
    play.start()
    play.lose_code()
    play.do(1, "x" * (MAX_BYTES - 100))
    play.do(2, "x")
    play.find_code()
    assert [event.sequence for event in play.of(ev.StepSucceeded)] == [1, 2]
    assert play.names.index("ContinueDue") < play.names.index("StepSucceeded", play.names.index("StepSucceeded") + 1)


def test_the_undos_of_many_unknown_steps_are_issued_in_parts() -> None:
    class Unsure(Saga[None, None]):
        async def run(self, _: None) -> None:
            try:
                await self.gather(
                    self.step(Shop.note()),
                    *[self.step(Shop.reserve(), undo=Shop.release) for _ in range(MAX_EFFECTS + 100)],
                )
            except StepFailed:
                await self.step(Shop.note(what="went on"))

    play = Play(Unsure, cold=False)
    play.start()
    play.refuse(1)
    assert play.status is Status.RUNNING
    assert len(play.state.undo_open) == MAX_EFFECTS + 100
    assert play.sent[-1].undo
