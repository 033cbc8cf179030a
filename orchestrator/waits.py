"""What a saga's code awaits besides its steps: time, signals, conditions."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

from orchestrator.model.definition import WaitRequest
from orchestrator.model.driver import Asked, Until
from orchestrator.model.events import StepKind
from orchestrator.promises import Promised
from orchestrator.signals import Signal

S = TypeVar("S")


class Sleep:
    """A durable pause: of a length, or until a point of time."""

    __slots__ = ("_request",)

    def __init__(self, duration_ms: int | None, until_ms: int | None = None) -> None:
        self._request = WaitRequest(StepKind.SLEEP, "", duration_ms, until_ms)

    def __await__(self) -> Generator[Any, Any, None]:
        yield from Asked(self._request).__await__()


class Receive(Generic[S]):
    """The next signal of a name, or a promise's result; None where the time was up first."""

    __slots__ = ("_decode", "_request")

    def __init__(self, awaited: Signal[Any] | Promised[Any], timeout_ms: int | None) -> None:
        self._decode = awaited.decode
        if isinstance(awaited, Promised):
            self._request = awaited.request(timeout_ms)
        else:
            self._request = WaitRequest(StepKind.SIGNAL, awaited.name, timeout_ms)

    def __await__(self) -> Generator[Any, Any, S]:
        payload = yield from Asked(self._request).__await__()
        value: S = None if payload is None else self._decode(payload)  # type: ignore[assignment]
        return value


class WaitUntil:
    """A condition on the saga's own data; awaiting gives whether it holds, False where the time was up first."""

    __slots__ = ("_until",)

    def __init__(self, condition: Callable[[], bool], timeout_ms: int | None) -> None:
        self._until = Until(condition, timeout_ms)

    def __await__(self) -> Generator[Any, Any, bool]:
        return (yield from self._until.__await__())
