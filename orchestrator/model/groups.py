"""Lines of execution that run at the same time, and when a group of them is over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, Final

from orchestrator.errors import Canceled, StepFailed
from orchestrator.model.frozen import frozen

LOST: Final = object()
"""In a group's results: a branch that was let go of before its end."""


@frozen
class Together:
    """What code awaits to run branches at the same time; gives what each came to, in order.

    That is what it returned, the `StepFailed` that it ended by, or `LOST`. `successes` of them are enough (None: all):
    the others are then cancelled and waited for. `tolerated` may end by `StepFailed`; one more, or any other error, has
    the others cancelled and is raised. `concurrency` are open at a time, in order (None: all): then the branches should
    be objects that are nothing before they are awaited, for some may never be.
    """

    branches: tuple[Awaitable[Any], ...]
    successes: int | None = None
    tolerated: int = 0
    concurrency: int | None = None

    def __await__(self) -> Generator[Together, list[Any], list[Any]]:
        return (yield self)


class Join:
    """Several branches that another one waits for. `open` are those that have begun and not ended."""

    __slots__ = (
        "canceled",
        "closed",
        "concurrency",
        "failure",
        "needed",
        "open",
        "owner",
        "rest",
        "results",
        "tolerated",
    )

    def __init__(self, owner: Branch, asked: Together) -> None:
        size = len(asked.branches)
        self.owner = owner
        self.rest = enumerate(asked.branches)
        self.open: dict[int, Branch] = {}
        self.concurrency = size if asked.concurrency is None else asked.concurrency
        self.needed = size if asked.successes is None else asked.successes
        self.tolerated = asked.tolerated
        self.results: list[Any] = [LOST] * size
        self.closed = False
        """Enough succeeded, one failed, or it was cancelled: nothing more begins, what still ends does not count."""
        self.canceled = False
        """It was passed a cancellation: the one who waits for the group gets it too once the group is over."""
        self.failure: BaseException | None = None

    def note(self, index: int, value: Any, error: BaseException | None) -> bool:
        """What a branch came to; closes the group where that decides it. False: nobody will count on the branch."""
        won = self.closed and self.failure is None and not self.canceled
        if won and (error is None or isinstance(error, StepFailed | Canceled)):
            return False
        if error is None:
            self.results[index] = value
            self.needed -= 1
            self.closed = self.closed or not self.needed
        elif isinstance(error, StepFailed) and not self.closed and self.tolerated:
            self.results[index] = error
            self.tolerated -= 1
            return False
        elif self.failure is None:
            self.failure = error
            self.closed = True
        return True


class Branch:
    """One line of execution. `waiting` is a sequence number, a group, or None while it is ready to run.

    `condition` is what it waits for instead of an outcome, or beside the one of a time that is up.

    It is cancelled once at most, so that what it cleans up afterwards can be awaited: `canceled` says that it was,
    `cancel` that it has yet to hear of it.

    `steps` are the sequence numbers of what it asked for, branches of its own groups included; of the root none.
    """

    __slots__ = ("body", "cancel", "canceled", "condition", "done", "index", "join", "steps", "update", "waiting")

    def __init__(self, body: Any, join: Join | None = None, index: int = 0) -> None:
        self.body = body if hasattr(body, "send") else _alone(body)
        self.join = join
        self.index = index
        self.waiting: int | Join | None = None
        self.condition: Callable[[], bool] | None = None
        self.cancel = False
        self.canceled = False
        self.done = False
        self.steps: list[int] = []
        self.update = 0
        """The update that it handles."""


async def _alone(body: Awaitable[Any]) -> Any:
    return await body
