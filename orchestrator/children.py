"""What a saga's code awaits of another saga."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from orchestrator.model.definition import ChildRequest, Context
from orchestrator.model.driver import Asked
from orchestrator.model.messages import Leaving

if TYPE_CHECKING:
    from orchestrator.saga import Saga

R = TypeVar("R")


class ChildAwaitable(Generic[R]):
    """A child saga that is started when it is awaited or gathered; awaiting gives its result."""

    __slots__ = ("_context", "_request", "_saga")

    def __init__(self, saga: type[Saga[Any, R]], request: ChildRequest, context: Context) -> None:
        self._saga = saga
        self._request = request
        self._context = context

    def __await__(self) -> Generator[Any, Any, R]:
        payload = yield from Asked(self._request).__await__()
        return self._saga.decode_result(payload or b"")

    def cancel(self) -> None:
        """Asks the child, while another branch awaits it, to stop and undo: awaiting it then raises `StepFailed`."""
        self._context.stop(self._request, Leaving.CANCEL)

    def terminate(self) -> None:
        """Likewise to end at once, without undo."""
        self._context.stop(self._request, Leaving.TERMINATE)
