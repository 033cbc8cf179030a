"""Local steps in the core: the attempts, times and undos of a step whose function the owner calls itself."""

from __future__ import annotations

import pytest

from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.definition import Context, Definition, StepRequest
from orchestrator.model.driver import Asked
from orchestrator.model.events import Status, StepKind
from orchestrator.model.messages import Outcome
from orchestrator.model.retries import RetryPolicy
from tests.unit.model.play import SAGA_ID, Play


def local(name: str, **more: object) -> StepRequest:
    return StepRequest("", name, b'["tea"]', kind=StepKind.LOCAL, **more)  # type: ignore[arg-type]


async def _alone(context: Context, payload: bytes) -> bytes:
    priced = await Asked(local("price", undo_command="forget", undo_payload=lambda result: result or b"null"))
    await Asked(StepRequest("payments", "charge", priced or b""))
    return b'"done"'


ALONE = Definition("Alone", _alone)


def calls(play: Play) -> list[tuple[str, str, int, bytes]]:
    return [(call.function, call.direction, call.attempt, call.payload) for call in play.calls]


def test_a_local_step_is_called_and_its_result_goes_on_to_the_code() -> None:
    play = Play(ALONE)
    play.start()
    assert calls(play) == [("price", "do", 1, b'["tea"]')]
    assert play.sent == []
    assert play.state.local == {1}
    play.do(1, 300)
    assert play.state.local == set()
    assert [(sent.name, sent.payload) for sent in play.sent] == [("charge", b"300")]
    play.do(2)
    assert play.status is Status.COMPLETED
    scheduled = play.of(ev.StepScheduled)[0]
    assert (scheduled.kind, scheduled.service, scheduled.partition) == (StepKind.LOCAL, "", -1)


def test_a_later_failure_calls_its_undo_with_the_result() -> None:
    play = Play(ALONE)
    play.start()
    play.do(1, 300)
    play.refuse(2)
    assert calls(play)[1:] == [("forget", "undo", 1, b"300")]
    assert play.state.local == {1}
    play.undo(1, Outcome.RETRY, "Busy")
    assert play.state.local == set()
    play.fire(1)
    assert calls(play)[2:] == [("forget", "undo", 2, b"300")]
    play.undo(1)
    assert play.status is Status.COMPENSATED


def test_between_two_attempts_nothing_is_called() -> None:
    play = Play(ALONE)
    play.start()
    play.again(1)
    assert play.state.local == set()
    play.fire(1)
    assert play.state.local == {1}
    assert calls(play)[1:] == [("price", "do", 2, b'["tea"]')]


def test_an_attempt_that_takes_too_long_is_another_attempts_turn() -> None:
    async def body(context: Context, payload: bytes) -> bytes:
        once = RetryPolicy(maximum_attempts=2)
        await Asked(local("price", start_to_close_ms=5_000, retry=once, undo_command="forget"))
        return b"null"

    play = Play(Definition("Timed", body))
    play.start()
    assert play.calls[0].deadline_ms == play.now_ms + 5_000
    play.fire(1)
    play.fire(1)
    assert [call.attempt for call in play.calls] == [1, 2]
    play.fire(1)
    assert [(call.function, call.direction) for call in play.calls[2:]] == [("forget", "undo")]
    play.undo(1)
    assert play.status is Status.COMPENSATED


def test_a_terminated_saga_has_nothing_to_call() -> None:
    play = Play(ALONE)
    play.start()
    play.terminate()
    assert play.state.local == set()


def test_a_cancel_lets_go_of_the_call_and_undoes_it() -> None:
    play = Play(ALONE)
    play.start()
    play.cancel()
    assert calls(play)[1:] == [("forget", "undo", 1, b"null")]
    play.do(1, 300)
    assert play.status is Status.COMPENSATING, "a late result is only recorded"
    play.undo(1)
    assert play.status is Status.CANCELED


def test_a_call_under_another_name_is_a_divergence() -> None:
    play = Play(ALONE)
    play.start()

    async def renamed(context: Context, payload: bytes) -> bytes:
        await Asked(local("cost"))
        return b"null"

    play.crash()
    play.definition, play.cold = Definition("Alone", renamed), False
    play.do(1, 300)
    assert "the history has local price, the code asks for local cost" in play.state.parked[0]


@pytest.mark.parametrize("attempt", [0, 2])
def test_an_attempt_that_was_never_made_is_rejected(attempt: int) -> None:
    play = Play(ALONE)
    play.start()
    reply = msg.Reply(SAGA_ID, play.state.run, 1, False, attempt, Outcome.SUCCESS, b"300")
    assert "was never issued" in play.rejected(lambda: play.take(reply))
