"""Where clocks are changed a time of day comes once; an hour with a star follows the time that passes."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from orchestrator.schedules.times import Calendar, ScheduleSpec


def on(day: str, spec: ScheduleSpec) -> list[str]:
    """Times in UTC, from the night to noon in New York."""
    start, end = (datetime.fromisoformat(f"2026-{day}T{hour}").replace(tzinfo=UTC) for hour in ("04:30", "09:30"))
    return [f"{found:%H:%M:%S}" for found in spec.times(start, end)]


def lines(*crons: str) -> ScheduleSpec:
    return ScheduleSpec(crons=crons, time_zone="America/New_York")


def calendar(**fields: str) -> ScheduleSpec:
    return ScheduleSpec(calendars=(Calendar(**fields),), time_zone="America/New_York")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (lines("30 1 * * *"), ["05:30:00"]),
        (lines("0 30 1 * * *"), ["05:30:00"]),
        (lines("*/30 1 * * *"), ["05:00:00", "05:30:00"]),
        (lines("15 */30 1-2 * * *"), ["05:00:15", "05:30:15", "07:00:15", "07:30:15"]),
        (calendar(hour="1", minute="30", second="15"), ["05:30:15"]),
        (calendar(hour="1", minute="*/30"), ["05:00:00", "05:30:00"]),
        (lines("0 * * * *"), ["05:00:00", "06:00:00", "07:00:00", "08:00:00", "09:00:00"]),
    ],
)
def test_put_back(spec: ScheduleSpec, expected: list[str]) -> None:
    assert on("11-01", spec) == expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (lines("30 2 * * *"), ["07:00:00"]),
        (lines("0 30 2 * * *"), ["07:00:00"]),
        (lines("15 */30 2 * * *"), ["07:00:00"]),
        (lines("*/30 2-3 * * *"), ["07:00:00", "07:30:00"]),
        (calendar(hour="2", minute="30", second="15"), ["07:00:00"]),
        (calendar(hour="2", minute="*/20"), ["07:00:00"]),
        (lines("0 * * * *"), ["05:00:00", "06:00:00", "07:00:00", "08:00:00", "09:00:00"]),
    ],
)
def test_put_forward(spec: ScheduleSpec, expected: list[str]) -> None:
    assert on("03-08", spec) == expected


def test_asked_while_the_clock_shows_an_hour_again_it_waits_for_the_next_day() -> None:
    asked = datetime(2026, 11, 1, 6, 10, tzinfo=UTC)
    assert lines("0 30 1 * * *").next_time(asked) == datetime(2026, 11, 2, 6, 30, tzinfo=UTC)


def test_a_weekday_is_that_of_the_time_that_is_skipped() -> None:
    spec = ScheduleSpec(
        calendars=(Calendar(hour="23", minute="30", weekday="SAT"),),
        time_zone="America/Nuuk",
    )
    assert spec.next_time(datetime(2026, 3, 28, 12, tzinfo=UTC)) == datetime(2026, 3, 29, 1, tzinfo=UTC)
