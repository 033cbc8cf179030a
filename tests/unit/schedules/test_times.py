"""When schedules are due: crons, intervals and calendars, exclusions, time zones with their changed clocks, jitter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from orchestrator.schedules.times import Calendar, Interval, ScheduleSpec


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def times(spec: ScheduleSpec, after: str, until: str) -> list[str]:
    return [found.strftime("%m-%d %H:%M") for found in spec.times(at(after), at(until))]


def test_a_cron_line_in_its_time_zone() -> None:
    spec = ScheduleSpec(crons=("30 9 * * MON-FRI",), time_zone="Europe/Berlin")
    assert times(spec, "2026-11-26T12:00", "2026-12-01T12:00") == ["11-27 08:30", "11-30 08:30", "12-01 08:30"]


@pytest.mark.parametrize(
    "spec",
    [
        ScheduleSpec(crons=("30 2 * * *",), time_zone="Europe/Berlin"),
        ScheduleSpec(calendars=(Calendar(hour="2", minute="30"),), time_zone="Europe/Berlin"),
    ],
)
def test_where_the_clock_is_changed_a_time_of_day_comes_once(spec: ScheduleSpec) -> None:
    assert times(spec, "2026-03-27T12:00", "2026-03-30T12:00") == ["03-28 01:30", "03-29 01:00", "03-30 00:30"]
    assert times(spec, "2026-10-24T12:00", "2026-10-26T12:00") == ["10-25 00:30", "10-26 01:30"]


def test_an_interval_counts_seconds_and_knows_no_clock() -> None:
    spec = ScheduleSpec(intervals=(Interval(every=3600, offset=600),), time_zone="Europe/Berlin")
    assert times(spec, "2026-10-24T23:10", "2026-10-25T03:00") == ["10-25 00:10", "10-25 01:10", "10-25 02:10"]


def test_a_calendar_wants_all_its_fields() -> None:
    spec = ScheduleSpec(calendars=(Calendar(hour="9", weekday="MON-FRI", day="1-7", year="2026-2027"),))
    assert times(spec, "2026-01-01T00:00", "2026-01-31T00:00") == [
        "01-01 09:00",
        "01-02 09:00",
        "01-05 09:00",
        "01-06 09:00",
        "01-07 09:00",
    ]
    assert spec.next_time(at("2027-12-31T00:00")) is None
    sunday = ScheduleSpec(calendars=(Calendar(weekday="SUN"),))
    assert times(sunday, "2026-01-01T00:00", "2026-01-12T00:00") == ["01-04 00:00", "01-11 00:00"]


def test_what_is_excluded_is_left_out() -> None:
    christmas = Calendar(second="*", minute="*", hour="*", month="12", day="24-26")
    spec = ScheduleSpec(crons=("0 9 * * *",), exclude=(christmas,))
    assert times(spec, "2026-12-22T12:00", "2026-12-28T00:00") == ["12-23 09:00", "12-27 09:00"]
    everything = Calendar(second="*", minute="*", hour="*")
    assert ScheduleSpec(intervals=(Interval(every=60),), exclude=(everything,)).next_time(at("2026-01-01")) is None


def test_several_ways_together_give_each_time_once() -> None:
    spec = ScheduleSpec(crons=("0 * * * *",), intervals=(Interval(every=5400),))
    assert times(spec, "2026-01-01T00:00", "2026-01-01T03:00") == [
        "01-01 01:00",
        "01-01 01:30",
        "01-01 02:00",
        "01-01 03:00",
    ]


def test_start_and_end_bound_it() -> None:
    spec = ScheduleSpec(crons=("0 9 * * *",), start=at("2026-01-02T09:00"), end=at("2026-01-03T09:00"))
    assert times(spec, "2025-01-01", "2027-01-01") == ["01-02 09:00", "01-03 09:00"]


def test_nothing_is_due_without_a_way() -> None:
    assert ScheduleSpec().next_time(at("2026-01-01")) is None


def test_jitter_is_the_same_for_the_same_time_of_the_same_schedule() -> None:
    spec = ScheduleSpec(crons=("0 * * * *",), jitter=600)
    nominal = at("2026-01-01T09:00")
    assert nominal <= spec.delayed(nominal, "a") < nominal + timedelta(seconds=600)
    assert spec.delayed(nominal, "a") == spec.delayed(nominal, "a") != spec.delayed(nominal, "b")
    assert ScheduleSpec().delayed(nominal, "a") == nominal


def test_jitter_never_goes_beyond_the_next_time() -> None:
    spec = ScheduleSpec(intervals=(Interval(every=60),), jitter=86_400)
    due = [spec.delayed(nominal, "a") for nominal in spec.times(at("2026-01-01T00:00"), at("2026-01-01T01:00"))]
    assert due == sorted(due)
    assert due[-1] < at("2026-01-01T01:01")


def test_short_intervals_do_not_drift() -> None:
    spec = ScheduleSpec(intervals=(Interval(every=timedelta(milliseconds=7)),))
    found = list(spec.times(at("2026-01-01T00:00"), at("2026-01-01T00:00") + timedelta(seconds=7)))
    assert len(found) == 1000
    assert len({later - sooner for sooner, later in pairwise(found)}) == 1


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
    st.sampled_from(["*/7 * * * *", "30 2 * * *", "0 0 1 * *", "15 1-3 * * SUN"]),
)
def test_times_go_forward_and_do_not_depend_on_where_one_looks_from(moment: datetime, zone: str, line: str) -> None:
    spec = ScheduleSpec(crons=(line,), time_zone=zone)
    first = spec.next_time(moment.replace(tzinfo=UTC))
    assert first is not None
    second = spec.next_time(first)
    assert second is not None
    assert moment.replace(tzinfo=UTC) < first < second
    between = first + (second - first) / 2
    assert spec.next_time(between) == second


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"crons": ["every day"]}, "no cron line"),
        ({"crons": ["61 * * * *"]}, "no cron line"),
        ({"calendars": [{"hour": "25"}]}, "no cron line"),
        ({"calendars": [{"year": "soon"}]}, "no years"),
        ({"intervals": [{"every": 0}]}, "at least 0.001"),
        ({"time_zone": "Europe/Atlantis"}, "no time zone"),
        ({"jitter": -1}, "between 0 and"),
        ({"cron": ["* * * * *"]}, "not permitted"),
    ],
)
def test_what_is_no_schedule_says_why(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        ScheduleSpec.model_validate(wrong)
