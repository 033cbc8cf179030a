"""What sagas wait for people to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.visibility.views import Run


@dataclass(frozen=True, slots=True)
class Task:
    """One open task. `form` is the JSON schema of what is to be filled in; times in milliseconds since 1970."""

    saga_id: str
    saga_type: str
    key: str
    title: str
    description: str
    assignee: str | None
    group: str | None
    due_ms: int | None
    opened_ms: int
    form: dict[str, Any]


def tasks_of(runs: Iterable[Run]) -> tuple[Task, ...]:
    """The open tasks of these runs: what is due first comes first, then what has waited longest."""
    found = [
        Task(
            run.saga_id,
            run.saga_type,
            key,
            said.get("title", ""),
            said.get("description", ""),
            said.get("assignee"),
            said.get("group"),
            said.get("due_ms"),
            said.get("opened_ms", run.started_at_ms),
            said.get("form", {}),
        )
        for run in runs
        for key, said in run.tasks.items()
    ]
    found.sort(key=lambda task: (task.due_ms is None, task.due_ms or 0, task.opened_ms, task.saga_id, task.key))
    return tuple(found)
