"""What a saga's code awaits of another saga."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from orchestrator.model.definition import ChildRequest
from orchestrator.model.driver import Asked

if TYPE_CHECKING:
    from orchestrator.saga import Saga

R = TypeVar("R")


class ChildAwaitable(Generic[R]):
    """A child saga that is started when it is awaited or gathered; awaiting gives its result."""

    __slots__ = ("_request", "_saga")

    def __init__(self, saga: type[Saga[Any, R]], request: ChildRequest) -> None:
        self._saga = saga
        self._request = request

    def __await__(self) -> Generator[Any, Any, R]:
        payload = yield from Asked(self._request).__await__()
        return self._saga.decode_result(payload or b"")
