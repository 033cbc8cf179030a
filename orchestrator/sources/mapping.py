"""What the records of a business topic mean to sagas, as declared by whoever knows both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar, overload

from pydantic import TypeAdapter, ValidationError

from orchestrator.client.requests import Request, Requests
from orchestrator.durations import Duration, milliseconds
from orchestrator.errors import DefinitionError, InvalidRequest
from orchestrator.log.base import Record
from orchestrator.model.messages import Reuse
from orchestrator.promises import Promise
from orchestrator.saga import Saga
from orchestrator.signals import Signal, first_problem
from orchestrator.wire import headers as h

I = TypeVar("I")  # noqa: E741 - input, as in `Saga`
M = TypeVar("M")
S = TypeVar("S")
T = TypeVar("T")

_BY = "source "


class Unmappable(Exception):
    """A record that a mapping cannot make anything of; `kind` is a stable name for why."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class SourceRecord(Generic[M]):
    """One record of a business topic, as the functions of a mapping see it.

    `value` is what it was decoded to. `key` is empty where there is none; of repeated headers the last counts.
    `timestamp_ms` is milliseconds since 1970.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: str
    headers: Mapping[str, str]
    value: M


Make = Callable[[Requests, str, str, bytes, "SourceRecord[Any]"], Request]

Asked = Callable[[SourceRecord[M]], T]
"""A function of the record."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """One thing that a record may mean. `name` is part of the message id: what was sent again is known by it."""

    name: str
    id: Callable[[SourceRecord[Any]], str]
    payload: Callable[[SourceRecord[Any]], bytes]
    where: Callable[[SourceRecord[Any]], bool] | None
    request: Make
    """From saga id, message id, payload and record."""


class FromTopic(Generic[M]):
    """A business topic, whose records are JSON that fits `value`, and what they mean to sagas.

    `topic` is its whole name. `where` looks at a record before it is decoded (`value` are the bytes): what it does not
    want is passed over, as are records without a value. `decode` makes plain data of the bytes where they are not JSON.
    `name` is that of the consumer group, `saga-source.<name>`; by default the topic's.

    Every function of a mapping gets a `SourceRecord`. What one of them raises for, or what does not fit the saga's own
    type, is a dead letter with the reason, and nothing of that record is sent.
    """

    def __init__(
        self,
        topic: str,
        value: type[M],
        *,
        name: str | None = None,
        where: Asked[bytes, bool] | None = None,
        decode: Callable[[bytes], Any] | None = None,
    ) -> None:
        if not topic or name == "":
            raise DefinitionError("FromTopic: the topic has a name, and so has its consumer group")
        self.topic = topic
        self.name = name or topic
        self._value: TypeAdapter[Any] = TypeAdapter(value)
        self._where = where
        self._decode = decode
        self._rules: list[_Rule] = []

    def __repr__(self) -> str:
        return f"<from topic {self.topic}>"

    def starts(
        self,
        saga: type[Saga[I, Any]],
        *,
        id: Asked[M, str],
        input: Asked[M, I],
        where: Asked[M, bool] | None = None,
        reuse: Reuse | None = None,
    ) -> FromTopic[M]:
        """A record starts a saga, unless `where` says no. An id that exists is not started again, see `Client.start`;

        `reuse` is for ids whose saga has ended.
        """
        saga_type = saga.definition.name

        def request(
            requests: Requests, saga_id: str, message_id: str, payload: bytes, record: SourceRecord[Any]
        ) -> Request:
            trace = record.headers.get(h.TRACEPARENT)
            return requests.start(saga_type, saga_id, payload, message_id, None, trace, reuse=reuse)

        return self._add(f"start {saga_type}", id, lambda record: saga.encode_input(input(record)), where, request)

    @overload
    def signals(
        self, signal: Signal[None], *, id: Asked[M, str], where: Asked[M, bool] | None = None
    ) -> FromTopic[M]: ...
    @overload
    def signals(
        self, signal: Signal[S], *, id: Asked[M, str], value: Asked[M, S], where: Asked[M, bool] | None = None
    ) -> FromTopic[M]: ...
    @overload
    def signals(
        self,
        signal: Signal[None],
        *,
        key: Asked[M, str],
        where: Asked[M, bool] | None = None,
        ttl: Duration = 86_400,
    ) -> FromTopic[M]: ...
    @overload
    def signals(
        self,
        signal: Signal[S],
        *,
        key: Asked[M, str],
        value: Asked[M, S],
        where: Asked[M, bool] | None = None,
        ttl: Duration = 86_400,
    ) -> FromTopic[M]: ...
    def signals(
        self,
        signal: Signal[Any],
        *,
        id: Asked[M, str] | None = None,
        key: Asked[M, str] | None = None,
        value: Asked[M, Any] | None = None,
        where: Asked[M, bool] | None = None,
        ttl: Duration = 86_400,
    ) -> FromTopic[M]:
        """A record tells the saga `id` something, or those that listen for the business `key`, see

        `Client.signal_by_key`. One record tells one saga a signal once.
        """
        ttl_ms = milliseconds(ttl)
        whose = id or key
        if whose is None or (id is not None and key is not None):
            raise DefinitionError(f"{self!r}: {signal!r} goes to a saga by its id, or by a key")

        def request(
            requests: Requests, saga_id: str, message_id: str, payload: bytes, record: SourceRecord[Any]
        ) -> Request:
            if key is not None:
                return requests.signal_by_key(signal.address, saga_id, message_id, payload, ttl_ms)
            return requests.signal(saga_id, message_id, signal.name, payload, None, _BY + self.name)

        tell: Asked[M, Any] = value or (lambda _: None)
        return self._add(f"signal {signal.name}", whose, lambda record: signal.encode(tell(record)), where, request)

    def completes(
        self,
        promise: Promise[S],
        *,
        id: Asked[M, str],
        result: Asked[M, S],
        key: Asked[M, str] | None = None,
        where: Asked[M, bool] | None = None,
    ) -> FromTopic[M]:
        """A record keeps a promise of the saga `id`, with a `key` the one of this key; the first result counts."""

        def request(
            requests: Requests, saga_id: str, message_id: str, payload: bytes, record: SourceRecord[Any]
        ) -> Request:
            name = promise.named("" if key is None else key(record))
            return requests.settle(saga_id, message_id, name, payload, by=_BY + self.name)

        return self._add(f"promise {promise.name}", id, lambda record: promise.encode(result(record)), where, request)

    def _add(
        self,
        name: str,
        id: Callable[[SourceRecord[Any]], str],
        payload: Callable[[SourceRecord[Any]], bytes],
        where: Callable[[SourceRecord[Any]], bool] | None,
        request: Make,
    ) -> FromTopic[M]:
        if not name.partition(" ")[2]:
            raise DefinitionError(f"{self!r}: a {name.strip()} is one that a saga class declares")
        self._rules.append(_Rule(name, id, payload, where, request))
        return self

    def check(self) -> None:
        """Raises `DefinitionError` where no record means anything."""
        if not self._rules:
            raise DefinitionError(f"{self!r} maps nothing: call starts, signals or completes")

    def requests_for(self, record: Record, requests: Requests) -> list[Request]:
        """What a record asks for, in the order in which it was declared. Raises `Unmappable`."""
        if record.value is None:
            return []
        raw = SourceRecord(
            record.topic,
            record.partition,
            record.offset,
            record.timestamp_ms,
            (record.key or b"").decode(errors="surrogateescape"),
            {name: value.decode(errors="replace") for name, value in record.headers},
            record.value,
        )
        if self._where is not None and not _asked("where", self._where, raw):
            return []
        given = SourceRecord(
            raw.topic, raw.partition, raw.offset, raw.timestamp_ms, raw.key, raw.headers, self._decoded(record.value)
        )
        asked: list[Request] = []
        for rule in self._rules:
            if rule.where is None or _asked(f"{rule.name}: where", rule.where, given):
                asked.append(_asked(rule.name, partial(_request, rule, requests), given))
        return asked

    def _decoded(self, content: bytes) -> M:
        try:
            if self._decode is None:
                value: M = self._value.validate_json(content)
            else:
                value = self._value.validate_python(self._decode(content))
        except ValidationError as error:
            raise Unmappable("MalformedMessage", f"the value does not fit: {first_problem(error)}") from None
        except Exception as error:
            raise Unmappable("MalformedMessage", f"the value cannot be decoded: {_told(error)}") from None
        return value


def _request(rule: _Rule, requests: Requests, given: SourceRecord[Any]) -> Request:
    place = f"{given.topic}/{given.partition}/{given.offset}"
    return rule.request(requests, rule.id(given), f"{place}/{rule.name}", rule.payload(given), given)


def _asked(what: str, function: Callable[[SourceRecord[Any]], T], given: SourceRecord[Any]) -> T:
    """What a function of the user's gives. Raises `Unmappable` for what it raises."""
    try:
        return function(given)
    except ValidationError as error:
        raise Unmappable("MappingFailed", f"{what}: {first_problem(error)}") from None
    except InvalidRequest as error:
        raise Unmappable("MappingFailed", f"{what}: {error}") from None
    except Exception as error:
        raise Unmappable("MappingFailed", f"{what}: {_told(error)}") from None


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
