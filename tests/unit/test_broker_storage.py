"""What is on disk before a node's first start."""

from pathlib import Path

import pytest

from orchestrator.broker.container import make_environment
from orchestrator.broker.storage import Layout, make_id, make_properties, prepare_storage, read_port


def layout(directory: Path, nodes: int = 1, **more: object) -> Layout:
    voters = {number: 20_000 + number for number in range(1, nodes + 1)}
    return Layout(1, 19_000, voters, directory, make_id(), **more)  # type: ignore[arg-type]


def read(path: Path) -> dict[str, str]:
    pairs = [line.split("=", 1) for line in path.read_text().splitlines()]
    assert len(dict(pairs)) == len(pairs)  # type: ignore[arg-type]
    return dict(pairs)  # type: ignore[arg-type]


def test_a_directory_is_formatted_once(tmp_path: Path) -> None:
    first = layout(tmp_path)
    prepare_storage(first)
    meta = read(first.data / "meta.properties")
    assert meta["cluster.id"] == first.cluster_id
    assert (meta["version"], meta["node.id"]) == ("1", "1")
    assert (first.data / "bootstrap.checkpoint").stat().st_size > 0
    prepare_storage(layout(tmp_path))
    assert read(first.data / "meta.properties") == meta


def test_a_kept_node_knows_its_last_port(tmp_path: Path) -> None:
    assert read_port(tmp_path) is None
    prepare_storage(layout(tmp_path, listeners={"SAFE": ("SASL_SSL", 19_500)}))
    assert read_port(tmp_path) == 19_000


def test_one_node_keeps_one_replica_three_keep_three(tmp_path: Path) -> None:
    one, three = make_properties(layout(tmp_path)), make_properties(layout(tmp_path, 3))
    for name in (
        "default.replication.factor",
        "offsets.topic.replication.factor",
        "transaction.state.log.replication.factor",
    ):
        assert (one[name], three[name]) == ("1", "3")
    for name in ("min.insync.replicas", "transaction.state.log.min.isr"):
        assert (one[name], three[name]) == ("1", "2")
    assert three["unclean.leader.election.enable"] == "false"
    assert three["controller.quorum.voters"] == "1@127.0.0.1:20001,2@127.0.0.1:20002,3@127.0.0.1:20003"


def test_nothing_relies_on_automatic_topics(tmp_path: Path) -> None:
    assert make_properties(layout(tmp_path))["auto.create.topics.enable"] == "false"


def test_further_listeners_and_own_properties(tmp_path: Path) -> None:
    made = make_properties(
        layout(tmp_path, listeners={"SAFE": ("SASL_SSL", 19_500)}, properties={"log.flush.interval.messages": "1"})
    )
    assert made["listeners"] == "PLAINTEXT://127.0.0.1:19000,SAFE://127.0.0.1:19500,CONTROLLER://127.0.0.1:20001"
    assert made["advertised.listeners"] == "PLAINTEXT://127.0.0.1:19000,SAFE://127.0.0.1:19500"
    assert made["listener.security.protocol.map"] == "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SAFE:SASL_SSL"
    assert made["log.flush.interval.messages"] == "1"
    won = make_properties(layout(tmp_path, properties={"num.io.threads": "1"}))
    assert won["num.io.threads"] == "1"


def test_clients_are_told_the_port_of_a_proxy(tmp_path: Path) -> None:
    made = make_properties(layout(tmp_path, listeners={"LINKED": ("PLAINTEXT", 19_500)}, advertised={"LINKED": 19_600}))
    assert made["listeners"] == "PLAINTEXT://127.0.0.1:19000,LINKED://127.0.0.1:19500,CONTROLLER://127.0.0.1:20001"
    assert made["advertised.listeners"] == "PLAINTEXT://127.0.0.1:19000,LINKED://127.0.0.1:19600"


def test_values_survive_javas_reading(tmp_path: Path) -> None:
    prepare_storage(layout(tmp_path, properties={"sasl.jaas.config": 'a password="b\\c";\nd'}))
    assert 'sasl.jaas.config=a password="b\\\\c";\\nd' in (tmp_path / "server.properties").read_text().splitlines()


def test_ids_are_kafkas(tmp_path: Path) -> None:
    ids = {make_id() for _ in range(300)}
    assert len(ids) == 300
    assert all(len(text) == 22 and not text.startswith("-") for text in ids)


def test_a_container_serves_the_same_port_inside_and_outside(tmp_path: Path) -> None:
    made = make_environment(layout(tmp_path, listeners={"SAFE": ("SASL_SSL", 19_500)}, properties={"a_b.c-d": "x"}))
    assert made["KAFKA_LISTENERS"] == "PLAINTEXT://0.0.0.0:19000,SAFE://0.0.0.0:19500,CONTROLLER://127.0.0.1:20001"
    assert made["KAFKA_ADVERTISED_LISTENERS"] == "PLAINTEXT://127.0.0.1:19000,SAFE://127.0.0.1:19500"
    assert made["KAFKA_PROCESS_ROLES"] == "broker,controller"
    assert made["KAFKA_A__B_C___D"] == "x"
    assert str(tmp_path) not in "".join(made.values())


@pytest.mark.parametrize("name", ["KAFKA_NODE_ID", "KAFKA_CONTROLLER_QUORUM_VOTERS", "KAFKA_LOG_DIRS", "CLUSTER_ID"])
def test_a_container_is_told_all_that_its_image_would_not_default(tmp_path: Path, name: str) -> None:
    assert make_environment(layout(tmp_path))[name]
