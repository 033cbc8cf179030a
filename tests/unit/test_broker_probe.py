"""Asking a port for Kafka, where no Kafka is."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from orchestrator.broker import probe


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """A server that takes one connection, reads a little, sends `answer` and closes. Yields its port."""
    with socket.create_server((probe.HOST, 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        struct.pack(">ii", 4, 8),
        struct.pack(">ii", 1 << 30, 7),
        struct.pack(">iih", 10, 7, 0),
    ],
    ids=["nothing", "a web server", "another correlation id", "an absurd size", "cut off"],
)
def test_what_is_not_kafka_is_not_taken_for_it(answer: bytes) -> None:
    with answering(answer) as port:
        assert not probe.answers_kafka(probe.HOST, port)
    with answering(answer) as port:
        assert probe.list_brokers(probe.HOST, port) == frozenset()


def test_a_closed_port_answers_nothing() -> None:
    (port,) = probe.pick_free_ports(1)
    assert not probe.answers_kafka(probe.HOST, port)
    assert probe.list_brokers(probe.HOST, port) == frozenset()


def test_broker_ids_are_read_from_a_metadata_answer() -> None:
    def one(broker: int, rack: bytes | None) -> bytes:
        shown = struct.pack(">h", -1) if rack is None else struct.pack(">h", len(rack)) + rack
        return struct.pack(">ih", broker, 9) + b"127.0.0.1" + struct.pack(">i", 9) + shown

    brokers = struct.pack(">i", 2) + one(1, None) + one(3, b"east")
    body = struct.pack(">i", 7) + brokers + struct.pack(">ii", 1, 0)
    with answering(struct.pack(">i", len(body)) + body) as port:
        assert probe.list_brokers(probe.HOST, port) == {1, 3}


def test_leaders_are_read_from_a_metadata_answer() -> None:
    broker = struct.pack(">ih", 1, 9) + b"127.0.0.1" + struct.pack(">ih", 9, -1)

    def partition(number: int, leader: int, replicas: int, in_sync: int) -> bytes:
        listed = struct.pack(f">i{replicas}i", replicas, *range(replicas))
        return struct.pack(">hii", 0, number, leader) + listed + struct.pack(f">i{in_sync}i", in_sync, *range(in_sync))

    topic = struct.pack(">ihh", 1, 0, 3) + b"one" + struct.pack(">?i", False, 3)
    topic += partition(2, 1, 3, 2) + partition(0, 3, 3, 3) + partition(1, -1, 3, 0)
    body = struct.pack(">i", 7) + struct.pack(">i", 1) + broker + struct.pack(">i", 1) + topic
    with answering(struct.pack(">i", len(body)) + body) as port:
        assert probe.find_leaders(probe.HOST, port, "one") == {0: 3, 1: -1, 2: 1}
    with answering(b"") as port:
        assert probe.find_leaders(probe.HOST, port, "one") == {}


def test_free_ports_differ_and_leave_out_what_is_taken() -> None:
    ports = probe.pick_free_ports(50)
    assert len(set(ports)) == 50
    assert not probe.RESERVED_PORTS & set(ports)
    with socket.create_server((probe.HOST, ports[0])):
        assert not probe.is_free(ports[0])
    assert probe.is_free(ports[0])


def test_free_ports_are_not_those_of_outgoing_connections() -> None:
    with socket.create_server((probe.HOST, 0)) as server:
        outgoing = server.getsockname()[1]
    assert all(port < 32_768 for port in probe.pick_free_ports(20)) or outgoing < 32_768
