"""One seed from start to verdict, and many of them."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from statistics import median
from typing import Any

from orchestrator.checker.check import examine
from orchestrator.checker.evidence import Verdict
from orchestrator.checker.journal import Accepted
from orchestrator.model.events import StepRefused
from orchestrator.model.ids import idempotency_key
from orchestrator.model.messages import Outcome
from orchestrator.model.state import SAGA_TRANSITIONS, STEP_TRANSITIONS
from orchestrator.runtime.replica import Replica
from orchestrator.simulation.nemesis import KINDS
from orchestrator.simulation.world import TOPICS, World
from orchestrator.store.memory import MemoryStores

MAX_ROUNDS = 6_000
CALM_AFTER_MS = 8_000
"""Faults come in the first so many milliseconds of virtual time."""

ALL_TRANSITIONS = {(str(status), event) for status, event in STEP_TRANSITIONS} | {
    (str(status), event) for status, event in SAGA_TRANSITIONS
}


@dataclass(slots=True)
class SeedResult:
    """What one seed showed."""

    seed: int
    violations: list[str]
    decisions: int
    faults: Counter[str]
    transitions: set[tuple[str, str]]
    statuses: dict[str, int]
    rounds: int = 0


@dataclass(slots=True)
class Report:
    """Many seeds added up."""

    seeds: int = 0
    seconds: float = 0.0
    violations: list[dict[str, Any]] = field(default_factory=list)
    decisions: list[int] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    transitions: set[tuple[str, str]] = field(default_factory=set)
    statuses: Counter[str] = field(default_factory=Counter)

    def add(self, result: SeedResult) -> None:
        self.seeds += 1
        self.decisions.append(result.decisions)
        self.faults.update(result.faults)
        self.transitions |= result.transitions
        self.statuses.update(result.statuses)
        if result.violations:
            self.violations.append(
                {
                    "seed": result.seed,
                    "violations": result.violations,
                    "repeat": f"saga simulate --from {result.seed} --seeds 1",
                }
            )

    def as_json(self) -> dict[str, Any]:
        """The report as one JSON object."""
        covered = self.transitions & ALL_TRANSITIONS
        return {
            "seeds": self.seeds,
            "seconds": round(self.seconds, 1),
            "seeds_per_minute": round(60 * self.seeds / self.seconds) if self.seconds else 0,
            "violations": len(self.violations),
            "violation_list": self.violations[:50],
            "decisions_median": int(median(self.decisions)) if self.decisions else 0,
            "faults_by_kind": dict(sorted(self.faults.items())),
            "transitions_covered": len(covered),
            "transitions_total": len(ALL_TRANSITIONS),
            "transitions_missing": sorted(f"{status} {event}" for status, event in ALL_TRANSITIONS - covered),
            "statuses": dict(sorted(self.statuses.items())),
        }


def run_seed(seed: int, make_world: Callable[[int], World] = World) -> SeedResult:
    """One world, from its first start to quiet, and the verdict. Deterministic: the same seed gives the same result."""
    world = make_world(seed)
    random = world.random
    faults = sorted(random.randint(300, CALM_AFTER_MS) for _ in range(random.randint(3, 12)))
    starts = sorted(random.randint(0, 4_000) for _ in range(world.to_start))
    kinds = list(KINDS)
    weights = [weight for weight, _ in KINDS.values()]
    drawn: Counter[str] = Counter()
    begin_ms, started, rounds, settled = world.now_ms, 0, 0, False
    try:
        while rounds < MAX_ROUNDS:
            rounds += 1
            passed = world.now_ms - begin_ms
            while started < len(starts) and starts[started] <= passed:
                world.start_saga(started)
                started += 1
            while faults and faults[0] <= passed:
                faults.pop(0)
                kind = random.choices(kinds, weights)[0]
                drawn[kind] += 1
                KINDS[kind][1](world)
            world.run_due()
            busy = world.step()
            if busy:
                world.now_ms += random.choice((0, 1, 1, 2, 5))
            else:
                if not faults and started == len(starts) and not world.agenda and world.settled():
                    settled = True
                    break
                upcoming = [*faults[:1], *starts[started : started + 1]]
                waits = [world.next_due_ms(), *(at - passed for at in upcoming), *world.agenda_waits()]
                world.now_ms += max(1, min(waits))
        violations = _judge(world, settled)
    except Exception as error:
        logging.getLogger(__name__).debug("seed %d", seed, exc_info=True)
        verdict = Verdict()
        verdict.blame("engine", f"{type(error).__name__}: {error}")
        violations = verdict
    for name, count in world.counters.items():
        if name.startswith("fault: "):
            drawn[name.removeprefix("fault: ")] += count
    return SeedResult(
        seed, violations.violations, violations.decisions, drawn, violations.transitions, violations.statuses, rounds
    )


def _judge(world: World, settled: bool) -> Verdict:
    verdict, accepted = examine(world.evidence(settled=settled))
    _compare_stores(world, verdict)
    _check_outcomes(world, accepted, verdict)
    for worker in world.workers:
        if worker.engine is not None:
            world.collect(worker.engine)
    if not settled:
        verdict.blame("C14", f"not quiet after {MAX_ROUNDS} rounds, {world.now_ms} ms")
    for halt in world.halts:
        verdict.blame("C8", f"a partition halted: {halt}")
    if world.unasked_wipes and not world.damaged:
        verdict.blame("C7", f"{world.unasked_wipes} stores did not fit their journal")
    return verdict


def _compare_stores(world: World, verdict: Verdict) -> None:
    """C7: what an owner's store holds is what a replay from zero gives at the same offset, byte for byte.

    Of one partition, drawn from the seed: replaying all would take a quarter of the time.
    """
    drawn = world.random.randrange(world.partitions)
    for worker in world.workers:
        if worker.engine is None:
            continue
        for number, tenure in worker.engine.tenures.items():
            if number != drawn or tenure.partition is None or tenure.store is None:
                continue
            at = tenure.partition.progress.at.offset
            replay = Replica(MemoryStores().open(0))
            for record in world.log.records(TOPICS.journal, number)[: at + 1]:
                replay.feed(record.offset, record.timestamp_ms, record.value)
            replay.flush()
            if list(tenure.store.scan(b"")) != list(replay.store.scan(b"")):
                verdict.blame("C7", f"the store of partition {number} differs from a replay up to offset {at}")


def _check_outcomes(world: World, accepted: Accepted, verdict: Verdict) -> None:
    """C3: a step is refused only by an execution of the very attempt that was issued last."""
    executions = set().union(*(database.executions for database in world.databases.values()))
    for history in accepted.histories.values():
        for _, _, event in history.events:
            if isinstance(event, StepRefused):
                key = idempotency_key(history.saga_id, history.run, event.sequence, "do")
                if (key, event.attempt, Outcome.FAILURE) not in executions:
                    verdict.blame("C3", f"{key} was refused at attempt {event.attempt}, which no handler refused")


def simulate(first: int, count: int, jobs: int, progress: Callable[[int], None] | None = None) -> Report:
    """Seeds `first` to `first + count - 1` on `jobs` processes."""
    report = Report()
    began = time.monotonic()
    if jobs <= 1:
        for seed in range(first, first + count):
            report.add(run_seed(seed))
            if progress is not None:
                progress(report.seeds)
    else:
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            for result in pool.map(run_seed, range(first, first + count), chunksize=20):
                report.add(result)
                if progress is not None:
                    progress(report.seeds)
    report.seconds = time.monotonic() - began
    return report
