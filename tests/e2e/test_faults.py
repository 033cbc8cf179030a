"""Real processes on a real broker under faults: each test breaks something, and the checker has the last word."""

from __future__ import annotations

import json
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
from tests.e2e.shop import PARTITIONS, Shop, freeze, run_saga, thaw, wait_until

REASON = "__connect.errors.exception.message"
pytestmark = [pytest.mark.timeout(150), pytest.mark.slow]
SESSION_S = 6.0
TWO_MIB = 2 << 20


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
    producer = Producer({"bootstrap.servers": shop.bootstrap_servers, "log_level": 0, "message.max.bytes": 8_000_000})
    home = partition_of("o-0", PARTITIONS)
    reply = {"saga-id": "o-0", "saga-run": run, "step": "1", "outcome": "failure", "attempt": "1"}
    keys = load_settings({"development": True}).token_keys()
    token, other_run = (keys.sign("o-0", each, 1, "do", "inventory") for each in (run, "1-999-0"))
    names = shop.names
    bad: list[tuple[str, bytes, dict[str, str]]] = [
        (names.inbox, b"\x00\xff\xfe", {}),
        (names.inbox, b'{"id": 5}', {"saga-id": "bad-schema", "saga-type": "OrderFulfilment"}),
        (names.inbox, b"x" * 900_000, {"saga-id": "too-large", "saga-type": "Unknown"}),
        (names.inbox, b"y" * TWO_MIB, {"saga-id": "far-too-large", "saga-type": "Unknown"}),
        (names.inbox, b"{}", {"saga-id": "wide", "saga-type": "OrderFulfilment", "filler": "z" * TWO_MIB}),
        (names.replies, b"w" * TWO_MIB, {**reply, "reply-token": token}),
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
    assert producer.flush(30) == 0
    assert shop.order(20, "good") == expected(20)
    assert wait_until(lambda: len(dead_letters(shop)) >= len(bad), 20), "\n".join(dead_letters(shop))
    reasons = dead_letters(shop)
    assert len(reasons) == len(bad)
    parts = ("saga id", "does not fit", "has 900000", "has 2097152", "the headers have 20", "carries 2097152")
    for part in (*parts, "no step 77", "forged", "1-999-0", "outcome", "dance"):
        assert any(part in reason for reason in reasons), (part, reasons)
    for words in ("has 2097152", "the headers have 20"):
        show_and_redrive(shop, words)
    assert wait_until(lambda: len(dead_letters(shop)) == len(bad) + 2, 20), "\n".join(dead_letters(shop))
    statuses = check(shop.evidence())
    assert statuses.violations == []
    assert statuses.statuses["WAITING_FOR_CODE"] == 1
    assert statuses.statuses["COMPLETED"] == 16 + 1


def show_and_redrive(shop: Shop, words: str) -> None:
    """What an operator does about the one dead letter whose reason has these words."""
    there = ("-b", shop.bootstrap_servers, "--prefix", shop.names.prefix)
    listed = run_saga("dead-letters", "list", "--json", *there)
    assert listed.returncode == 0, listed.stderr
    (letter,) = [each for each in json.loads(listed.stdout)["dead_letters"] if words in each["reason"]]
    shown = run_saga("dead-letters", "show", letter["place"], *there)
    assert shown.returncode == 0, shown.stderr
    assert words in shown.stdout
    assert "the first 4000 of 2097152 bytes" in shown.stdout
    assert len(shown.stdout) < 10_000
    redriven = run_saga("dead-letters", "redrive", letter["place"], *there)
    assert redriven.returncode == 0, redriven.stderr
    assert "is now" in redriven.stdout


def dead_letters(shop: Shop) -> list[str]:
    """Why each dead letter is one; notes of what was redriven are none."""
    raw = dump_topics(shop.log, [shop.names.dead_letters], PARTITIONS)[shop.names.dead_letters]
    reasons = (dict(record.headers).get(REASON) for records in raw.values() for record in records)
    return [reason.decode() for reason in reasons if reason is not None]


def check_runs(shop: Shop) -> set[str]:
    """The runs on the answers topic."""
    raw = dump_topics(shop.log, [shop.names.answers], PARTITIONS)[shop.names.answers]
    return {dict(record.headers)["saga-run"].decode() for records in raw.values() for record in records}
