"""Scenarios one after the other, each with a system of its own on the same broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from orchestrator.bench.figures import Fsync, percentiles, spread
from orchestrator.bench.processes import resident_mb
from orchestrator.bench.running import Brokers, Running, running
from orchestrator.bench.scenarios import Scenario
from orchestrator.bench.sizes import measure_sizes

WARM_UP = 0.4
"""Of the sagas at once, before anything is measured."""


def measure_scenarios(
    scenarios: Sequence[Scenario],
    broker: Brokers,
    folder: Path,
    rounds: int,
    say: Callable[[str], None],
    fsync: Fsync = Fsync.NOTHING,
) -> list[dict[str, Any]]:
    """The figures of each. Raises `SagaError` where something could not be started or a saga ended as none should."""
    return [asyncio.run(_measure(each, broker, folder, rounds, say, fsync)) for each in scenarios]


async def _measure(
    scenario: Scenario, broker: Brokers, folder: Path, rounds: int, say: Callable[[str], None], fsync: Fsync
) -> dict[str, Any]:
    say(f"{scenario.name}: {scenario.says}")
    async with running(scenario, broker, folder, fsync) as system:
        load = system.load
        await load.run(max(1, round(WARM_UP * scenario.sagas)))
        stored = await asyncio.to_thread(_bytes_per_saga, system)
        await load.run_singly(max(1, scenario.singly // 10))
        found = []
        for number in range(1, rounds + 1):
            say(f"  round {number} of {rounds}: {scenario.singly} one after the other, {scenario.sagas} at once")
            found.append(await _round(system))
        return {
            "scenario": scenario.name,
            "says": scenario.says,
            "sagas": scenario.sagas,
            "steps_per_saga": scenario.steps,
            "undone_share": round(load.undone / load.started, 3),
            "sagas_per_second": spread([each["rate"] for each in found], 1),
            "steps_per_second": spread([each["rate"] * scenario.steps for each in found], 0),
            "latency_ms": {
                name: spread([each["latency_ms"][name] for each in found]) for name in found[0]["latency_ms"]
            },
            "cpu_ms_per_saga": _spread_of_roles([each["cpu_ms_per_saga"] for each in found]),
            "resident_mb": {
                "owner": resident_mb(system.worker.pid),
                "participant": resident_mb(system.services.pid),
            },
            "bytes_per_saga": stored,
        }


async def _round(system: Running) -> dict[str, Any]:
    scenario = system.load.scenario
    latency = percentiles(await system.load.run_singly(scenario.singly))
    meter = system.meter()
    seconds = await system.load.run(scenario.sagas)
    return {
        "rate": scenario.sagas / seconds,
        "latency_ms": latency,
        "cpu_ms_per_saga": meter.per_saga(scenario.sagas),
    }


def _spread_of_roles(found: Sequence[dict[str, float | None]]) -> dict[str, dict[str, float] | None]:
    spreads: dict[str, dict[str, float] | None] = {}
    for role in found[0]:
        told = [value for each in found if (value := each[role]) is not None]
        spreads[role] = spread(told, 3) if told else None
    return spreads


def _bytes_per_saga(system: Running) -> dict[str, int]:
    """Keys are not counted: each is the saga's id or nothing. `all` is every topic of the system together."""
    load, settings = system.load, system.settings
    sizes = measure_sizes(system.log, settings.topic_names, settings.partitions, load.started, load.scenario.services)
    each = {kind: size.per_saga * (size.value + size.header_bytes) for kind, size in sizes.items()}
    return {"journal": round(each["journal"]), "all": round(sum(each.values()))}
