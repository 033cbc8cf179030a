"""What a saga's code awaits besides its steps: time, signals, conditions."""

from __future__ import annotations

from collections.abc import Callable, Generator
from datetime import datetime
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, ClassVar, Generic, TypeVar, overload

from orchestrator.correlation import keeper_of, listening
from orchestrator.durations import Duration, instant, milliseconds
from orchestrator.errors import DefinitionError
from orchestrator.model.definition import Context, WaitRequest
from orchestrator.model.driver import Asked, Until
from orchestrator.model.events import StepKind
from orchestrator.others import checked_id
from orchestrator.promises import Promise, Promised
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

    __slots__ = ("_decode", "_listen", "_request")

    def __init__(
        self,
        awaited: Signal[Any] | Promised[Any],
        timeout_ms: int | None,
        key: str | None = None,
        listen: Callable[[], None] | None = None,
    ) -> None:
        self._decode = awaited.decode
        self._listen = listen
        if isinstance(awaited, Promised):
            self._request = awaited.request(timeout_ms)
        else:
            name = awaited.name if key is None else awaited.named(key)
            self._request = WaitRequest(StepKind.SIGNAL, name, timeout_ms)

    def __await__(self) -> Generator[Any, Any, S]:
        if self._listen is not None:
            self._listen()
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


class WaitMethods:
    """What a saga's code waits for besides its steps. Base of `Saga`."""

    _context: Context
    _signals: ClassVar[dict[str, Signal[Any]]]
    _promises: ClassVar[dict[str, Promise[Any]]]

    def sleep(self, duration: Duration) -> Sleep:
        """A durable pause: it outlives crashes and redeployments. Seconds or timedelta."""
        return Sleep(milliseconds(duration))

    def sleep_until(self, when: datetime) -> Sleep:
        """A durable pause until a point of time, which has a zone; none if it is over already."""
        return Sleep(None, instant(when))

    def promise(self, promise: Promise[S], key: str = "") -> Promised[S]:
        """A promise of this run, to be passed on by its token and awaited; with a `key` one of several."""
        if self._promises.get(promise.name) is not promise:
            raise DefinitionError(f"{promise!r} is no promise of {type(self).__name__}: declare it in the class")
        return Promised(promise, promise.named(key), self._context)

    @overload
    def receive(self, signal: Promised[S]) -> Receive[S]: ...

    @overload
    def receive(self, signal: Promised[S], timeout: Duration) -> Receive[S | None]: ...

    @overload
    def receive(self, signal: Signal[S], *, key: str | None = None) -> Receive[S]: ...

    @overload
    def receive(self, signal: Signal[S], timeout: Duration, *, key: str | None = None) -> Receive[S | None]: ...

    def receive(
        self, signal: Signal[Any] | Promised[Any], timeout: Duration | None = None, *, key: str | None = None
    ) -> Receive[Any]:
        """The next signal of this kind, the oldest first; what came before is kept. None if `timeout` is over first.

        What has no value gives None in both cases: where it matters whether it came, give it one.

        With a business `key` the next one that somebody sends who knows the key alone (`Client.signal_by_key`): from
        the first time on the saga hears all that is sent for this key, until it ends. Likewise the result of a promise,
        which raises `StepFailed` where it was failed.
        """
        timeout_ms = None if timeout is None else milliseconds(timeout)
        if isinstance(signal, Promised):
            return Receive(signal, timeout_ms)
        if self._signals.get(signal.name) is not signal:
            raise DefinitionError(f"{signal!r} is no signal of {type(self).__name__}: declare it in the class")
        if key is None:
            return Receive(signal, timeout_ms)
        keeper = checked_id(keeper_of(signal, key))
        return Receive(signal, timeout_ms, key, partial(self._listen, keeper, signal.named(key)))

    def _listen(self, keeper: str, name: str) -> None:
        """Tells the key's keeper that this saga listens: at each wait, for somebody may have terminated the keeper."""
        self._context.tell(listening(keeper, self._context.saga_id, name))

    def wait_until(self, condition: Callable[[], bool], timeout: Duration | None = None) -> WaitUntil:
        """Waits until a condition on the saga's own data holds; False if `timeout` is over first.

        `condition` is asked after everything that happens to the saga. It only looks: it changes nothing.
        """
        if iscoroutinefunction(condition):
            raise DefinitionError("a condition only looks at the saga's own data: it is no `async def`")
        return WaitUntil(condition, None if timeout is None else milliseconds(timeout))
