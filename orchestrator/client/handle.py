"""One saga as its starter sees it: wait for its result, cancel it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from orchestrator.errors import OtherSagaType, SagaAlreadyExists, SagaFailed, SagaNotFound, StartRejected
from orchestrator.model.effects import REFUSED
from orchestrator.model.events import Refusal, Status

if TYPE_CHECKING:
    from orchestrator.client.asking import UpdateHandle
    from orchestrator.client.client import Client
    from orchestrator.client.connection import Answer, Expected
    from orchestrator.promises import Promise
    from orchestrator.questions import Query, Update
    from orchestrator.saga import Saga
    from orchestrator.signals import Signal
    from orchestrator.streams import Stream

O = TypeVar("O")  # noqa: E741 - output, as in `Saga`
S = TypeVar("S")
P = ParamSpec("P")
R = TypeVar("R")

_REFUSALS: dict[str, type[SagaNotFound | SagaAlreadyExists]] = {
    Refusal.OTHER_TYPE: OtherSagaType,
    Refusal.REJECTED: StartRejected,
    Refusal.ALREADY_EXISTS: SagaAlreadyExists,
}


class Handle(Generic[O]):
    """A saga that was started or attached to. Cheap to keep and to drop; the saga does not depend on it."""

    __slots__ = ("_client", "_expected", "_saga", "correlation_id", "id")

    def __init__(
        self, client: Client, saga: type[Saga[Any, O]], id: str, correlation_id: str, expected: Expected
    ) -> None:
        self.id = id
        self.correlation_id = correlation_id
        self._client = client
        self._saga = saga
        self._expected = expected

    def __repr__(self) -> str:
        return f"<Handle of {self._saga.definition.name} {self.id!r}>"

    @property
    def done(self) -> bool:
        """Whether the answer is here, so that `result` returns or raises at once."""
        return self._expected.answer is not None

    async def result(self, timeout: float | None = 30.0) -> O:
        """The saga's result, waiting up to `timeout` seconds (None: as long as it takes). May be called again.

        Raises `SagaFailed` if it ended in another way, `SagaNotFound` (`OtherSagaType`, `StartRejected`),
        `SagaAlreadyExists`, `ResultTimeout`, `Disconnected`.
        """
        name = self._saga.definition.name
        answer = await self._client.answer(name, self.id, self.correlation_id, self._expected, timeout)
        return self._open(answer)

    async def cancel(self, *, reason: str = "") -> None:
        """Asks the saga to stop and undo what it did. Returns when Kafka has the request."""
        await self._client.cancel(self.id, reason=reason)

    @overload
    async def signal(self, signal: Signal[None], /) -> None: ...
    @overload
    async def signal(self, signal: Signal[S], value: S, /) -> None: ...
    async def signal(self, signal: Signal[Any], value: Any = None, /) -> None:
        """Tells the saga something, see `Client.signal`."""
        await self._client.signal(self.id, signal, value)

    @overload
    async def complete_promise(self, promise: Promise[None], /, *, key: str = "") -> None: ...
    @overload
    async def complete_promise(self, promise: Promise[S], result: S, /, *, key: str = "") -> None: ...
    async def complete_promise(self, promise: Promise[Any], result: Any = None, /, *, key: str = "") -> None:
        """Keeps a promise of the saga, see `Client.complete_promise`."""
        await self._client.complete_promise(self.id, promise, result, key=key)

    async def fail_promise(
        self, promise: Promise[Any], error_type: str, message: str = "", /, *, key: str = ""
    ) -> None:
        """Fails a promise of the saga, see `Client.fail_promise`."""
        await self._client.fail_promise(self.id, promise, error_type, message, key=key)

    async def query(self, query: Query[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """What the saga says about itself, live or ended, see `Client.query`."""
        return await self._client.query(self.id, query, *args, **kwargs)

    async def update(self, update: Update[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Has the saga do something, and gives what came of it, see `Client.update`."""
        return await self._client.update(self.id, update, *args, **kwargs)

    async def start_update(self, update: Update[P, R], /, *args: P.args, **kwargs: P.kwargs) -> UpdateHandle[R]:
        """The same, but returns when Kafka has it, see `Client.start_update`."""
        return await self._client.start_update(self.id, update, *args, **kwargs)

    def follow(self, stream: Stream[S], /) -> AsyncIterator[S]:
        """What the saga publishes on a stream, from the first value to its end, see `Client.follow`."""
        return self._client.follow(self.id, stream)

    def _open(self, answer: Answer) -> O:
        if answer.status == Status.COMPLETED:
            return self._saga.decode_result(answer.payload)
        if answer.status == REFUSED:
            raise _REFUSALS.get(answer.error_type, SagaNotFound)(self.id, answer.error_message)
        raise SagaFailed(self.id, answer.run, answer.status, answer.undone, answer.error_type, answer.error_message)
