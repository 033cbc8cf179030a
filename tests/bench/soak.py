"""Half an hour and more at a steady rate: does anything grow?

    python -m tests.bench.soak [--minutes 30] [--settle 20] [--rate 300] [--json]

Orders, one in ten undone, with snapshots and an archive; whatever is kept by age is kept for minutes here, so that a
run sees it come and go: inputs, journals in Kafka and ended sagas for two, public events, answers and ledgers for
three. Every ten seconds the resident memory of worker, services and broker is read, and the bytes that topics, stores
and snapshots take on the disk. Told is the slope of each by least squares, in MB
an hour and, for the stores, in bytes by saga, over the minutes that count; in those before them stores, caches and what
is kept for minutes fill. The archive grows by design, and is told apart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import linear_regression
from typing import Any

from orchestrator.bench import services as bench_services
from orchestrator.bench.processes import Process, resident_mb
from orchestrator.bench.rates import hold
from orchestrator.bench.running import Brokers, Running
from orchestrator.bench.scenarios import ORDERS
from orchestrator.bench.system import Load
from orchestrator.broker import Broker, provide
from orchestrator.client import Client
from orchestrator.config import Settings, load_settings
from orchestrator.log.kafka import KafkaLog
from orchestrator.participant.runner import Runner
from orchestrator.participant.settings import ParticipantSettings
from orchestrator.provisioning import apply, plan
from orchestrator.topics import TopicNames

EVERY_S = 10.0
KEEP_MS = 120_000
TOLD_MS = 180_000
BROKER = {
    "log.segment.bytes": str(8 << 20),
    "log.retention.check.interval.ms": "5000",
    "log.segment.delete.delay.ms": "1000",
}
PREFIX = "soak-"


@dataclass(frozen=True, slots=True)
class Sample:
    """At one moment; `sagas` have been started by then."""

    at_s: float
    sagas: int
    values: Mapping[str, float]
    """MB (10^6 bytes) by what takes them."""


def directory_mb(*folders: Path) -> float:
    """Of all files, as long as they are there."""
    total = 0
    for folder in folders:
        for path, _, names in os.walk(folder):
            for name in names:
                try:
                    total += os.stat(os.path.join(path, name)).st_blocks * 512
                except OSError:
                    continue
    return total / 1e6


def counted(samples: Sequence[Sample], settle: float) -> Sequence[Sample]:
    """Those after so many minutes; the last in any case."""
    return [each for each in samples if each.at_s >= 60 * settle] or samples[-1:]


def slopes(samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """By what was measured: MB an hour, its first and last value, and its greatest."""
    hours = [each.at_s / 3600 for each in samples]
    found = {}
    for name in samples[0].values:
        values = [each.values[name] for each in samples]
        found[name] = {
            "mb_per_hour": round(linear_regression(hours, values).slope, 1) if len(values) > 1 else 0.0,
            "first_mb": round(values[0], 1),
            "last_mb": round(values[-1], 1),
            "most_mb": round(max(values), 1),
        }
    return found


def by_saga(samples: Sequence[Sample], name: str) -> float:
    """Bytes that one more saga has added."""
    if len(samples) < 2 or samples[0].sagas == samples[-1].sagas:
        return 0.0
    return round(linear_regression([s.sagas for s in samples], [1e6 * s.values[name] for s in samples]).slope, 1)


def _create_topics(log: KafkaLog, settings: Settings) -> None:
    """As they are, but what is kept by age is kept for minutes."""
    names = settings.topic_names
    specs = plan(names, partitions=settings.partitions, replication=settings.replication, services=ORDERS.services)
    aging = {names.lifecycle, names.answers, names.dead_letters, *map(names.ledger, ORDERS.services)}
    short = {"retention.ms": str(TOLD_MS), "segment.ms": "60000"}
    with closing(log.admin()) as admin:
        apply(
            admin,
            [replace(spec, settings={**spec.settings, **short}) if spec.name in aging else spec for spec in specs],
        )


async def _soak(broker: Broker, folder: Path, minutes: float, rate: float) -> tuple[list[Sample], int]:
    state, depot = folder / "state", folder / "depot"
    given = {"bootstrap_servers": broker.bootstrap_servers, "development": True, "prefix": PREFIX}
    settings = load_settings({**given, "state_directory": state})
    log = KafkaLog(broker.bootstrap_servers)
    _create_topics(log, settings)
    environment = {
        "SAGA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "SAGA_DEVELOPMENT": "true",
        "SAGA_PREFIX": PREFIX,
        "SAGA_STATE_DIRECTORY": str(state),
        "SAGA_METRICS_PORT": "0",
        "SAGA_SNAPSHOTS": str(depot / "snapshots"),
        "SAGA_SNAPSHOT_EVERY_MS": "30000",
        "SAGA_ARCHIVE": str(depot / "archive"),
        "SAGA_JOURNAL_KEEP_MS": str(KEEP_MS),
        "SAGA_TRIM_LAG_MS": str(KEEP_MS),
        "SAGA_ENDED_KEEP_MS": str(KEEP_MS),
    }
    assert broker.node is not None
    node = broker.node
    with ExitStack() as stack:
        worker = Process("worker", ["orchestrator.cli", "worker", ORDERS.module, "--child"], folder, environment)
        arguments = ["tests.bench.soak", "--serve", broker.bootstrap_servers]
        services = Process("services", arguments, folder, environment)
        stack.callback(worker.stop)
        stack.callback(services.stop)
        async with Client.connect(broker.bootstrap_servers, prefix=PREFIX) as client:
            load = Load(client, ORDERS)
            await load.wait_until_ready((worker, services))
            system = Running(
                load, log, settings, worker, services, Brokers(broker.bootstrap_servers, [node.pid or 0], 1)
            )
            samples: list[Sample] = []
            began = time.monotonic()

            def look() -> None:
                processes = {"worker": worker.pid, "services": services.pid, "broker": node.pid or 0}
                values: dict[str, float] = {
                    f"{name} memory": float(resident_mb(pid) or 0) for name, pid in processes.items()
                }
                values["topics"] = directory_mb(node.layout.data)
                values["stores"] = directory_mb(state / "stores")
                values["snapshots"] = directory_mb(depot / "snapshots")
                values["archive"] = directory_mb(depot / "archive")
                samples.append(Sample(time.monotonic() - began, load.started, values))

            async def watch() -> None:
                while True:
                    await asyncio.to_thread(look)
                    await asyncio.sleep(EVERY_S)

            watching = asyncio.create_task(watch())
            left_s = 60 * minutes
            while left_s > 0:
                for process in (worker, services):
                    process.check()
                await hold(system, rate, min(60.0, left_s))
                left_s -= 60
            watching.cancel()
            await asyncio.to_thread(look)
            return samples, load.started


def measure(minutes: float, settle: float, rate: float) -> dict[str, Any]:
    """The figures of so many minutes of one run, after those in which it settles."""
    with (
        tempfile.TemporaryDirectory(prefix="saga-soak-") as folder,
        provide(ephemeral=True, properties=BROKER) as broker,
    ):
        sampled, sagas = asyncio.run(_soak(broker, Path(folder), settle + minutes, rate))
    samples = counted(sampled, settle)
    return {
        "minutes": minutes,
        "settle_minutes": settle,
        "sagas_per_second": rate,
        "sagas": sagas,
        "samples": len(samples),
        "slopes": slopes(samples),
        "store_bytes_by_saga": by_saga(samples, "stores"),
        "archive_bytes_by_saga": by_saga(samples, "archive"),
    }


def serve(servers: str) -> None:
    """The services, whose ledgers and memories are kept for minutes."""
    participants = [bench_services.inventory, bench_services.payments, bench_services.shipping]
    settings = ParticipantSettings(retention_ms=TOLD_MS)
    topics = TopicNames(PREFIX)
    bench_services.run_all([Runner(each, KafkaLog(servers), topics=topics, settings=settings) for each in participants])


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Does anything grow?")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--settle", type=float, default=20.0, help="minutes before those that count")
    parser.add_argument("--rate", type=float, default=300.0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", metavar="SERVERS", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve)
        return
    result = measure(given.minutes, given.settle, given.rate)
    if given.json:
        print(json.dumps(result))
        return
    print(f"{result['sagas']:,} orders in {result['minutes']:g} minutes, {result['samples']} samples")
    for name, slope in result["slopes"].items():
        print(
            f"{name:16} {slope['mb_per_hour']:+8.1f} MB an hour, from {slope['first_mb']} to {slope['last_mb']} MB, "
            f"at most {slope['most_mb']}"
        )
    print(f"a saga adds {result['store_bytes_by_saga']} bytes to the stores")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
