"""Faults under load, each with the time that every partition it struck took to go on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from confluent_kafka.admin import AdminClient

from orchestrator.broker import Cluster
from orchestrator.checker.evidence import Raw
from orchestrator.checker.ownership import accepted, owned_by, taken_over, tenures
from tests.e2e.shop import Shop, wait_until

PER_SECOND = 30.0
SESSION_MS = 6_000
"""Of a worker in development."""
HEARTBEAT_MS = 500
"""The last heartbeat of a worker is at most so old when it is killed: its session may end that much earlier."""


@dataclass(frozen=True, slots=True)
class Fault:
    """The partitions that a fault struck, and how many milliseconds after `since` each had a claim and a decision."""

    name: str
    since: str
    struck: set[int]
    claims_ms: dict[int, int]
    decisions_ms: dict[int, int]

    def as_json(self) -> dict[str, Any]:
        """Least, median and greatest over the partitions."""
        return {
            "fault": self.name,
            "since": self.since,
            "partitions": len(self.struck),
            "first_claim_ms": _spread(self.claims_ms),
            "first_decision_ms": _spread(self.decisions_ms),
        }


def kill_worker(shop: Shop, worker: str, name: str = "worker-killed") -> Fault:
    """kill -9. Times since the earliest moment at which its session can have ended."""
    pid = _shared(shop, worker, name)
    at_ms = _strike(shop, name, 240, shop.processes[worker].kill)
    return _taken_over(shop, name, "the end of the dead worker's session", pid, at_ms, SESSION_MS - HEARTBEAT_MS)


def stop_worker(shop: Shop, worker: str, name: str = "worker-stopped") -> Fault:
    """SIGTERM. Times since the signal."""
    pid = _shared(shop, worker, name)
    at_ms = _strike(shop, name, 180, lambda: os.killpg(pid, signal.SIGTERM))
    return _taken_over(shop, name, "SIGTERM", pid, at_ms, 0)


def kill_leader(shop: Shop, cluster: Cluster, name: str = "leader-killed") -> Fault:
    """kill -9 of the broker that leads most journal partitions. Times since the kill, of the partitions it led."""
    _shared(shop, "worker-1", name)
    led = _journals_led(shop, cluster)
    node = max(cluster.nodes, key=lambda each: len(led[each.layout.node_id]))
    struck = led[node.layout.node_id]
    at_ms = _strike(shop, name, 180, node.kill)
    decided = decided_again(shop.journal(), at_ms)
    times = {partition: decided[partition] - at_ms for partition in struck if partition in decided}
    return Fault(name, "the kill of the broker", struck, {}, times)


def _shared(shop: Shop, worker: str, name: str) -> int:
    """The pid of a worker, once both own partitions."""

    def shared() -> bool:
        held, now_ms = tenures(shop.journal()), time.time_ns() // 1_000_000
        return all(owned_by(held, shop.processes[each].pid, now_ms) for each in ("worker-1", "worker-2"))

    _order(shop, 16, f"{name}-before", None)
    assert wait_until(shared, 40), "one of the workers owns nothing"
    return shop.processes[worker].pid


def _strike(shop: Shop, name: str, count: int, act: Callable[[], None]) -> int:
    """Runs orders at a pace to their end, strikes when a third has ended, and says when, in milliseconds."""
    struck_at_ms = 0

    def meanwhile() -> None:
        nonlocal struck_at_ms
        struck_at_ms = time.time_ns() // 1_000_000
        act()

    _order(shop, count, name, meanwhile)
    return struck_at_ms


def _order(shop: Shop, count: int, name: str, meanwhile: Callable[[], None] | None) -> None:
    statuses = shop.order(count, name, meanwhile, per_second=PER_SECOND)
    assert statuses == ["COMPENSATED" if number % 5 == 0 else "COMPLETED" for number in range(count)]


def _taken_over(shop: Shop, name: str, since: str, pid: int, at_ms: int, later_ms: int) -> Fault:
    held = tenures(shop.journal())
    found = taken_over(held, pid, at_ms)
    begin_ms = at_ms + later_ms
    return Fault(
        name,
        since,
        owned_by(held, pid, at_ms),
        {partition: again.claim_ms - begin_ms for partition, again in found.items()},
        {partition: again.decision_ms - begin_ms for partition, again in found.items()},
    )


def _journals_led(shop: Shop, cluster: Cluster) -> dict[int, set[int]]:
    """The journal partitions that each node leads, by node id."""
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap_servers, "log_level": 0})
    partitions = admin.list_topics(shop.names.journal, timeout=30).topics[shop.names.journal].partitions
    led: dict[int, set[int]] = {node.layout.node_id: set() for node in cluster.nodes}
    for number, partition in partitions.items():
        led[partition.leader].add(number)
    return led


def decided_again(journal: Raw, at_ms: int) -> dict[int, int]:
    """For each partition with a decision after `at_ms`, the time of the first one."""
    found = {}
    for partition, records in journal.items():
        later = (each.at_ms for each in accepted(records) if not each.is_claim and each.at_ms > at_ms)
        first = next(later, None)
        if first is not None:
            found[partition] = first
    return found


def _spread(times_ms: dict[int, int]) -> dict[str, int] | None:
    times = times_ms.values()
    return {"min": min(times), "median": round(median(times)), "max": max(times)} if times else None
