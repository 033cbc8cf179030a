"""A journal that loses what was acknowledged, because its topic was allowed to: its partition is halted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import ElectionType, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
    TopicDescription,
)

from orchestrator.broker import SHORT_LIVED, Cluster, Node, start_cluster
from tests.e2e.shop import Shop, wait_until

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with start_cluster(3, jvm=SHORT_LIVED) as started:
        yield started


class Journal:
    """The shop's only journal partition, as its brokers have it."""

    def __init__(self, cluster: Cluster, topic: str) -> None:
        self._cluster = cluster
        self._topic = topic

    def _admin(self) -> AdminClient:
        """One that knows nothing yet: it asks whoever is up."""
        return AdminClient({"bootstrap.servers": self._cluster.bootstrap_servers, "log_level": 0})

    def described(self) -> tuple[int, set[int]]:
        """The leader and who is in sync; -1 and nobody where nobody answers."""
        admin = self._admin()  # it must outlive what it is asked
        asked = admin.describe_topics(TopicCollection([self._topic]), request_timeout=5)
        try:
            described: TopicDescription = asked[self._topic].result(10)
        except (KafkaException, TimeoutError):
            return -1, set()
        (partition,) = described.partitions
        return -1 if partition.leader is None else partition.leader.id, {node.id for node in partition.isr}

    def leader(self) -> int:
        return self.described()[0]

    def in_sync(self) -> set[int]:
        return self.described()[1]

    def node(self, number: int) -> Node:
        return next(node for node in self._cluster.nodes if node.layout.node_id == number)

    def allow_loss(self) -> None:
        entry = ConfigEntry("unclean.leader.election.enable", "true", incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, self._topic, incremental_configs=[entry])
        admin = self._admin()
        for future in admin.incremental_alter_configs([resource]).values():
            future.result(30)

    def elect_any(self) -> bool:
        """Whether a broker leads that was not in sync."""
        admin = self._admin()
        try:
            admin.elect_leaders(ElectionType.UNCLEAN, [TopicPartition(self._topic, 0)]).result(10)
        except (KafkaException, TimeoutError):
            return False
        return self.leader() >= 0


def test_a_journal_that_loses_acknowledged_records_halts_its_partition(
    cluster: Cluster, prefix: str, tmp_path: Path
) -> None:
    shop = Shop(cluster.bootstrap_servers, prefix, tmp_path, replication=2, partitions=1, workers=1)
    journal = Journal(cluster, shop.names.journal)
    shop.start()
    try:
        shop.order(10, "kept")
        journal.allow_loss()
        leader = journal.leader()
        (behind,) = journal.in_sync() - {leader}
        journal.node(behind).kill()
        assert wait_until(lambda: journal.in_sync() == {leader}, 60)
        shop.order(20, "lost")
        acknowledged = len(shop.journal()[0])
        journal.node(leader).kill()
        journal.node(behind).start()
        assert wait_until(journal.elect_any, 90)
        journal.node(leader).start()
        assert wait_until(lambda: len(shop.journal()[0]) < acknowledged, 60), "nothing was lost"
        worker = shop.processes["worker-1"]
        assert wait_until(lambda: "HALTED" in worker.told(), 90), worker.tail(40)
        assert "truncated" in worker.told()
    finally:
        shop.close()
