"""The last link of the chain: a broker in a Docker container, by testcontainers.

Its data lives as long as the container; testcontainers' own reaper removes it if this process is killed.
"""

import logging
import os
import socket
import time
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from orchestrator.broker.jars import VERSION
from orchestrator.broker.probe import HOST, list_brokers
from orchestrator.broker.storage import CONTROLLER, Layout, make_properties
from orchestrator.errors import BrokerUnavailable

_START_TIMEOUT_S = 120.0  # without the image's download, which happens before
_POLL_S = 0.1
_DATA = PurePosixPath("/tmp/kafka-data")  # inside the container, where its user may write


class Container:
    """One broker in a container, on the same port inside and outside."""

    def __init__(self, layout: Layout) -> None:
        """Raises BrokerUnavailable if testcontainers is not installed or no engine answers."""
        try:
            from testcontainers.core.container import DockerContainer
            from testcontainers.core.docker_client import get_docker_host
        except ImportError as error:
            raise BrokerUnavailable("Docker: the package testcontainers is not installed") from error
        self.layout = layout
        engine = get_docker_host() or "unix:///var/run/docker.sock"
        if urlsplit(engine).hostname not in (None, "localhost", HOST):
            raise BrokerUnavailable(f"Docker: {engine} is another machine, whose loopback is not this one's")
        if not _is_reachable(engine):
            raise BrokerUnavailable(f"Docker: no engine answers at {engine}")
        self._container: Any  # the ports' declared type leaves out the pair that the engine takes
        try:
            self._container = DockerContainer(image_name())
        except Exception as error:  # docker's own, without types
            raise BrokerUnavailable(f"Docker: the engine at {engine} does not do ({error})") from error
        self._container.with_envs(**make_environment(layout))
        # On loopback only. The port is told to clients by the broker itself, so it is fixed before the start.
        self._container.ports.update({str(port): (HOST, port) for port in layout.ports.values()})

    @property
    def bootstrap_server(self) -> str:
        return f"{HOST}:{self.layout.port}"

    def start(self, timeout_s: float = _START_TIMEOUT_S) -> None:
        """Fetch the image if it is not there, start, wait until it serves. Raises BrokerUnavailable."""
        logging.getLogger("testcontainers").setLevel(logging.WARNING)
        try:
            self._container.start()
        except Exception as error:  # docker's, requests' and testcontainers' errors have no common base
            self.stop()
            raise BrokerUnavailable(f"Docker: {image_name()} does not start ({error})") from error
        deadline = time.monotonic() + timeout_s
        while not list_brokers(HOST, self.layout.port):
            if time.monotonic() > deadline:
                said = b"".join(self._container.get_logs()).decode(errors="replace")
                self.stop()
                raise BrokerUnavailable(
                    f"Docker: {image_name()} did not serve within {timeout_s:.0f} s:\n{said[-2000:]}"
                )
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """Remove the container and what it kept."""
        self._container.stop()


def _is_reachable(engine: str, timeout_s: float = 2.0) -> bool:
    """Does something listen at the engine's address? Asked first: its client leaves sockets open if nothing does."""
    parts = urlsplit(engine)
    try:
        if parts.scheme in ("unix", "http+unix"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(timeout_s)
                connection.connect(parts.path)
        elif parts.scheme in ("tcp", "http", "https"):
            socket.create_connection((parts.hostname or HOST, parts.port or 2375), timeout_s).close()
    except (OSError, ValueError):
        return False
    return True  # what else there is, as ssh, its client must find out


def image_name() -> str:
    """SAGA_KAFKA_IMAGE, as for a registry of one's own, else Kafka's image of the version whose jars are pinned."""
    return os.environ.get("SAGA_KAFKA_IMAGE") or f"apache/kafka:{VERSION}"


def make_environment(layout: Layout) -> dict[str, str]:
    """A node's properties as the image reads them.

    The broker listens on all of the container's interfaces, but on the port that it has outside: so the one address it
    tells, loopback, is right for clients outside and for the broker's own connections to itself inside.
    """
    inside = replace(layout, directory=Path(_DATA))
    listeners = [f"{name}://0.0.0.0:{port}" for name, port in layout.ports.items()]
    controller = layout.voters[layout.node_id]
    properties = make_properties(inside) | {
        "listeners": ",".join([*listeners, f"{CONTROLLER}://{HOST}:{controller}"]),
        "log.dirs": str(_DATA),
    }
    return {_variable(name): value for name, value in properties.items()} | {
        "CLUSTER_ID": layout.cluster_id,
        "KAFKA_HEAP_OPTS": "-Xms64m -Xmx512m",
    }


def _variable(name: str) -> str:
    """`offsets.topic.num.partitions` → `KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS`, by the image's rules."""
    return "KAFKA_" + name.translate({ord("."): "_", ord("_"): "__", ord("-"): "___"}).upper()
