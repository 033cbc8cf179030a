"""When a schedule is due: cron lines, intervals and calendars, less what is excluded, in a time zone, with jitter.

Nothing here knows the time: `next_time` is a function of the specification and of the moment after which to look.

    ScheduleSpec(crons=["30 9 * * MON-FRI"], time_zone="Europe/Berlin", exclude=[Calendar(month="12", day="24-26")])

A time of day, which is what a cron line or a calendar with fixed hours tells, comes once a day: where the clock is put
forward, what would be in the gap comes right after it, where it is put back, the first of both counts. An hour that
begins with `*` and an interval follow the time that passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import Annotated
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BaseModel, ConfigDict, field_validator, model_validator

from orchestrator.durations import Duration, milliseconds
from orchestrator.errors import DefinitionError

MAX_STRETCHES = 10_000
"""Excluded stretches in a row that a search passes over before it stops: a day that a calendar takes out is one."""
LOOK_AHEAD = timedelta(days=50 * 366)
"""Where all times are excluded for so long, there is none."""
MAX_AT_ONCE = 200
"""Times that are dealt with in one decision."""
_MILLISECOND = timedelta(milliseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = (timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1))


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
        return f"{self.second} {self.minute} {self.hour} {day} {self.month} {weekday}"

    def after(self, moment: datetime, until: datetime, zone: ZoneInfo) -> datetime | None:
        """The first time later than `moment`, none where that is later than `until`."""
        years = _years(self.year)
        for wall, found in _later(self._cron(self.day, "*"), moment, zone):
            if found > until or (years is not None and wall.year > max(years)):
                return None
            if self._has_day(wall):
                return found
        return None

    def covers(self, wall: datetime) -> bool:
        """Whether the second that a clock shows matches."""
        fields = _fields(self._cron(self.day, "*"))
        at_that_time = wall.second in fields.seconds and wall.minute in fields.minutes and wall.hour in fields.hours
        return at_that_time and wall.month in fields.months and fields.match_day(wall.date()) and self._has_day(wall)

    def end_of_stretch(self, wall: datetime, seconds: set[int]) -> datetime:
        """The first second that a clock shows after `wall`, which this covers, that it does not cover.

        `seconds`: of a minute, all that matter. Where it covers all of `LOOK_AHEAD`, a later one.
        """
        fields = _fields(self._cron(self.day, "*"))
        whole = [seconds <= fields.seconds, len(fields.minutes) == 60, len(fields.hours) == 24]
        unit = next((unit for unit, full in zip(_UNITS, whole, strict=True) if not full), timedelta(days=1))
        first = wall - (wall - datetime.min) % unit
        end = first + unit
        while end - first <= LOOK_AHEAD and self.covers(end):
            end += unit
        return end

    def _has_day(self, wall: datetime) -> bool:
        years = _years(self.year)
        weekdays = _fields(f"0 0 0 * * {self.weekday}")
        return weekdays.match_dow(wall.date()) and (years is None or wall.year in years)


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
        """The first nominal time later than `after` (in UTC), None where there is none any more.

        Raises `ValueError` where so many stretches before it are excluded that it is not found.
        """
        at, found = self._search(after)
        if at is not None and not found:
            raise ValueError(
                f"no time before {at.isoformat()} is left by `exclude`, in {MAX_STRETCHES} stretches: exclude whole "
                "hours or days, or be due less often"
            )
        return at

    def _search(self, after: datetime) -> tuple[datetime | None, bool]:
        """The first time later than `after`, and True; or up to where there is none, and False."""
        zone = ZoneInfo(self.time_zone)
        moment = max(after, _aware(self.start) - timedelta(microseconds=1)) if self.start is not None else after
        moment = moment.astimezone(UTC)
        end = _aware(self.end) if self.end is not None else datetime(9999, 1, 1, tzinfo=UTC)
        horizon = moment + LOOK_AHEAD
        seconds = self._seconds()
        for _ in range(MAX_STRETCHES):
            at = min(self._candidates(moment, end, zone), default=None)
            if at is None or at > end:
                return None, False
            local = at.astimezone(zone)
            wall = local.replace(microsecond=0, tzinfo=None, fold=0)
            ends = [calendar.end_of_stretch(wall, seconds) for calendar in self.exclude if calendar.covers(wall)]
            if not ends:
                return at, True
            # not by the clock alone: where it is put back within the stretch, it shows again what is not excluded
            second = at.replace(microsecond=0)
            reached = min(_moment(max(ends).replace(fold=local.fold), zone), second + (max(ends) - wall))
            if reached > horizon:
                return None, False
            moment = reached - timedelta(microseconds=1)
        return moment, False

    def times(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """All nominal times later than `after`, up to and with `until`: what a catch-up or a backfill begins with.

        Raises `ValueError` as `next_time` does.
        """
        at = self.next_time(after)
        while at is not None and at <= until:
            yield at
            at = self.next_time(at)

    def next_times(self, after: datetime, most: int) -> list[datetime]:
        """Up to so many nominal times later than `after`; fewer also where `next_time` would raise."""
        times: list[datetime] = []
        while len(times) < most:
            at, found = self._search(after)
            if at is None or not found:
                break
            times.append(at)
            after = at
        return times

    def delayed(self, nominal: datetime, schedule_id: str) -> datetime:
        """When the action of a nominal time is due: after its jitter, in whole milliseconds."""
        longest = milliseconds(self.jitter)
        if not longest:
            return nominal
        following, _ = self._search(nominal)
        if following is not None:
            longest = min(longest, (following - nominal) // _MILLISECOND)
        drawn = int.from_bytes(sha256(f"{schedule_id}/{nominal.isoformat()}".encode()).digest()[:6], "big")
        return nominal + longest * drawn // 2**48 * _MILLISECOND

    def look(self, schedule_id: str, after: datetime, now: datetime, window_ms: int, *, jump: bool = False) -> Look:
        """What is due by `now` of the times later than `after`: at most 200 at once.

        `window_ms`: after which one is missed. `jump`: what is due beyond the 200 is passed over. Where too many
        stretches are excluded to find the next one, `upcoming` is when to look again.
        """
        due: list[datetime] = []
        missed = 0
        while True:
            at, found = self._search(after)
            if at is None:
                return Look(due=due, missed=missed, after=after, upcoming=None)
            if not found:
                again = at + timedelta(microseconds=1)
                return Look(due=due, missed=missed, after=at, upcoming=Upcoming(at=again, due=again))
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

    def _seconds(self) -> set[int]:
        """Those of a minute at which a time can be; what a clock skips comes at a full minute."""
        lines = [*self.crons, *(f"{calendar.second} * * * * *" for calendar in self.calendars)]
        if any(
            milliseconds(each) % 60_000 for interval in self.intervals for each in (interval.every, interval.offset)
        ):
            lines.append("* * * * * *")
        return {0}.union(*(_fields(line).seconds for line in lines))

    def _candidates(self, moment: datetime, end: datetime, zone: ZoneInfo) -> Iterator[datetime]:
        for line in self.crons:
            for _, found in _later(line, moment, zone):
                yield found
                break
        for interval in self.intervals:
            yield interval.after(moment)
        for calendar in self.calendars:
            one = calendar.after(moment, end, zone)
            if one is not None:
                yield one


def _later(line: str, moment: datetime, zone: ZoneInfo) -> Iterator[tuple[datetime, datetime]]:
    """The times of a cron line later than `moment`: what the clock would show, and the moment in UTC."""
    local = moment.astimezone(zone)
    if line.split()[-4].startswith("*"):
        for found in _simulate(line, local):
            yield found.replace(tzinfo=None), found.astimezone(UTC)
        return
    for wall in _simulate(line, local.replace(tzinfo=None, fold=0)):
        at = _moment(wall, zone)
        if at > moment:
            yield wall, at


def _moment(wall: datetime, zone: ZoneInfo) -> datetime:
    """When a clock shows `wall`; where it skips that, the end of the gap."""
    while (at := wall.replace(tzinfo=zone).astimezone(UTC)).astimezone(zone).replace(tzinfo=None) != wall:
        wall = wall.replace(second=0) + timedelta(minutes=1)
    return at


@lru_cache(maxsize=1000)
def _fields(line: str) -> CronSim:
    """To ask what matches a line, not for its times."""
    return _simulate(line, _EPOCH)


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
        if len(first) > 4 or len(last) > 4 or int(last or first) < int(first):
            raise ValueError(f"{part!r} are no years: from the earlier to the later one, as in 2026-2028")
        years.update(range(int(first), int(last or first) + 1))
    return years
