"""What all parts of a client have in common."""

from __future__ import annotations

from orchestrator.client.connection import Connection
from orchestrator.client.outgoing import Outgoing
from orchestrator.client.requests import Request, Requests
from orchestrator.model.messages import ReplyAddress
from orchestrator.topics import TopicNames


class Part:
    """How a request is made and goes out; `Client` says it."""

    client_id: str
    _topics: TopicNames
    _partitions: int
    _requests: Requests
    _connection: Connection
    _timeout_s: float

    def _message_id(self) -> str:
        raise NotImplementedError

    def _reply_address(self) -> ReplyAddress:
        raise NotImplementedError

    def _through(self, outgoing: Outgoing) -> Outgoing:
        raise NotImplementedError

    async def _send(self, request: Request, saga_id: str) -> None:
        raise NotImplementedError
