"""A worker's metrics and readiness."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from orchestrator.runtime.engine import Engine
from orchestrator.runtime.partition import Partition
from orchestrator.runtime.standby import Standby
from orchestrator.runtime.tally import BUCKETS_MS
from orchestrator.runtime.tenure import Phase, Tenure
from orchestrator.telemetry.families import copied, counter, counters, gauge, gauges, histogram
from orchestrator.telemetry.server import JOIN_WITHIN_S

if TYPE_CHECKING:
    from orchestrator.archive.archiver import Archiver
    from orchestrator.snapshots.keeper import Keeper

_PLAIN = (
    ("decisions", "saga_decisions", "Decisions made, confirmed or not."),
    ("confirmed", "saga_decisions_confirmed", "Journal records of this worker that were confirmed, marks included."),
    ("duplicates", "saga_duplicate_inputs", "Inputs dropped because their message id was seen before."),
    ("forwarded", "saga_forwarded_inputs", "Inputs passed on to the partition that owns their saga."),
    ("dead_letters", "saga_dead_letters", "Inputs that became dead letters."),
    ("gaps", "saga_internal_gaps", "Internal messages dropped because one before them was missing."),
    ("resent", "saga_effects_resent", "Effects sent again by a take-over."),
    ("send_failures", "saga_effect_send_failures", "Sends of effects that Kafka did not acknowledge."),
    ("answers_dropped", "saga_answers_dropped", "Results that could not be sent because nobody can receive them."),
    ("takeovers", "saga_takeovers", "Partitions taken over."),
    ("store_wipes", "saga_store_wipes", "Stores that were thrown away because they were broken or stale."),
)


class WorkerMetrics(Collector):
    """Reads an engine that another thread runs, at the time of a scrape."""

    def __init__(
        self,
        engine: Engine,
        standby: Standby | None = None,
        keeper: Keeper | None = None,
        archiver: Archiver | None = None,
    ) -> None:
        self._engine = engine
        self._archiver = archiver
        self._standby = standby
        self._keeper = keeper

    def describe(self) -> list[Metric]:
        """Nothing: registering must not read the engine."""
        return []

    def collect(self) -> Iterator[Metric]:
        engine = self._engine
        plain = dict(copied(engine.counters))
        for key, name, text in _PLAIN:
            yield counter(name, text, plain.get(key, 0))
        takeover_s = plain.get("takeover_ms", 0) / 1000
        yield counter("saga_takeover_seconds", "Time spent in take-overs that succeeded.", takeover_s)
        yield counter(
            "saga_epochs_lost", "Epochs that ended before their partition was handed back.", engine.epochs_lost
        )
        yield from self._sagas()
        yield from self._steps()
        yield from self._partitions()

    def _sagas(self) -> Iterator[Metric]:
        tally = self._engine.tally
        for name, text, counts in (
            ("saga_sagas_started", "Runs started.", tally.started),
            ("saga_sagas_compensating", "Runs that turned to compensation.", tally.compensating),
            ("saga_sagas_parked", "Times that a saga, a step or an undo was parked for an operator.", tally.parked),
        ):
            yield counters(name, text, ["saga_type"], (([kind], count) for kind, count in copied(counts)))
        ended = copied(tally.ended)
        yield counters("saga_sagas_ended", "Runs ended, by final status.", ["saga_type", "status"], ended)
        durations = [(key, list(found.counts), found.sum_ms) for key, found in copied(tally.saga_durations)]
        yield histogram("saga_duration_seconds", "From start to end.", ["saga_type", "status"], BUCKETS_MS, durations)

    def _steps(self) -> Iterator[Metric]:
        tally = self._engine.tally
        labels = ["service", "command"]
        steps, retries = copied(tally.steps), copied(tally.retries)
        yield counters("saga_steps_ended", "Steps and undos ended, by outcome.", [*labels, "outcome"], steps)
        yield counters("saga_step_retries", "Attempts after the first.", labels, retries)
        durations = [(key, list(found.counts), found.sum_ms) for key, found in copied(tally.step_durations)]
        yield histogram(
            "saga_step_duration_seconds", "From scheduling to outcome, retries included.", labels, BUCKETS_MS, durations
        )

    def _partitions(self) -> Iterator[Metric]:
        tenures = [tenure for _, tenure in copied(self._engine.tenures)]
        phases = Counter(tenure.phase for tenure in tenures)
        yield gauges(
            "saga_partitions",
            "Granted partitions, by where they stand.",
            ["phase"],
            (([phase.name.lower()], phases[phase]) for phase in Phase),
        )
        owned = [(str(tenure.number), tenure, tenure.partition) for tenure in tenures]
        live = [(number, tenure, partition) for number, tenure, partition in owned if partition is not None]
        for name, text, read in _GAUGES:
            yield gauges(name, text, ["partition"], (([number], read(partition)) for number, _, partition in live))
        depths = [
            ([number, role], depth)
            for number, _, partition in live
            for role, depth in partition.intake.depths().items()
        ]
        yield gauges("saga_queue_depth", "Records read and not decided yet.", ["partition", "input"], depths)
        lag = [([str(number), role], behind) for (number, role), behind in copied(self._engine.lag)]
        yield gauges("saga_input_lag", "Records in the topic that are not consumed.", ["partition", "input"], lag)
        if self._standby is not None:
            unread = [([str(number)], behind) for number, behind in copied(self._standby.lag)]
            text = "Journal records that a partition's warm store lacks, as last asked."
            yield gauges("saga_standby_lag", text, ["partition"], unread)
        if self._keeper is not None:
            taken = [([str(number)], at_ms / 1000) for number, at_ms in copied(self._keeper.taken_ms)]
            text = "When a partition's last snapshot was taken, as Unix time."
            yield gauges("saga_snapshot_timestamp_seconds", text, ["partition"], taken)
            yield counter("saga_snapshot_failures", "Snapshots that could not be taken.", self._keeper.failures)
        if self._archiver is not None:
            cut = [([str(number)], offset) for number, offset in copied(self._archiver.cut)]
            text = "Where a partition's journal begins, as far as this worker cut it."
            yield gauges("saga_journal_start", text, ["partition"], cut)
            yield counter("saga_archive_failures", "Times that a journal could not be cut.", self._archiver.failures)
        held = Counter(service for _, _, partition in live for service in partition.circuits.open)
        yield gauges(
            "saga_circuits_open",
            "Partitions that hold back commands for a service that does not answer.",
            ["service"],
            (([service], count) for service, count in held.items()),
        )
        took = [([number], tenure.taken_over_ms / 1000) for number, tenure, _ in live if tenure.phase is Phase.OWNING]
        yield gauges("saga_last_takeover_duration_seconds", "How long its take-over took.", ["partition"], took)
        local = self._engine.local
        yield gauge("saga_local_steps_running", "Functions of local steps that are being called.", local.running)
        yield gauge("saga_local_steps_waiting", "Local steps whose call has not begun.", local.waiting)
        yield gauge("saga_inputs_paused", "Partitions whose starts wait for room.", sum(t.paused for t in tenures))


def _effects(partition: Partition) -> int:
    return partition.sender.pending


def _stuck(partition: Partition) -> int:
    return partition.sender.stuck


def _unconfirmed(partition: Partition) -> int:
    return partition.writer.pending


def _unconfirmed_bytes(partition: Partition) -> int:
    return partition.writer.pending_bytes


def _warm(partition: Partition) -> int:
    return len(partition.runs.live)


_GAUGES = (
    ("saga_effects_pending", "Effects that Kafka has not acknowledged.", _effects),
    ("saga_effects_stuck", "Effects whose destination keeps failing.", _stuck),
    ("saga_journal_unconfirmed_records", "Journal records that are not confirmed.", _unconfirmed),
    ("saga_journal_unconfirmed_bytes", "Bytes of journal records that are not confirmed.", _unconfirmed_bytes),
    ("saga_runs_in_memory", "Runs kept in memory.", _warm),
)


def worker_readiness(engine: Engine, age_s: float) -> str:
    """Why the worker is not ready; empty if it is: it owns every partition that the group granted.

    Without any partition it is ready once it is older than `JOIN_WITHIN_S`: then it stands by.
    """
    tenures: list[Tenure] = [tenure for _, tenure in copied(engine.tenures)]
    missing = []
    for tenure in sorted(tenures, key=lambda tenure: tenure.number):
        phase = tenure.phase
        if phase is Phase.HALTED:
            missing.append(f"partition {tenure.number} is halted: {tenure.halted_because}")
        elif phase is not Phase.OWNING:
            missing.append(f"partition {tenure.number}: {phase.value}")
    if not tenures and age_s < JOIN_WITHIN_S:
        missing.append("the group has granted no partition yet")
    return "\n".join(missing)
