"""How late timers fire: a worker process, four partitions, sagas that sleep until times spread over so many seconds.

    python -m tests.bench.timers [--timers 1000] [--within 60] [--lead SECONDS] [--warm-up SECONDS] [--json]

All are started before the first is due (`--lead` is how long that may take). Before the time that counts, timers fire
at the same rate for `--warm-up` seconds: a broker that has just started spends a core on compiling what it does.
Lateness is the broker's append time of the decision in which a sleep ended, less the time at which it was due. Promised
are 50 ms at the 99th percentile for 100,000 in a minute, 20 ms for 1,000, none early. The exit code is 0 if that was
kept.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

from orchestrator.bench.running import Brokers, Running, running, with_broker
from orchestrator.bench.sagas import Sleeper
from orchestrator.bench.scenarios import SAGAS_MODULE, Scenario
from orchestrator.demo.dump import dump_topics
from orchestrator.model import events as ev
from orchestrator.model.rule import Kind
from orchestrator.wire.journal import read_decision, read_envelope

AT_ONCE = 5_000
STARTS_PER_SECOND = 500
WARM_S = 15.0
FEW, PROMISED_P99_MS, PROMISED_FEW_P99_MS = 1_000, 50, 20


async def _sleep_all(
    broker: Brokers, folder: Path, timers: int, within_s: float, lead_s: float, warm_s: float
) -> tuple[list[tuple[int, int]], float]:
    """When each was due and when it fired, and the worker's processor milliseconds of each timer in that time."""
    spread = random.Random(timers)
    begin = 0.0
    most = round(timers * (1 + warm_s / within_s))

    def when(number: int) -> float:
        return begin + spread.uniform(-warm_s, within_s) if begin else time.time()

    scenario = Scenario("timers", "sleeps", Sleeper, SAGAS_MODULE, (), when, 1, most, 1)
    async with running(scenario, broker, folder) as system:
        await system.load.run(min(timers, 500))
        begin = time.time() + lead_s + warm_s
        inputs = system.load.inputs(most)
        for at in range(0, most, AT_ONCE):
            await system.load.start(inputs[at : at + AT_ONCE])
        await asyncio.sleep(max(0.0, begin - 1 - time.time()))
        meter = system.meter()
        await asyncio.sleep(max(0.0, begin + within_s - time.time()))
        fired = await _until_all_fired(system, most)
        cpu = meter.per_saga(timers)["owner"]
    mine = [each for each in fired if each[0] >= begin * 1_000]
    return mine, cpu or 0.0


async def _until_all_fired(system: Running, timers: int) -> list[tuple[int, int]]:
    deadline = time.monotonic() + 120
    while True:
        fired = await asyncio.to_thread(_fired, system)
        if len(fired) >= timers + min(timers, 500) + 1:
            return fired
        if time.monotonic() > deadline:
            raise SystemExit(f"only {len(fired)} of {timers} timers fired")


def _fired(system: Running) -> list[tuple[int, int]]:
    """Of every sleep of the journal that ended: when it was due, and when the broker had that; in milliseconds."""
    journal = system.settings.topic_names.journal
    due_ms: dict[str, int] = {}
    found = []
    for records in dump_topics(system.log, [journal], system.settings.partitions)[journal].values():
        for record in records:
            envelope = read_envelope(record.value)
            decision = read_decision(envelope) if envelope.kind == Kind.DECISION else None
            for event in decision.events if decision is not None else ():
                if isinstance(event, ev.WaitScheduled) and event.due_ms is not None:
                    due_ms[decision.saga_id] = event.due_ms
                elif isinstance(event, ev.WaitExpired):
                    found.append((due_ms[decision.saga_id], record.timestamp_ms))
    return found


def measure(
    timers: int, within_s: float, lead_s: float | None = None, warm_s: float = WARM_S, jvm: tuple[str, ...] = ()
) -> dict[str, Any]:
    """One run of the bench."""
    lead_s = 5 + timers / STARTS_PER_SECOND if lead_s is None else lead_s

    def sleep_all(broker: Brokers, folder: Path) -> tuple[list[tuple[int, int]], float]:
        return asyncio.run(_sleep_all(broker, folder, timers, within_s, lead_s, warm_s))

    fired, cpu = with_broker(sleep_all, jvm=jvm)
    late = sorted(at_ms - due_ms for due_ms, at_ms in fired)
    promised = PROMISED_FEW_P99_MS if timers <= FEW else PROMISED_P99_MS
    p99 = late[len(late) * 99 // 100]
    return {
        "timers": len(late),
        "within_seconds": within_s,
        "warm_up_seconds": warm_s,
        "lateness_ms": {"p50": late[len(late) // 2], "p99": p99, "most": late[-1]},
        "least_ms": late[0],
        "owner_cpu_ms_per_timer": cpu,
        "promised_p99_ms": promised,
        "kept": p99 <= promised and late[0] >= 0,
        "processors": os.cpu_count(),
        "load_average_1m": round(os.getloadavg()[0], 2),
    }


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timers", type=int, default=1_000)
    parser.add_argument("--within", type=float, default=60.0)
    parser.add_argument("--lead", type=float)
    parser.add_argument("--warm-up", type=float, default=WARM_S)
    parser.add_argument("--json", action="store_true", help="one line instead of several")
    arguments = parser.parse_args()
    result = measure(arguments.timers, arguments.within, arguments.lead, arguments.warm_up)
    print(json.dumps(result, indent=None if arguments.json else 2))
    return 0 if result["kept"] else 1


if __name__ == "__main__":
    sys.exit(main())
