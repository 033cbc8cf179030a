"""Topics as a verb meets them: there or not, read from end to end, written to."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from threading import Event
from typing import TYPE_CHECKING

from orchestrator.errors import ConfigurationError, Disconnected, SagaError

if TYPE_CHECKING:
    from orchestrator.log.base import Delivery, Log, Record, TopicState

WITHIN_S = 60.0


def partitions_of(log: Log, topic: str) -> int:
    """How many partitions a topic has. Raises `ConfigurationError` where it is missing, `Disconnected`."""
    return described(log, topic).partitions


def described(log: Log, topic: str) -> TopicState:
    """A topic as it is. Raises `ConfigurationError` where it is missing, `Disconnected`."""
    from orchestrator.log.base import AdminFailed

    with closing(log.admin()) as admin:
        try:
            found = admin.describe([topic])
        except AdminFailed as error:
            raise Disconnected(f"the cluster does not describe {topic} ({error}); `saga doctor` says more") from None
    if topic not in found:
        raise ConfigurationError(f"there is no topic {topic}: run `saga topics apply`, or give the prefix in use")
    return found[topic]


def bounds_of(log: Log, topic: str, partitions: Iterable[int]) -> dict[int, tuple[int, int]]:
    """For each partition its (log start, end) offsets. Raises `Disconnected`."""
    from orchestrator.log.base import AdminFailed

    with closing(log.admin()) as admin:
        try:
            found = admin.ends([(topic, partition) for partition in partitions])
        except AdminFailed as error:
            raise Disconnected(f"the cluster does not say where {topic} ends ({error})") from None
    return {partition: bounds for (_, partition), bounds in found.items()}


def read_between(log: Log, topic: str, ranges: Mapping[int, tuple[int, int]]) -> list[Record]:
    """The records of some partitions from an offset up to before another. Raises `SagaError`."""
    from orchestrator.log.spans import records_in

    return list(records_in(log, {(topic, partition): span for partition, span in ranges.items()}))


def append_all(
    log: Log, records: Sequence[tuple[str, int, bytes | None, bytes | None, Sequence[tuple[str, bytes]]]]
) -> list[Delivery]:
    """Appends (topic, partition, key, value, headers), each with its delivery in the same order.

    Raises `SagaError` where the outcome of some is not known in time.
    """
    from orchestrator.log.base import LogFull

    wake = Event()
    appender = log.appender(wake=wake)
    done: dict[int, Delivery] = {}
    deadline = time.monotonic() + WITHIN_S

    def gather() -> None:
        deliveries = appender.poll()
        done.update((delivery.token, delivery) for delivery in deliveries)
        if not deliveries:
            if time.monotonic() > deadline:
                raise SagaError(f"{len(records) - len(done)} records were not acknowledged; they may have been taken")
            wake.wait(0.2)
            wake.clear()

    try:
        for token, (topic, partition, key, value, headers) in enumerate(records):
            while True:
                try:
                    appender.append(topic, partition, value, token=token, key=key, headers=headers)
                    break
                except LogFull:
                    gather()
        while len(done) < len(records):
            gather()
    finally:
        appender.close(2.0)
    return [done[token] for token in range(len(records))]
