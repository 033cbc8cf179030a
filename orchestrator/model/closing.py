"""How live code is let go of: at once and without any consequence, so that nothing of it waits for the collector."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from orchestrator.model.groups import Together

_MAX_CLOSES = 100
"""How often one coroutine is closed whose `finally` blocks keep awaiting."""


class _Detached(BaseException):
    """The live code is let go of."""


def close(body: Any) -> None:
    """Ends a coroutine; whatever it awaits in its `finally` blocks is not waited for.

    Not by `close()`: where a `finally` in a nested coroutine awaits, that leaves the inner one suspended.
    """
    for _ in range(_MAX_CLOSES):
        try:
            asked = body.throw(_Detached)
        except KeyboardInterrupt:
            raise
        except BaseException:
            return
        if isinstance(asked, Together):
            close_all(asked.branches)


def close_all(bodies: Iterable[Any]) -> None:
    """Ends what a group was made of and did not begin."""
    for body in bodies:
        if hasattr(body, "close"):
            body.close()


def forget_frames(error: BaseException | None) -> None:
    """Of an error, of what it came of and of what it groups: the frames know whoever ran the code that raised it."""
    errors, seen = [error], set()
    while errors:
        one = errors.pop()
        if one is None or id(one) in seen:  # code may have linked them in a circle
            continue
        seen.add(id(one))
        BaseException.with_traceback(one, None)  # past what its class makes of an assignment
        errors += (one.__context__, one.__cause__)
        if isinstance(one, BaseExceptionGroup):
            errors += one.exceptions
