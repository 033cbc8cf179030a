"""What a schedule is, and how it stands: what a client gives and is told."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from orchestrator.schedules.times import ScheduleSpec, Seconds
from orchestrator.signals import first_problem
from orchestrator.wire.notes import Note, write_note

SCHEDULE_TYPE = "saga.schedule"
"""The type of the saga that a schedule is; every worker has its code."""
ID_PREFIX = "schedule:"
"""Before a schedule's id in its saga's id: so it never is the id of a saga of another kind."""
MAX_SCHEDULE_BYTES = 128 * 1024
"""As JSON, with the input of what it starts: what waits for its turn goes into the same record."""
MAX_WAITING = 500
"""Actions that wait for their turn, and actions of one backfill."""
MAX_ID_BYTES = 400
"""Of a schedule's saga: those that it starts have the time in theirs besides."""
RECENT = 10
YEAR_S = 365 * 86_400.0


class Overlap(StrEnum):
    """What becomes of an action whose time comes while an earlier one is under way."""

    SKIP = "SKIP"
    """It is left out."""
    BUFFER_ONE = "BUFFER_ONE"
    """It waits until the others have ended; while one waits, the next are left out."""
    BUFFER_ALL = "BUFFER_ALL"
    """All wait, and run one after the other."""
    CANCEL_OTHER = "CANCEL_OTHER"
    """The others are cancelled; it runs once they have undone what they did. The latest one counts."""
    TERMINATE_OTHER = "TERMINATE_OTHER"
    """The others are ended at once, without undo."""
    ALLOW_ALL = "ALLOW_ALL"
    """They run side by side."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Schedule(_Model):
    """Which saga is started, with which input (JSON), when, and what holds besides.

    `catch_up_window`: a time that an outage let pass is made up for if it is no longer ago than this (seconds or
    timedelta). `pause_on_failure`: after a run that failed the schedule pauses. `remaining_actions`: so many times,
    None: no limit; what is triggered or backfilled does not count. `memo` and `summary` are what lists show of the
    sagas that it starts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    saga_type: str = Field(min_length=1)
    input: JsonValue = None
    spec: ScheduleSpec
    overlap: Overlap = Overlap.SKIP
    catch_up_window: Seconds = YEAR_S
    pause_on_failure: bool = False
    remaining_actions: int | None = Field(None, ge=0)
    memo: Mapping[str, JsonValue] = Field(default_factory=dict)
    summary: str | None = None

    @classmethod
    def read(cls, fields: Mapping[str, JsonValue]) -> Schedule:
        """From JSON. Raises `ValueError`, which says what is wrong first."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise ValueError(first_problem(error)) from None

    @model_validator(mode="after")
    def _is_small(self) -> Schedule:
        size = len(self.model_dump_json())
        if size > MAX_SCHEDULE_BYTES:
            raise ValueError(
                f"a schedule has at most {MAX_SCHEDULE_BYTES} bytes, not {size}: pass a reference as input"
            )
        write_note(Note({}, dict(self.memo), self.summary))
        return self


class Action(_Model):
    """A saga that is to be started for a time; `manual`: somebody triggered it, or had it backfilled."""

    at: datetime
    overlap: Overlap
    manual: bool = False


class ScheduledRun(_Model):
    """A saga that a schedule started for the time `at`. `outcome`: running, completed, failed, or stopped for the next.

    `error` is the type and message of what it failed by; `ChildRefused`: it could not even be started.
    """

    id: str
    at: datetime
    started: datetime
    ended: datetime | None = None
    outcome: str = "running"
    error: str = ""


class Counts(_Model):
    """Since it was created. `missed`: an outage let them pass, and the catch-up window was over."""

    started: int = 0
    failed: int = 0
    skipped: int = 0
    missed: int = 0


class ScheduleState(_Model):
    """The input of a schedule's saga, which it hands on to its next run. `after`: the last time that was dealt with."""

    schedule: Schedule
    created_by: str = ""
    paused: bool = False
    note: str = ""
    after: datetime | None = None
    waiting: list[Action] = Field(default_factory=list)
    recent: list[ScheduledRun] = Field(default_factory=list)
    counts: Counts = Field(default_factory=Counts)


class ScheduleDescription(_Model):
    """How a schedule stands. `note`: why it is paused or was resumed; `recent` are its last ten runs that ended.

    `schedule.remaining_actions` are those that remain now. `ended`: it was deleted, or no time is left.
    """

    id: str
    schedule: Schedule
    paused: bool
    note: str
    running: list[ScheduledRun]
    waiting: list[datetime]
    recent: list[ScheduledRun]
    next_times: list[datetime]
    counts: Counts
    created_by: str = ""
    ended: bool = False


def stamp(moment: datetime) -> str:
    """A moment in ids: in UTC, with milliseconds if it has some, as in `2026-11-25T09:30:00Z`."""
    precision = "milliseconds" if moment.microsecond else "seconds"
    return moment.astimezone(UTC).isoformat(timespec=precision).replace("+00:00", "Z")
