"""Real processes on a real broker under faults: each test breaks something, and the checker has the last word."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from orchestrator.checker.check import check
from orchestrator.config import load_settings
from orchestrator.demo.dump import dump_topics
from orchestrator.model.ids import partition_of
from orchestrator.wire.journal import read_envelope
from tests.e2e.shop import PARTITIONS, Shop, freeze, thaw, wait_until

pytestmark = [pytest.mark.timeout(150), pytest.mark.slow]
SESSION_S = 6.0


@pytest.fixture
def shop(broker: str, prefix: str, tmp_path: Path) -> Iterator[Shop]:
    made = Shop(broker, prefix, tmp_path)
    made.start()
    try:
        yield made
    finally:
        made.close()


def expected(count: int) -> list[str]:
    return ["COMPENSATED" if number % 5 == 0 else "COMPLETED" for number in range(count)]


def test_a_worker_killed_under_load_loses_nothing(shop: Shop) -> None:
    assert shop.order(60, "killed", shop.processes["worker-1"].kill) == expected(60)
    shop.processes["worker-1"].start()
    assert shop.order(10, "after") == expected(10)
    assert check(shop.evidence()).violations == []


def test_a_worker_frozen_beyond_its_session_does_no_harm(shop: Shop) -> None:
    frozen = shop.processes["worker-1"]
    assert shop.order(10, "before") == expected(10)
    freeze(frozen)
    assert shop.order(40, "frozen") == expected(40)
    thaw(frozen)
    assert shop.order(20, "thawed") == expected(20)
    evidence = shop.evidence()
    assert check(evidence).violations == []
    claims = sum(read_envelope(record.value).kind == 1 for records in evidence.journal.values() for record in records)
    assert claims > PARTITIONS


def test_a_lost_store_changes_nothing(shop: Shop) -> None:
    assert shop.order(20, "first") == expected(20)
    workers = [shop.processes[name] for name in ("worker-1", "worker-2")]
    for worker in workers:
        worker.stop()
    shutil.rmtree(shop.folder / "stores")
    for worker in workers:
        worker.start()
    assert shop.order(20, "second") == expected(20)
    assert check(shop.evidence()).violations == []


def test_bad_input_becomes_dead_letters_and_stops_nobody(shop: Shop) -> None:
    assert shop.order(1, "o") == ["COMPENSATED"]
    run = next(iter(check_runs(shop)))
    producer = Producer({"bootstrap.servers": shop.bootstrap_servers, "log_level": 0})
    home = partition_of("o-0", PARTITIONS)
    reply = {"saga-id": "o-0", "saga-run": run, "step": "1", "outcome": "failure", "attempt": "1"}
    other_run = load_settings({"development": True}).token_keys().sign("o-0", "1-999-0", 1, "do", "inventory")
    names = shop.names
    bad: list[tuple[str, bytes, dict[str, str]]] = [
        (names.inbox, b"\x00\xff\xfe", {}),
        (names.inbox, b'{"id": 5}', {"saga-id": "bad-schema", "saga-type": "OrderFulfilment"}),
        (names.inbox, b"x" * 900_000, {"saga-id": "too-large", "saga-type": "Unknown"}),
        (names.replies, b"null", {**reply, "step": "77"}),
        (names.replies, b"null", {**reply, "reply-token": "k.forged"}),
        (names.replies, b"null", {**reply, "saga-run": "1-999-0", "reply-token": other_run}),
        (names.replies, b"null", {"saga-id": "o-0"}),
        (names.operations, b"", {"saga-id": "o-0", "input-type": "dance"}),
    ]
    for topic, value, headers in bad:
        partition = partition_of(headers["saga-id"], PARTITIONS) if "saga-id" in headers else home
        producer.produce(topic, value, partition=partition, headers=list(headers.items()))
    producer.produce(
        names.inbox,
        b'{"id": "waits", "sku": "tea", "cents": 1}',
        key=b"waits",
        partition=partition_of("waits", PARTITIONS),
        headers=[("saga-type", "NobodyKnows")],
    )
    producer.produce(
        names.inbox,
        b'{"id": "astray", "sku": "tea", "cents": 1}',
        key=b"astray",
        partition=(partition_of("astray", PARTITIONS) + 1) % PARTITIONS,
        headers=[("saga-type", "OrderFulfilment")],
    )
    producer.flush(10)
    assert shop.order(20, "good") == expected(20)
    assert wait_until(lambda: len(dead_letters(shop)) >= len(bad), 20), "\n".join(dead_letters(shop))
    reasons = dead_letters(shop)
    assert len(reasons) == len(bad)
    for part in ("saga id", "does not fit", "at most", "no step 77", "forged", "1-999-0", "outcome", "dance"):
        assert any(part in reason for reason in reasons), (part, reasons)
    statuses = check(shop.evidence())
    assert statuses.violations == []
    assert statuses.statuses["WAITING_FOR_CODE"] == 1
    assert statuses.statuses["COMPLETED"] == 16 + 1


def dead_letters(shop: Shop) -> list[str]:
    """Why each dead letter is one."""
    raw = dump_topics(shop.log, [shop.names.dead_letters], PARTITIONS)[shop.names.dead_letters]
    return [
        dict(record.headers)["__connect.errors.exception.message"].decode()
        for records in raw.values()
        for record in records
    ]


def check_runs(shop: Shop) -> set[str]:
    """The runs on the answers topic."""
    raw = dump_topics(shop.log, [shop.names.answers], PARTITIONS)[shop.names.answers]
    return {dict(record.headers)["saga-run"].decode() for records in raw.values() for record in records}
