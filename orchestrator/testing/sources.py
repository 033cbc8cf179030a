"""What a mapping makes of a record, without a broker."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from orchestrator.client.requests import Request, Requests
from orchestrator.log.base import Record
from orchestrator.sources import FromTopic
from orchestrator.sources.mapping import Unmappable
from orchestrator.topics import TopicNames
from orchestrator.wire import headers as h

_ANY: TypeAdapter[Any] = TypeAdapter(Any)


@dataclass(frozen=True, slots=True)
class Mapped:
    """One thing that a record asks for: `what` is like "start OrderFulfilment", `value` as JSON holds it."""

    what: str
    saga_id: str
    value: Any


def mapped(
    source: FromTopic[Any], value: Any, *, key: str = "", headers: Mapping[str, str] | None = None
) -> list[Mapped]:
    """What a source makes of a record with this value: bytes as they are, everything else as JSON.

    Raises `AssertionError` with the reason where the record would become a dead letter.
    """
    content = value if isinstance(value, bytes) else _ANY.dump_json(value)
    pairs = tuple((name, text.encode()) for name, text in (headers or {}).items())
    record = Record(source.topic, 0, 0, 0, key.encode(), content, pairs)
    try:
        return [_told(request) for request in source.requests_for(record, Requests(TopicNames(), 1))]
    except Unmappable as problem:
        raise AssertionError(f"{source!r}: the record becomes a dead letter: {problem}") from None


def _told(request: Request) -> Mapped:
    headers = dict(request.headers)
    what = headers[h.MESSAGE_ID].decode().split("/", 3)[3]
    return Mapped(what, headers[h.SAGA_ID].decode(), json.loads(request.value or b"null"))
