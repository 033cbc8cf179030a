"""How late timers fire, against the 20 ms at the 99th percentile that are promised on an idle machine.

    python -m tests.bench.timers [--timers 500] [--json]

One worker, four partitions, sagas that sleep for one to eleven seconds. Lateness is the broker's append time of the
decision in which a sleep ended, less the time at which it was due. The exit code is 0 if the promise was kept.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
from threading import Thread
from typing import Any

from orchestrator.broker import SHORT_LIVED, start_cluster
from orchestrator.client import Client
from orchestrator.log.base import Record
from orchestrator.log.kafka import KafkaLog
from orchestrator.model import events as ev
from orchestrator.model.rule import Kind
from orchestrator.provisioning import apply, plan
from orchestrator.runtime.partition_config import PartitionConfig
from orchestrator.runtime.worker import Worker
from orchestrator.saga import Saga
from orchestrator.store.memory import MemoryStores
from orchestrator.topics import TopicNames
from orchestrator.wire.journal import read_decision, read_envelope
from orchestrator.wire.tokens import TokenKeys
from tests.contract.log_world import Probe, wait

PARTITIONS = 4
PROMISED_P99_MS = 20
SHORTEST_S, LONGEST_S = 1.0, 11.0


class Sleeper(Saga[float, None]):
    async def run(self, seconds: float) -> None:
        await self.sleep(seconds)


async def _sleep_all(broker: str, timers: int) -> None:
    spread = random.Random(timers)
    async with Client.connect(broker) as client:
        await (await client.start(Sleeper, 0.0, id="warm-up")).result(timeout=60)
        starts = [(f"t-{number}", spread.uniform(SHORTEST_S, LONGEST_S)) for number in range(timers)]
        handles = await client.start_many(Sleeper, starts)
        await asyncio.gather(*(handle.result(timeout=120) for handle in handles))


def _lateness_ms(log: KafkaLog, topics: TopicNames) -> list[int]:
    """Of every timer of the journal, but the one that warmed up."""
    probe, found, due_ms = Probe(log), [], {}
    admin = log.admin()
    ends = admin.ends([(topics.journal, number) for number in range(PARTITIONS)])
    admin.close()
    left = {place: end for place, (_, end) in ends.items() if end}
    for topic, number in left:
        probe.reader.assign(topic, number, 0)
    records: list[Record] = []
    wait(probe.wake, lambda: records.extend(probe.reader.poll()), lambda: len(records) >= sum(left.values()))
    probe.reader.close()
    for record in records:
        envelope = read_envelope(record.value)
        decision = read_decision(envelope) if envelope.kind == Kind.DECISION else None
        for event in decision.events if decision is not None else ():
            if isinstance(event, ev.WaitScheduled) and event.due_ms is not None:
                due_ms[decision.saga_id] = event.due_ms
            elif isinstance(event, ev.WaitExpired) and decision.saga_id != "warm-up":
                found.append(record.timestamp_ms - due_ms[decision.saga_id])
    return found


def measure(broker: str, timers: int) -> dict[str, Any]:
    """One run of the bench."""
    log, topics = KafkaLog(broker), TopicNames()
    admin = log.admin()
    apply(admin, plan(topics, partitions=PARTITIONS, replication=1, services=[]))
    admin.close()
    config = PartitionConfig(topics, PARTITIONS, TokenKeys({"k": b"0" * 16}), {"Sleeper": Sleeper.definition})
    worker = Worker(log, config, MemoryStores())
    thread = Thread(target=worker.run)
    thread.start()
    try:
        asyncio.run(_sleep_all(broker, timers))
    finally:
        worker.stop()
        thread.join()
    late = sorted(_lateness_ms(log, topics))
    return {
        "timers": len(late),
        "lateness_ms": {"p50": late[len(late) // 2], "p99": late[len(late) * 99 // 100], "most": late[-1]},
        "least_ms": late[0],
        "promised_p99_ms": PROMISED_P99_MS,
        "kept": late[len(late) * 99 // 100] <= PROMISED_P99_MS,
        "processors": os.cpu_count(),
        "load_average_1m": round(os.getloadavg()[0], 2),
    }


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timers", type=int, default=500)
    parser.add_argument("--json", action="store_true", help="one line instead of several")
    arguments = parser.parse_args()
    with start_cluster(1, jvm=SHORT_LIVED) as cluster:
        result = measure(cluster.bootstrap_servers, arguments.timers)
    print(json.dumps(result, indent=None if arguments.json else 2))
    return 0 if result["kept"] else 1


if __name__ == "__main__":
    sys.exit(main())
