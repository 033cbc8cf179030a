"""A saga that begins later: until then it may be moved, told things and cancelled; and pauses until a point of time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from model.play import INBOX, SAGA_ID, Play
from model.shop import Shop
from model.shopping import Plain, started
from orchestrator.errors import DefinitionError
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.events import Status, Undone
from orchestrator.model.messages import Reply, ReplyAddress
from orchestrator.saga import Saga
from orchestrator.signals import signal

DAY_MS = 86_400_000


class Reminded(Saga[None, str], execution_timeout=60, run_timeout=30):
    told = signal(str)

    async def run(self, _: None) -> str:
        begun = self.now()
        what = await self.receive(self.told)
        await self.step(Shop.note(what=what))
        return begun.isoformat()


def delayed(saga: type[Saga[Any, Any]] = Plain, *, at_ms: int | None = None, after_ms: int | None = DAY_MS) -> Play:
    play = Play(saga)
    payload = b'"tea"' if saga is Plain else b"null"
    play.take(
        msg.Start(
            SAGA_ID, play.message_id(), saga.definition.name, payload, INBOX, begin_at_ms=at_ms, begin_after_ms=after_ms
        )
    )
    return play


def move(play: Play, *, at_ms: int | None = None, after_ms: int | None = None) -> list[ev.Event]:
    return play.take(msg.Reschedule(SAGA_ID, play.message_id(), at_ms, after_ms, None, "ann"))


@pytest.mark.parametrize("absolute", [True, False])
def test_a_delayed_saga_begins_when_its_time_has_come(absolute: bool) -> None:
    play = delayed(at_ms=1_000_000 + DAY_MS, after_ms=None) if absolute else delayed()
    assert (play.status, play.sent) == (Status.RUNNING, [])
    assert play.names == ["SagaStarted"]
    began = play.fire(0)
    assert play.now_ms == 1_000_000 + DAY_MS
    assert [type(event).__name__ for event in began] == ["SagaBegun", "StepScheduled"]
    assert [sent.name for sent in play.sent] == ["reserve"]


def test_a_time_that_is_over_is_now() -> None:
    play = delayed(at_ms=5, after_ms=None)
    assert [sent.name for sent in play.sent] == ["reserve"]
    assert play.of(ev.SagaStarted)[0].begin_ms is None


def test_its_time_limits_and_its_clock_count_from_the_beginning() -> None:
    play = delayed(Reminded)
    play.fire(0)
    assert play.state.due_of(0) == play.now_ms + 30_000
    assert play.state.execution_due_ms == play.now_ms + 60_000
    play.signal("told", "hello")
    play.do(1) if play.step(1).is_command else play.do(2)
    assert (
        play.ending.payload == b'"%s"' % datetime.fromtimestamp((1_000_000 + DAY_MS) / 1000, UTC).isoformat().encode()
    )


def test_a_run_has_its_time_and_so_have_all_runs_together() -> None:
    class Short(Saga[None, str], run_timeout=30):
        async def run(self, _: None) -> str:
            return await self.step(Shop.reserve(what="a"))

    class Long(Short, execution_timeout=20, run_timeout=30):
        pass

    for saga, after_ms, why in ((Short, 30_000, "the run's time is up"), (Long, 20_000, "the saga's time is up")):
        play = started(saga)
        play.fire(0)
        assert play.now_ms == 1_000_000 + after_ms
        assert (play.ending.status, play.ending.error_message) == (Status.TIMED_OUT, why)


def test_it_may_be_moved_until_it_has_begun() -> None:
    play = delayed()
    assert move(play, after_ms=5_000) == [ev.BeginMoved(play.now_ms + 5_000, "ann")]
    assert move(play, at_ms=play.now_ms + 7_000) == [ev.BeginMoved(play.now_ms + 7_000, "ann")]
    play.fire(0)
    assert play.now_ms == 1_007_000
    assert move(play, after_ms=5_000) == [ev.InputAbsorbed("Reschedule", "the saga has begun already")]
    assert play.state.due_of(0) is None


def test_moved_to_a_time_that_is_over_it_begins_at_once() -> None:
    play = delayed()
    move(play, at_ms=1)
    assert play.state.due_of(0) == play.now_ms
    play.fire(0)
    assert play.now_ms == 1_000_000
    assert play.sent


def test_it_is_cancelled_before_it_begins_without_its_code_being_asked() -> None:
    for play in (delayed(), delayed()):
        play.lose_code()
        play.cancel()
        assert (play.ending.status, play.ending.undone) == (Status.CANCELED, Undone.NONE)
        assert play.sent == []
        assert play.state.due_of(0) == play.ending.forget_at_ms
        assert move(play, after_ms=1) == [ev.InputAbsorbed("Reschedule", "the saga has ended")]
        assert [answer.status for answer in play.answers] == ["CANCELED"]


def test_what_it_is_told_before_it_begins_is_kept() -> None:
    play = delayed(Reminded)
    play.signal("told", "early")
    assert play.sent == []
    play.fire(0)
    assert [sent.payload for sent in play.sent] == [b'{"what":"early"}']


def test_who_starts_it_again_waits_with_the_first() -> None:
    play = delayed()
    other = ReplyAddress("saga.answers", 1, "c-2")
    play.start("tea", other)
    assert play.state.waiters == [INBOX, other]
    assert play.sent == []


def test_without_its_code_it_begins_once_the_code_is_there() -> None:
    play = delayed()
    play.lose_code()
    play.fire(0)
    assert play.status is Status.WAITING_FOR_CODE
    play.find_code()
    assert [sent.name for sent in play.sent] == ["reserve"]
    assert play.names[1:] == ["CodeMissing", "InputHeld", "CodeFound", "HeldInputTaken", "SagaBegun", "StepScheduled"]


def test_started_without_its_code_it_waits_for_its_time_all_the_same() -> None:
    play = Play(Plain, known=False)
    play.take(msg.Start(SAGA_ID, "m", "Plain", b'"tea"', begin_after_ms=DAY_MS))
    play.find_code()
    assert play.sent == []
    play.fire(0)
    assert [sent.name for sent in play.sent] == ["reserve"]


def test_a_reply_to_what_was_never_asked_is_refused() -> None:
    play = delayed()
    reply = Reply(SAGA_ID, play.state.run, 1, False, 1, msg.Outcome.SUCCESS)
    assert play.rejected(lambda: play.take(reply)) == "the saga has no step 1"


# -- pauses


def sleeping(when: datetime) -> Play:
    class Sleeping(Saga[None, str]):
        async def run(self, _: None) -> str:
            await self.sleep_until(when)
            return self.now().isoformat()

    return started(Sleeping)


def test_a_saga_sleeps_until_a_point_of_time_in_any_zone() -> None:
    play = sleeping(datetime(2030, 1, 31, 8, tzinfo=timezone(timedelta(hours=-5))))
    play.fire(1)
    assert play.ending.payload == b'"2030-01-31T13:00:00+00:00"'


def test_a_point_of_time_that_is_over_is_now() -> None:
    play = sleeping(datetime(1960, 1, 1, tzinfo=UTC))
    play.fire(1)
    assert play.now_ms == 1_000_000
    assert play.status is Status.COMPLETED


def test_a_point_of_time_needs_a_zone() -> None:
    play = sleeping(datetime(2030, 1, 1))
    assert play.status is Status.PARKED
    assert "has no time zone" in play.state.parked[0]


def test_pauses_may_be_of_months() -> None:
    class Patient(Saga[None, str]):
        async def run(self, _: None) -> str:
            await self.sleep(timedelta(days=365))
            return "done"

    play = started(Patient)
    play.fire(1)
    assert play.now_ms == 1_000_000 + 365 * DAY_MS
    assert play.status is Status.COMPLETED


def test_a_begin_that_is_no_time_is_refused() -> None:
    from orchestrator.client.requests import Begin, begin_of
    from orchestrator.errors import InvalidRequest

    assert begin_of(None, 1.5) == Begin(None, 1_500)
    assert begin_of(datetime(1970, 1, 2, tzinfo=UTC), None) == Begin(DAY_MS)
    for at, after in ((datetime(2030, 1, 1), None), (None, -1), (datetime(2030, 1, 1, tzinfo=UTC), 1)):
        with pytest.raises(InvalidRequest):
            begin_of(at, after)


def test_a_class_argument_is_checked() -> None:
    with pytest.raises(DefinitionError):

        class Wrong(Saga[None, str], run_timeout=-1):
            async def run(self, _: None) -> str:
                return ""


class Going(Saga[int, str], execution_timeout=60, run_timeout=30):
    async def run(self, left: int) -> str:
        await self.sleep(25)
        if left:
            self.continue_as_new(left - 1)
        return "done"


def test_a_saga_that_continues_keeps_its_time_and_gets_another_runs() -> None:
    play = started(Going, 5)
    play.fire(1)
    assert play.state.due_of(0) == play.now_ms + 30_000
    play.fire(1)
    assert play.state.due_of(0) == play.now_ms + 10_000
    play.fire(0)
    assert (play.status, play.state.error_message) == (Status.TIMED_OUT, "the saga's time is up")
    assert play.now_ms == 1_060_000


@pytest.mark.parametrize("how", ["reset", "cancelled and redriven", "cancelled and restarted"])
def test_another_run_of_what_has_not_begun_keeps_its_time(how: str) -> None:
    play = delayed()
    move(play, at_ms=1_000_000 + 2 * DAY_MS)
    first = play.state.run
    if how == "reset":
        play.reset(1)
    else:
        play.cancel()
        assert play.status is Status.CANCELED
        if how == "cancelled and redriven":
            play.redrive()
        else:
            play.restart()
    assert play.state.run != first
    assert (play.status, play.sent, play.state.due_of(0)) == (Status.RUNNING, [], 1_000_000 + 2 * DAY_MS)
    play.fire(0)
    assert [sent.name for sent in play.sent] == ["reserve"]


def test_what_has_begun_or_should_have_is_run_again_at_once() -> None:
    play = delayed()
    play.fire(0)
    play.reset(1)
    play.undo(1)
    assert [sent.name for sent in play.sent] == ["reserve", "release", "reserve"]
    play = delayed()
    play.cancel()
    play.now_ms += DAY_MS
    play.redrive()
    assert [sent.name for sent in play.sent] == ["reserve"]


def test_a_fork_of_what_has_not_begun_begins_when_that_does() -> None:
    play = delayed()
    play.take(msg.Fork(SAGA_ID, "f-1", 1, "order-8"))
    (start,) = [event.input for event in play.of(ev.InputSent)]
    forked = Play(Plain)
    forked.take(replace(start, saga_id=SAGA_ID))
    assert (forked.sent, forked.state.due_of(0)) == ([], 1_000_000 + DAY_MS)
    forked.fire(0)
    assert [sent.name for sent in forked.sent] == ["reserve"]


def test_an_id_that_is_used_again_may_be_delayed_too() -> None:
    play = started(Plain, "tea")
    play.refuse(1)
    start = msg.Start(SAGA_ID, "m-9", "Plain", b'"mate"', reuse=msg.Reuse.ALLOW_DUPLICATE, begin_after_ms=DAY_MS)
    play.take(start)
    assert len(play.sent) == 1
    assert play.state.due_of(0) == play.now_ms + DAY_MS
    play.fire(0)
    assert [sent.payload for sent in play.sent] == [b'{"what":"tea"}', b'{"what":"mate"}']
