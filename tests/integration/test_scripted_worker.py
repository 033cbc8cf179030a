"""A worker, a participant and a client against brokers that err: the sagas end, and the journal is sound.

The cluster is librdkafka's own (`tests.scripted_cluster`). Each kind of topic has a leader of its own, so that an error
meets the records that it is meant for.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

import pytest
from confluent_kafka import KafkaError

from orchestrator.checker.check import check
from orchestrator.checker.evidence import Evidence, Told, Verdict
from orchestrator.client import Client
from orchestrator.demo.dump import gather_evidence
from orchestrator.errors import Disconnected, SagaFailed
from orchestrator.log.base import AdminFailed
from orchestrator.log.kafka import KafkaLog
from orchestrator.participant.runner import Runner
from orchestrator.provisioning import plan
from orchestrator.runtime.partition_config import PartitionConfig
from orchestrator.runtime.worker import Worker
from orchestrator.store.memory import MemoryStores
from orchestrator.topics import TopicNames
from orchestrator.wire.headers import SAGA_TYPE, write_headers
from orchestrator.wire.tokens import TokenKeys
from tests.crashes.scene import PARTITIONS, SERVICE, WISHES, Errand, definitions, participant
from tests.scripted_cluster import Api, ScriptedCluster, scripted_cluster
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(120)

JOURNAL, INPUTS, COMMANDS, COORDINATOR, OTHERS = range(1, 6)
"""Who leads what."""
WITHIN_S = 50.0

RETRIED = (
    KafkaError.NOT_ENOUGH_REPLICAS,
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.KAFKA_STORAGE_ERROR,
)
UNCLEAR = (
    KafkaError.DUPLICATE_SEQUENCE_NUMBER,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.INVALID_REQUIRED_ACKS,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
)
ERRORS = {
    (Api.PRODUCE, JOURNAL): RETRIED + UNCLEAR,
    (Api.PRODUCE, INPUTS): RETRIED + UNCLEAR,
    (Api.PRODUCE, COMMANDS): RETRIED + UNCLEAR,
    (Api.FETCH, JOURNAL): (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.KAFKA_STORAGE_ERROR),
    (Api.FETCH, INPUTS): (KafkaError.FENCED_LEADER_EPOCH, KafkaError.UNKNOWN_LEADER_EPOCH),
    (Api.LIST_OFFSETS, JOURNAL): (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.REQUEST_TIMED_OUT),
    (Api.OFFSET_COMMIT, COORDINATOR): (KafkaError.ILLEGAL_GENERATION, KafkaError.COORDINATOR_NOT_AVAILABLE),
    (Api.OFFSET_FETCH, COORDINATOR): (KafkaError.COORDINATOR_LOAD_IN_PROGRESS,),
    (Api.HEARTBEAT, COORDINATOR): (KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS),
    (Api.JOIN_GROUP, COORDINATOR): (KafkaError.UNKNOWN_MEMBER_ID,),
}
"""What a broker may answer to which requests."""


class Desk:
    """The processes, as threads: `worker` and one participant."""

    def __init__(self, cluster: ScriptedCluster, prefix: str) -> None:
        self.cluster = cluster
        self.names = TopicNames(prefix)
        consumer = {"session.timeout.ms": 1_500, "heartbeat.interval.ms": 100}
        self.log = KafkaLog(cluster.bootstrap_servers, consumer=consumer)
        leaders = {
            self.names.journal: JOURNAL,
            self.names.replies: INPUTS,
            self.names.commands(SERVICE): COMMANDS,
        }
        for spec in plan(self.names, partitions=PARTITIONS, replication=1, services=[SERVICE]):
            cluster.topic(spec.name, PARTITIONS, leader=leaders.get(spec.name, OTHERS))
        for group in (f"{prefix}saga-owners", self.names.group(SERVICE)):
            cluster.coordinate(group, COORDINATOR)
        config = PartitionConfig(self.names, PARTITIONS, TokenKeys({"k": b"0" * 16}), definitions())
        self.worker = Worker(self.log, config, MemoryStores())
        self.runner = Runner(participant("inbox"), self.log, topics=self.names)
        self.failed: list[BaseException] = []
        self.threads = [Thread(target=self._run, args=(each,)) for each in (self.worker, self.runner)]
        self.told: list[Told] = []

    def _run(self, each: Worker | Runner) -> None:
        try:
            each.run()
        except BaseException as error:
            self.failed.append(error)

    async def play(self) -> None:
        """Both sagas to their ends."""
        # As `Client.connect` makes one, but for asking what the topics are like: these brokers do not know.
        async with Client(self.log, self.names, PARTITIONS, answer_partitions=PARTITIONS) as client:
            await asyncio.gather(*(self._follow(client, saga_id) for saga_id in WISHES))

    async def _follow(self, client: Client, saga_id: str) -> None:
        wish, expected = WISHES[saga_id]
        status = "COMPLETED"
        try:
            handle = await client.start(Errand, wish, id=saga_id)
            await handle.result(timeout=WITHIN_S)
        except SagaFailed as failed:
            status = str(failed.status)
        self.told.append(Told(saga_id, True, status))
        assert status == expected

    def start_one(self) -> None:
        """Starts a saga, and does not ask what becomes of it."""
        saga_id, (wish, _) = next(iter(WISHES.items()))
        appender = self.log.appender(wake=Event())
        headers = write_headers({SAGA_TYPE: Errand.definition.name})
        value = wish.model_dump_json().encode()
        appender.append(self.names.inbox, 0, value, key=saga_id.encode(), headers=headers, token=None)
        assert appender.close(WITHIN_S) == 0

    def verdict(self, books: Path) -> Verdict:
        evidence: list[Evidence] = []

        def gather() -> bool:
            """Errors that met nobody meet this."""
            with suppress(AdminFailed):
                evidence.append(gather_evidence(self.log, self.names, PARTITIONS, [SERVICE], self.told, books))
            return bool(evidence)

        assert eventually(gather)
        assert not any(evidence[0].dead_letters.values())
        return check(evidence[0])


@contextmanager
def running(desk: Desk, *, failing: bool = False) -> Iterator[None]:
    """Until the block ends; neither may have failed, unless that is what the test is about."""
    for thread in desk.threads:
        thread.start()
    try:
        yield
    finally:
        desk.runner.stop()
        desk.worker.stop()
        for thread in desk.threads:
            thread.join()
    assert failing or not desk.failed


@pytest.fixture
def cluster() -> Iterator[ScriptedCluster]:
    with scripted_cluster(brokers=5) as cluster:
        yield cluster


@pytest.mark.parametrize("seed", range(2))
def test_sagas_end_among_errors(
    seed: int, cluster: ScriptedCluster, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_BOOKS", str(tmp_path))
    pick = random.Random(seed)
    for (api, broker), codes in ERRORS.items():
        for _ in range(2 if broker == COORDINATOR else 8):
            cluster.err(api, *[0] * pick.randrange(5), pick.choice(codes), broker=broker)
    desk = Desk(cluster, prefix)
    with running(desk):
        asyncio.run(desk.play())
    assert desk.worker.engine.epochs_lost
    assert desk.verdict(tmp_path).violations == []


@pytest.mark.parametrize("broker", [JOURNAL, COMMANDS])
def test_a_worker_with_a_dead_producer_ends(
    broker: int, cluster: ScriptedCluster, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a dead reader: whoever supervises the process starts another, with clients that live."""
    monkeypatch.setenv("SHOP_BOOKS", str(tmp_path))
    desk = Desk(cluster, prefix)
    with running(desk, failing=True):
        assert eventually(lambda: bool(desk.worker.engine.holdings.positions))
        cluster.err(Api.PRODUCE, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, broker=broker)
        desk.start_one()
        assert eventually(lambda: bool(desk.failed), 8.0)
    assert [type(error) for error in desk.failed] == [Disconnected]
