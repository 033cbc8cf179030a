"""Orders at a steady rate, whatever comes back: which is kept up, and how long does one take below it?

A saga's latency counts from the moment at which it was due to start: a client that is late does not make it shorter.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from orchestrator.bench.figures import Fsync, percentiles
from orchestrator.bench.processes import resident_mb
from orchestrator.bench.running import Brokers, Running, running
from orchestrator.bench.scenarios import ORDERS
from orchestrator.errors import SagaError

SHARES = (0.1, 0.5, 0.8)
"""Of the capacity, at which latency is measured."""
TOO_MUCH = 1.2
DOWN_FROM = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.5, 0.4, 0.3)
"""Shares of the rate of a burst that are tried as capacity, the highest first."""
LOOK_EVERY_S = 0.25
OFFERED = 0.97
GROWS = 1.25
SLACK = 25
"""A rate is held if so many times, and so many, more sagas are under way in its last quarter than in the one before."""


@dataclass(slots=True)
class Held:
    """What came of one rate."""

    rate: float
    seconds: float
    started: int = 0
    latencies_s: list[float] = field(default_factory=list)
    under_way: list[int] = field(default_factory=list)
    """Looked at again and again while sagas were started."""
    ended: int = 0
    """Of the sagas, when the last one was started."""
    drained_s: float = 0.0
    """From then until all had ended."""

    @property
    def offered(self) -> bool:
        """Whether so many were started as the rate says: a client that is too slow for it shows nothing."""
        return self.started / self.seconds >= OFFERED * self.rate

    @property
    def steady(self) -> bool:
        """Whether what was under way did not grow."""
        quarter = max(1, len(self.under_way) // 4)
        before, last = self.under_way[-2 * quarter : -quarter], self.under_way[-quarter:]
        return bool(before) and mean(last) <= GROWS * mean(before) + SLACK


async def hold(system: Running, rate: float, seconds: float) -> Held:
    """Starts sagas at this rate for so long, and waits until all have ended. Raises what one of them raises."""
    inputs = system.load.inputs(max(1, round(rate * seconds)))
    held = Held(rate, seconds, len(inputs))
    tasks: list[asyncio.Task[None]] = []
    began = time.perf_counter()
    look_at = began

    async def one(saga_id: str, payload: Any, due: float) -> None:
        await system.load.run_one(saga_id, payload)
        held.latencies_s.append(time.perf_counter() - due)

    for number, (saga_id, payload) in enumerate(inputs):
        due = began + number / rate
        now = time.perf_counter()
        if now >= look_at:
            held.under_way.append(number - len(held.latencies_s))
            look_at = now + LOOK_EVERY_S
        # Others must have their turn also when this is late.
        await asyncio.sleep(max(0.0, due - now))
        tasks.append(asyncio.create_task(one(saga_id, payload, due)))
    stopped = time.perf_counter()
    held.seconds = stopped - began
    held.ended = len(held.latencies_s)
    await asyncio.gather(*tasks)
    held.drained_s = time.perf_counter() - stopped
    return held


def measure_rates(
    broker: Brokers,
    folder: Path,
    hold_s: float,
    burst: int,
    say: Callable[[str], None],
    fsync: Fsync = Fsync.NOTHING,
) -> dict[str, Any]:
    """Capacity, and latency below and above it. Raises `SagaError` where nothing was held or could not be started."""
    return asyncio.run(_measure(broker, folder, hold_s, burst, say, fsync))


async def _measure(
    broker: Brokers, folder: Path, hold_s: float, burst: int, say: Callable[[str], None], fsync: Fsync
) -> dict[str, Any]:
    async with running(ORDERS, broker, folder, fsync) as system:
        say("warming up")
        for _ in range(2):
            await system.load.run(burst)
        at_once = burst / await system.load.run(burst)
        say(f"{burst} at once: {at_once:.0f} a second")
        alone = percentiles(await system.load.run_singly(200))
        capacity, tried = await _find_capacity(system, at_once, hold_s, say)
        points = [await _point(system, capacity, share, hold_s / 2, say) for share in SHARES]
        above = await _point(system, capacity, TOO_MUCH, hold_s / 2, say)
        after = await _point(system, capacity, SHARES[1], hold_s / 4, say)
    return {
        "hold_seconds": hold_s,
        "at_once_per_second": round(at_once, 1),
        "alone_ms": alone,
        "capacity_per_second": round(capacity, 1),
        "tried": tried,
        "points": points,
        "above": above,
        "after": after,
        "partitions": system.settings.partitions,
        "replication": system.settings.replication,
    }


async def _find_capacity(
    system: Running, at_once: float, hold_s: float, say: Callable[[str], None]
) -> tuple[float, list[dict[str, Any]]]:
    tried = []
    rate = 0.0
    for share in DOWN_FROM:
        rate = share * at_once
        held = await hold(system, rate, hold_s)
        kept = held.steady and held.offered
        say(f"{rate:.0f} a second for {hold_s:g} s: {'held' if kept else 'not held'}")
        tried.append(
            {
                "rate": round(rate, 1),
                "started_per_second": round(held.started / held.seconds, 1),
                "held": kept,
                "under_way_at_the_end": held.under_way[-1],
            }
        )
        if kept:
            return rate, tried
    raise SagaError(f"not even {rate:.0f} a second were held: {tried}")


async def _point(
    system: Running, capacity: float, share: float, seconds: float, say: Callable[[str], None]
) -> dict[str, Any]:
    meter = system.meter()
    held = await hold(system, share * capacity, seconds)
    cpu = meter.per_saga(len(held.latencies_s))
    latency = percentiles(held.latencies_s)
    say(f"{share:.0%} of it, {held.rate:.0f} a second: p50 {latency['p50']} ms, p99 {latency['p99']} ms")
    client = cpu["client"]
    return {
        "share": share,
        "rate": round(held.rate, 1),
        "started_per_second": round(len(held.latencies_s) / held.seconds, 1),
        "ended_per_second": round(held.ended / held.seconds, 1),
        "latency_ms": latency,
        "cpu_ms_per_saga": cpu,
        "client_cores": None if client is None else round(client * held.rate / 1000, 3),
        "under_way": {"mean": round(mean(held.under_way), 1), "max": max(held.under_way)},
        "drained_seconds": round(held.drained_s, 2),
        "resident_mb": resident_mb(system.worker.pid),
    }
