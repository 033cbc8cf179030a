"""The small server behind `/metrics`, `/livez` and `/readyz`, on threads of its own.

It must answer while the loop hangs, so it shares nothing with it; a scrape costs the loop the interpreter for a few
milliseconds, no more.
"""

from __future__ import annotations

import errno
import logging
import socketserver
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from orchestrator.errors import ConfigurationError

log = logging.getLogger(__name__)

LIVE_WITHIN_S = 30.0
"""A loop that has not turned for so long is taken for dead."""
JOIN_WITHIN_S = 15.0
"""So long after its start a process without partitions counts as joining; after it, as standing by."""
PORTS = 50
"""Ports after the wanted one that are tried while they are taken: siblings on one machine."""
REQUEST_TIMEOUT_S = 10.0


class Pulse:
    """When the loop turned last. `now_s` is a clock that never goes back."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._began_s = self._beat_s = now_s()

    def beat(self, _: object = None) -> None:
        """Called by the loop at each turn, with whatever it likes to give."""
        self._beat_s = self._now_s()

    @property
    def age_s(self) -> float:
        return self._now_s() - self._began_s

    @property
    def silence_s(self) -> float:
        """For how long the loop has not turned."""
        return self._now_s() - self._beat_s


class Telemetry:
    """Metrics and probes of one process. `readiness` gets the process's age in seconds, and says why not, or ""."""

    def __init__(self, collector: Collector, readiness: Callable[[float], str], pulse: Pulse) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(collector)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._readiness = readiness
        self._pulse = pulse

    def respond(self, path: str, accept: str = "") -> tuple[int, str, bytes]:
        """Status, content type and body of a GET."""
        if path == "/metrics":
            encode, content_type = choose_encoder(accept)
            return 200, content_type, encode(self.registry)
        if path == "/livez":
            silence_s = self._pulse.silence_s
            return _probe(f"the loop has not turned for {silence_s:.0f} s" if silence_s > LIVE_WITHIN_S else "")
        if path == "/readyz":
            return _probe(self._readiness(self._pulse.age_s))
        return 404, _TEXT, b"there are /metrics, /livez and /readyz\n"

    @contextmanager
    def served(self, port: int, host: str = "") -> Iterator[int]:
        """Serves on `port` or the next free one until the block ends; gives the port, 0 if it serves nowhere.

        Raises `ConfigurationError` where this process may not listen at all.
        """
        server = _bind(self, host, port) if port else None
        if server is None:
            yield 0
            return
        thread = Thread(target=server.serve_forever, args=(0.1,), name="telemetry", daemon=True)
        thread.start()
        try:
            log.info("metrics and probes on port %d", server.server_port)
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


_TEXT = "text/plain; charset=utf-8"


def _probe(reason: str) -> tuple[int, str, bytes]:
    return (503, _TEXT, f"{reason}\n".encode()) if reason else (200, _TEXT, b"ok\n")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, telemetry: Telemetry, address: tuple[str, int]) -> None:
        self.telemetry = telemetry
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """As the base class, but without asking the network for this machine's name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def handle_error(self, request: object, client_address: object) -> None:
        """A prober that hung up is nobody's business."""
        log.debug("a request to the probes failed", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_TIMEOUT_S
    server: _Server

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        try:
            status, content_type, body = self.server.telemetry.respond(path, self.headers.get("Accept", ""))
        except Exception:
            log.exception("%s could not be answered", path)
            status, content_type, body = 500, _TEXT, b"it could not be read; the log says why\n"
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Probes come every few seconds; nobody wants to read that."""


def _bind(telemetry: Telemetry, host: str, port: int) -> _Server | None:
    for candidate in range(port, min(port + PORTS, 65_535) + 1):
        try:
            server = _Server(telemetry, (host, candidate))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            raise ConfigurationError(f"metrics_port: cannot listen on port {candidate}: {error.strerror}") from None
        if candidate != port:
            log.warning("port %d is taken: metrics and probes are on %d", port, candidate)
        return server
    log.warning("ports %d to %d are taken: no metrics and no probes", port, port + PORTS)
    return None
