"""Schedules: sagas that are started at given times. When: `times`; what: `schedule`; how: `saga`."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.model.definition import Definition
from orchestrator.model.versions import with_own


def with_schedules(definitions: Mapping[str, Definition]) -> dict[str, Definition]:
    """A worker's sagas and the one that schedules are. Raises `ConfigurationError` where another has its name."""
    from orchestrator.schedules.saga import ScheduleSaga  # a participant needs none of it

    return with_own(definitions, ScheduleSaga.definition)
