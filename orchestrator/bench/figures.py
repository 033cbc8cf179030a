"""What is measured, and how it is told."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from statistics import median_low
from typing import Any

from orchestrator.bench.processes import cpu_ms

ROLES = ("owner", "participant", "client", "broker")
QUIET_SAGAS_PER_SECOND = 3_000
QUIET_MEDIAN_MS = 5.0
"""A floor that is worse than these says that the machine had something else to do."""


@dataclass(slots=True)
class Figures:
    """One of the two: the system or its floor."""

    sagas_per_second: float = 0.0
    latency_ms: dict[str, float] = field(default_factory=dict)
    cpu_ms_per_saga: dict[str, float | None] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Meter:
    """The processor time of the processes of each role; the client is this process."""

    def __init__(self, owner: int, participant: int, brokers: Sequence[int]) -> None:
        self._pids = {"owner": [owner], "participant": [participant], "client": [os.getpid()], "broker": list(brokers)}
        self._began = self._read()

    def per_saga(self, sagas: int) -> dict[str, float | None]:
        """Milliseconds since this was made; None where nobody tells."""
        now = self._read()
        spent = {role: (now[role] - self._began[role]) / sagas for role in now}
        return {role: _told(spent.get(role, math.nan), 3) for role in ROLES}

    def _read(self) -> dict[str, float]:
        return {role: sum(map(cpu_ms, pids)) for role, pids in self._pids.items()}


class Fsync(StrEnum):
    """What the broker writes through to the disk before it acknowledges."""

    NOTHING = "nothing"
    TOPICS = "topics"
    ALL = "all"

    @property
    def durability(self) -> str:
        """What is said of every figure that was measured like this."""
        return _DURABILITY[self]


_DURABILITY = {
    Fsync.NOTHING: "page cache",
    Fsync.TOPICS: "fsync of every record (flush.messages=1) but for lifecycle and answers",
    Fsync.ALL: "fsync of every batch of every topic (log.flush.interval.messages=1)",
}


def spread(values: Sequence[float], digits: int = 2) -> dict[str, float]:
    """Least, middle (of an even number the lower) and most."""
    return {
        "min": round(min(values), digits),
        "median": round(median_low(values), digits),
        "max": round(max(values), digits),
    }


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile in milliseconds."""
    ordered = sorted(seconds)
    last = len(ordered) - 1
    return {name: round(ordered[round(share * last)] * 1000, 2) for name, share in (("p50", 0.5), ("p99", 0.99))}


def middle(rounds: Sequence[Figures]) -> Figures:
    """Each figure's median over the rounds."""

    def of(values: Sequence[float | None]) -> float | None:
        told = [value for value in values if value is not None]
        return median_low(told) if told else None

    return Figures(
        median_low([figures.sagas_per_second for figures in rounds]),
        {name: median_low([figures.latency_ms[name] for figures in rounds]) for name in rounds[0].latency_ms},
        {role: of([figures.cpu_ms_per_saga[role] for figures in rounds]) for role in rounds[0].cpu_ms_per_saga},
    )


def is_quiet(floor: Figures) -> bool:
    """Whether the machine was free enough for the figures to mean something."""
    return floor.sagas_per_second >= QUIET_SAGAS_PER_SECOND and floor.latency_ms["p50"] <= QUIET_MEDIAN_MS


def _told(value: float, digits: int) -> float | None:
    return None if math.isnan(value) else round(value, digits)
