"""Long exclusions are passed over in one step, and a search that stops is not the schedule's end."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.schedules.times import MAX_STRETCHES, Calendar, Interval, ScheduleSpec


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    """Where a search has looked for the next candidate."""
    seen: list[datetime] = []
    original = ScheduleSpec._candidates

    def counted(self: ScheduleSpec, moment: datetime, *rest: Any) -> Iterator[datetime]:
        seen.append(moment)
        return original(self, moment, *rest)

    monkeypatch.setattr(ScheduleSpec, "_candidates", counted)
    return seen


HOLIDAYS = Calendar(hour="*", minute="*", month="12", day="24-31")
WHOLE = Calendar(second="*", minute="*", hour="*", month="12", day="24-31")


@pytest.mark.parametrize(
    "spec",
    [
        ScheduleSpec(crons=("* * * * *",), exclude=(WHOLE,), time_zone="Europe/Berlin"),
        ScheduleSpec(crons=("* * * * * *",), exclude=(WHOLE,), time_zone="Europe/Berlin"),
        ScheduleSpec(intervals=(Interval(every=0.001),), exclude=(WHOLE,), time_zone="Europe/Berlin"),
    ],
)
def test_days_are_passed_over_in_one_step(spec: ScheduleSpec, steps: list[datetime]) -> None:
    assert spec.next_time(at("2026-12-23T22:59:59.999")) == at("2026-12-31T23:00")
    assert len(steps) == 2


def test_the_first_second_of_each_minute_is_enough_where_no_other_matters(steps: list[datetime]) -> None:
    spec = ScheduleSpec(crons=("* * * * *",), exclude=(HOLIDAYS,), time_zone="Europe/Berlin")
    assert spec.next_time(at("2026-12-23T22:59:30")) == at("2026-12-31T23:00")
    assert len(steps) == 2


def test_a_clock_that_is_put_back_within_a_stretch_shows_again_what_is_not_excluded() -> None:
    spec = ScheduleSpec(
        crons=("*/10 * * * *",),
        exclude=(Calendar(second="*", minute="30-59", hour="1"),),
        time_zone="America/New_York",
    )
    found = [f"{time:%H:%M}" for time in spec.times(at("2026-11-01T05:00"), at("2026-11-01T07:10"))]
    assert found == ["05:10", "05:20", "06:00", "06:10", "06:20", "07:00", "07:10"]


def test_what_two_exclusions_cover_together_has_no_time() -> None:
    halves = (
        Calendar(second="*", minute="*", hour="*", month="1-6"),
        Calendar(second="*", minute="*", hour="*", month="7-12"),
    )
    assert ScheduleSpec(crons=("* * * * *",), exclude=halves).next_time(at("2026-01-01")) is None


ODD = ScheduleSpec(crons=("1-59/2 * * * *",), exclude=(Calendar(second="*", minute="1-59/2", hour="*", year="2026"),))


def test_a_search_that_stops_says_so(steps: list[datetime]) -> None:
    with pytest.raises(ValueError, match="exclude whole hours or days"):
        ODD.next_time(at("2026-01-01"))
    assert len(steps) == MAX_STRETCHES


def test_a_search_that_stops_is_taken_up_again_where_it_stopped() -> None:
    look = ODD.look("a", at("2026-12-10"), at("2026-12-10"), 1000)
    assert look.upcoming is not None
    assert look.due == []
    assert at("2026-12-10") < look.after < look.upcoming.due < at("2026-12-31")
    again = ODD.look("a", look.after, look.upcoming.due, 1000)
    assert again.upcoming is not None
    assert again.upcoming.at == at("2027-01-01T00:01")
