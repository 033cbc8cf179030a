"""The verdict over a run: the checker's, C7 on every store that is left, C14 on every worker that was killed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

from orchestrator.chaos.ends import failures_in
from orchestrator.chaos.history import Struck
from orchestrator.chaos.recovery import Kill, check_recovery
from orchestrator.checker.check import check
from orchestrator.checker.evidence import Evidence, Place, Raw, Verdict
from orchestrator.checker.ownership import tenures
from orchestrator.checker.stores import compare_stores
from orchestrator.model.rule import JournalHalted
from orchestrator.store.base import StoreBroken
from orchestrator.store.rocks import RocksStores
from orchestrator.wire.avro import UnreadableRecord


@dataclass(slots=True)
class Findings:
    """The verdict, and the figures that only a real cluster has. `recovery_ms`: for each partition of each kill."""

    verdict: Verdict
    recovery_ms: list[int] = field(default_factory=list)
    kills: int = 0
    stores: int = 0
    absorbed: int = 0

    def percentiles(self) -> dict[str, int | None]:
        """Middle, last hundredth and longest of the recovery times; None where nothing was killed."""
        times = sorted(self.recovery_ms)
        if len(times) < 2:
            return dict.fromkeys(("p50", "p99", "max"), times[0] if times else None)
        cuts = quantiles(times, n=100, method="inclusive")
        return {"p50": round(cuts[49]), "p99": round(cuts[98]), "max": times[-1]}


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
            place = Place(first_ms=problem.at_ms, last_ms=problem.at_ms)
            verdict.blame("engine", f"{path.stem}: {problem.words}", place)
    findings = Findings(verdict, kills=len(kills))
    findings.recovery_ms = check_recovery(tenures(evidence.journal), kills, faults, verdict)
    for partition, directories in stores.items():
        _check_stores(partition, evidence.journal, directories, damaged, findings)
    findings.absorbed = verdict.absorbed
    return findings


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
                    words = f"{_name(directory)} cannot be read, and nobody damaged it: {broken}"
                    findings.verdict.blame("C7", words, Place(partition))
                continue
            opened[str(directory)] = store
        try:
            for name, offset, difference in compare_stores(journal[partition], opened):
                findings.stores += 1
                if difference:
                    words = f"{_name(Path(name))} at offset {offset}: {difference}"
                    findings.verdict.blame("C7", words, Place(partition, offset))
        except (JournalHalted, UnreadableRecord) as error:
            findings.verdict.blame("C7", f"partition {partition} cannot be replayed: {error}", Place(partition))


def _name(directory: Path) -> str:
    """`worker-1's store of partition-3`."""
    return f"{directory.parents[2].name}'s store of {directory.name}"
