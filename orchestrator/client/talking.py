"""What a client asks sagas and entities: queries, and updates with what comes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from orchestrator.client.asking import UpdateHandle, answered
from orchestrator.client.connection import Answer, Expected
from orchestrator.client.entities import EntityHandle
from orchestrator.client.outgoing import Outgoing
from orchestrator.client.part import Part
from orchestrator.client.requests import Request
from orchestrator.entities import Entity
from orchestrator.questions import Query, Update

P = ParamSpec("P")
R = TypeVar("R")
N = TypeVar("N", bound=Entity[Any])


class Talking(Part):
    """Part of a client: who asks waits for an answer."""

    async def _await(
        self, request: Callable[[], Request], id: str, expected: Expected, timeout: float | None
    ) -> Answer:
        raise NotImplementedError

    async def query(self, id: str, query: Query[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """What a saga says about itself, live or ended, as of no earlier than this call; within 30 seconds.

        It knows of all that Kafka had in the inbox before. Raises `SagaNotFound`, `QueryFailed` (which says what its
        code raised), `ResultTimeout`, `pydantic.ValidationError`, and what `cancel` raises.
        """
        return query.decode_result(await self.query_raw(id, query.name, query.encode(*args, **kwargs)))

    async def query_raw(self, id: str, name: str, payload: bytes = b"{}", *, timeout: float = 30.0) -> bytes:
        """The same by the query's name, with its arguments by name as JSON; the answer is JSON."""
        payload = self._through(Outgoing("query", id, name, payload)).payload
        return (await self.ask(id, name, payload, timeout=timeout))[1]

    async def ask(self, id: str, name: str, payload: bytes, *, timeout: float = 30.0) -> tuple[str, bytes]:
        """The same as it is, past what stands around the client; with the run that was asked."""
        reply = self._reply_address()
        request = self._requests.query(None, id, reply.correlation_id, name, payload, reply)
        await self._connection.listen(self._timeout_s)
        expected = self._connection.expect(reply.correlation_id)
        await self._send(request, id)
        answer = await self._await(lambda: request, id, expected, timeout)
        return answer.run, answered(id, answer)

    async def update(self, id: str, update: Update[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Has a saga do something, and gives what came of it, within 30 seconds.

        Raises `UpdateRejected`, `UpdateFailed`, `SagaNotFound`, `ResultTimeout`, `pydantic.ValidationError`, and what
        `cancel` raises.
        """
        return await (await self.start_update(id, update, *args, **kwargs)).result()

    async def start_update(
        self, id: str, update: Update[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> UpdateHandle[R]:
        """The same, but returns when Kafka has it; the handle tells when it was accepted, and its result."""
        return await self.start_update_as(self._message_id(), id, update, *args, **kwargs)

    async def start_update_as(
        self, update_id: str, id: str, update: Update[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> UpdateHandle[R]:
        """The same under an update id of one's own: the same id for the same saga is the same update, done once."""
        payload = update.encode(*args, **kwargs)
        return await self.start_update_raw(update_id, id, update.name, payload, update.decode_result)

    async def start_update_raw(
        self, update_id: str, id: str, name: str, payload: bytes, decode: Callable[[bytes], R], saga_type: str = ""
    ) -> UpdateHandle[R]:
        """The same by the update's name, with its arguments by name as JSON; a `saga_type` starts it if need be."""
        payload = self._through(Outgoing("update", id, name, payload)).payload
        reply = self._reply_address()
        request = self._requests.update(id, reply.correlation_id, update_id, name, payload, reply, saga_type)
        await self._connection.listen(self._timeout_s)
        accepted = self._connection.expect(f"{reply.correlation_id}/accepted")
        completed = self._connection.expect(reply.correlation_id)
        await self._send(request, id)

        async def wait(expected: Expected, timeout: float | None) -> Answer:
            return await self._await(lambda: request, id, expected, timeout)

        return UpdateHandle(id, update_id, accepted, completed, wait, decode)

    async def tell_update(self, id: str, name: str, payload: bytes, saga_type: str) -> None:
        """Asks for an update, and does not hear what comes of it. Returns when Kafka has it."""
        payload = self._through(Outgoing("update", id, name, payload)).payload
        message_id = self._message_id()
        await self._send(self._requests.update(id, message_id, message_id, name, payload, None, saga_type), id)

    def entity(self, kind: type[N], key: str) -> EntityHandle[N]:
        """The entity under a key, to be asked for operations. Raises `DefinitionError`."""
        return EntityHandle(self, kind, key)
