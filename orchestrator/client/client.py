"""The client: starts sagas, waits for them, acts on them. It talks to topics only, never to a worker."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from pydantic import TypeAdapter

from orchestrator.attributes import Assignment
from orchestrator.client.connection import Answer, Connection, Expected, came
from orchestrator.client.following import Following
from orchestrator.client.handle import Handle
from orchestrator.client.operations import Operations
from orchestrator.client.outgoing import Outgoing as Outgoing
from orchestrator.client.partitions import partitions_of
from orchestrator.client.requests import Request, Requests, begin_of
from orchestrator.client.talking import Talking
from orchestrator.client.tasks import Tasks
from orchestrator.correlation import id_of
from orchestrator.durations import Duration, milliseconds
from orchestrator.errors import (
    Disconnected,
    InvalidRequest,
    ResultTimeout,
)
from orchestrator.log.base import Log
from orchestrator.model.ids import partition_of
from orchestrator.model.messages import Conflict, Outcome, ReplyAddress, Reuse
from orchestrator.promises import Promise
from orchestrator.saga import Saga
from orchestrator.signals import Signal
from orchestrator.topics import TopicNames

if TYPE_CHECKING:
    from orchestrator.client.schedules import Schedules

DAY = timedelta(days=1)
_RESULT: TypeAdapter[Any] = TypeAdapter(Any)

I = TypeVar("I")  # noqa: E741 - input, as in `Saga`
O = TypeVar("O")  # noqa: E741
S = TypeVar("S")
P = ParamSpec("P")
R = TypeVar("R")


ATTACH_FIRST_S = 2.0
ATTACH_MAX_S = 60.0
"""An answer is asked for again after the first wait, then after twice that, and so on up to the maximum."""


class Client(Operations, Talking, Tasks, Following):
    """Requests to one orchestrator. For one event loop; use it as `async with`.

    `partitions` is the partition count of the inbox, which all input topics share, `answer_partitions` that of
    `saga.answers`. The client id picks the partition on which this client waits for answers. Requests are given
    `timeout_s` seconds to be acknowledged; those whose outcome is unknown are sent again under the same message id.
    `around`: functions that each start, signal, update and query goes through, in this order, before it is sent.
    """

    def __init__(
        self,
        log: Log,
        topics: TopicNames,
        partitions: int,
        *,
        answer_partitions: int | None = None,
        client_id: str | None = None,
        timeout_s: float = 30.0,
        attach_first_s: float = ATTACH_FIRST_S,
        around: Iterable[Callable[[Outgoing], Outgoing]] = (),
    ) -> None:
        self.client_id = client_id or f"saga-client-{uuid.uuid4().hex[:12]}"
        self._topics = topics
        self._answers = topics.answers
        self._partitions = partitions
        self._answer_partition = partition_of(self.client_id, answer_partitions or partitions)
        self._requests = Requests(topics, partitions)
        self._connection = Connection(log, topics.answers, self._answer_partition)
        self._timeout_s = timeout_s
        self._attach_first_s = attach_first_s
        self._around = tuple(around)
        # A client started again under the same id must not take answers to its predecessor for its own.
        self._instance = uuid.uuid4().hex[:16]
        self._count = 0

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        bootstrap_servers: str,
        *,
        prefix: str = "",
        topic_overrides: Mapping[str, str] | None = None,
        client_id: str | None = None,
        timeout_s: float = 30.0,
        common: Mapping[str, Any] | None = None,
        producer: Mapping[str, Any] | None = None,
        consumer: Mapping[str, Any] | None = None,
        around: Iterable[Callable[[Outgoing], Outgoing]] = (),
    ) -> AsyncIterator[Client]:
        """A client of a Kafka cluster; `common`, `producer`, `consumer` are raw librdkafka settings.

        Raises `ConfigurationError` where nobody answers, or the topics are missing or may not be described.
        """
        from orchestrator.log.kafka import KafkaLog  # a log in memory needs no Kafka library

        named = {} if client_id is None else {"client.id": client_id}
        log = KafkaLog(bootstrap_servers, common={**named, **(common or {})}, producer=producer, consumer=consumer)
        topics = TopicNames(prefix, topic_overrides or {})
        partitions, answer_partitions = await asyncio.to_thread(
            partitions_of, log, bootstrap_servers, [topics.inbox, topics.answers], timeout_s
        )
        async with cls(
            log,
            topics,
            partitions,
            answer_partitions=answer_partitions,
            client_id=client_id,
            timeout_s=timeout_s,
            around=around,
        ) as client:
            yield client

    @property
    def schedules(self) -> Schedules:
        """What is started at given times: create, describe, update, pause, resume, trigger, backfill, delete."""
        from orchestrator.client.schedules import Schedules  # not everybody has some

        return Schedules(self)

    def unique(self) -> str:
        """A name that no other call of this or another client gives."""
        return self._message_id()

    async def __aenter__(self) -> Client:
        self._connection.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._connection.close()

    async def start(
        self,
        saga: type[Saga[I, O]],
        input: I,
        *,
        id: str | None = None,
        message_id: str | None = None,
        traceparent: str | None = None,
        signal: tuple[Signal[S], S] | None = None,
        reuse: Reuse | None = None,
        conflict: Conflict = Conflict.USE_EXISTING,
        start_at: datetime | None = None,
        start_delay: Duration | None = None,
        baggage: Mapping[str, str] | None = None,
        attributes: Sequence[Assignment] = (),
        memo: Mapping[str, Any] | None = None,
        summary: str | None = None,
    ) -> Handle[O]:
        """Starts a saga; when this returns Kafka has it on all in-sync replicas, and it will run.

        An id that exists is not started again: the handle is attached to what is there, if it is of the same type.
        `reuse` says otherwise for a saga that has ended, `conflict` for one that is under way; where they refuse,
        `Handle.result` raises `SagaAlreadyExists`.
        `signal=(Expense.decided, value)` tells the saga something in the same record, whether that starts it or not; of
        some 7 KiB at most. `attributes=[Order.customer("ann")]` are what lists are searched by, `memo` is JSON and
        `summary` a line that they show, together of some 7 KiB too. Without an id a random one is made. `message_id`
        names this one request over restarts of the caller; by default it is this call's own. The saga begins at once,
        at `start_at` (with a time zone), or `start_delay` (seconds or timedelta) after a worker has it; until then
        `reschedule` may move it. `baggage`: small values that travel to every handler, such as a tenant, 2 KiB at most.
        Raises `InvalidRequest`, `DefinitionError`, `pydantic.ValidationError`, `NotAcknowledged`, `Disconnected`.
        """
        saga_id = id if id is not None else str(uuid.uuid4())
        reply = self._reply_address()
        along = None
        if signal is not None:
            name = signal[0].name
            along = name, self._through(Outgoing("signal", saga_id, name, signal[0].encode(signal[1]))).payload
        note = saga.note_of(*attributes, memo=memo, summary=summary)
        options = (along, reuse, conflict, begin_of(start_at, start_delay), note)
        request = self._start_request(saga, input, saga_id, message_id, reply, traceparent, *options, baggage=baggage)
        await self._connection.listen(self._timeout_s)
        expected = self._connection.expect(reply.correlation_id)
        await self._send(request, saga_id)
        return Handle(self, saga, saga_id, reply.correlation_id, expected)

    async def start_many(self, saga: type[Saga[I, O]], inputs: Iterable[tuple[str, I]]) -> list[Handle[O]]:
        """Starts many sagas by (id, input), all under way at once; returns when Kafka has them all.

        Raises what `start` raises, then some may be started: starting all of them again is safe.
        """
        await self._connection.listen(self._timeout_s)
        handles: list[Handle[O]] = []
        requests: list[tuple[str, Request]] = []
        for saga_id, input in inputs:
            reply = self._reply_address()
            requests.append((saga_id, self._start_request(saga, input, saga_id, None, reply, None)))
            expected = self._connection.expect(reply.correlation_id)
            handles.append(Handle(self, saga, saga_id, reply.correlation_id, expected))
        await self._connection.send_many(requests, self._timeout_s)
        return handles

    async def reschedule(
        self,
        id: str,
        *,
        start_at: datetime | None = None,
        start_delay: Duration | None = None,
        by: str = "",
        run: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Moves the time at which a saga begins that was started with a delay; nothing once it has begun.

        Returns and raises as `cancel` does.
        """
        begin, whose = begin_of(start_at, start_delay), by or self.client_id

        def request(reply: ReplyAddress | None) -> Request:
            return self._requests.reschedule(id, self._message_id(), begin, run, whose, reply)

        await self._tell(request, id, timeout)

    async def attach(self, saga: type[Saga[Any, O]], id: str) -> Handle[O]:
        """A handle on a saga that somebody started. Whether it exists is known when its result is asked for.

        Raises `InvalidRequest`, `NotAcknowledged`, `Disconnected`.
        """
        reply = self._reply_address()
        request = self._requests.attach(saga.definition.name, id, self._message_id(), reply)
        await self._connection.listen(self._timeout_s)
        expected = self._connection.expect(reply.correlation_id)
        await self._send(request, id)
        return Handle(self, saga, id, reply.correlation_id, expected)

    @overload
    async def signal(
        self, id: str, signal: Signal[None], /, *, message_id: str | None = None, run: str | None = None
    ) -> None: ...
    @overload
    async def signal(
        self, id: str, signal: Signal[S], value: S, /, *, message_id: str | None = None, run: str | None = None
    ) -> None: ...
    async def signal(
        self,
        id: str,
        signal: Signal[Any],
        value: Any = None,
        /,
        *,
        message_id: str | None = None,
        run: str | None = None,
    ) -> None:
        """Tells a saga something; it is kept until the saga asks for it. Returns when Kafka has it.

        Sent again with the same `message_id` it is the same signal. What the saga cannot take (it has ended, the value
        does not fit) is in its history or among the dead letters. Raises `InvalidRequest`, `NotAcknowledged`,
        `Disconnected`, `pydantic.ValidationError`.
        """
        payload = signal.encode(value)
        await self.signal_raw(id, signal.name, payload, message_id=message_id, run=run)

    async def signal_raw(
        self, id: str, name: str, payload: bytes = b"", *, message_id: str | None = None, run: str | None = None
    ) -> None:
        """The same by the signal's name, with its value as JSON."""
        payload = self._through(Outgoing("signal", id, name, payload)).payload
        request = self._requests.signal(id, message_id or self._message_id(), name, payload, run, self.client_id)
        await self._send(request, id)

    @overload
    async def signal_by_key(
        self, signal: Signal[None], key: str, /, *, ttl: Duration = DAY, message_id: str | None = None
    ) -> None: ...
    @overload
    async def signal_by_key(
        self, signal: Signal[S], key: str, value: S, /, *, ttl: Duration = DAY, message_id: str | None = None
    ) -> None: ...
    async def signal_by_key(
        self,
        signal: Signal[Any],
        key: str,
        value: Any = None,
        /,
        *,
        ttl: Duration = DAY,
        message_id: str | None = None,
    ) -> None:
        """Tells something to the sagas that listen for a business key of the signal, whatever their ids are.

        Where none does it is kept for the first that will, for `ttl` (seconds or timedelta, a day). The value has some
        6 KiB at most. Returns when Kafka has it; raises as `signal` does.
        """
        await self.signal_by_key_raw(signal.address, key, signal.encode(value), ttl=ttl, message_id=message_id)

    async def signal_by_key_raw(
        self, address: str, key: str, payload: bytes, *, ttl: Duration = DAY, message_id: str | None = None
    ) -> None:
        """The same by the signal's address, such as `Order.paid`, with its value as JSON."""
        keeper = id_of(address, key)
        payload = self._through(Outgoing("signal", keeper, address, payload)).payload
        given = message_id or self._message_id()
        await self._send(self._requests.signal_by_key(address, key, given, payload, milliseconds(ttl)), keeper)

    async def complete(self, token: str, result: Any = None) -> None:
        """Keeps a promise, or completes the command whose handler raised `Pending`: `token` is whose it is.

        This and `fail` return when Kafka has it. The first one counts. Of a command the service's participant records
        it and answers the saga; behind the step's undo it is only recorded. Raise as `cancel` does.
        """
        try:
            payload = _RESULT.dump_json(result)
        except ValueError as error:
            raise InvalidRequest(f"the result cannot be written as JSON: {error}") from None
        request = self._requests.settle_by_token(token, self._message_id(), payload, None, self.client_id)
        await self._complete(request or self._requests.complete(token, Outcome.SUCCESS, payload))

    async def fail(self, token: str, error_type: str, message: str = "") -> None:
        """Fails a promise, or ends such a command as refused: it had no effect. The saga hears `StepFailed`."""
        error = (error_type or "Failure", message)
        request = self._requests.settle_by_token(token, self._message_id(), b"", error, self.client_id)
        await self._complete(request or self._requests.complete(token, Outcome.FAILURE, b"", *error))

    @overload
    async def complete_promise(
        self, id: str, promise: Promise[None], /, *, key: str = "", run: str | None = None
    ) -> None: ...
    @overload
    async def complete_promise(
        self, id: str, promise: Promise[S], result: S, /, *, key: str = "", run: str | None = None
    ) -> None: ...
    async def complete_promise(
        self, id: str, promise: Promise[Any], result: Any = None, /, *, key: str = "", run: str | None = None
    ) -> None:
        """Keeps a saga's promise with its result. The first time counts; returns when Kafka has it.

        What the saga cannot take is in its history or among the dead letters. Raises as `signal` does.
        """
        await self.settle_raw(id, promise.named(key), promise.encode(result), run=run)

    async def fail_promise(
        self,
        id: str,
        promise: Promise[Any],
        error_type: str,
        message: str = "",
        /,
        *,
        key: str = "",
        run: str | None = None,
    ) -> None:
        """Fails a saga's promise: awaiting it raises `StepFailed` with this error."""
        await self.settle_raw(id, promise.named(key), b"", (error_type, message), run=run)

    async def settle_raw(
        self, id: str, name: str, payload: bytes, error: tuple[str, str] | None = None, *, run: str | None = None
    ) -> None:
        """Both by the promise's name, with its result as JSON, or an error's type and message."""
        request = self._requests.settle(id, self._message_id(), name, payload, error, run, self.client_id)
        await self._send(request, id)

    async def _complete(self, request: Request) -> None:
        await self._send(request, request.key.decode())

    async def answer(
        self, saga_type: str, id: str, correlation_id: str, expected: Expected, timeout: float | None
    ) -> Answer:
        """Waits for a saga's outcome, and asks for it again at times. Raises `ResultTimeout`, `Disconnected`."""
        reply = ReplyAddress(self._answers, self._answer_partition, correlation_id)
        attach = lambda: self._requests.attach(saga_type, id, self._message_id(), reply)  # noqa: E731
        return await self._await(attach, id, expected, timeout)

    async def _await(
        self, request: Callable[[], Request], id: str, expected: Expected, timeout: float | None
    ) -> Answer:
        """Waits for an answer; it may have been lost, or gone to another, so it is asked for again."""
        pause = self._attach_first_s
        try:
            async with asyncio.timeout(timeout):
                while expected.answer is None:
                    if self._connection.closed:
                        raise Disconnected("the client is closed: use it inside `async with`")
                    if not await came(expected, pause * random.uniform(0.8, 1.2)):
                        await self._connection.listen(None)
                        self._connection.post(request())
                        pause = min(2 * pause, ATTACH_MAX_S)
        except TimeoutError:
            raise ResultTimeout(id, timeout or 0.0) from None
        return expected.answer

    def _start_request(
        self,
        saga: type[Saga[I, O]],
        input: I,
        saga_id: str,
        message_id: str | None,
        reply: ReplyAddress,
        traceparent: str | None,
        *options: Any,
        baggage: Mapping[str, str] | None = None,
    ) -> Request:
        name, payload = saga.definition.name, saga.encode_input(input)
        message_id = message_id or f"start-{reply.correlation_id}"
        sent = self._through(Outgoing("start", saga_id, name, payload, baggage or {}))
        return self._requests.start(
            name, saga_id, sent.payload, message_id, reply, traceparent, *options, baggage=sent.baggage
        )

    def _through(self, outgoing: Outgoing) -> Outgoing:
        for around in self._around:
            outgoing = around(outgoing)
        return outgoing

    def _reply_address(self) -> ReplyAddress:
        self._count += 1
        return ReplyAddress(self._answers, self._answer_partition, f"{self._instance}-{self._count}")

    def _message_id(self) -> str:
        self._count += 1
        return f"{self._instance}-{self._count}"

    async def _send(self, request: Request, saga_id: str) -> None:
        await self._connection.send(request, saga_id, self._timeout_s)
