"""What testcontainers is told to start, seen by an engine on a socket that only takes notes."""

import http.server
import json
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.broker.container import Container, image_name
from orchestrator.broker.jars import VERSION
from orchestrator.broker.probe import pick_free_ports
from orchestrator.broker.storage import Layout, make_id
from orchestrator.errors import BrokerUnavailable

pytest.importorskip("testcontainers")


class Engine(socketserver.ThreadingUnixStreamServer):
    """Enough of Docker's interface to create, start and remove one container in which nothing runs."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        self.asked: list[str] = []
        self.created: dict[str, object] = {}
        super().__init__(str(path), Handler)


class Handler(http.server.BaseHTTPRequestHandler):
    server: Engine

    def address_string(self) -> str:
        return "socket"

    def log_message(self, *_: object) -> None:
        return

    def answer(self, body: object, status: int = 200) -> None:
        encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        if status == 204:
            self.end_headers()
            return
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def do_GET(self) -> None:
        self.server.asked.append(f"GET {self.path}")
        if self.path.endswith("/version"):
            self.answer({"ApiVersion": "1.44", "Version": "26"})
        elif "/logs" in self.path:
            self.answer(b"" if "stdout=0" in self.path else b"\x01\0\0\0\0\0\0\x0dno space left")
        else:
            self.answer({"Id": "c1", "State": {"Status": "running"}, "Config": {"Tty": False}})

    def do_POST(self) -> None:
        self.server.asked.append(f"POST {self.path}")
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "/containers/create" in self.path:
            self.server.created = json.loads(sent)
            self.answer({"Id": "c1", "Warnings": []}, 201)
        else:
            self.answer(b"", 204)

    def do_DELETE(self) -> None:
        self.server.asked.append(f"DELETE {self.path}")
        self.answer(b"", 204)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Engine]:
    from testcontainers.core.config import testcontainers_config

    path = tmp_path / "e.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    monkeypatch.setattr(testcontainers_config, "ryuk_disabled", True)
    with Engine(path) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def make_layout() -> Layout:
    plain, safe, controller = pick_free_ports(3)
    return Layout(1, plain, {1: controller}, Path("unused"), make_id(), {"SAFE": ("SASL_PLAINTEXT", safe)})


def test_the_container_is_created_on_loopback_and_removed_if_it_does_not_serve(engine: Engine) -> None:
    layout = make_layout()
    container = Container(layout)
    with pytest.raises(BrokerUnavailable, match=r"did not serve within 0 s:\n.*no space left"):
        container.start(timeout_s=0)
    assert engine.created["Image"] == image_name() == f"apache/kafka:{VERSION}"
    host = engine.created["HostConfig"]
    assert isinstance(host, dict)
    assert host["PortBindings"] == {
        f"{port}/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}] for port in layout.ports.values()
    }
    environment = engine.created["Env"]
    assert isinstance(environment, list)
    assert f"KAFKA_ADVERTISED_LISTENERS={','.join(f'{n}://127.0.0.1:{p}' for n, p in layout.ports.items())}" in (
        environment
    )
    assert any(line.startswith("DELETE ") and "/containers/c1" in line for line in engine.asked)


def test_an_image_of_ones_own(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGA_KAFKA_IMAGE", "mirror.test/kafka:4.1.0")
    with pytest.raises(BrokerUnavailable, match=r"mirror\.test/kafka"):
        Container(make_layout()).start(timeout_s=0)
    assert engine.created["Image"] == "mirror.test/kafka:4.1.0"


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("unix:///nowhere/docker.sock", "no engine answers at unix:///nowhere"),
        ("tcp://127.0.0.1:1", "no engine answers at tcp://127"),
        ("tcp://build.test:2375", "is another machine"),
        ("ssh://me@build.test", "is another machine"),
    ],
)
def test_an_engine_that_is_not_here(monkeypatch: pytest.MonkeyPatch, address: str, reason: str) -> None:
    monkeypatch.setenv("DOCKER_HOST", address)
    with pytest.raises(BrokerUnavailable, match=reason):
        Container(make_layout())
