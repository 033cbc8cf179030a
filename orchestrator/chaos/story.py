"""The shortest story around a violation: what the journal says of the sagas it names, and what was broken meanwhile.

Where it names none: of the partition and the time at which it happened.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from orchestrator.chaos.history import Struck
from orchestrator.checker.evidence import Evidence, Place, Raw
from orchestrator.checker.ownership import counted
from orchestrator.log.base import Record
from orchestrator.model.events import Decision
from orchestrator.model.rule import JournalHalted, Kind
from orchestrator.wire.avro import UnreadableRecord
from orchestrator.wire.journal import Envelope, read_decision

MARGIN_MS = 15_000
"""So long before its first and after its last event a fault still belongs to a saga's story."""
MOST_LINES = 60
NEAR = 8
"""Decisions of a partition that are told before and after what happened there."""
LAST_FAULTS = 5
_PLACE = re.compile(r"\bjournal (\d+) at (?:offset )?(\d+)")
_PARTITION = re.compile(r"\bpartition (\d+)")
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


def place_in(violation: str) -> Place | None:
    """The place that a violation names: a partition's journal, and perhaps an offset there."""
    if (found := _PLACE.search(violation)) is not None:
        return Place(int(found[1]), int(found[2]))
    return Place(int(found[1])) if (found := _PARTITION.search(violation)) is not None else None


def tell(
    violations: Sequence[str], evidence: Evidence, faults: Sequence[Struck], places: Mapping[str, Place] | None = None
) -> list[Story]:
    """A story for each violation. `places`: where those happened whose words do not say it."""
    known = {each.saga_id for each in evidence.told} | {each.saga_id for each in evidence.effects}
    named = [sagas_in(violation, known) for violation in violations]
    found: dict[str, list[_Line]] = {saga_id: [] for ids in named for saga_id in ids}
    around = {
        violation: _Around(place)
        for violation, ids in zip(violations, named, strict=True)
        if not ids and (place := (places or {}).get(violation) or place_in(violation)) is not None
    }
    _find_times(evidence.journal, around.values())
    _read(evidence.journal, found, around.values())
    for effect in evidence.effects:
        if effect.saga_id in found:
            last_ms = found[effect.saga_id][-1].at_ms if found[effect.saga_id] else 0
            words = f"effect {effect.at} in the book of {effect.service}: {effect.key}"
            found[effect.saga_id].append(_Line(last_ms, words))
    told = {each.saga_id: each for each in evidence.told if each.saga_id in found}
    stories = []
    for violation, ids in zip(violations, named, strict=True):
        story = Story(violation)
        for saga_id in ids:
            story.lines += _of_saga(saga_id, found[saga_id], faults)
            if saga_id in told:
                each = told[saga_id]
                story.lines.append(f"a client was told: accepted {each.accepted}, status {each.status}")
        if violation in around:
            story.lines += _of_place(around[violation], faults)
        if not story.lines:
            story.lines = ["when and where is not known; the last faults of the run:"]
            story.lines += [_words(each, 0) for each in faults[-LAST_FAULTS:]]
        stories.append(story)
    return stories


def _of_saga(saga_id: str, lines: Sequence[_Line], faults: Sequence[Struck]) -> list[str]:
    if not lines:
        return [f"{saga_id} is not in the journal"]
    times = [line.at_ms for line in lines if line.at_ms]
    first_ms, last_ms = (min(times), max(times)) if times else (0, 0)
    return [saga_id, *_in_order(lines, faults, first_ms, last_ms)]


def _of_place(around: _Around, faults: Sequence[Struck]) -> list[str]:
    place = around.place
    if place.first_ms is None:
        return []
    where = "all partitions" if place.partition is None else f"partition {place.partition}"
    since = datetime.fromtimestamp(place.first_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return [f"{where}; 0 ms is at {since}", *_in_order(around.lines(), faults, place.first_ms, around.last_ms)]


def _in_order(lines: Sequence[_Line], faults: Sequence[Struck], first_ms: int, last_ms: int) -> list[str]:
    """These lines and the faults from before the first to after the last time, counted from the first."""
    struck = [each for each in faults if each.during(first_ms - MARGIN_MS, last_ms + MARGIN_MS)]
    every = [*lines, *(_Line(each.begin_ms, _words(each, first_ms)) for each in struck)]
    ordered = sorted(every, key=lambda line: line.at_ms)
    told = [f"{line.at_ms - first_ms:+8d} ms  {line.text}" for line in ordered]
    if len(told) > MOST_LINES:
        told[MOST_LINES // 2 : -MOST_LINES // 2] = [f"... {len(told) - MOST_LINES} more ..."]
    return told


def _words(fault: Struck, first_ms: int) -> str:
    until = "still there" if fault.heal_ms is None else f"healed after {fault.heal_ms - fault.begin_ms} ms"
    parts = ["FAULT", str(fault.number), fault.kind, fault.target, f"({until})", fault.note]
    return " ".join(part for part in parts if part)


@dataclass(slots=True)
class _Around:
    """What the journal says around a place: claims near it, and the nearest decisions of its partition."""

    place: Place
    claims: list[_Line] = field(default_factory=list)
    before: deque[tuple[Record, Envelope, str]] = field(default_factory=lambda: deque(maxlen=NEAR))
    after: list[tuple[Record, Envelope, str]] = field(default_factory=list)

    @property
    def last_ms(self) -> int:
        first_ms, last_ms = self.place.first_ms or 0, self.place.last_ms
        return first_ms if last_ms is None else last_ms

    def take(self, record: Record, envelope: Envelope, owner: str) -> None:
        """The next record of a journal that counts, and whose it is."""
        place = self.place
        if place.first_ms is None or place.partition not in (None, record.partition):
            return
        if envelope.kind == Kind.CLAIM:
            if place.first_ms - MARGIN_MS <= record.timestamp_ms <= self.last_ms + MARGIN_MS:
                self.claims.append(_Line(record.timestamp_ms, f"{_where(record)}: claimed by {owner}"))
        elif place.partition is None or envelope.kind != Kind.DECISION:
            return
        elif record.timestamp_ms < place.first_ms or (place.offset is not None and record.offset < place.offset):
            self.before.append((record, envelope, owner))
        elif len(self.after) < NEAR:
            self.after.append((record, envelope, owner))

    def lines(self) -> list[_Line]:
        """In the order of each journal."""
        return [*self.claims, *(_decided(*each) for each in (*self.before, *self.after))]


def _find_times(journal: Raw, around: Collection[_Around]) -> None:
    """Gives those places a time of which only an offset is known, or no more than the partition: its end then."""
    timeless = [each for each in around if each.place.first_ms is None and each.place.partition in journal]
    by_partition: dict[int, list[_Around]] = defaultdict(list)
    for each in timeless:
        if each.place.partition is not None:
            by_partition[each.place.partition].append(each)
    for partition, here in by_partition.items():
        offsets = {each.place.offset for each in here}
        times: dict[int | None, int] = {}
        for record in journal[partition]:
            times[None] = record.timestamp_ms
            if record.offset in offsets:
                times[record.offset] = record.timestamp_ms
        for each in here:
            at_ms = times.get(each.place.offset, times.get(None))
            each.place = replace(each.place, first_ms=at_ms, last_ms=at_ms)


def _read(journal: Raw, sought: Mapping[str, list[_Line]], around: Collection[_Around]) -> None:
    """Adds what the journal says of these sagas, and around these places. Reads it once for all of them."""
    for partition, records in journal.items():
        here = [each for each in around if each.place.partition in (None, partition)]
        if not sought and not here:
            continue
        try:
            for record, envelope, owner in counted(records):
                for each in here:
                    each.take(record, envelope, owner)
                if not sought or envelope.kind != Kind.DECISION:
                    continue
                decision = read_decision(envelope)
                if decision is not None and decision.saga_id in sought:
                    words = f"{_where(record)} by {owner}: {_events(decision)}"
                    sought[decision.saga_id].append(_Line(record.timestamp_ms, words))
        except (JournalHalted, UnreadableRecord):
            continue  # the checker says so


def _decided(record: Record, envelope: Envelope, owner: str) -> _Line:
    """What was decided, and about which saga."""
    try:
        decision = read_decision(envelope)
    except UnreadableRecord as error:
        words = f"what cannot be read: {error}"
    else:
        words = "nothing" if decision is None else f"{decision.saga_id}: {_events(decision)}"
    return _Line(record.timestamp_ms, f"{_where(record)} by {owner}: {words}")


def _where(record: Record) -> str:
    return f"journal {record.partition} at {record.offset}"


def _events(decision: Decision) -> str:
    return "; ".join(_event(event) for event in decision.events) or "nothing"


def _event(event: object) -> str:
    """Its kind, and which step it is about."""
    about = [
        f"{name} {value}"
        for name in ("sequence", "attempt", "command", "status", "error_type", "cause")
        if (value := getattr(event, name, None)) not in (None, "")
    ]
    return " ".join([type(event).__name__, *(f"({each})" for each in about)])
