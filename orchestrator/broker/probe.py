"""Asks a port whether Kafka answers there, and picks ports that nothing else takes meanwhile.

Standard library only: the two requests that are needed (ApiVersions and Metadata, in their oldest plain forms) are a
few bytes each, and a start must not wait for a client library to load, connect and log.
"""

import random
import socket
import struct
from collections.abc import Collection
from pathlib import Path

HOST = "127.0.0.1"

# Ports that Kafka, its registry and half of all web servers use by default: never taken unless asked for.
RESERVED_PORTS = frozenset({8080, 8081, 9092})

_API_VERSIONS, _METADATA = 18, 3
_CORRELATION = 7
_CLIENT_ID = b"saga-probe"
_LARGEST_ANSWER = 1 << 20


def answers_kafka(host: str, port: int, timeout_s: float = 1.0) -> bool:
    """Does something that speaks Kafka's protocol answer an ApiVersions request on this port?"""
    try:
        body = _request(host, port, _API_VERSIONS, 0, b"", timeout_s)
    except (OSError, ValueError):
        return False
    return len(body) >= 6 and struct.unpack_from(">h", body)[0] == 0


def list_brokers(host: str, port: int, timeout_s: float = 1.0) -> frozenset[int]:
    """Ids of the brokers that serve, as the one on this port sees its cluster; none while nothing answers.

    A broker answers before it serves: only when its own id is in the list does it take part.
    """
    no_topics = struct.pack(">i", 0)
    try:
        return _parse_brokers(_request(host, port, _METADATA, 1, no_topics, timeout_s))
    except (OSError, ValueError, struct.error):
        return frozenset()


def find_leaders(host: str, port: int, topic: str, timeout_s: float = 1.0) -> dict[int, int]:
    """The id of the broker that leads each partition of a topic, as the broker on this port knows it; -1: nobody.

    Empty while nothing answers, or where the topic is not known there.
    """
    name = topic.encode()
    wanted = struct.pack(">ih", 1, len(name)) + name
    try:
        return _parse_leaders(_request(host, port, _METADATA, 1, wanted, timeout_s))
    except (OSError, ValueError, struct.error):
        return {}


def split_address(address: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port` → (host, port). Raises ValueError for anything else."""
    host, separator, port = address.strip().rpartition(":")
    if not separator or not host or not port.isdigit():
        raise ValueError(f"not host:port: {address!r}")
    return host.strip("[]"), int(port)


def pick_free_ports(count: int, avoid: Collection[int] = ()) -> list[int]:
    """`count` different loopback ports that are free now.

    They lie below the range from which the system gives ports to outgoing connections: such a port could be taken
    between this look and the broker's start, or while a node of a cluster is down, even by a client that connects to it
    (a socket that meets itself).
    """
    highest = _lowest_outgoing_port() - 1
    candidates = random.sample(range(15_000, highest), min(2_000, highest - 15_000))
    ports: list[int] = []
    for port in candidates:
        if len(ports) == count:
            break
        if port not in RESERVED_PORTS and port not in avoid and is_free(port):
            ports.append(port)
    if len(ports) < count:
        raise OSError(f"no {count} free ports on {HOST} between 15000 and {highest}")
    return ports


def is_free(port: int) -> bool:
    """Could a server listen on this loopback port now?"""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _lowest_outgoing_port() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 32_768


def _parse_brokers(body: bytes) -> frozenset[int]:
    return _read_brokers(body)[0]


def _read_brokers(body: bytes) -> tuple[frozenset[int], int]:
    """The head of a Metadata answer, version 1: a count, then (id, host, port, rack or null) of each broker.

    Also where it ends.
    """
    (count,) = struct.unpack_from(">i", body)
    ids, position = set(), 4
    for _ in range(count):
        broker, host_size = struct.unpack_from(">ih", body, position)
        position += 6 + host_size + 4
        (rack_size,) = struct.unpack_from(">h", body, position)
        position += 2 + max(rack_size, 0)
        ids.add(broker)
    return frozenset(ids), position


def _parse_leaders(body: bytes) -> dict[int, int]:
    """Of the one topic behind the brokers and the controller's id: (error, number, leader, replicas, in-sync ones)."""
    position = _read_brokers(body)[1] + 4
    topics, _, name_size = struct.unpack_from(">ihh", body, position)
    if topics != 1:
        raise ValueError("not the answer about one topic")
    position += 8 + name_size + 1
    (count,) = struct.unpack_from(">i", body, position)
    position += 4
    leaders = {}
    for _ in range(count):
        _, number, leader, replicas = struct.unpack_from(">hiii", body, position)
        position += 14 + 4 * replicas
        (in_sync,) = struct.unpack_from(">i", body, position)
        position += 4 + 4 * in_sync
        leaders[number] = leader
    return leaders


def _request(host: str, port: int, api: int, version: int, body: bytes, timeout_s: float) -> bytes:
    """Send one request with a version 1 header, return the answer behind its correlation id."""
    head = struct.pack(">hhih", api, version, _CORRELATION, len(_CLIENT_ID)) + _CLIENT_ID
    with socket.create_connection((host, port), timeout=timeout_s) as connection:
        connection.sendall(struct.pack(">i", len(head) + len(body)) + head + body)
        size, correlation = struct.unpack(">ii", _read(connection, 8))
        if correlation != _CORRELATION or not 4 <= size <= _LARGEST_ANSWER:
            raise ValueError("not a Kafka answer")
        return _read(connection, size - 4)


def _read(connection: socket.socket, size: int) -> bytes:
    chunks = bytearray()
    while len(chunks) < size:
        chunk = connection.recv(size - len(chunks))
        if not chunk:
            raise ValueError("connection closed within an answer")
        chunks += chunk
    return bytes(chunks)
