"""How long starting takes, and what it costs to wait.

    python -m tests.bench.starting [--rounds 5] [--idle 20] [--json]

`saga --help` from a shell; a worker from its start as a process to the append time of its first decision, for a saga
that is in the inbox already; and the processor time that a worker and three services spend on having nothing to do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.bench.figures import Fsync, spread
from orchestrator.bench.processes import Process, cpu_ms
from orchestrator.bench.running import Brokers, prepare, running, with_broker
from orchestrator.bench.scenarios import ORDERS
from orchestrator.bench.system import start_processes
from orchestrator.client import Client
from orchestrator.config import Settings
from orchestrator.demo.dump import dump_topics
from orchestrator.log.kafka import KafkaLog
from orchestrator.model.rule import Kind
from orchestrator.wire.journal import read_envelope

DECIDED_WITHIN_S = 60.0


def help_ms() -> float:
    """`saga --help` as a process of its own, in milliseconds."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "orchestrator.cli", "--help"], check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1000


def first_decision_ms(broker: Brokers, folder: Path, number: int) -> float:
    """From a worker's start as a process to its first decision."""
    name = f"start-{number}"
    settings, log = prepare(name, ORDERS, broker, folder, Fsync.NOTHING)
    asyncio.run(_put_into_inbox(settings))
    began_ms = time.time() * 1000
    processes = start_processes(settings, folder / name, ORDERS)
    try:
        return _first_decision_at_ms(log, settings, processes) - began_ms
    finally:
        for process in processes:
            process.stop()


async def _put_into_inbox(settings: Settings) -> None:
    async with Client.connect(settings.bootstrap_servers or "", prefix=settings.prefix) as client:
        await client.start_many(ORDERS.saga, [("first", ORDERS.payload(0))])


def _first_decision_at_ms(log: KafkaLog, settings: Settings, processes: Sequence[Process]) -> int:
    journal, deadline = settings.topic_names.journal, time.monotonic() + DECIDED_WITHIN_S
    while time.monotonic() < deadline:
        for records in dump_topics(log, [journal], settings.partitions)[journal].values():
            for record in records:
                envelope = read_envelope(record.value)
                if envelope.kind == Kind.DECISION and envelope.body:
                    return record.timestamp_ms
        for process in processes:
            process.check()
    raise SystemExit(f"no decision within {DECIDED_WITHIN_S:g} s")


async def idle_ms_per_second(broker: Brokers, folder: Path, seconds: float) -> dict[str, float]:
    """Processor milliseconds that each of the two processes spends in a second in which nothing comes."""
    async with running(ORDERS, broker, folder) as system:
        await asyncio.sleep(min(5.0, seconds))
        pids = {"owner": system.worker.pid, "participants": system.services.pid}
        before = {role: cpu_ms(pid) for role, pid in pids.items()}
        await asyncio.sleep(seconds)
        return {role: round((cpu_ms(pid) - before[role]) / seconds, 2) for role, pid in pids.items()}


def measure(rounds: int, idle_s: float, jvm: Sequence[str] = ()) -> dict[str, Any]:
    """One run of the bench."""
    helps = [help_ms() for _ in range(rounds)]

    def with_its_broker(broker: Brokers, folder: Path) -> tuple[list[float], dict[str, float]]:
        starts = [first_decision_ms(broker, folder, number) for number in range(rounds)]
        return starts, asyncio.run(idle_ms_per_second(broker, folder, idle_s))

    starts, idle = with_broker(with_its_broker, jvm=jvm)
    return {
        "help_ms": spread(helps, 0),
        "first_decision_ms": spread(starts, 0),
        "idle_cpu_ms_per_second": idle,
        "rounds": rounds,
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--idle", type=float, default=20.0)
    parser.add_argument("--json", action="store_true", help="one line instead of several")
    arguments = parser.parse_args()
    result = measure(arguments.rounds, arguments.idle)
    print(json.dumps(result, indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
