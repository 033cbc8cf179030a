"""The network between a worker and the brokers during chaos, with a server that says everything back."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from orchestrator.broker.probe import HOST, pick_free_ports
from orchestrator.chaos.links import Links, Manner

PATIENCE_S = 20.0
LITTLE_S = 0.3


def echo(server: socket.socket) -> None:
    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                while said := connection.recv(1024):
                    connection.sendall(said)
            except OSError:
                return

    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


@pytest.fixture
def links() -> Iterator[Links]:
    with socket.create_server((HOST, 0)) as server:
        threading.Thread(target=echo, args=(server,), daemon=True).start()
        (port,) = pick_free_ports(1)
        links = Links("worker-1", {port: server.getsockname()[1]})
        links.start()
        try:
            yield links
        finally:
            links.close()


def connect(links: Links) -> socket.socket:
    host, port = links.servers.split(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE_S)


def said_back(connection: socket.socket, what: bytes) -> bytes:
    connection.sendall(what)
    return connection.recv(1024)


def breaks(connection: socket.socket) -> bool:
    """Whether it is reset or ended by the other side."""
    try:
        return connection.recv(1024) == b""
    except ConnectionError:
        return True


def test_open_all_comes_through(links: Links) -> None:
    with closing(connect(links)) as connection:
        assert said_back(connection, b"one") == b"one"
        assert said_back(connection, b"two") == b"two"


def test_slow_it_comes_later_both_ways(links: Links) -> None:
    with closing(connect(links)) as connection:
        links.behave(Manner.SLOW, delay_s=LITTLE_S)
        began = time.monotonic()
        assert said_back(connection, b"one") == b"one"
        assert time.monotonic() - began >= 2 * LITTLE_S


def test_silent_nothing_comes_and_connections_stay_until_it_is_over(links: Links) -> None:
    with closing(connect(links)) as connection:
        links.behave(Manner.SILENT)
        connection.sendall(b"one")
        connection.settimeout(LITTLE_S)
        with pytest.raises(TimeoutError):
            connection.recv(1024)
        connection.settimeout(PATIENCE_S)
        links.behave(Manner.OPEN)
        assert breaks(connection)
    with closing(connect(links)) as connection:
        assert said_back(connection, b"two") == b"two"


def test_reset_connections_break_and_new_ones_are_made(links: Links) -> None:
    with closing(connect(links)) as connection:
        assert said_back(connection, b"one") == b"one"
        links.behave(Manner.RESET)
        assert breaks(connection)
    with closing(connect(links)) as connection:
        assert said_back(connection, b"two") == b"two"


def test_cut_off_new_connections_break_too(links: Links) -> None:
    links.behave(Manner.CUT)
    with closing(connect(links)) as connection:
        assert breaks(connection)
    links.behave(Manner.OPEN)
    with closing(connect(links)) as connection:
        assert said_back(connection, b"one") == b"one"
