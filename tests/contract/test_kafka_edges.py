"""What only a Kafka broker or its library can do to us."""

from __future__ import annotations

import socket
import struct
from collections import deque
from threading import Event
from typing import Any

import pytest

from orchestrator.log.base import Delivery, Happening, Record, TopicSpec
from orchestrator.log.kafka import KafkaLog
from orchestrator.log.kafka_appender import _reporter


class Report:
    """A delivery report as the library hands it over."""

    def __init__(self, offset: int | None, time: int) -> None:
        self._offset = offset
        self._time = time

    def offset(self) -> int | None:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return 2, self._time

    def topic(self) -> str:
        return "topic"

    def partition(self) -> int:
        return 0


@pytest.mark.parametrize("missing", [None, -1, -1001])
def test_success_without_an_offset_is_told_as_such(missing: int | None) -> None:
    done: deque[Delivery] = deque()
    wake = Event()
    report: Any = _reporter(done, wake, {}, {})
    report("first", None, Report(7, 1_000))
    report("second", None, Report(missing, -1))
    assert list(done) == [Delivery("first", 7, 1_000), Delivery("second", None, -1)]
    assert wake.is_set()


def varint(number: int) -> bytes:
    number = (number << 1) ^ (number >> 63)
    out = b""
    while number >= 128:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def sized(content: bytes | None) -> bytes:
    return varint(-1) if content is None else varint(len(content)) + content


def record(delta: int, value: bytes, headers: list[tuple[bytes, bytes | None]]) -> bytes:
    body = b"\0" + varint(0) + varint(delta) + sized(None) + sized(value) + varint(len(headers))
    return sized(body + b"".join(sized(name) + sized(content) for name, content in headers))


def crc32c(content: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def produce(server: str, topic: str, records: list[bytes]) -> None:
    """Sends a batch to partition 0 as the protocol has it, for no client writes such records."""
    count = len(records)
    tail = struct.pack(">hiqqqhii", 0, count - 1, 1_000, 1_000, -1, -1, -1, count) + b"".join(records)
    batch = struct.pack(">qiibI", 0, 9 + len(tail), 0, 2, crc32c(tail)) + tail
    name = struct.pack(">h", len(topic)) + topic.encode()
    body = struct.pack(">hhihhhii", 0, 7, 1, -1, -1, -1, 5_000, 1) + name
    body += struct.pack(">iii", 1, 0, len(batch)) + batch
    host, port = server.rsplit(":", 1)
    with socket.create_connection((host, int(port)), 10.0) as connection:
        connection.sendall(struct.pack(">i", len(body)) + body)
        answer = connection.recv(4096)
    assert struct.unpack_from(">h", answer, 4 + 4 + 4 + len(name) + 4 + 4) == (0,)


@pytest.fixture
def log(broker: str) -> KafkaLog:
    return KafkaLog(broker)


def test_strange_headers_do_not_stop_the_reader(broker: str, prefix: str, log: KafkaLog) -> None:
    topic = prefix + "strange"
    log.admin().create([TopicSpec(topic, 1, 1, {})])
    # After many ordinary ones: Python calls differently what it called often.
    strange = [record(number, b"ordinary", [(b"fine", b"y")]) for number in range(100)]
    strange += [
        record(100, b"name is no text", [(b"\xff\xfe", b"x"), (b"fine", b"y")]),
        record(101, b"value is null", [(b"null", None), (b"fine", b"y")]),
        record(102, b"none", []),
    ]
    produce(broker.split(",")[0], topic, strange)
    wake = Event()
    reader = log.reader(wake=wake)
    reader.assign(topic, 0, 0)
    happened: list[Happening] = []
    while len(happened) < 103:
        assert wake.wait(20.0)
        wake.clear()
        happened += reader.poll()
    reader.close()
    assert [(one.value, one.headers) for one in happened[100:] if isinstance(one, Record)] == [
        (b"name is no text", ()),
        (b"value is null", (("null", b""), ("fine", b"y"))),
        (b"none", ()),
    ]


def test_a_run_is_taken_as_far_as_the_librarys_queue_has_bytes_for_it(broker: str, prefix: str) -> None:
    log = KafkaLog(broker, producer={"queue.buffering.max.kbytes": 1_000})
    topic = prefix + "narrow"
    log.admin().create([TopicSpec(topic, 1, 1, {})])
    wake = Event()
    appender = log.appender(wake=wake)
    run = [(bytes(100_000), number) for number in range(30)]
    told: list[Delivery] = []
    turns = 0
    while run:
        taken = appender.append_run(topic, 0, run)
        turns += 1
        del run[:taken]
        while appender.pending:
            assert wake.wait(20.0)
            wake.clear()
            told += appender.poll()
    assert turns >= 3
    assert [(each.token, each.offset, each.failure) for each in told] == [(n, n, None) for n in range(30)]
    appender.close(5.0)
