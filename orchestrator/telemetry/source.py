"""A source's metrics and readiness."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from orchestrator.sources.engine import SourceEngine
from orchestrator.telemetry.families import copied, counters, gauges
from orchestrator.telemetry.server import JOIN_WITHIN_S

_PREFIX = "saga_source_"


class SourceMetrics(Collector):
    """Reads an engine that another thread runs, at the time of a scrape."""

    def __init__(self, engine: SourceEngine, source: str) -> None:
        self._engine = engine
        self._source = source

    def describe(self) -> list[Metric]:
        """Nothing: registering must not read the engine."""
        return []

    def collect(self) -> Iterator[Metric]:
        counts = self._engine.counters
        for name, text, value in (
            ("records", "Records read, those read again included.", counts.commands),
            ("sent", "Starts, signals and results that the inbox has.", counts.sent),
            ("passed_over", "Records that nothing was to be made of.", counts.passed_over),
            ("dead_letters", "Records that could not be mapped.", counts.dead_letters),
            ("resent", "What Kafka did not take at first.", counts.resent),
            ("repositioned", "Times that the next record had been deleted.", counts.repositioned),
        ):
            yield counters(_PREFIX + name, text, ["source"], [([self._source], value)])
        partitions = [partition for _, partition in copied(self._engine.partitions)]
        for name, text, value in (
            ("partitions", "Granted partitions.", len(partitions)),
            ("records_in_hand", "Records taken and not committed.", sum(len(each.window) for each in partitions)),
        ):
            yield gauges(_PREFIX + name, text, ["source"], [([self._source], value)])


def source_readiness(engine: SourceEngine, age_s: float) -> str:
    """Why the source is not ready; empty if it is: each granted partition is read.

    Without any partition it is ready once it is older than `JOIN_WITHIN_S`: then it stands by.
    """
    partitions = sorted(copied(engine.partitions))
    if not partitions and age_s < JOIN_WITHIN_S:
        return "the group has granted no partition yet"
    return "\n".join(f"partition {number} is not read yet" for number, each in partitions if not each.assigned)
