"""How long an attempt may take until it begins, between two heartbeats, until it ends; and what heartbeats leave."""

from __future__ import annotations

from typing import Any

import pytest

from model.play import Play
from model.shop import Shop
from model.shopping import started
from orchestrator.errors import StepFailed
from orchestrator.model import events as ev
from orchestrator.model.effects import Command, effects
from orchestrator.model.events import Status
from orchestrator.model.messages import Outcome
from orchestrator.model.state import StepStatus
from orchestrator.retry import Retry
from orchestrator.saga import Saga


def timed(**options: Any) -> Play:
    class Timed(Saga[None, str]):
        async def run(self, _: None) -> str:
            try:
                return await self.step(Shop.reserve(what="tea"), **options)
            except StepFailed as failed:
                return f"{failed.error_type} unknown={failed.unknown}"

    return started(Timed)


def beat(play: Play, payload: bytes = b"", attempt: int | None = None, *, undo: bool = False) -> list[ev.Event]:
    return play.reply(1, Outcome.HEARTBEAT, payload=payload, attempt=attempt, undo=undo)


def due_in_ms(play: Play) -> int | None:
    due_ms = play.state.due_of(1)
    return None if due_ms is None else due_ms - play.now_ms


def command(play: Play) -> Command:
    event = [event for event in play.journal if isinstance(event, ev.StepScheduled | ev.StepAttempted)][-1]
    (effect,) = effects(event, "order-7", play.state)
    assert isinstance(effect, Command)
    return effect


def test_an_attempt_that_nobody_begins_in_time_is_the_last_one() -> None:
    play = timed(schedule_to_start=5)
    assert due_in_ms(play) == 5_000
    play.fire(1)
    assert play.ending.payload == b'"ScheduleToStartTimeout unknown=True"'
    assert play.of(ev.StepEndedUnknown)[0].error_message == "nobody has begun attempt 1 within 5000 ms"


def test_an_attempt_that_somebody_has_begun_has_its_own_time() -> None:
    play = timed(schedule_to_start=5, start_to_close=60)
    play.now_ms += 4_000
    beat(play)
    assert due_in_ms(play) == 60_000
    play.now_ms += 30_000
    beat(play)
    assert due_in_ms(play) == 30_000
    play.fire(1)
    assert play.step(1).status is StepStatus.BACKING_OFF
    assert play.step(1).error_type == "Timeout"


def test_without_further_limits_what_has_begun_takes_as_long_as_it_takes() -> None:
    play = timed(schedule_to_start=5)
    beat(play)
    assert due_in_ms(play) is None
    play.do(1, "A")
    assert play.status is Status.COMPLETED


def test_an_attempt_that_falls_silent_is_tried_again() -> None:
    play = timed(heartbeat=10, schedule_to_close=100)
    assert due_in_ms(play) == 100_000
    play.now_ms += 50_000
    beat(play)
    assert due_in_ms(play) == 10_000
    play.now_ms += 9_000
    beat(play)
    assert due_in_ms(play) == 10_000
    play.fire(1)
    assert play.of(ev.StepBackedOff)[0].error_type == "HeartbeatTimeout"
    play.fire(1)
    assert (play.step(1).attempt, play.step(1).started_ms) == (2, 0)
    assert due_in_ms(play) == 100_000 - 70_000  # nothing was heard of the second attempt yet


def test_the_whole_steps_time_counts_before_a_heartbeats() -> None:
    play = timed(heartbeat=10, schedule_to_close=15)
    play.now_ms += 9_000
    beat(play)
    assert due_in_ms(play) == 6_000
    play.fire(1)
    assert play.ending.payload == b'"Timeout unknown=True"'


def test_a_retry_takes_the_last_details_along() -> None:
    play = timed(heartbeat=10)
    assert (command(play).heartbeat_ms, command(play).details) == (10_000, b"")
    beat(play, b'{"row":5}')
    beat(play, b'{"row":9}')
    beat(play)  # says that it is alive, and no more
    play.again(1)
    play.fire(1)
    assert (command(play).attempt, command(play).details) == (2, b'{"row":9}')


@pytest.mark.parametrize(("options", "asked"), [({}, None), ({"schedule_to_start": 1}, 0), ({"heartbeat": 2}, 2_000)])
def test_a_command_asks_for_what_its_step_needs_to_hear(options: dict[str, float], asked: int | None) -> None:
    assert command(timed(**options)).heartbeat_ms == asked


def test_a_heartbeat_that_comes_too_late_changes_nothing() -> None:
    play = timed(heartbeat=10, retry=Retry(maximum_attempts=2))
    play.again(1)
    assert beat(play) == []
    play.fire(1)
    assert beat(play, attempt=1) == []
    assert beat(play, attempt=2) != []
    play.do(1, "A")
    assert beat(play) == []
    assert play.state.ended


def test_a_heartbeat_of_an_undo_changes_nothing() -> None:
    class Undoing(Saga[None, str]):
        async def run(self, _: None) -> str:
            await self.step(Shop.reserve(what="a"), undo=Shop.release, heartbeat=5)
            return await self.step(Shop.ship(what="a"))

    play = started(Undoing)
    play.do(1, "A")
    play.refuse(2)
    assert beat(play, undo=True) == []


def test_a_heartbeat_needs_no_code() -> None:
    play = timed(heartbeat=10)
    play.lose_code()
    assert beat(play, b'"half"') == [ev.HeartbeatReceived(1, 1, b'"half"')]
    assert play.status is Status.RUNNING


def test_a_pivot_that_nobody_begins_waits_for_a_person() -> None:
    class Pivoted(Saga[None, str]):
        async def run(self, _: None) -> str:
            return await self.step(Shop.ship(what="tea"), pivot=True, schedule_to_start=5)

    play = started(Pivoted)
    play.fire(1)
    assert play.status is Status.PARKED
    play.retry(1)
    beat(play)
    play.do(1, "gone")
    assert play.ending.payload == b'"gone"'
