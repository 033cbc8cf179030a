"""The shortest story around a violation: what the journal says of the saga it names, and what was broken meanwhile."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from orchestrator.chaos.history import Struck
from orchestrator.checker.evidence import Evidence, Raw
from orchestrator.checker.ownership import counted
from orchestrator.log.base import Record
from orchestrator.model.events import Decision
from orchestrator.model.rule import JournalHalted, Kind
from orchestrator.wire.avro import UnreadableRecord
from orchestrator.wire.journal import read_decision

MARGIN_MS = 15_000
"""So long before its first and after its last event a fault still belongs to a saga's story."""
MOST_LINES = 60
_WORD = re.compile(r"[^\s,:;()\[\]{}'\"]+")


@dataclass(slots=True)
class Story:
    """A violation, and lines that tell it in the order in which it happened."""

    violation: str
    lines: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n  ".join([self.violation, *self.lines])


@dataclass(frozen=True, slots=True)
class _Line:
    at_ms: int
    text: str


def sagas_in(violation: str, known: Collection[str]) -> list[str]:
    """The ids of known sagas that a violation names, by themselves or in the keys of their steps."""
    found: dict[str, None] = {}
    for word in _WORD.findall(violation):
        while word not in known and "/" in word:
            word = word.rpartition("/")[0]
        if word in known:
            found[word] = None
    return list(found)


def tell(violations: Sequence[str], evidence: Evidence, faults: Sequence[Struck]) -> list[Story]:
    """A story for each violation. Reads the journal once for all of them."""
    known = {each.saga_id for each in evidence.told} | {each.saga_id for each in evidence.effects}
    named = [sagas_in(violation, known) for violation in violations]
    wanted = {saga_id for ids in named for saga_id in ids}
    found: dict[str, list[_Line]] = {saga_id: [] for saga_id in wanted}
    for saga_id, line in _journal_lines(evidence.journal, wanted):
        found[saga_id].append(line)
    for effect in evidence.effects:
        if effect.saga_id in wanted:
            last_ms = found[effect.saga_id][-1].at_ms if found[effect.saga_id] else 0
            words = f"effect {effect.at} in the book of {effect.service}: {effect.key}"
            found[effect.saga_id].append(_Line(last_ms, words))
    told = {each.saga_id: each for each in evidence.told if each.saga_id in wanted}
    stories = []
    for violation, ids in zip(violations, named, strict=True):
        story = Story(violation)
        for saga_id in ids:
            story.lines += _of_saga(saga_id, found[saga_id], faults)
            if saga_id in told:
                each = told[saga_id]
                story.lines.append(f"a client was told: accepted {each.accepted}, status {each.status}")
        if not story.lines:
            story.lines = [_words(each, 0) for each in faults[-5:]]
        stories.append(story)
    return stories


def _of_saga(saga_id: str, lines: Sequence[_Line], faults: Sequence[Struck]) -> list[str]:
    if not lines:
        return [f"{saga_id} is not in the journal"]
    times = [line.at_ms for line in lines if line.at_ms]
    first_ms, last_ms = (min(times), max(times)) if times else (0, 0)
    around = [each for each in faults if each.during(first_ms - MARGIN_MS, last_ms + MARGIN_MS)]
    every = [*lines, *(_Line(each.begin_ms, _words(each, first_ms)) for each in around)]
    ordered = sorted(every, key=lambda line: line.at_ms)
    told = [f"{line.at_ms - first_ms:+8d} ms  {line.text}" for line in ordered]
    if len(told) > MOST_LINES:
        told[MOST_LINES // 2 : -MOST_LINES // 2] = [f"... {len(told) - MOST_LINES} more ..."]
    return [saga_id, *told]


def _words(fault: Struck, first_ms: int) -> str:
    until = "still there" if fault.heal_ms is None else f"healed after {fault.heal_ms - fault.begin_ms} ms"
    parts = ["FAULT", str(fault.number), fault.kind, fault.target, f"({until})", fault.note]
    return " ".join(part for part in parts if part)


def _journal_lines(journal: Raw, wanted: Iterable[str]) -> Iterator[tuple[str, _Line]]:
    sought = set(wanted)
    for partition, records in journal.items() if sought else ():
        try:
            for record, decision, owner in _decisions(records):
                if decision.saga_id in sought:
                    events = "; ".join(_event(event) for event in decision.events) or "nothing"
                    words = f"journal {partition} at {record.offset} by {owner}: {events}"
                    yield decision.saga_id, _Line(record.timestamp_ms, words)
        except (JournalHalted, UnreadableRecord):
            continue  # the checker says so


def _decisions(records: Iterable[Record]) -> Iterator[tuple[Record, Decision, str]]:
    for record, envelope, owner in counted(records):
        if envelope.kind == Kind.DECISION and (decision := read_decision(envelope)) is not None:
            yield record, decision, owner


def _event(event: object) -> str:
    """Its kind, and which step it is about."""
    about = [
        f"{name} {value}"
        for name in ("sequence", "attempt", "command", "status", "error_type", "cause")
        if (value := getattr(event, name, None)) not in (None, "")
    ]
    return " ".join([type(event).__name__, *(f"({each})" for each in about)])
