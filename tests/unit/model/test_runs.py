"""Several runs of one saga id: continuing as new, and starting an id again."""

from __future__ import annotations

import pytest

from model.play import INBOX, SAGA_ID, Play
from model.shop import Shop
from model.shopping import Two, started
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.effects import effects
from orchestrator.model.events import Following, Status
from orchestrator.model.ids import idempotency_key
from orchestrator.model.messages import Conflict, Outcome, ReplyAddress, Reuse
from orchestrator.saga import Saga
from orchestrator.signals import signal
from orchestrator.store import keys

OTHER = ReplyAddress("saga.answers", 0, "c-2")


class Monthly(Saga[int, str]):
    told = signal(str)

    async def run(self, month: int) -> str:
        await self.step(Shop.reserve(what=f"month {month}"), undo=Shop.release)
        if month < 3:
            self.continue_as_new(month + 1)
        return await self.receive(Monthly.told)


def monthly(value: int = 1) -> Play:
    play = Play(Monthly)
    play.start(value, INBOX)
    return play


# -- continue as new


def test_the_next_run_starts_with_its_input_and_new_keys() -> None:
    play = monthly()
    first = play.state.run
    play.do(1, "x")
    assert [type(event).__name__ for event in play.decisions[-2]] == ["StepSucceeded", "SagaEnded", "RunFollows"]
    assert play.decisions[-1][0] == ev.SagaStarted(
        "Monthly", b"2", "m-1", None, None, None, first, following=Following.CONTINUED
    )
    assert play.state.run != first
    assert [sent.payload for sent in play.sent] == [b'{"what":"month 1"}', b'{"what":"month 2"}']
    assert idempotency_key(SAGA_ID, first, 1, "do") != idempotency_key(SAGA_ID, play.state.run, 1, "do")


def test_who_waits_gets_the_last_runs_result() -> None:
    play = monthly(2)
    play.do(1, "x")
    play.do(1, "y")
    assert play.answers == []
    play.signal("told", "done")
    (answer,) = play.answers
    assert (answer.status, answer.payload, answer.reply_to) == ("COMPLETED", b'"done"', INBOX)


def test_signals_nobody_asked_for_come_to_the_next_run() -> None:
    play = monthly(2)
    play.signal("told", "early")
    play.do(1, "x")
    assert play.state.signals == [("told", b'"early"')]
    play.do(1, "y")
    assert play.answers[0].payload == b'"early"'


def test_the_store_forgets_the_steps_and_timers_of_the_run_before() -> None:
    class Shrinking(Saga[int, None], execution_timeout=60):
        async def run(self, steps: int) -> None:
            for _ in range(steps):
                await self.step(Shop.reserve(), start_to_close=5)
            self.continue_as_new(1)

    play = Play(Shrinking)
    play.start(3)
    for sequence in (1, 2, 3):
        play.do(sequence, "x")
    assert [key for key, _ in play.store.scan(keys.steps(SAGA_ID))] == [keys.step(SAGA_ID, 1)]
    assert play.state.sequence == 1


def test_what_a_run_left_unknown_is_undone_before_the_next_one() -> None:
    class Trying(Saga[int, None]):
        async def run(self, left: int) -> None:
            try:
                await self.step(Shop.reserve(), undo=Shop.release, schedule_to_close=5)
            except Exception:
                self.continue_as_new(left)

    play = Play(Trying)
    play.start(1)
    first = play.state.run
    play.fire(1)
    assert (play.undone, play.state.run) == ([1], first)
    play.undo(1)
    assert play.state.run != first


def test_a_run_that_waited_for_nothing_does_not_go_round_in_circles() -> None:
    class Spinning(Saga[None, None]):
        async def run(self, _: None) -> None:
            self.continue_as_new(None)

    play = started(Spinning)
    assert play.status is Status.PARKED
    assert "without having waited for anything" in play.state.parked[0]


def test_an_input_for_the_next_run_that_is_too_large_parks_the_saga() -> None:
    class Growing(Saga[str, None]):
        async def run(self, text: str) -> None:
            await self.step(Shop.reserve(), undo=Shop.release)
            self.continue_as_new("x" * 300_000)

    play = Play(Growing)
    play.start("")
    play.do(1, "x")
    assert "pass a reference" in play.state.parked[0]


def test_a_cancellation_wins_over_continuing() -> None:
    class Stubborn(Saga[None, None]):
        async def run(self, _: None) -> None:
            try:
                await self.step(Shop.reserve(), undo=Shop.release)
            finally:
                self.continue_as_new(None)

    play = started(Stubborn)
    play.cancel()
    play.undo(1)
    assert play.status is Status.CANCELED
    assert "RunFollows" not in play.names


def test_the_next_run_waits_for_code_if_the_owner_lost_it_in_between() -> None:
    play = monthly()
    first = play.state.run
    play._decide(msg.Reply(SAGA_ID, first, 1, False, 1, Outcome.SUCCESS, b'"x"'))
    play.lose_code()
    play.take(msg.Continue(SAGA_ID, first))
    assert play.status is Status.WAITING_FOR_CODE
    play.find_code()
    assert play.status is Status.RUNNING
    assert play.state.run != first


def test_a_late_reply_for_the_run_before_is_absorbed_and_one_for_another_is_not() -> None:
    play = monthly()
    first = play.state.run
    play.do(1, "x")
    (event,) = play.take(msg.Reply(SAGA_ID, first, 1, False, 1, Outcome.SUCCESS, b'"x"'))
    assert isinstance(event, ev.InputAbsorbed)
    stranger = msg.Reply(SAGA_ID, "9-9-9", 1, False, 1, Outcome.SUCCESS)
    assert "it is for run 9-9-9" in play.rejected(lambda: play.take(stranger))


def test_a_long_history_suggests_a_new_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator import saga

    monkeypatch.setattr(saga, "SUGGEST_AFTER_OUTCOMES", 3)

    class Counting(Saga[None, int]):
        async def run(self, _: None) -> int:
            count = 0
            while not self.suggests_continue_as_new:
                await self.step(Shop.reserve())
                count += 1
            return count

    play = started(Counting)
    for sequence in (1, 2, 3):
        play.do(sequence, "x")
    assert play.ending.payload == b"3"


# -- starting an id again


def ended(how: str) -> Play:
    play = started(Two)
    if how == "completed":
        play.do(1, "x")
        play.do(2, "y")
    elif how == "failed":
        play.refuse(1)
    assert play.state.ended == (how != "running")
    return play


STARTS_ANEW = {
    "completed": {Reuse.ALLOW_DUPLICATE, Reuse.TERMINATE_IF_RUNNING},
    "failed": {Reuse.ALLOW_DUPLICATE, Reuse.ALLOW_DUPLICATE_FAILED_ONLY, Reuse.TERMINATE_IF_RUNNING},
    "running": {Reuse.TERMINATE_IF_RUNNING},
}


@pytest.mark.parametrize("reuse", [None, *Reuse])
@pytest.mark.parametrize("how", STARTS_ANEW)
def test_a_start_may_use_an_id_again_as_its_policy_says(how: str, reuse: Reuse | None) -> None:
    play = ended(how)
    first = play.state.run
    play.start(None, OTHER, reuse=reuse)
    if reuse in STARTS_ANEW[how]:
        assert play.state.run != first
        assert play.state.previous_run == first
        assert (play.status, play.state.waiters) == (Status.RUNNING, [OTHER])
        assert play.of(ev.RunFollows) == [ev.RunFollows(Following.REUSED, b"null", play.state.started_by, OTHER)]
    elif reuse is not None and how != "running":
        assert play.answers[-1].error_type == "AlreadyExists"
        assert play.state.run == first
    else:
        assert play.state.run == first
        assert (OTHER in play.state.waiters) or play.answers[-1].reply_to == OTHER


@pytest.mark.parametrize("conflict", Conflict)
def test_a_start_meets_a_running_saga_as_its_policy_says(conflict: Conflict) -> None:
    play = ended("running")
    first = play.state.run
    play.start(None, OTHER, conflict=conflict)
    if conflict is Conflict.TERMINATE_EXISTING:
        assert play.state.previous_run == first
        assert Status.TERMINATED in [event.status for event in play.of(ev.SagaEnded)]
    elif conflict is Conflict.FAIL:
        assert play.answers[-1].error_type == "AlreadyExists"
    else:
        assert OTHER in play.state.waiters


def test_an_input_that_does_not_fit_ends_nothing() -> None:
    class Named(Saga[str, None]):
        async def run(self, name: str) -> None:
            await self.step(Shop.reserve(), undo=Shop.release)

    play = Play(Named)
    play.start("a")
    reason = play.rejected(lambda: play.start(3, conflict=Conflict.TERMINATE_EXISTING))
    assert "does not fit Named" in reason
    assert play.status is Status.RUNNING


def test_effects_of_a_former_run_are_not_made_from_the_present_ones_state() -> None:
    play = ended("completed")
    old = [event for event in play.journal if isinstance(event, ev.StepScheduled)]
    play.start(None, reuse=Reuse.ALLOW_DUPLICATE)
    assert old
    assert effects(old[1], SAGA_ID, None) == ()


def test_the_next_run_is_made_by_the_owner_after_a_crash_too() -> None:
    play = ended("completed")
    run = play.state.run
    play._decide(msg.Start(SAGA_ID, "again", play.definition.name, b"null", reuse=Reuse.ALLOW_DUPLICATE))
    play.crash()
    assert play.state.due_of(0) == 0
    assert isinstance(play.take(msg.TimerDue(SAGA_ID, run, 0, 0))[0], ev.SagaStarted)
