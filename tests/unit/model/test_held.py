"""Steps whose service's circuit is open: no attempt is sent nor counted, and their time goes on."""

from __future__ import annotations

from model.play import Play
from model.shop import Shop
from model.shopping import Careful, Plain, started
from orchestrator.model import events as ev
from orchestrator.model.events import Status
from orchestrator.model.state import StepStatus
from orchestrator.retry import Retry
from orchestrator.saga import Saga


def cut_off(saga: type[Saga[None, str]] | type[Saga[str, str]] = Careful, value: object = None) -> Play:
    play = Play(saga)
    play.open_circuits = frozenset({"shop"})
    play.start(value)
    return play


def test_a_step_is_held_in_the_decision_that_schedules_it() -> None:
    play = cut_off()
    assert play.names == ["SagaStarted", "StepScheduled", "StepHeld"]
    assert (play.sent, play.step(1).attempt, play.status) == ([], 0, Status.RUNNING)
    assert play.state.due_of(1) == play.now_ms


def test_one_that_was_held_is_let_through_as_a_probe() -> None:
    play = cut_off()
    play.fire(1)
    assert [(sent.name, sent.attempt) for sent in play.sent] == [("reserve", 1)]
    assert not play.step(1).held


def test_a_probe_that_fails_is_held_again_once_its_pause_is_over() -> None:
    play = cut_off()
    play.fire(1)
    play.again(1)
    assert play.fire(1) == [ev.StepHeld(1)]
    assert play.fire(1) == [ev.StepAttempted(1, 2)]
    play.open_circuits = frozenset()
    play.again(1)
    assert play.fire(1) == [ev.StepAttempted(1, 3)]


def test_the_steps_time_goes_on_while_it_is_held() -> None:
    play = cut_off()
    play.now_ms += 60_000
    play.fire(1)
    assert play.of(ev.StepEndedUnknown)[0].error_type == "CircuitOpen"


def test_a_late_answer_counts_while_the_next_attempt_is_held() -> None:
    play = started(Careful)
    play.open_circuits = frozenset({"shop"})
    play.again(1)
    play.fire(1)
    assert play.step(1).held
    play.do(1, "A")
    assert play.step(1).status is StepStatus.DONE


def test_an_undo_is_held_and_let_through_likewise() -> None:
    play = started(Plain, "tea")
    play.do(1, "A")
    play.open_circuits = frozenset({"shop"})
    play.refuse(2)
    assert play.names[-2:] == ["UndoScheduled", "UndoHeld"]
    assert (play.step(1).status, play.step(1).undo_attempt) == (StepStatus.UNDO_BACKING_OFF, 0)
    assert play.fire(1) == [ev.UndoAttempted(1, 1)]
    play.undo(1)
    assert play.ending.status is Status.COMPENSATED


def test_no_attempt_is_burnt_while_it_is_held() -> None:
    class Once(Saga[None, str]):
        async def run(self, _: None) -> str:
            return await self.step(Shop.reserve(what="tea"), retry=Retry(maximum_attempts=1))

    play = cut_off(Once)
    play.open_circuits = frozenset()
    play.fire(1)
    play.do(1, "A")
    assert play.ending.payload == b'"A"'
