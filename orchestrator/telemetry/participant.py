"""A participant's metrics and readiness."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from orchestrator.participant.engine import Engine
from orchestrator.telemetry.families import copied, counters, gauges
from orchestrator.telemetry.server import JOIN_WITHIN_S

_PREFIX = "saga_participant_"


class ParticipantMetrics(Collector):
    """Reads an engine that another thread runs, at the time of a scrape."""

    def __init__(self, engine: Engine, service: str) -> None:
        self._engine = engine
        self._service = service

    def describe(self) -> list[Metric]:
        """Nothing: registering must not read the engine."""
        return []

    def collect(self) -> Iterator[Metric]:
        counts, service = self._engine.counters, self._service
        for name, text, value in (
            ("commands", "Commands read, repeats included.", counts.commands),
            ("duplicates", "Commands answered from memory.", counts.duplicates),
            ("dead_letters", "Commands that became dead letters.", counts.dead_letters),
            ("handler_seconds", "Time spent in handlers.", counts.handler_ms / 1000),
            ("handlers_overdue", "Handlers that ran longer than they may.", counts.overdue),
            ("epochs_lost", "Claims of ledger partitions that had to be made again.", counts.epochs_lost),
            ("resent", "Replies and dead letters that Kafka did not take at first.", counts.resent),
            ("repositioned", "Times that a committed position was outside the log.", counts.repositioned),
        ):
            yield counters(_PREFIX + name, text, ["service"], [([service], value)])
        for name, label, text, by_kind in (
            ("outcomes", "outcome", "Handlers that ended, by outcome.", counts.outcomes),
            ("refused", "error_type", "Commands refused without running a handler.", counts.refused),
        ):
            values = (([service, kind], count) for kind, count in copied(by_kind))
            yield counters(_PREFIX + name, text, ["service", label], values)
        yield from self._now()

    def _now(self) -> Iterator[Metric]:
        partitions = [partition for _, partition in copied(self._engine.partitions)]
        exact = sum(partition.exact for partition in partitions)
        states = (("exact", exact), ("waiting", len(partitions) - exact))
        yield gauges(
            _PREFIX + "partitions",
            "Granted partitions, by whether their memory may be asked.",
            ["service", "state"],
            (([self._service, state], count) for state, count in states),
        )
        for name, text, value in (
            ("handlers_running", "Handlers that run now.", self._engine.running),
            ("commands_in_hand", "Commands taken and not committed.", sum(len(each.window) for each in partitions)),
        ):
            yield gauges(_PREFIX + name, text, ["service"], [([self._service], value)])


def participant_readiness(engine: Engine, age_s: float) -> str:
    """Why the participant is not ready; empty if it is: the memory of every granted partition is exact.

    Without any partition it is ready once it is older than `JOIN_WITHIN_S`: then it stands by.
    """
    partitions = sorted(copied(engine.partitions))
    if not partitions and age_s < JOIN_WITHIN_S:
        return "the group has granted no partition yet"
    missing = []
    for number, partition in partitions:
        tenure = partition.tenure
        if tenure is not None and not tenure.exact:
            missing.append(f"partition {number}: {tenure.phase.value}")
    return "\n".join(missing)
