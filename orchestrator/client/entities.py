"""An entity as a client sees it."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from orchestrator.entities import Entity, OperationCall, entity_id
from orchestrator.questions import Query

if TYPE_CHECKING:
    from orchestrator.client.talking import Talking

N = TypeVar("N", bound=Entity[Any])
P = ParamSpec("P")
R = TypeVar("R")


class EntityHandle(Generic[N]):
    """The entity under a key. It begins with the first operation that anybody asks it for."""

    __slots__ = ("_client", "_type", "id")

    def __init__(self, client: Talking, kind: type[N], key: str) -> None:
        self.id = entity_id(kind, key)
        self._client = client
        self._type = kind.definition.name

    async def call(
        self, call: OperationCall[N, R], *, operation_id: str | None = None, timeout: float | None = 30.0
    ) -> R:
        """Has an operation done, and gives what came of it, within `timeout` seconds (None: as long as it takes).

        The same `operation_id` is the same operation, done once. Raises `UpdateFailed` where the operation refuses,
        `UpdateRejected` where the entity cannot take it, `ResultTimeout`, and what `Client.cancel` raises.
        """
        asked = operation_id or str(uuid.uuid4()), self.id, call.name, call.payload, call.decode, self._type
        return await (await self._client.start_update_raw(*asked)).result(timeout)

    async def tell(self, call: OperationCall[N, Any]) -> None:
        """Asks for an operation, and does not hear what comes of it. Returns when Kafka has it."""
        await self._client.tell_update(self.id, call.name, call.payload, self._type)

    async def query(self, query: Query[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """What the entity says about itself, see `Client.query`; `SagaNotFound` where nobody has asked it yet."""
        return await self._client.query(self.id, query, *args, **kwargs)
