"""Locks over business keys: what one saga holds, others wait for.

class Transfer(Saga[Order, None], locks=lambda order: [f"account/{order.payer}", f"account/{order.payee}"]):
    ...                                             # held from the beginning to the end, its undo included

await self.lock("account/ann")                      # from here to the end
async with self.lock("account/ann", timeout=60):    # for the block, where nothing in it fails
    ...
"""

from __future__ import annotations

from collections.abc import Generator
from enum import StrEnum
from types import TracebackType
from typing import Any

from orchestrator.choices import chosen
from orchestrator.durations import Duration, milliseconds
from orchestrator.errors import Canceled, DefinitionError, StepFailed
from orchestrator.model.definition import Context, Definition, WaitRequest
from orchestrator.model.driver import Asked
from orchestrator.model.events import StepKind
from orchestrator.model.ids import problem_of
from orchestrator.model.locks import DEFINITION, saga_of
from orchestrator.model.versions import with_own


class IfLocked(StrEnum):
    """What a saga does about a key that another one holds."""

    WAIT = "WAIT"
    """Waits; whoever has waited longest gets it next."""
    FAIL = "FAIL"
    """Goes on at once, by `StepFailed`."""


class Keys:
    """Keys to be held: awaited, until the run has ended; as a block, until its end."""

    __slots__ = ("_context", "_fails", "_holds", "_keys", "_timeout_ms")

    def __init__(self, context: Context, keys: tuple[str, ...], timeout_ms: int | None, if_locked: IfLocked) -> None:
        self._context = context
        self._keys = sorted(set(keys))
        self._timeout_ms = timeout_ms
        self._fails = chosen(IfLocked, if_locked, "if_locked") is IfLocked.FAIL
        self._holds: list[int] = []

    def __await__(self) -> Generator[Any, Any, None]:
        return self._take().__await__()

    async def _take(self) -> None:
        """All in one order, which is the same for everybody; none of them where one cannot be had."""
        until_ms = None if self._timeout_ms is None else self._context.now_ms + self._timeout_ms
        try:
            for key in self._keys:
                hold = await Asked(WaitRequest(StepKind.LOCK, key, None, until_ms, self._fails))
                if hold is None:
                    why = f"another saga held it for {self._timeout_ms} ms"
                    raise StepFailed(f"lock {key}", "LockTimeout", why, unknown=False)
                self._holds.append(int(hold))
        except (StepFailed, Canceled):
            self._give()
            raise

    def _give(self) -> None:
        for hold in self._holds:
            self._context.unlock(hold)
        self._holds.clear()

    async def __aenter__(self) -> None:
        await self._take()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._give()


class LockMethods:
    """How a saga's code holds keys. Base of `Saga`."""

    _context: Context

    def lock(self, *keys: str, timeout: Duration | None = None, if_locked: IfLocked = IfLocked.WAIT) -> Keys:
        """Keys that no other saga holds while this one does: `await` it, or `async with` it.

        Awaited they are held until the run has ended and all is undone that it undoes, however it ends. A block gives
        them back at its end; where an error leaves it they are held to the end of the run, for what was done in it may
        have to be undone. A key that this saga holds it may take again. `timeout` is for all of them together. Raises
        `StepFailed` with `LockTimeout`, or with `Locked` where it should not wait; then it holds none of them.
        """
        for key in keys:
            if not isinstance(key, str):
                raise DefinitionError(f"the key of a lock is a text, such as 'account/ann', not {key!r}")
            if not key or (problem := problem_of(saga_of(key))) is not None:
                raise DefinitionError(f"the key {key[:40]!r} of a lock: {problem if key else 'it is empty'}")
        if not keys:
            raise DefinitionError("a lock has at least one key")
        return Keys(self._context, keys, None if timeout is None else milliseconds(timeout), if_locked)


def with_locks(definitions: dict[str, Definition]) -> dict[str, Definition]:
    """What a worker has, with the saga that is a lock. Raises `ConfigurationError` where another one has its name."""
    return with_own(definitions, DEFINITION)
