"""An update under way, as its sender sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from orchestrator.client.connection import Answer, Expected
from orchestrator.errors import QueryFailed, SagaNotFound, UpdateFailed, UpdateRejected
from orchestrator.model.effects import REFUSED, UPDATE_FAILED
from orchestrator.model.events import Refusal

R = TypeVar("R")

Wait = Callable[[Expected, float | None], Awaitable[Answer]]


class UpdateHandle(Generic[R]):
    """Kafka has the update (ADMITTED): the saga will take it (ACCEPTED) or not, and carry it out (COMPLETED)."""

    def __init__(
        self, saga_id: str, id: str, accepted: Expected, completed: Expected, wait: Wait, decode: Callable[[bytes], R]
    ) -> None:
        self.saga_id = saga_id
        self.id = id
        self._accepted = accepted
        self._completed = completed
        self._wait = wait
        self._decode = decode

    def __repr__(self) -> str:
        return f"<update {self.id!r} of saga {self.saga_id!r}>"

    async def accepted(self, timeout: float | None = 30.0) -> None:
        """Returns when the saga has taken it: it will be carried out, whatever crashes.

        Raises `UpdateRejected`, `SagaNotFound`, `ResultTimeout`, `Disconnected`.
        """
        self._open(await self._wait(self._accepted, timeout))

    async def result(self, timeout: float | None = 30.0) -> R:
        """What it gave; may be called again. Raises `UpdateFailed`, and what `accepted` raises."""
        return self._decode(self._open(await self._wait(self._completed, timeout)))

    def _open(self, answer: Answer) -> bytes:
        if answer.status == REFUSED:
            refused: Any = SagaNotFound if answer.error_type == Refusal.NOT_FOUND else UpdateRejected
            raise refused(self.saga_id, answer.error_message)
        if answer.status == UPDATE_FAILED:
            raise UpdateFailed(self.saga_id, answer.error_type, answer.error_message)
        return answer.payload


def answered(saga_id: str, answer: Answer) -> bytes:
    """A query's answer. Raises `SagaNotFound`, `QueryFailed`."""
    if answer.status == REFUSED:
        refused: Any = SagaNotFound if answer.error_type == Refusal.NOT_FOUND else QueryFailed
        raise refused(saga_id, answer.error_message)
    return answer.payload
