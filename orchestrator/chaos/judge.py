"""The verdict over a run: the checker's, C7 on every store that is left, C14 on every worker that was killed."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

from orchestrator.chaos.history import Struck
from orchestrator.checker.check import check
from orchestrator.checker.evidence import Evidence, Raw, Verdict
from orchestrator.checker.ownership import Tenures, owned_by, taken_over, tenures
from orchestrator.checker.stores import compare_stores
from orchestrator.model.rule import JournalHalted
from orchestrator.store.base import StoreBroken
from orchestrator.store.rocks import RocksStores
from orchestrator.wire.avro import UnreadableRecord

RECOVERED_WITHIN_MS = 90_000
"""From a kill, or from the healing of the last fault that overlaps what follows it, to the next accepted decision."""


@dataclass(frozen=True, slots=True)
class Kill:
    """A worker process that was killed: its number, and when, in milliseconds since 1970."""

    pid: int
    at_ms: int


@dataclass(slots=True)
class Findings:
    """The verdict, and the figures that only a real cluster has. `recovery_ms`: for each partition of each kill."""

    verdict: Verdict
    recovery_ms: list[int] = field(default_factory=list)
    kills: int = 0
    stores: int = 0
    absorbed: int = 0

    def percentiles(self) -> dict[str, int | None]:
        """Middle and last hundredth of the recovery times; None where nothing was killed."""
        times = sorted(self.recovery_ms)
        if len(times) < 2:
            return {"p50": times[0] if times else None, "p99": times[0] if times else None}
        cuts = quantiles(times, n=100, method="inclusive")
        return {"p50": round(cuts[49]), "p99": round(cuts[98])}


def judge(
    evidence: Evidence,
    *,
    stores: Mapping[int, Sequence[Path]],
    damaged: frozenset[Path],
    kills: Sequence[Kill],
    faults: Sequence[Struck],
    lost: Sequence[str],
    logs: Sequence[Path] = (),
) -> Findings:
    """Everything that can be told.

    `stores`: by partition the directories of stores that nobody uses any more; those that are `damaged` were struck,
    so that one that cannot be read is no flaw. `lost`: what the clients themselves found wrong. `logs`: of the
    processes, which must not have failed by themselves.
    """
    verdict = check(evidence)
    verdict.violations += lost
    for path in logs:
        for problem in failures_in(path.read_text(errors="replace")):
            verdict.blame("engine", f"{path.stem}: {problem}")
    findings = Findings(verdict, kills=len(kills))
    held = tenures(evidence.journal)
    _check_recovery(held, kills, faults, findings)
    for partition, directories in stores.items():
        _check_stores(partition, evidence.journal, directories, damaged, findings)
    findings.absorbed = verdict.absorbed
    return findings


def _check_recovery(held: Tenures, kills: Sequence[Kill], faults: Sequence[Struck], findings: Findings) -> None:
    """C14: each partition of a killed worker has an owner that decides within bounds."""
    for kill in kills:
        again = taken_over(held, kill.pid, kill.at_ms)
        for partition in sorted(owned_by(held, kill.pid, kill.at_ms)):
            if partition not in again:
                findings.verdict.blame("C14", f"partition {partition}: nobody decided after the kill of {kill.pid}")
                continue
            at_ms = again[partition].decision_ms
            findings.recovery_ms.append(at_ms - kill.at_ms)
            healed = [each.heal_ms or at_ms for each in faults if each.during(kill.at_ms, at_ms)]
            since = max([kill.at_ms, *(each for each in healed if each < at_ms)])
            if at_ms - since > RECOVERED_WITHIN_MS:
                findings.verdict.blame(
                    "C14", f"partition {partition} was decided {at_ms - since} ms after the kill of {kill.pid}"
                )


def _check_stores(
    partition: int, journal: Raw, directories: Sequence[Path], damaged: frozenset[Path], findings: Findings
) -> None:
    """C7 on one partition."""
    with ExitStack() as stack:
        opened = {}
        for directory in directories:
            try:
                store = RocksStores(directory.parent).open(partition)
                stack.callback(store.close)
                for _ in store.scan(b""):
                    pass  # damage shows only where it is read
            except StoreBroken as broken:
                if directory not in damaged:
                    findings.verdict.blame("C7", f"{_name(directory)} cannot be read, and nobody damaged it: {broken}")
                continue
            opened[str(directory)] = store
        try:
            for name, offset, difference in compare_stores(journal[partition], opened):
                findings.stores += 1
                if difference:
                    findings.verdict.blame("C7", f"{_name(Path(name))} at offset {offset}: {difference}")
        except (JournalHalted, UnreadableRecord) as error:
            findings.verdict.blame("C7", f"partition {partition} cannot be replayed: {error}")


_ENDED = re.compile(r"process \d+ ended with code (-?\d+)")
_EXPECTED = {0, 1, -signal.SIGKILL, -signal.SIGTERM}
"""1 is how a worker ends that cannot ask the cluster about its topics when it starts: it says so in a line."""


_OUTERMOST = 'File "<frozen runpy>"'


def failures_in(log: str) -> list[str]:
    """Lines of a process's log that say that something failed in a way in which nobody broke it: each kind once."""
    found: dict[str, str] = {}
    uncaught = False
    for line in log.splitlines():
        ended = _ENDED.search(line)
        if ended is not None and int(ended[1]) not in _EXPECTED:
            found.setdefault(ended[1], line)
        elif _OUTERMOST in line:
            uncaught = True  # what is only logged does not come so far
        elif uncaught and line and not line.startswith(" "):
            found.setdefault(line.partition(":")[0], f"nobody caught {line}")
            uncaught = False
    return list(found.values())


def _name(directory: Path) -> str:
    """`worker-1's store of partition-3`."""
    return f"{directory.parents[2].name}'s store of {directory.name}"
