"""A schedule's life: what it starts when, overlaps, outages, failures, and what people ask of it. Time skips."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator import Saga, Status, UpdateRejected
from orchestrator.baggage import read_baggage
from orchestrator.model import messages as msg
from orchestrator.model.events import InputSent, Recorded
from orchestrator.model.messages import ParentClose
from orchestrator.schedules import times
from orchestrator.schedules.saga import ScheduleSaga
from orchestrator.schedules.schedule import MAX_WAITING, Overlap, Schedule, ScheduleDescription, ScheduleState
from orchestrator.schedules.times import Calendar, Interval, ScheduleSpec
from orchestrator.testing import Running, SagaTest
from orchestrator.testing.services import ChildEnding
from orchestrator.wire.notes import read_note

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MINUTELY = ScheduleSpec(crons=("* * * * *",))


class Report(Saga[str, str]):
    async def run(self, what: str) -> str:
        return what


def begin(
    spec: ScheduleSpec = MINUTELY,
    *,
    takes: float = 0,
    fails: bool = False,
    now: datetime = NOON,
    paused: bool = False,
    **options: Any,
) -> Running[None]:
    schedule = Schedule(saga_type="Report", input="sales", spec=spec, **options)
    kit = SagaTest(ScheduleSaga).child(Report, "done", takes=takes)
    if fails:
        kit = kit.child_fails(Report, "NoData", "no sales", takes=takes)
    return kit.start(ScheduleState(schedule=schedule, paused=paused), id="schedule:report", now=now)


def starts(running: Running[None]) -> list[msg.Start]:
    sent = [event.input for event in running.journal if isinstance(event, InputSent)]
    return [each for each in sent if isinstance(each, msg.Start)]


def started(running: Running[None]) -> list[str]:
    """The times of what was started, without the day."""
    return [start.saga_id.partition("T")[2] for start in starts(running)]


def told(running: Running[None]) -> ScheduleDescription:
    return running.query(ScheduleSaga.describe)


def ends(running: Running[None]) -> list[str]:
    return [run.outcome for run in told(running).recent]


def test_it_starts_a_saga_at_each_time() -> None:
    schedule = begin(memo={"for": "the board"}, summary="monthly").advance(150)
    first, second = starts(schedule)
    assert (first.saga_id, second.saga_id) == ("report-2026-03-01T12:01:00Z", "report-2026-03-01T12:02:00Z")
    assert (first.saga_type, first.payload) == ("Report", b'"sales"')
    assert first.parent is not None
    assert first.parent.close is ParentClose.ABANDON
    assert read_baggage(first.baggage) == {"scheduled-at": "2026-03-01T12:01:00Z"}
    note = read_note(first.note)
    assert (note.attributes["schedule"], note.memo, note.summary) == (
        ("Keyword", "report"),
        {"for": "the board"},
        "monthly",
    )
    described = told(schedule)
    assert (described.counts.started, ends(schedule)) == (2, ["completed", "completed"])
    assert described.next_times[:2] == [NOON + timedelta(minutes=3), NOON + timedelta(minutes=4)]


def test_it_ends_when_no_time_is_left_and_nothing_is_under_way() -> None:
    spec = ScheduleSpec(crons=("* * * * *",), end=NOON + timedelta(minutes=2))
    end = begin(spec, takes=90, overlap=Overlap.ALLOW_ALL).finish()
    assert (end.status, end.elapsed) == (Status.COMPLETED, 210.0)
    assert begin(ScheduleSpec()).finish().status is Status.COMPLETED


def test_it_does_not_end_where_too_much_is_excluded_to_see_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(times, "MAX_STRETCHES", 10)
    odd = "1-59/2"
    schedule = begin(ScheduleSpec(crons=(f"{odd} * * * *",), exclude=(Calendar(hour="12", minute=odd),)))
    assert told(schedule).next_times == []
    assert started(schedule.advance(3600 + 240)) == ["13:01:00Z", "13:03:00Z"]
    with pytest.raises(UpdateRejected, match="exclude whole hours or days"):
        schedule.update(ScheduleSaga.backfill, NOON, NOON + timedelta(hours=2))


def test_so_many_actions_remain() -> None:
    schedule = begin(remaining_actions=2).advance(60)
    assert told(schedule).schedule.remaining_actions == 1
    assert len(told(schedule).next_times) == 1
    schedule.update(ScheduleSaga.trigger)
    assert schedule.finish().elapsed == 120.0
    assert len(starts(schedule)) == 3


def test_what_waits_for_its_turn_counts_when_it_has_come() -> None:
    assert len(starts(begin(takes=150, overlap=Overlap.BUFFER_ALL, remaining_actions=2).advance(3_600))) == 2


def test_jitter_delays_the_start() -> None:
    schedule = begin(ScheduleSpec(crons=("* * * * *",), jitter=50)).advance(600)
    runs = told(schedule).recent
    assert len(runs) >= 9
    assert [run.started for run in runs] == [told(schedule).schedule.spec.delayed(run.at, "report") for run in runs]


def test_only_the_last_ten_runs_are_remembered() -> None:
    assert [run.at.minute for run in told(begin().advance(12 * 60)).recent] == list(range(3, 13))


def test_where_the_clock_changes_a_time_of_day_comes_once() -> None:
    spec = ScheduleSpec(calendars=(Calendar(hour="2", minute="30"),), time_zone="Europe/Berlin")
    spring = begin(spec, now=datetime(2026, 3, 27, 12, tzinfo=UTC)).advance(3 * 86_400)
    assert [start.saga_id[7:] for start in starts(spring)] == [
        "2026-03-28T01:30:00Z",
        "2026-03-29T01:00:00Z",
        "2026-03-30T00:30:00Z",
    ]


# -- overlap: a run takes 150 s, a time comes each minute


@pytest.mark.parametrize(
    ("overlap", "times", "outcomes", "skipped"),
    [
        (Overlap.SKIP, ["12:01:00Z", "12:04:00Z"], ["completed"], 2),
        (Overlap.BUFFER_ONE, ["12:01:00Z", "12:02:00Z"], ["completed"], 1),
        (Overlap.BUFFER_ALL, ["12:01:00Z", "12:02:00Z"], ["completed"], 0),
        (Overlap.CANCEL_OTHER, [f"12:0{n}:00Z" for n in range(1, 5)], ["stopped"] * 3, 0),
        (Overlap.TERMINATE_OTHER, [f"12:0{n}:00Z" for n in range(1, 5)], ["stopped"] * 3, 0),
        (Overlap.ALLOW_ALL, [f"12:0{n}:00Z" for n in range(1, 5)], ["completed"], 0),
    ],
)
def test_what_becomes_of_a_time_while_a_run_is_under_way(
    overlap: Overlap, times: list[str], outcomes: list[str], skipped: int
) -> None:
    schedule = begin(takes=150, overlap=overlap, pause_on_failure=True).advance(4 * 60 + 10)
    assert started(schedule) == times
    assert ends(schedule) == outcomes
    described = told(schedule)
    assert (described.counts.skipped, described.paused, described.counts.failed) == (skipped, False, 0)
    if overlap is Overlap.BUFFER_ALL:
        assert [at.minute for at in described.waiting] == [3, 4]
    if "stopped" in outcomes:
        assert described.recent[0].error.startswith("Canceled" if overlap is Overlap.CANCEL_OTHER else "Terminated")


@pytest.mark.parametrize("overlap", [Overlap.SKIP, Overlap.BUFFER_ONE])
def test_a_long_run_costs_no_history(overlap: Overlap) -> None:
    schedule = begin(takes=86_000, overlap=overlap).advance(70)
    before = len(schedule.journal)
    schedule.advance(80_000)
    assert len(schedule.journal) - before < 12
    schedule.advance(6_050)
    assert told(schedule).counts.skipped >= 200
    assert len(starts(schedule)) == 2


def test_one_that_is_hard_to_stop_is_followed_by_the_latest_time() -> None:
    schedule = begin(takes=1_000, overlap=Overlap.CANCEL_OTHER)
    schedule._world._others._leave = lambda left, now_ms: None  # type: ignore[method-assign]  # it undoes for long
    schedule.advance(1_065)
    assert started(schedule) == ["12:01:00Z", "12:17:00Z"]
    assert told(schedule).counts.skipped == 15


# -- outages


def missed(spec: ScheduleSpec, seconds: float, **options: Any) -> Running[None]:
    """A schedule for which nobody was there so long."""
    schedule = begin(spec, **options)
    schedule._world.now_ms += round(seconds * 1000)
    return schedule.advance(1)


def test_what_an_outage_let_pass_is_made_up_for_within_the_window() -> None:
    schedule = missed(MINUTELY, 600, catch_up_window=timedelta(seconds=190), overlap=Overlap.BUFFER_ALL)
    assert started(schedule) == ["12:07:00Z", "12:08:00Z", "12:09:00Z", "12:10:00Z"]
    assert told(schedule).counts.missed == 6


def test_of_what_an_outage_let_pass_the_first_runs_and_the_others_overlap() -> None:
    assert started(missed(MINUTELY, 600)) == ["12:01:00Z"]
    assert started(missed(MINUTELY, 600, overlap=Overlap.CANCEL_OTHER)) == ["12:10:00Z"]


def test_a_long_outage_is_dealt_with_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.schedules.times.MAX_AT_ONCE", 20)
    spec = ScheduleSpec(intervals=(Interval(every=1),))
    schedule = missed(spec, 50, overlap=Overlap.ALLOW_ALL)
    assert len(starts(schedule)) == told(schedule).counts.started == 51
    assert sum(isinstance(event, Recorded) and event.name == "times" for event in schedule.journal) == 5


# -- failures


def test_a_failure_pauses_it_where_it_says_so() -> None:
    schedule = begin(fails=True, takes=1, pause_on_failure=True).advance(300)
    described = told(schedule)
    assert started(schedule) == ["12:01:00Z"]
    assert (described.paused, described.counts.failed) == (True, 1)
    assert described.note == "paused after report-2026-03-01T12:01:00Z failed: NoData: no sales"
    schedule.update(ScheduleSaga.resume, "sales are there")
    assert (told(schedule).paused, told(schedule).note) == (False, "sales are there")
    assert started(schedule.advance(61)) == ["12:01:00Z", "12:06:00Z"]


def test_who_was_cancelled_has_not_failed() -> None:
    schedule = begin(fails=True, pause_on_failure=True)
    ending = ChildEnding(0, Status.CANCELED, b"", "Canceled", "by ann")
    schedule._world.services._script.children["Report"] = ending
    assert not told(schedule.advance(61)).paused


def test_without_that_it_goes_on() -> None:
    schedule = begin(fails=True).advance(130)
    assert ends(schedule) == ["failed", "failed"]
    assert not told(schedule).paused


def test_a_saga_that_cannot_be_started_is_a_failure() -> None:
    schedule = begin(fails=True, pause_on_failure=True)
    ending = ChildEnding(0, "REFUSED", b"", "ChildRefused", "the input does not fit Report")
    schedule._world.services._script.children["Report"] = ending
    schedule.advance(61)
    assert told(schedule).recent[0].error == "ChildRefused: the input does not fit Report"
    assert told(schedule).paused


# -- what people ask


def test_paused_it_lets_times_pass() -> None:
    schedule = begin(takes=90, overlap=Overlap.BUFFER_ALL).advance(130)
    schedule.update(ScheduleSaga.pause, "the ledger is moved")
    schedule.advance(300)
    assert started(schedule) == ["12:01:00Z"]
    assert (told(schedule).note, told(schedule).counts.skipped) == ("the ledger is moved", 1)
    schedule.update(ScheduleSaga.resume)
    assert started(schedule.advance(55)) == ["12:01:00Z", "12:08:00Z"]


def test_a_schedule_may_begin_paused() -> None:
    schedule = begin(paused=True)
    before = len(schedule.journal)
    assert len(schedule.advance(600).journal) == before
    schedule.update(ScheduleSaga.resume)
    assert started(schedule.advance(60)) == ["12:11:00Z"]


def test_it_is_triggered_also_while_it_is_paused() -> None:
    schedule = begin(paused=True, takes=10).advance(5)
    assert schedule.update(ScheduleSaga.trigger) == "report-2026-03-01T12:00:05Z"
    with pytest.raises(UpdateRejected, match=r"report-2026-03-01T12:00:05Z is under way"):
        schedule.update(ScheduleSaga.trigger)
    assert schedule.update(ScheduleSaga.trigger, Overlap.ALLOW_ALL) == "report-2026-03-01T12:00:05.001Z"
    assert len(told(schedule).running) == 2
    assert ends(schedule.advance(11)) == ["completed", "completed"]


def test_a_span_is_backfilled_one_after_the_other() -> None:
    schedule = begin(takes=1, paused=True)
    assert schedule.update(ScheduleSaga.backfill, NOON - timedelta(hours=1), NOON - timedelta(minutes=57)) == 4
    schedule.advance(10)
    assert started(schedule) == ["11:00:00Z", "11:01:00Z", "11:02:00Z", "11:03:00Z"]
    assert all(start.reuse is msg.Reuse.ALLOW_DUPLICATE for start in starts(schedule))


def test_what_is_triggered_in_a_pause_brings_nothing_else() -> None:
    schedule = begin(overlap=Overlap.ALLOW_ALL).advance(65)
    schedule.update(ScheduleSaga.pause)
    schedule.advance(300)
    schedule.update(ScheduleSaga.trigger)
    assert started(schedule.advance(1)) == ["12:01:00Z", "12:06:05Z"]


def test_so_many_wait_for_their_turn() -> None:
    schedule = begin(takes=60, paused=True)
    schedule.update(ScheduleSaga.backfill, NOON - timedelta(minutes=399), NOON)
    with pytest.raises(UpdateRejected, match="more than 101 times"):
        schedule.update(ScheduleSaga.backfill, NOON - timedelta(minutes=399), NOON)


def test_a_span_is_backfilled_at_once() -> None:
    schedule = begin(takes=10)
    start, end = NOON - timedelta(hours=1), NOON - timedelta(minutes=57)
    schedule.update(ScheduleSaga.backfill, start, end, Overlap.ALLOW_ALL)
    assert len(told(schedule).running) == 4


@pytest.mark.parametrize(
    ("start", "end", "why"),
    [
        (NOON, NOON - timedelta(days=1), "from the earlier"),
        (NOON - timedelta(days=1), NOON, f"more than {MAX_WAITING} times"),
        (NOON.replace(tzinfo=None), NOON, "time zone"),
    ],
)
def test_what_is_no_span_is_refused(start: datetime, end: datetime, why: str) -> None:
    with pytest.raises(UpdateRejected, match=why):
        begin().update(ScheduleSaga.backfill, start, end)


def test_it_is_changed() -> None:
    schedule = begin(takes=1).advance(65)
    hourly = {"spec": {"crons": ["30 * * * *"]}, "overlap": "ALLOW_ALL", "remaining_actions": 1}
    schedule.update(ScheduleSaga.change, hourly)
    assert told(schedule).next_times == [NOON + timedelta(minutes=30)]
    assert schedule.finish().elapsed == 30 * 60 + 1
    assert started(schedule) == ["12:01:00Z", "12:30:00Z"]


def test_a_new_spec_counts_from_now_on() -> None:
    schedule = begin(overlap=Overlap.ALLOW_ALL).advance(65)
    schedule.update(ScheduleSaga.change, {"spec": {"intervals": [{"every": 2}]}})
    assert started(schedule.advance(4)) == ["12:01:00Z", "12:01:06Z", "12:01:08Z"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"spec": {"crons": ["61 * * * *"]}}, "no cron line"),
        ({"spec": {"crons": ["0 0 29 2 *"], "end": "2027-01-01T00:00:00Z"}}, "never be due"),
        ({"overlap": "PERHAPS"}, "overlap"),
        ({"cron": "* * * * *"}, "not permitted"),
    ],
)
def test_a_change_that_is_none_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(UpdateRejected, match=why):
        begin().update(ScheduleSaga.change, changes)


def test_it_goes_on_in_a_new_run_and_forgets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.schedules.saga.CONTINUE_AFTER", 7)
    schedule = begin(fails=True, takes=70, overlap=Overlap.BUFFER_ONE, remaining_actions=9).advance(3_600)
    assert sum(type(event).__name__ == "RunFollows" for event in schedule.journal) >= 2
    assert (told(schedule).counts.started, told(schedule).counts.failed) == (9, 9)
    assert len({start.saga_id for start in starts(schedule)}) == 9
    assert schedule.status is Status.COMPLETED


def test_what_may_overlap_does_not_keep_it_from_a_new_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.schedules.saga.CONTINUE_AFTER", 7)
    schedule = begin(takes=600, overlap=Overlap.ALLOW_ALL).advance(1_200)
    assert any(type(event).__name__ == "RunFollows" for event in schedule.journal)
    assert len(starts(schedule)) == told(schedule).counts.started == 20


def test_its_end_leaves_what_it_started_alone() -> None:
    schedule = begin(takes=600).advance(61)
    schedule.terminate("deleted")
    assert [start.parent and start.parent.close for start in starts(schedule)] == [ParentClose.ABANDON]


# -- what is no schedule


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Schedule(saga_type="", spec=MINUTELY), "at least 1"),
        (lambda: Schedule(saga_type="S", spec=MINUTELY, input="x" * 200_000), "at most 131072 bytes"),
        (lambda: Schedule(saga_type="S", spec=MINUTELY, memo={"x": "y" * 20_000}), "at most 16384"),
        (lambda: Schedule(saga_type="S", spec=MINUTELY, catch_up_window=-1), "between 0 and"),
        (lambda: Schedule(saga_type="S", spec=MINUTELY, remaining_actions=-1), "greater than or equal to 0"),
    ],
)
def test_a_schedule_that_is_none_says_why(make: Callable[[], Schedule], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        make()


def test_an_id_that_is_too_long_ends_it() -> None:
    schedule = Schedule(saga_type="Report", spec=MINUTELY)
    end = SagaTest(ScheduleSaga).run(ScheduleState(schedule=schedule), id="schedule:" + "x" * 400)
    assert (end.status, end.error_type) == (Status.FAILED, "IdTooLong")
