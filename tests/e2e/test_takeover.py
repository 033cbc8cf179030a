"""Ownership by real processes under load: who is killed or stopped is followed, in bounded time and without a flaw.

The times are told by the brokers' append times in the raw journal; they are printed, and required only generously, for
the machine may be busy. `python -m tests.bench.takeover` measures them against what is promised.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from orchestrator.broker import SHORT_LIVED, Cluster, start_cluster
from orchestrator.checker.check import check
from tests.e2e.faults import HEARTBEAT_MS, SESSION_MS, Fault, kill_leader, kill_worker, stop_worker
from tests.e2e.shop import Shop

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]
GENEROUS_MS = 30_000
MISSED_MS = SESSION_MS - HEARTBEAT_MS
"""A worker that does not say that it leaves is missed no sooner."""


@pytest.fixture
def shop(broker: str, prefix: str, tmp_path: Path) -> Iterator[Shop]:
    made = Shop(broker, prefix, tmp_path)
    made.start()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with start_cluster(3, jvm=SHORT_LIVED) as started:
        yield started


@pytest.fixture
def wide_shop(cluster: Cluster, prefix: str, tmp_path: Path) -> Iterator[Shop]:
    made = Shop(cluster.bootstrap_servers, prefix, tmp_path, replication=3)
    made.start()
    try:
        yield made
    finally:
        made.close()


def no_flaw(shop: Shop, faults: Sequence[Fault], within_ms: int = GENEROUS_MS) -> None:
    """Every partition that was struck went on, and the raw topics hold no violation of C1 to C10."""
    for fault in faults:
        print(json.dumps(fault.as_json()))
        assert fault.struck, f"{fault.name} struck no partition"
        assert fault.decisions_ms.keys() == fault.struck
        assert max(fault.decisions_ms.values()) < within_ms
    assert check(shop.evidence()).violations == []


def test_a_killed_worker_is_followed_on_every_partition(shop: Shop) -> None:
    no_flaw(shop, [kill_worker(shop, "worker-1")])


def test_a_worker_that_is_stopped_hands_over_every_partition(shop: Shop) -> None:
    no_flaw(shop, [stop_worker(shop, "worker-1")], MISSED_MS)


def test_the_leader_of_a_journal_is_killed_and_then_a_worker(cluster: Cluster, wide_shop: Shop) -> None:
    no_flaw(wide_shop, [kill_leader(wide_shop, cluster), kill_worker(wide_shop, "worker-1")])
