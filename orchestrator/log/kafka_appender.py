"""The appender over a Kafka broker: librdkafka's idempotent producer with a thread that only polls."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from threading import Event, Thread
from typing import Any, NoReturn

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from orchestrator.log.base import Delivery, LogFull
from orchestrator.log.kafka_config import LOGGER, Raw, producer_config, refused
from orchestrator.log.kafka_failure import explain, failure_of

_POLL_S = 0.2
"""How long the thread sleeps in the library when nothing happens; a report wakes it at once."""

_Unplaced = dict[tuple[str | None, int | None], int]
"""By partition, what the library says of the next record of a batch whose offset the broker did not tell.

It counts on from the missing one: 0 for the second record, 1 for the third. A batch's reports come in one call of the
library's `poll`, so nothing of this outlives one; and what stands behind the batch has a higher offset than these.
"""

_make = tuple.__new__


class KafkaAppender:
    """Appends by one producer. Give journals and effects one each: its errors concern all its partitions.

    `wake` is set whenever `poll` has something. At most `bound` records have an outcome yet to be polled; each is
    tried for `delivery_timeout_ms`. A record of more than 5,000,000 bytes is TOO_LARGE at once, one that its topic does
    not take after a round trip. Batches of several records end at 1,000,000 bytes; topics must allow 512 bytes more
    than that, or the broker refuses a whole batch after the next one has landed.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        wake: Event,
        common: Raw,
        producer: Raw,
        delivery_timeout_ms: int = 30_000,
        bound: int = 100_000,
    ) -> None:
        config = producer_config(
            bootstrap_servers, common, producer, delivery_timeout_ms=delivery_timeout_ms, bound=bound
        )
        self._config = config
        try:
            self._producer: Producer | None = Producer(config)
        except KafkaException as error:
            raise refused(error) from error
        self._produce: Callable[..., None] = self._producer.produce
        self._produce_batch: Callable[..., int] = self._producer.produce_batch
        self._done: deque[Delivery] = deque()
        self._taken = 0
        self._polled = 0
        self._bound = bound
        self._wake = wake
        self._closing = Event()
        self._drained = Event()
        self._stopped = Event()
        self._unplaced: _Unplaced = {}
        # Bound once: these run for every record.
        self._report_of = partial(partial, _reporter(self._done, wake, config, self._unplaced))
        self._thread = Thread(target=self._run, args=(self._producer,), name="kafka-appender", daemon=True)
        self._thread.start()

    def append(
        self,
        topic: str,
        partition: int,
        value: bytes | None,
        *,
        token: Any,
        key: bytes | None = None,
        headers: Iterable[tuple[str, bytes]] = (),
    ) -> None:
        if self._taken - self._polled >= self._bound:
            raise LogFull(f"{self._bound} appends wait for their outcome to be polled")
        try:
            if headers:
                self._produce(topic, value, key, partition, self._report_of(token), headers=list(headers))
            else:
                self._produce(topic, value, key, partition, self._report_of(token))
        except BufferError as error:
            raise LogFull("the producer's queue is at its bound of bytes") from error
        except KafkaException as error:
            self._refuse(token, topic, error.args[0])
        self._taken += 1

    def append_run(self, topic: str, partition: int, run: Sequence[tuple[bytes | None, Any]]) -> int:
        report_of = self._report_of
        room = self._bound - (self._taken - self._polled)
        messages: list[dict[str, Any]] = [{"value": value, "callback": report_of(token)} for value, token in run[:room]]
        taken = len(messages)
        if self._produce_batch(topic, messages, partition) < taken:
            # A full queue refuses all that follows; any other refusal is about one record.
            errors: list[KafkaError | None] = [message.get("_error") for message in messages]
            full = (number for number, error in enumerate(errors) if error and error.code() == KafkaError._QUEUE_FULL)
            taken = next(full, taken)
            for (_, token), error in zip(run[:taken], errors[:taken], strict=True):
                if error is not None:
                    self._refuse(token, topic, error)
        self._taken += taken
        return taken

    def _refuse(self, token: Any, topic: str, error: KafkaError) -> None:
        why = explain(error, f"Write on topic {topic}", self._config)
        self._done.append(Delivery(token, None, 0, failure_of(error), why))
        self._wake.set()

    def poll(self) -> list[Delivery]:
        done = self._done
        # The thread may append meanwhile; what came after is for the next call.
        deliveries = [done.popleft() for _ in range(len(done))]
        self._polled += len(deliveries)
        return deliveries

    @property
    def pending(self) -> int:
        return self._taken - self._polled

    def close(self, timeout_s: float) -> int:
        if self._producer is None:
            return self.pending - len(self._done)
        self._closing.set()
        self._drained.wait(timeout_s)
        self._stopped.set()
        self._thread.join()
        left = self.pending - len(self._done)
        # The library's own destruction gives up what is queued without a report; what is under way may yet land.
        self._produce = self._produce_batch = _refuse_closed
        self._producer = None
        return left

    def _run(self, producer: Producer) -> None:
        poll = producer.poll
        while not self._stopped.is_set():
            closing = self._closing.is_set()
            try:
                poll(0.01 if closing else _POLL_S)
            except Exception:
                LOGGER.exception("polling the producer failed")
            self._unplaced.clear()
            if closing and len(producer) == 0:
                self._drained.set()


def _refuse_closed(*arguments: Any, **named: Any) -> NoReturn:
    raise RuntimeError("the appender is closed")


def _reporter(done: deque[Delivery], wake: Event, config: Raw, unplaced: _Unplaced) -> Any:
    """The function called for every delivery report, with the record's token bound before the library's arguments."""
    append, awake, rouse = done.append, wake.is_set, wake.set

    def report(token: Any, error: KafkaError | None, message: Message) -> None:
        if error is None:
            offset = message.offset()
            if offset is None or offset < 0:
                offset = None
                unplaced[message.topic(), message.partition()] = 0
            elif unplaced:
                place = (message.topic(), message.partition())
                if unplaced.get(place) == offset:
                    unplaced[place] = offset + 1
                    offset = None
                else:
                    unplaced.pop(place, None)
            append(_make(Delivery, (token, offset, message.timestamp()[1], None, "")))
        else:
            why = explain(error, f"Write on topic {message.topic()}", config)
            append(Delivery(token, None, 0, failure_of(error), why))
        if not awake():
            rouse()

    return report
