"""Human tasks: what a person does for a saga, by filling in a form.

    class Expense(Saga[Claim, str]):
        async def run(self, claim: Claim) -> str:
            decision = await self.human_task(
                Decision, title=f"{claim.cents / 100:.2f} for {claim.employee}", group="managers",
                due=timedelta(days=2), escalate=self.remind,
            )

        async def remind(self, task: HumanTask[Decision]) -> timedelta:
            await self.step(Mail.send(to=task.assignee or "managers", text=task.title))
            return timedelta(days=1)

The form is a pydantic model. A task is open while the saga waits for it; it is claimed, handed on and completed by
updates of the saga, so its owner checks the form: what does not fit is refused, and the task stays open. What lists
show of it is in the saga's notes.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Generator
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from orchestrator.durations import Duration, milliseconds
from orchestrator.errors import Abort, DefinitionError, StepFailed
from orchestrator.model.asked import Until
from orchestrator.model.definition import Context
from orchestrator.questions import Update
from orchestrator.signals import first_problem
from orchestrator.wire.notes import Note, write_note

F = TypeVar("F", bound=BaseModel)

Escalate = Callable[["HumanTask[F]"], Awaitable[Duration | None]]
"""What is done when a task is due and open: it gives how long until it is due again, None if that was the last time."""


class HumanTask(Generic[F]):
    """A task for a person. Awaiting it opens it, and gives the form that somebody has filled in.

    `assignee` is whose it is, None while nobody of its `group` has claimed it; `escalations` is how often it was due.
    """

    __slots__ = (
        "_due_ms",
        "_escalate",
        "_filled",
        "_form",
        "_saga",
        "assignee",
        "description",
        "escalations",
        "group",
        "key",
        "title",
    )

    def __init__(
        self,
        saga: TaskMethods,
        form: type[F],
        key: str,
        title: str,
        description: str,
        assignee: str | None,
        group: str | None,
        due_ms: int | None,
        escalate: Escalate[F] | None,
    ) -> None:
        self.key = key
        self.title = title
        self.description = description
        self.assignee = assignee
        self.group = group
        self.escalations = 0
        self._saga = saga
        self._form = form
        self._due_ms = due_ms
        """From its opening, or where it is open the point of time."""
        self._escalate = escalate
        self._filled: F | None = None

    def __repr__(self) -> str:
        return f"<task {self.key}: {self.title}>"

    @property
    def due(self) -> datetime | None:
        """When it is due, in UTC, once it is open."""
        return None if self._due_ms is None else datetime.fromtimestamp(self._due_ms / 1000, UTC)

    def reassign(self, *, assignee: str | None = None, group: str | None = None) -> None:
        """Hands it on: to somebody, or to a group of whom one claims it. For the saga's own code, while it is open."""
        self.assignee, self.group = assignee, group
        self._tell({"assignee": assignee, "group": group})

    def __await__(self) -> Generator[Any, Any, F]:
        return (yield from self._work().__await__())

    async def _work(self) -> F:
        saga = self._saga
        if self.key in saga._open_tasks:
            raise DefinitionError(f"{self!r} is open already: give tasks that are open at the same time a key each")
        now_ms = saga._context.now_ms
        self._due_ms = None if self._due_ms is None else now_ms + self._due_ms
        saga._open_tasks[self.key] = self
        said = {"title": self.title, "description": self.description, "assignee": self.assignee, "group": self.group}
        self._tell({**said, "due_ms": self._due_ms, "opened_ms": now_ms, "form": self._form.model_json_schema()})
        try:
            while self._filled is None:
                await self._wait()
            return self._filled
        finally:
            del saga._open_tasks[self.key]
            self._tell(None)

    async def _wait(self) -> None:
        """Until it is filled in, or due."""
        left_ms = None
        if self._escalate is not None and self._due_ms is not None:
            left_ms = max(0, self._due_ms - self._saga._context.now_ms)
        if await Until(lambda: self._filled is not None, left_ms) or self._escalate is None:
            return
        self.escalations += 1
        try:
            again = await self._escalate(self)
        except (Abort, StepFailed):
            if self._filled is None:
                raise
            return  # who filled it in meanwhile was told that it counts
        if again is None:
            self._escalate = None
        elif self._filled is None:
            self._due_ms = self._saga._context.now_ms + milliseconds(again)
            self._tell({"due_ms": self._due_ms})

    def _tell(self, change: dict[str, Any] | None) -> None:
        try:
            self._saga._note(write_note(Note(tasks={self.key: change})))
        except ValueError as error:
            raise DefinitionError(f"{self!r}: {error}") from None

    # -- what people do, checked before it is done

    def _problem(self, by: str) -> str | None:
        """Why it is not for `by` to do something about it."""
        if self.assignee is None or self.assignee == by:
            return None
        return f"the task {self.key} is {self.assignee}'s; have it handed on first"

    def _read(self, form: Any) -> F:
        """The form from its JSON. Raises `ValueError` with what does not fit."""
        try:
            return self._form.model_validate_json(json.dumps(form))
        except ValidationError as error:
            raise ValueError(f"the form of the task {self.key} does not fit: {first_problem(error)}") from None

    def _take(self, by: str) -> None:
        """It is `by`'s from now on."""
        if self.assignee != by:
            self.assignee = by
            self._tell({"assignee": by})

    def _complete(self, by: str, form: Any) -> None:
        self.assignee = by or self.assignee
        self._filled = self._read(form)


class TaskMethods:
    """What a saga has people do. Base of `Saga`."""

    _context: Context

    def human_task(
        self,
        form: type[F],
        *,
        title: str,
        description: str = "",
        assignee: str | None = None,
        group: str | None = None,
        due: Duration | None = None,
        escalate: Escalate[F] | None = None,
        key: str | None = None,
    ) -> HumanTask[F]:
        """A task for somebody, or for a group of whom one claims it: awaiting it gives the form that they fill in.

        `due` is how long they have; then `escalate` is called, if the task is still open: it may remind them by a step,
        `task.reassign(...)`, or raise `Abort`; it returns how long until it is called again, or None. `key` names the
        task, by default as its form; tasks of a saga that are open at the same time have one each.
        """
        due_ms = None if due is None else milliseconds(due)
        if escalate is not None and due_ms is None:
            raise DefinitionError(f"task {title!r}: to escalate it needs to be due")
        return HumanTask(self, form, key or form.__name__, title, description, assignee, group, due_ms, escalate)

    @property
    def _open_tasks(self) -> dict[str, HumanTask[Any]]:
        tasks: dict[str, HumanTask[Any]] = self.__dict__.setdefault("_tasks", {})
        return tasks

    def _note(self, note: bytes) -> None:
        raise NotImplementedError

    def _task(self, key: str) -> HumanTask[Any]:
        """The open task of this name, or the only one. Raises `ValueError`."""
        tasks = self._open_tasks
        if not key and len(tasks) == 1:
            return next(iter(tasks.values()))
        if key not in tasks:
            known = ", ".join(tasks) or "none"
            raise ValueError(f"there is no open task {key[:80]!r}; open: {known}")
        return tasks[key]


def _check(saga: TaskMethods, task: str, by: str) -> None:
    if problem := saga._task(task)._problem(by):
        raise ValueError(problem)


def _check_claim(saga: TaskMethods, task: str, by: str) -> None:
    if not by:
        raise ValueError("who claims the task?")
    _check(saga, task, by)


async def _claim(saga: TaskMethods, task: str, by: str) -> None:
    saga._task(task)._take(by)


def _check_form(saga: TaskMethods, task: str, by: str, form: Any) -> None:
    _check(saga, task, by)
    saga._task(task)._read(form)


async def _complete(saga: TaskMethods, task: str, by: str, form: Any) -> None:
    saga._task(task)._complete(by, form)


def _check_task(saga: TaskMethods, task: str, by: str, assignee: str | None, group: str | None) -> None:
    saga._task(task)


async def _reassign(saga: TaskMethods, task: str, by: str, assignee: str | None, group: str | None) -> None:
    saga._task(task).reassign(assignee=assignee, group=group)


def _update(name: str, function: Any, check: Callable[..., None]) -> Any:
    made: Update[..., None] = Update(function)
    made.name, made.check = name, check
    return made


CLAIM: Update[[str, str], None] = _update("task.claim", _claim, _check_claim)
COMPLETE: Update[[str, str, Any], None] = _update("task.complete", _complete, _check_form)
REASSIGN: Update[[str, str, str | None, str | None], None] = _update("task.reassign", _reassign, _check_task)
UPDATES: dict[str, Update[..., None]] = {each.name: each for each in (CLAIM, COMPLETE, REASSIGN)}
"""Those that every saga takes. Their names are no identifiers, so no saga declares one of them."""
