"""When a schedule is due: cron lines, intervals and calendars, less what is excluded, in a time zone, with jitter.

Nothing here knows the time: `next_time` is a function of the specification and of the moment after which to look.

    ScheduleSpec(crons=["30 9 * * MON-FRI"], time_zone="Europe/Berlin", exclude=[Calendar(month="12", day="24-26")])

Where a clock is put forward, what would be in the gap comes right after it; where it is put back, a time of day comes
once (cron's rule), while an interval counts seconds and knows no clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Annotated
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BaseModel, ConfigDict, field_validator, model_validator

from orchestrator.durations import Duration, milliseconds
from orchestrator.errors import DefinitionError

MAX_EXCLUDED = 10_000
"""Times in a row that may be excluded before there is none: a day of seconds that a calendar takes out is too many."""
MAX_AT_ONCE = 200
"""Times that are dealt with in one decision."""
_MILLISECOND = timedelta(milliseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _seconds(given: Duration) -> float:
    try:
        return milliseconds(given) / 1000
    except DefinitionError as error:
        raise ValueError(str(error)) from None


Seconds = Annotated[Duration, AfterValidator(_seconds)]
"""Seconds or timedelta, kept as seconds."""


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Interval(_Spec):
    """Every so often since 1970, `offset` later; seconds or timedelta. An hour with an offset of 600 is at 0:10, 1:10.

    Counted in whole milliseconds, of which `every` has at least one.
    """

    every: Seconds
    offset: Seconds = 0.0

    @field_validator("every")
    @classmethod
    def _is_some_time(cls, value: float) -> float:
        if value < 0.001:
            raise ValueError("an interval is at least 0.001 seconds")
        return value

    def after(self, moment: datetime) -> datetime:
        """The first time later than `moment`."""
        every, offset = milliseconds(self.every), milliseconds(self.offset)
        passed = (moment - _EPOCH) // _MILLISECOND - offset
        return _EPOCH + (offset + (passed // every + 1) * every) * _MILLISECOND


class Calendar(_Spec):
    """Times of day and days that must all match. Each field is cron's: `*`, `1,15`, `9-17`, `*/10`, `MON-FRI`.

    `year` is years and ranges of them only. By default midnight of every day.
    """

    second: str = "0"
    minute: str = "0"
    hour: str = "0"
    day: str = "*"
    month: str = "*"
    weekday: str = "*"
    year: str = "*"

    @field_validator("year")
    @classmethod
    def _is_years(cls, value: str) -> str:
        _years(value)
        return value

    @model_validator(mode="after")
    def _is_cron(self) -> Calendar:
        for line in (self._cron(self.day, "*"), self._cron("*", self.weekday)):
            _simulate(line, _EPOCH)
        return self

    def _cron(self, day: str, weekday: str) -> str:
        seconds = "" if self.second == "0" else f"{self.second} "  # without them cron's rule for changed clocks holds
        return f"{seconds}{self.minute} {self.hour} {day} {self.month} {weekday}"

    def after(self, moment: datetime, until: datetime) -> datetime | None:
        """The first time later than `moment`, none where that is later than `until`."""
        years = _years(self.year)
        weekdays = self._weekdays()
        for found in _simulate(self._cron(self.day, "*"), moment):
            if found > until or (years is not None and found.year > max(years)):
                return None
            if found.weekday() in weekdays and (years is None or found.year in years):
                return found
        return None

    def covers(self, moment: datetime) -> bool:
        """Whether the second of `moment` matches."""
        second = moment.replace(microsecond=0)
        return self.after(second - timedelta(seconds=1), second) == second

    def _weekdays(self) -> set[int]:
        monday = datetime(2024, 1, 1)
        week = {(monday + timedelta(days=n)).date(): n for n in range(7)}
        found = _simulate(f"0 0 0 * * {self.weekday}", monday - timedelta(seconds=1))
        return {week[at.date()] for at, _ in zip(found, range(7), strict=False) if at.date() in week}


class Upcoming(_Spec):
    """A nominal time, and when its action is due."""

    at: datetime
    due: datetime


class Look(_Spec):
    """What was due at one moment. `after` is the last time that this deals with, `upcoming` the first one behind it."""

    due: list[datetime]
    missed: int
    after: datetime
    upcoming: Upcoming | None


class ScheduleSpec(_Spec):
    """When a schedule is due: at any of its crons, intervals and calendars, but at no time that `exclude` covers.

    `jitter` delays each time by up to so long (seconds or timedelta), but not beyond the next one; always the same for
    the same time of the same schedule. `start` and `end` bound the times before the jitter; without a zone they are in
    UTC.
    """

    crons: tuple[str, ...] = ()
    intervals: tuple[Interval, ...] = ()
    calendars: tuple[Calendar, ...] = ()
    exclude: tuple[Calendar, ...] = ()
    time_zone: str = "UTC"
    jitter: Seconds = 0.0
    start: datetime | None = None
    end: datetime | None = None

    @field_validator("crons")
    @classmethod
    def _are_crons(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for line in value:
            _simulate(line, _EPOCH)
        return value

    @field_validator("time_zone")
    @classmethod
    def _is_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"there is no time zone {value!r}: it is a name such as Europe/Berlin") from None
        return value

    @property
    def words(self) -> str:
        """In one line, for lists."""
        calendars = (" ".join(calendar.model_dump().values()) for calendar in self.calendars)
        intervals = (f"every {interval.every:g} s" for interval in self.intervals)
        zone = "" if self.time_zone == "UTC" else f" ({self.time_zone})"
        return "; ".join((*self.crons, *intervals, *calendars)) + zone

    def next_time(self, after: datetime) -> datetime | None:
        """The first nominal time later than `after` (in UTC), None where there is none any more."""
        zone = ZoneInfo(self.time_zone)
        moment = max(after, _aware(self.start) - timedelta(microseconds=1)) if self.start is not None else after
        end = _aware(self.end) if self.end is not None else datetime(9999, 1, 1, tzinfo=UTC)
        for _ in range(MAX_EXCLUDED):
            candidates = list(self._candidates(moment.astimezone(zone), end.astimezone(zone)))
            if not candidates:
                return None
            moment = min(candidates).astimezone(UTC)
            if moment > end:
                return None
            if not any(calendar.covers(moment.astimezone(zone)) for calendar in self.exclude):
                return moment
        return None

    def times(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """All nominal times later than `after`, up to and with `until`: what a catch-up or a backfill begins with."""
        at = self.next_time(after)
        while at is not None and at <= until:
            yield at
            at = self.next_time(at)

    def delayed(self, nominal: datetime, schedule_id: str) -> datetime:
        """When the action of a nominal time is due: after its jitter, in whole milliseconds."""
        longest = milliseconds(self.jitter)
        if not longest:
            return nominal
        following = self.next_time(nominal)
        if following is not None:
            longest = min(longest, (following - nominal) // _MILLISECOND)
        drawn = int.from_bytes(sha256(f"{schedule_id}/{nominal.isoformat()}".encode()).digest()[:6], "big")
        return nominal + longest * drawn // 2**48 * _MILLISECOND

    def look(self, schedule_id: str, after: datetime, now: datetime, window_ms: int, *, jump: bool = False) -> Look:
        """What is due by `now` of the times later than `after`: at most 200 at once.

        `window_ms`: after which one is missed. `jump`: what is due beyond the 200 is passed over.
        """
        due: list[datetime] = []
        missed = 0
        while (at := self.next_time(after)) is not None:
            when = self.delayed(at, schedule_id)
            if when > now:
                return Look(due=due, missed=missed, after=after, upcoming=Upcoming(at=at, due=when))
            if len(due) + missed >= MAX_AT_ONCE and not jump:
                return Look(due=due, missed=missed, after=after, upcoming=Upcoming(at=at, due=when))
            if len(due) + missed >= MAX_AT_ONCE:
                after = max(at, now)
            else:
                late = now - when > window_ms * _MILLISECOND
                missed += late
                due += [] if late else [at]
                after = at
        return Look(due=due, missed=missed, after=after, upcoming=None)

    def _candidates(self, local: datetime, end: datetime) -> Iterator[datetime]:
        for line in self.crons:
            found = next(iter(_simulate(line, local)), None)
            if found is not None:
                yield found
        for interval in self.intervals:
            yield interval.after(local.astimezone(UTC))
        for calendar in self.calendars:
            one = calendar.after(local, end)
            if one is not None:
                yield one


def _aware(moment: datetime) -> datetime:
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).astimezone(UTC)


def _simulate(line: str, after: datetime) -> CronSim:
    try:
        return CronSim(line, after)
    except CronSimError as error:
        raise ValueError(f"{line!r} is no cron line: {error}") from None


def _years(text: str) -> set[int] | None:
    if text == "*":
        return None
    years: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"{text!r} are no years: such as 2026, 2026-2028 or 2026,2030")
        years.update(range(int(first), int(last or first) + 1))
    return years
