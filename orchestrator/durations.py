"""Lengths and points of time as users write them."""

from __future__ import annotations

from datetime import datetime, timedelta

from orchestrator.errors import DefinitionError

Duration = float | timedelta
"""Seconds, or a timedelta."""

MAX_DURATION_SECONDS = 100_000_000_000
"""Some 3,000 years: what is longer is a mistake, and would not fit the journal's numbers."""


def milliseconds(duration: Duration) -> int:
    """A duration as whole milliseconds. Raises `DefinitionError` if it is negative, no number, or beyond all reason."""
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if not isinstance(seconds, int | float):
        raise DefinitionError(f"a duration is seconds or a timedelta, not {duration!r}")
    if not 0 <= seconds <= MAX_DURATION_SECONDS:
        raise DefinitionError(f"a duration is between 0 and {MAX_DURATION_SECONDS:,} seconds, not {duration!r}")
    return round(seconds * 1000)


def instant(when: datetime) -> int:
    """Milliseconds since 1970, 0 for what is before. Raises `DefinitionError` for a time without a zone."""
    if when.tzinfo is None:
        raise DefinitionError(f"{when!r} has no time zone: a point of time needs one, such as datetime.UTC")
    return max(0, round(when.timestamp() * 1000))
