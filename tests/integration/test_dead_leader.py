"""Where a log ends is told again soon after the broker that led it died, by clients that asked it before."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, suppress
from threading import Event

import pytest

from orchestrator.broker import SHORT_LIVED, Cluster, start_cluster
from orchestrator.log.base import AdminFailed, Ends, TopicSpec
from orchestrator.log.kafka import KafkaLog, KafkaReader

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(180)]
TOPIC = "ends"
PARTITIONS = 6
WITHIN_S = 30.0
"""The next leader stands after 3 to 5 s; a client that looks for it only by itself needs minutes."""
KEYS = [(TOPIC, number) for number in range(PARTITIONS)]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with start_cluster(3, jvm=SHORT_LIVED) as started:
        yield started


def ask(reader: KafkaReader, wake: Event) -> Ends:
    """One answer, with or without a failure."""
    token = object()
    reader.ask_ends(KEYS, token)
    while True:
        for happening in reader.poll():
            if isinstance(happening, Ends) and happening.token is token:
                return happening
        wake.wait(0.05)
        wake.clear()


def test_a_client_finds_the_next_leader(cluster: Cluster) -> None:
    log, wake = KafkaLog(cluster.bootstrap_servers), Event()
    reader, appender = log.reader(wake=wake), log.appender(wake=wake)
    with closing(log.admin()) as admin, closing(reader):
        admin.create([TopicSpec(TOPIC, PARTITIONS, 3, {"min.insync.replicas": "2"})])
        for _, number in KEYS:
            for _ in range(number + 1):
                appender.append(TOPIC, number, b"x", token=None)
        assert appender.close(20.0) == 0
        expected = {key: key[1] + 1 for key in KEYS}
        assert ask(reader, wake).offsets == expected
        assert admin.ends(KEYS) == {key: (0, end) for key, end in expected.items()}

        cluster.nodes[0].kill()
        deadline = time.monotonic() + WITHIN_S
        while (ends := ask(reader, wake)).failure is not None:
            assert time.monotonic() < deadline, ends.detail
            assert ends.offsets.items() <= expected.items()
        assert ends.offsets == expected
        while time.monotonic() < deadline:
            with suppress(AdminFailed):
                assert admin.ends(KEYS) == {key: (0, end) for key, end in expected.items()}
                return
        raise AssertionError("the admin client did not find the next leader")
