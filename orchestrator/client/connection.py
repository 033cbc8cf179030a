"""The client's way to the log on one event loop: requests out with their acknowledgements, answers in.

The log's clients call nobody back; they set an event when there is something to fetch. A thread waits for it and has
everything fetched on the loop, one call for all that came meanwhile: a thousand acknowledgements wake the loop once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Event
from weakref import WeakValueDictionary

from orchestrator.client.requests import Request
from orchestrator.errors import Disconnected, InvalidRequest, NotAcknowledged
from orchestrator.log.base import (
    Appender,
    Delivery,
    Ends,
    Failure,
    Log,
    LogFull,
    Reader,
    ReadFailed,
    Record,
    TopicPartition,
)
from orchestrator.wire import headers as h

MAX_UNDER_WAY = 20_000
"""Requests without acknowledgement; who sends more waits. At 256 KiB each the producer's own bound comes first."""
WINDOW = 5_000
RETRY_S = 0.2
CLOSE_S = 5.0
STATUS = "saga-status"
UNDONE = "undone"

_CORRELATION = h.CORRELATION_ID


@dataclass(frozen=True, slots=True)
class Answer:
    """How a saga ended, as its owner says it. `status` is a final one, or REFUSED where there is no such saga."""

    run: str
    status: str
    undone: str | None
    payload: bytes
    error_type: str
    error_message: str


class Expected:
    """An answer somebody may wait for. Held by its handle alone: nobody waits when that is gone."""

    __slots__ = ("__weakref__", "answer", "came")

    def __init__(self) -> None:
        self.answer: Answer | None = None
        self.came = asyncio.Event()


class Events:
    """Public events of one saga, in their order, for one who follows it. `place` is the partition they are on."""

    def __init__(self, place: TopicPartition) -> None:
        self.place = place
        self._waiting: asyncio.Queue[Record | None] = asyncio.Queue()

    def put(self, record: Record | None) -> None:
        """None: some may be missing from here on."""
        self._waiting.put_nowait(record)

    async def next(self, timeout_s: float) -> Record | None:
        """The next one; None where some may be missing, or nothing came for so long."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._waiting.get()
        except TimeoutError:
            return None


class _Wake(Event):
    """Set by the clients' threads, it has something called on the loop: once, until that clears it."""

    def __init__(self, call: Callable[[], None]) -> None:
        super().__init__()
        self._call = call
        self.loop: asyncio.AbstractEventLoop | None = None

    def set(self) -> None:
        if self.is_set() or self.loop is None:
            return
        super().set()
        with suppress(RuntimeError):  # the loop is closed and the client was not
            self.loop.call_soon_threadsafe(self._call)


class Connection:
    """One appender, and one reader of one partition of the answers once `listen` was called.

    For one event loop, between `open` and `close`. Answers are read from the end the partition had at the first
    `listen`; another `listen` after a failure begins at the end again, and what came between is lost.
    """

    def __init__(self, log: Log, answers: str, partition: int) -> None:
        self._log = log
        self._answers = (answers, partition)
        self._wake = _Wake(self._fetch)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._appender: Appender | None = None
        self._under_way: set[asyncio.Future[Delivery]] = set()
        self._room = asyncio.Semaphore(MAX_UNDER_WAY)
        self._reader: Reader | None = None
        self._listening: set[TopicPartition] = set()
        """What is read from its end on."""
        self._listen_lock = asyncio.Lock()
        self._ends: asyncio.Future[Ends] | None = None
        self._followed: dict[bytes, set[Events]] = {}
        """Who follows a saga, by its id."""
        self._expected: WeakValueDictionary[bytes, Expected] = WeakValueDictionary()
        self._retired: list[asyncio.Future[object]] = []
        self._closing = False

    def open(self) -> None:
        """Connects. To be called on the loop."""
        self._loop = self._wake.loop = asyncio.get_running_loop()
        self._appender = self._log.appender(wake=self._wake)

    async def close(self) -> None:
        """Gives what is under way a few seconds and closes."""
        if self._closing or self._appender is None:
            return
        appender = self._appender
        if self._under_way:
            await asyncio.wait(set(self._under_way), timeout=CLOSE_S)
        self._closing = True
        await asyncio.to_thread(appender.close, 0.0)
        if self._reader is not None:
            await asyncio.to_thread(self._reader.close)
        await asyncio.gather(*self._retired)
        self._abandon()
        self._listening.clear()
        self._tell_lost()
        for expected in list(self._expected.values()):
            expected.came.set()

    # Out

    async def send(self, request: Request, saga_id: str, timeout_s: float) -> None:
        """Appends and returns when all in-sync replicas have it, trying again as long as the outcome is unknown.

        Raises `NotAcknowledged` after `timeout_s` seconds, `Disconnected`, `InvalidRequest`.
        """
        try:
            async with asyncio.timeout(timeout_s), self._room:
                while True:
                    delivery = await (await self._append(request))
                    if delivery.offset is not None:
                        return
                    _refuse(delivery, request)
                    await asyncio.sleep(RETRY_S)
        except TimeoutError:
            raise NotAcknowledged(saga_id, f"not acknowledged within {timeout_s} s") from None

    async def send_many(self, requests: Sequence[tuple[str, Request]], timeout_s: float) -> None:
        """Like `send` for many by saga id, a window of them under way at once: a quarter of the cost of a task each."""
        window: deque[tuple[str, Request, asyncio.Future[Delivery]]] = deque()
        for saga_id, request in requests:
            if len(window) >= WINDOW:
                await self._settle(*window.popleft(), timeout_s)
            window.append((saga_id, request, await self._append(request)))
        while window:
            await self._settle(*window.popleft(), timeout_s)

    async def _settle(self, saga_id: str, request: Request, future: asyncio.Future[Delivery], timeout_s: float) -> None:
        if not future.done():
            await asyncio.wait([future], timeout=timeout_s)
        if not future.done() or future.result().offset is None:
            await self.send(request, saga_id, timeout_s)

    def post(self, request: Request) -> None:
        """Appends without waiting for the acknowledgement; not at all if there is no room just now."""
        try:
            self._start_append(request)
        except LogFull:
            return

    async def _append(self, request: Request) -> asyncio.Future[Delivery]:
        while True:
            try:
                return self._start_append(request)
            except LogFull:
                await asyncio.sleep(RETRY_S)

    def _start_append(self, request: Request) -> asyncio.Future[Delivery]:
        if self._closing or self._appender is None or self._loop is None:
            raise Disconnected("the client is closed: use it inside `async with`")
        future: asyncio.Future[Delivery] = self._loop.create_future()
        self._appender.append(
            request.topic, request.partition, request.value, key=request.key, headers=request.headers, token=future
        )
        self._under_way.add(future)
        return future

    # In

    def expect(self, correlation_id: str) -> Expected:
        """Where the answer with this correlation id will be, as long as the caller holds it."""
        expected = Expected()
        self._expected[correlation_id.encode()] = expected
        return expected

    @property
    def closed(self) -> bool:
        return self._closing

    async def listen(self, timeout_s: float | None, place: TopicPartition | None = None) -> None:
        """Returns when answers, or another partition, are read from the end on. Raises `Disconnected`."""
        place = place or self._answers
        if place in self._listening:
            return
        try:
            async with asyncio.timeout(timeout_s), self._listen_lock:
                while place not in self._listening:
                    await self._begin_listening(place)
        except TimeoutError:
            raise Disconnected(f"no answer from Kafka within {timeout_s} s about topic {place[0]}") from None

    @contextmanager
    def followed(self, place: TopicPartition, saga_id: str) -> Iterator[Events]:
        """The public events of a saga that come while the block lasts, once its partition is listened to."""
        key, events = saga_id.encode(), Events(place)
        self._followed.setdefault(key, set()).add(events)
        try:
            yield events
        finally:
            self._followed[key].discard(events)
            if not self._followed[key]:
                del self._followed[key]
            if not any(other.place == place for others in self._followed.values() for other in others):
                self._listening.discard(place)
                if self._reader is not None and not self._closing:
                    self._reader.unassign(*place)

    async def _begin_listening(self, place: TopicPartition) -> None:
        if self._closing or self._loop is None:
            raise Disconnected("the client is closed: use it inside `async with`")
        if self._reader is None:
            self._reader = self._log.reader(wake=self._wake)
        reader = self._reader
        self._ends = self._loop.create_future()
        reader.ask_ends([place], self._ends)
        ends = await self._ends
        if place in ends.offsets and reader is self._reader:
            reader.assign(*place, ends.offsets[place])
            self._listening.add(place)
        elif ends.failure in (Failure.UNKNOWN_TOPIC, Failure.UNAUTHORIZED):
            raise Disconnected(_why(place[0], ends.failure, ends.detail))
        else:
            await asyncio.sleep(RETRY_S)

    # What comes, on the loop

    def _fetch(self) -> None:
        self._wake.clear()
        if self._closing:
            return
        if self._appender is not None:
            self._take_deliveries(self._appender.poll())
        while self._reader is not None and self._take_happenings(self._reader):
            pass

    def _take_deliveries(self, deliveries: list[Delivery]) -> None:
        fatal = False
        for delivery in deliveries:
            future: asyncio.Future[Delivery] = delivery.token
            self._under_way.discard(future)
            fatal = fatal or delivery.failure is Failure.FATAL
            if not future.done():
                future.set_result(delivery)
        if fatal and not self._closing and self._appender is not None:
            self._retire(self._appender.close, 0.0)
            self._appender = self._log.appender(wake=self._wake)
            self._abandon()

    def _take_happenings(self, reader: Reader) -> bool:
        happenings = reader.poll()
        for happening in happenings:
            if isinstance(happening, Record):
                if happening.topic == self._answers[0]:
                    self._take_answer(happening)
                else:
                    for events in self._followed.get(happening.key or b"", ()):
                        events.put(happening)
            elif isinstance(happening, Ends):
                if not happening.token.done():
                    happening.token.set_result(happening)
            elif isinstance(happening, ReadFailed):
                self._listening.discard((happening.topic, happening.partition))
                self._tell_lost()
                if happening.partition < 0:
                    self._listening.clear()
                    self._retire(reader.close)
                    self._reader = None
                    if self._ends is not None and not self._ends.done():
                        self._ends.set_result(Ends(None, {}, happening.failure, detail=happening.detail))
                    return False
        return bool(happenings)

    def _take_answer(self, record: Record) -> None:
        # The partition is shared: most records may be for others, so only one header is looked at.
        correlation = None
        for name, value in record.headers:
            if name == _CORRELATION:
                correlation = value
        expected = self._expected.get(correlation) if correlation is not None else None
        if expected is None or expected.answer is not None:
            return
        try:
            headers = h.read_headers(record.headers)
        except h.MalformedMessage:
            return
        expected.answer = Answer(
            headers.get(h.SAGA_RUN, ""),
            headers.get(STATUS, ""),
            headers.get(UNDONE) or None,
            record.value or b"",
            headers.get(h.ERROR_TYPE, ""),
            headers.get(h.ERROR_MESSAGE, ""),
        )
        expected.came.set()

    def _tell_lost(self) -> None:
        """Something may be missing of what is followed."""
        for events in [events for others in self._followed.values() for events in others]:
            if events.place not in self._listening:
                events.put(None)

    def _retire(self, close: Callable[..., object], *arguments: object) -> None:
        """Closes a client of the log that cannot go on; that blocks, so not on the loop."""
        assert self._loop is not None
        self._retired = [future for future in self._retired if not future.done()]
        self._retired.append(self._loop.run_in_executor(None, close, *arguments))

    def _abandon(self) -> None:
        """Nobody will report these any more."""
        for future in self._under_way:
            if not future.done():
                future.set_result(Delivery(None, None, 0, Failure.UNKNOWN_OUTCOME, "the producer ended"))
        self._under_way.clear()


def _refuse(delivery: Delivery, request: Request) -> None:
    """Raises where trying again is of no use."""
    failure = delivery.failure
    if failure is Failure.TOO_LARGE:
        raise InvalidRequest(f"Kafka takes no record this large on {request.topic}: {delivery.detail}")
    if failure in (Failure.UNKNOWN_TOPIC, Failure.UNAUTHORIZED):
        raise Disconnected(_why(request.topic, failure, delivery.detail))


def _why(topic: str, failure: Failure, detail: str) -> str:
    if failure is Failure.UNKNOWN_TOPIC:
        return f"topic {topic} does not exist or has too few partitions ({detail}): run `saga topics check`"
    return f"topic {topic} may not be used by this client ({detail}): grant it, see `saga acls`"


async def came(expected: Expected, timeout_s: float) -> bool:
    """Whether the answer came in time; also where the client was closed meanwhile."""
    try:
        async with asyncio.timeout(timeout_s):
            await expected.came.wait()
    except TimeoutError:
        return False
    return True
