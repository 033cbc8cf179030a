"""One seed from start to verdict, and many of them."""

from __future__ import annotations

import gc
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

from orchestrator.checker.check import examine
from orchestrator.checker.evidence import Verdict
from orchestrator.checker.journal import Accepted
from orchestrator.checker.stores import replayed
from orchestrator.model.events import StepRefused
from orchestrator.model.ids import idempotency_key
from orchestrator.model.messages import Outcome
from orchestrator.model.state import SAGA_TRANSITIONS, STEP_TRANSITIONS
from orchestrator.runtime.progress import Progress
from orchestrator.simulation import clients
from orchestrator.simulation.local import check_calls
from orchestrator.simulation.merging import VIOLATIONS_SHOWN, code_digest
from orchestrator.simulation.nemesis import KINDS
from orchestrator.simulation.people import AFTERWARDS
from orchestrator.simulation.processes import TOPICS
from orchestrator.simulation.world import START_MS, World
from orchestrator.store import keys

MOST_EVENTS = 12_000
MOST_MS = 300_000
"""A world that has not come to rest by then never will: it takes 2,500 events and 20 s, at most 4,000 and 60 s."""
LAST_START_MS = 2_000
CALM_AFTER_MS = 6_000
"""Faults come in the first so many milliseconds of virtual time."""
PEOPLE_UNTIL_MS = 11_000
"""After the faults people decide about what has been left behind."""

LAST_TIME_MS = 15_000
"""Of a schedule."""

_SOMETIMES = ((0.1, clients.start_again), (0.2, clients.move_saga), (0.4, clients.ask_tally), (0.2, clients.look_at))
"""What clients do about some sagas, with the share of them."""
_WHOEVER = (clients.settle_promise, clients.tell_by_key, clients.fill_in, clients.fill_in, clients.look_at_lock)
"""What clients do some times, about whichever saga waits for it."""

SEEDS_BETWEEN_COLLECTIONS = 10
CHUNK = 20
"""Seeds that a process takes at once: they leave some 40 MB behind."""

ALL_TRANSITIONS = (
    {(str(status), event) for status, event in STEP_TRANSITIONS}
    | {(str(status), event) for status, event in SAGA_TRANSITIONS}
    | {(status, event) for status in ("RUNNING", "COMPENSATING") for event in ("SagaPaused", "SagaResumed")}
)


@dataclass(slots=True)
class SeedResult:
    """What one seed showed."""

    seed: int
    violations: list[str]
    decisions: int
    faults: Counter[str]
    transitions: set[tuple[str, str]]
    statuses: dict[str, int]


@dataclass(slots=True)
class Report:
    """Many seeds added up, `first` and those after it."""

    first: int = 0
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
            "code": code_digest(),
            "ranges": [[self.first, self.first + self.seeds]],
            "seeds": self.seeds,
            "seconds": round(self.seconds, 1),
            "seeds_per_minute": round(60 * self.seeds / self.seconds) if self.seconds else 0,
            "violations": len(self.violations),
            "violation_list": self.violations[:VIOLATIONS_SHOWN],
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
    drawn = _put_on_agenda(world)
    try:
        settled = world.run(MOST_EVENTS, MOST_MS)
        verdict = _judge(world, settled)
    except Exception as error:
        logging.getLogger(__name__).debug("seed %d", seed, exc_info=True)
        verdict = Verdict()
        verdict.blame("engine", f"{type(error).__name__}: {error}")
    for name, count in world.counters.items():
        if name.startswith("fault: "):
            drawn[name.removeprefix("fault: ")] += count
    return SeedResult(seed, verdict.violations, verdict.decisions, drawn, verdict.transitions, verdict.statuses)


def _put_on_agenda(world: World) -> Counter[str]:
    """Starts, faults, and what people do about what is left after those. Returns where faults are counted."""
    random = world.random
    drawn: Counter[str] = Counter()
    world.healed_ms = START_MS + CALM_AFTER_MS

    def strike(kinds: list[str], weights: list[int]) -> None:
        hit(random.choices(kinds, weights)[0])

    def hit(kind: str) -> None:
        drawn[kind] += 1
        KINDS[kind][1](world)

    for number, at_ms in enumerate(sorted(random.randint(0, LAST_START_MS) for _ in range(world.to_start))):
        world.later(at_ms, partial(clients.start_saga, world, number))
    if world.apart.random() < 0.2:
        start = partial(clients.start_schedule, world, START_MS + LAST_TIME_MS)
        world.later(world.apart.randint(0, LAST_START_MS), start)
    for number in range(world.to_start):
        for _ in range(random.choice((0, 0, 1, 3))):
            world.later(random.randint(0, CALM_AFTER_MS), partial(clients.tell_saga, world, number))
        for chance, what in _SOMETIMES:
            if random.random() < chance:
                world.later(random.randint(0, CALM_AFTER_MS), partial(what, world, number))
    for act in _WHOEVER:
        for _ in range(random.randint(0, 3)):
            world.later(random.randint(300, CALM_AFTER_MS), partial(act, world))
    weights = [weight for weight, _ in KINDS.values()]
    for _ in range(random.randint(3, 12)):
        world.later(random.randint(300, CALM_AFTER_MS), partial(strike, list(KINDS), weights))
    for kind, (weight, _) in KINDS.items():
        if not weight and world.besides.random() < 0.15:
            world.later(world.besides.randint(0, CALM_AFTER_MS), partial(hit, kind))
    for _ in range(random.randint(0, 3)):
        world.later(
            random.randint(CALM_AFTER_MS, PEOPLE_UNTIL_MS), partial(strike, list(AFTERWARDS), [1] * len(AFTERWARDS))
        )
    return drawn


def _judge(world: World, settled: bool) -> Verdict:
    verdict, accepted = examine(world.evidence(settled=settled))
    _compare_stores(world, verdict)
    _check_outcomes(world, accepted, verdict)
    for worker in world.workers:
        if worker.engine is not None:
            world.collect(worker.engine)
    if not settled:
        verdict.blame("C14", f"not at rest after {MOST_EVENTS} events or {MOST_MS} ms, at {world.now_ms - START_MS} ms")
    for halt in world.halts:
        verdict.blame("C8", f"a partition halted: {halt}")
    if world.unasked_wipes and not world.damaged:
        verdict.blame("C7", f"{world.unasked_wipes} stores did not fit their journal")
    return verdict


def _compare_stores(world: World, verdict: Verdict) -> None:
    """C7: what a store holds, an owner's or a standby's, is what a replay from zero gives at its offset, byte for byte.

    Of one partition, drawn from the seed: replaying all would take a quarter of the time.
    """
    drawn = world.random.randrange(world.partitions)
    for worker in world.workers:
        if worker.engine is None:
            continue
        tenure = worker.engine.tenures.get(drawn)
        owned = tenure is not None and tenure.partition is not None and tenure.store is not None
        if not owned and (worker.standby is None or drawn not in worker.standby.followed):
            continue
        store = worker.stores.peek(drawn)
        for saga_id in keys.without_run(store.values):
            verdict.blame("C7", f"the store of partition {drawn} has something of {saga_id}, of which it has no run")
        at = Progress(store).at.offset
        for _, rebuilt in replayed(world.log.records(TOPICS.journal, drawn)[: at + 1], [at]):
            if store.values != rebuilt.values:
                verdict.blame("C7", f"the store of partition {drawn} differs from a replay up to offset {at}")


def _check_outcomes(world: World, accepted: Accepted, verdict: Verdict) -> None:
    """C3: a step is refused only by an execution of the very attempt that was issued last."""
    check_calls(world.calls, accepted, verdict)
    executions = set().union(*(database.executions for database in world.databases.values()))
    for history, event in accepted.of_commands(StepRefused):
        key = idempotency_key(history.saga_id, history.run, event.sequence, "do")
        if (key, event.attempt, Outcome.FAILURE) not in executions:
            verdict.blame("C3", f"{key} was refused at attempt {event.attempt}, which no handler refused")


def run_seeds(seeds: Iterable[int]) -> Iterator[SeedResult]:
    """One after the other. Nothing is logged, and garbage is collected between seeds, not within."""
    collects, quiet_below = gc.isenabled(), logging.root.manager.disable
    gc.collect()
    gc.freeze()
    gc.disable()
    logging.disable(logging.CRITICAL)
    try:
        for number, seed in enumerate(seeds, 1):
            yield run_seed(seed)
            if number % SEEDS_BETWEEN_COLLECTIONS == 0:
                gc.collect()
    finally:
        logging.disable(quiet_below)
        gc.unfreeze()
        if collects:
            gc.enable()


def _run_chunk(seeds: range) -> list[SeedResult]:
    """In a process that ends with all that its worlds leave behind: to free their cycles took an eighth of the time."""
    forked = get_context("fork")
    receiver, sender = forked.Pipe(duplex=False)
    child = forked.Process(target=_send_results, args=(seeds, sender))
    child.start()
    sender.close()
    try:
        results: list[SeedResult] = receiver.recv()
    except EOFError:
        raise RuntimeError(f"the process of seeds {seeds.start} to {seeds.stop - 1} died") from None
    child.join()
    return results


def _send_results(seeds: range, sender: Connection) -> None:
    gc.disable()
    logging.disable(logging.CRITICAL)
    sender.send([run_seed(seed) for seed in seeds])


def simulate(first: int, count: int, jobs: int, progress: Callable[[int], None] | None = None) -> Report:
    """Seeds `first` to `first + count - 1` on `jobs` processes."""
    report = Report(first)
    began = time.monotonic()

    def add(results: Iterable[SeedResult]) -> None:
        for result in results:
            report.add(result)
            if progress is not None:
                progress(report.seeds)

    end = first + count
    chunks = [range(at, min(at + CHUNK, end)) for at in range(first, end, CHUNK)]
    if jobs <= 1:
        for chunk in chunks:
            add(_run_chunk(chunk))
    else:
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            for results in pool.map(_run_chunk, chunks):
                add(results)
    report.seconds = time.monotonic() - began
    return report
