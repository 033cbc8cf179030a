"""Headers of a dead letter: the record's own, untouched, and why it could not be handled.

Two families of names are in use and tools look for either, so both are written: Kafka Connect's `__connect.errors.*`,
all text, and Spring's `kafka_dlt-*`, numbers as big-endian integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orchestrator.wire.headers import shorten

_CONNECT = "__connect.errors."
_SPRING = "kafka_dlt-"
_MAX_REASON_BYTES = 1024

REDRIVES = "saga-redrives"
"""Header of a redriven record: how often that was done to it."""
SHORTENED = ("saga-shortened", b"true")
"""The only header of its own that a dead letter keeps whose key, value and headers the topic did not take."""


def dead_letter_headers(
    record_topic: str,
    partition: int,
    offset: int,
    timestamp_ms: int,
    original_headers: Iterable[tuple[str, bytes]],
    reason: str,
    error_class: str,
) -> list[tuple[str, bytes]]:
    """The original headers, then where the record stood and why it is here; key and value stay as they were.

    `reason` is a sentence for people, cut to 1 KiB; `error_class` a stable name such as `MalformedMessage`.
    """
    text = shorten(reason.encode(errors="replace").decode(), _MAX_REASON_BYTES).encode()
    kind = error_class.encode()
    topic = record_topic.encode()
    return [
        *original_headers,
        (_CONNECT + "topic", topic),
        (_CONNECT + "partition", str(partition).encode()),
        (_CONNECT + "offset", str(offset).encode()),
        (_CONNECT + "exception.class.name", kind),
        (_CONNECT + "exception.message", text),
        (_SPRING + "original-topic", topic),
        (_SPRING + "original-partition", partition.to_bytes(4, "big", signed=True)),
        (_SPRING + "original-offset", offset.to_bytes(8, "big", signed=True)),
        (_SPRING + "original-timestamp", timestamp_ms.to_bytes(8, "big", signed=True)),
        (_SPRING + "exception-fqcn", kind),
        (_SPRING + "exception-message", text),
    ]


def place_of(headers: Mapping[str, bytes]) -> tuple[str, int, int] | None:
    """The topic, partition and offset of a dead letter's record; None where another program wrote it without."""
    try:
        topic, *numbers = (headers[_CONNECT + name].decode() for name in ("topic", "partition", "offset"))
        partition, offset = map(int, numbers)
    except (KeyError, ValueError):
        return None
    return topic, partition, offset
