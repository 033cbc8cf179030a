"""What a kept run amounts to: judged from its folder alone, whether it has just ended or was kept long ago."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator.chaos.archived import check_archive
from orchestrator.chaos.judge import Findings, judge
from orchestrator.chaos.kept import Material, open_records, read_material
from orchestrator.chaos.recovery import AT_LATEST_MS
from orchestrator.chaos.report import LISTED, page
from orchestrator.chaos.sagas import SERVICES
from orchestrator.chaos.story import Story, tell
from orchestrator.chaos.system import ARCHIVE, DEPOT
from orchestrator.checker.evidence import Evidence, Place
from orchestrator.demo.dump import evidence_of, evidence_topics, read_books
from orchestrator.topics import TopicNames

RAW, BOOKS, STATE, LOGS = "raw", "books", "state", "logs"
PAGE, RESULT = "report.html", "result.json"


@dataclass(slots=True)
class Outcome:
    """What a run showed. `result` is the object that `--json` gives."""

    result: dict[str, Any]
    stories: list[Story] = field(default_factory=list)


def conclude(folder: Path) -> Outcome:
    """Judges what is in the folder and writes the page and the result there. Raises `ConfigurationError`.

    Of a run that failed only what must hold at any time; that it failed is a violation.
    """
    material = read_material(folder)
    partitions, names = material.settings["partitions"], TopicNames()
    raw = open_records(folder / RAW, evidence_topics(names, SERVICES), partitions)
    books = [(service, folder / BOOKS / f"{service}.db") for service in SERVICES]
    effects = read_books((service, book) for service, book in books if book.exists())
    evidence = evidence_of(raw, names, partitions, material.told, effects, SERVICES)
    lost, kills, stores = material.lost, material.kills, _stores(folder / STATE)
    if material.failed:
        evidence = replace(evidence, settled=False)
        lost = [*lost, f"run: it failed, and what was written last may not have been read: {material.failed}"]
        kills, stores = [each for each in kills if each.at_ms + AT_LATEST_MS < material.ended_ms], {}
    findings = judge(
        evidence,
        stores=stores,
        damaged=frozenset(folder / each for each in material.damaged),
        kills=kills,
        faults=material.faults,
        lost=lost,
        logs=sorted((folder / LOGS).glob("*.log")),
    )
    for each in lost:
        findings.verdict.places[each] = Place(first_ms=material.ended_ms)
    archived = check_archive(folder / DEPOT / ARCHIVE, names.journal, material, evidence.journal, findings.verdict)
    stories = tell(findings.verdict.violations[:LISTED], evidence, material.faults, findings.verdict.places)
    result = _result(folder, material, evidence, findings) | {"records_archived": archived}
    (folder / PAGE).write_text(page(result, material.faults, stories, material.began_ms), encoding="utf-8")
    (folder / RESULT).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return Outcome(result, stories)


def _stores(state: Path) -> dict[int, list[Path]]:
    """The directories of all workers' stores, by partition."""
    found: dict[int, list[Path]] = {}
    for store in sorted(state.glob("*/stores/*/partition-*")):
        found.setdefault(int(store.name.removeprefix("partition-")), []).append(store)
    return dict(sorted(found.items()))


def _result(folder: Path, material: Material, evidence: Evidence, findings: Findings) -> dict[str, Any]:
    verdict = findings.verdict
    kinds = Counter(each.kind for each in material.faults if each.done)
    return {
        **material.settings,
        "sagas": sum(each.accepted is True or each.status is not None for each in material.told),
        "faults": kinds.total(),
        "fault_kinds": len(kinds),
        "faults_not_done": len(material.faults) - kinds.total(),
        "violations": len(verdict.violations),
        "violation_list": verdict.violations[:LISTED],
        "recovery_ms": findings.percentiles(),
        "recoveries": len(findings.recovery_ms),
        "workers_killed": findings.kills,
        "statuses": dict(sorted(verdict.statuses.items())),
        "sagas_by_type": material.ended,
        "starts_unknown": sum(each.accepted is None for each in material.told),
        "effects": verdict.effects,
        "decisions": verdict.decisions,
        "records_dropped": verdict.dropped,
        "inputs_absorbed": findings.absorbed,
        "dead_letters": sum(len(records) for records in evidence.dead_letters.values()),
        "stores_compared": findings.stores,
        "faults_by_kind": dict(sorted(kinds.items())),
        "seconds": round((material.ended_ms - material.began_ms) / 1000, 1),
        "folder": str(folder),
    }
