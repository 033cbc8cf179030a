"""Taking a backup of an installation, whether it works or stands still.

What the copies of topics say of each other must fit, so their ends are taken in an order:

1. what each service's group has consumed: of a command below it the reply is written;
2. the ends of inbox, replies and operations: what comes after them is not in the backup;
3. the journals' ends, and where one partition has taken a message, the sender's at least up to where it sent that;
4. commands, internal messages and ledgers as they stand after that. Of these a restore leaves out what the journals do
   not know of.

The bulk of the journals is copied before, for that takes its time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing

from orchestrator.acls import PUBLISHERS
from orchestrator.archive.journals import JournalArchive, as_segment, whole_journal
from orchestrator.backup.manifest import Manifest, shelf_of, write_manifest
from orchestrator.depot import Depot
from orchestrator.errors import SagaError
from orchestrator.log.base import Log, Record, TopicPartition
from orchestrator.log.spans import records_in
from orchestrator.model.events import Decision, InputForwarded, InputSent, StepScheduled
from orchestrator.model.kinds import StepKind
from orchestrator.model.rule import Kind, Rule
from orchestrator.topics import TopicNames
from orchestrator.wire.inputs import ROLES, input_topics
from orchestrator.wire.journal import read_decision, read_envelope
from orchestrator.wire.segments import SegmentRecord

Bounds = dict[TopicPartition, tuple[int, int]]


class _Journal:
    """One partition's journal as far as it is copied: what it says of other topics."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.end = 0
        self.positions: dict[str, int] = {}
        self.taken: dict[int, int] = {}
        """The counter of the last message taken, by the partition that sent it."""
        self.sent: dict[int, int] = defaultdict(lambda: -1)
        """Likewise of the last message sent, by the partition it went to."""
        self.services: set[str] = set()
        self._rule = Rule()

    def note(self, record: Record) -> None:
        """The next record. Raises `JournalHalted`, `UnreadableRecord`."""
        value = record.value or b""
        envelope = read_envelope(value)
        self.end = record.offset + 1
        rule = self._rule
        if not rule.accept(envelope.kind, envelope.nonce, envelope.seq, envelope.prev_hash, record.offset, value):
            return
        if envelope.input_positions:
            self.positions = dict(envelope.input_positions)
        decision = read_decision(envelope) if envelope.kind == Kind.DECISION else None
        if decision is not None:
            self._note_decision(decision)

    def _note_decision(self, decision: Decision) -> None:
        if decision.internal_counter >= 0:
            self.taken[decision.internal_partition] = decision.internal_counter
        for event in decision.events:
            if isinstance(event, InputForwarded | InputSent):
                self.sent[event.target] = event.counter
            elif isinstance(event, StepScheduled) and event.kind is StepKind.SERVICE:
                self.services.add(event.service)


class Backup:
    """One backup of the installation with these topics into an empty depot. `tell` hears what is being copied.

    `run` raises `SagaError` where something cannot be read, `JournalHalted` and `UnreadableRecord` where a journal is
    none that anybody could own, `AdminFailed`, `SegmentDamaged`, `DepotFailed`.
    """

    def __init__(
        self,
        log: Log,
        names: TopicNames,
        partitions: int,
        archive: JournalArchive | None,
        depot: Depot,
        tell: Callable[[str], None],
    ) -> None:
        self._log = log
        self._names = names
        self._numbers = range(partitions)
        self._archive = archive
        self._depot = depot
        self._tell = tell
        self._admin = log.admin()
        self._spans: list[tuple[str, int, int, int]] = []

    def run(self, now_ms: int) -> Manifest:
        """Copies everything; the manifest is written last."""
        if self._depot.names(""):
            raise SagaError(f"{self._depot.url} is not empty: a backup needs a place of its own")
        with closing(self._admin):
            names, journals = self._names, {number: _Journal(number) for number in self._numbers}
            self._copy_journals(journals)
            consumed = {service: self._consumed(service) for service in self._services(journals)}
            inputs = {topic: self._bounds(topic) for topic in (names.inbox, names.replies, names.operations)}
            self._copy_journals(journals)
            self._fit(journals)
            services = self._services(journals)
            for service in services:
                self._copy_service(service, consumed.get(service, {}))
            inputs[names.internal] = self._bounds(names.internal)
            self._copy_inputs(journals, inputs)
            published = self._admin.committed(names.prefix + PUBLISHERS, list(self._bounds(names.journal)))
            for topic in (names.dead_letters, names.lifecycle):
                self._copy(topic, self._bounds(topic))
        topics = {role: names.name(role) for role in _roles(services)}
        told = {str(number): offset for (_, number), offset in published.items()}
        manifest = Manifest(now_ms, len(self._numbers), topics, services, self._spans, told)
        write_manifest(self._depot, manifest)
        return manifest

    # -- journals

    def _copy_journals(self, journals: dict[int, _Journal]) -> None:
        """Up to where they end now, from where they were copied to before."""
        topic = self._names.journal
        for (_, number), (start, end) in self._bounds(topic).items():
            journal = journals[number]
            self._tell(f"{topic}-{number}: {end - journal.end} records")
            if journal.end == 0:
                records: Iterable[Record] = whole_journal(self._log, topic, {number: (start, end)}, self._archive)
            else:
                records = records_in(self._log, {(topic, number): (journal.end, end)})
            self._copy_journal(journal, records, end)

    def _fit(self, journals: dict[int, _Journal]) -> None:
        """Goes on where a journal ends before a message that another one says was taken from it."""
        while behind := self._behind(journals):
            for number, target, counter in behind:
                self._extend(journals[number], target, counter)
        self._spans += [(self._names.journal, number, 0, journal.end) for number, journal in journals.items()]

    def _copy_journal(self, journal: _Journal, records: Iterable[Record], end: int) -> None:
        def noted() -> Iterator[SegmentRecord]:
            for record in records:
                journal.note(record)
                yield as_segment(record)

        shelf_of(self._depot, self._names.journal, journal.number).put(journal.end, end, noted())

    def _behind(self, journals: dict[int, _Journal]) -> list[tuple[int, int, int]]:
        """(sender, receiver, counter) of messages that were taken and whose sender's journal ends before them."""
        return [
            (sender, receiver, counter)
            for receiver, journal in journals.items()
            for sender, counter in journal.taken.items()
            if journals[sender].sent[receiver] < counter
        ]

    def _extend(self, journal: _Journal, target: int, counter: int) -> None:
        """Copies on, up to the decision that sent this message: it was decided before the message could be taken."""
        place = (self._names.journal, journal.number)
        span = (journal.end, self._admin.ends([place])[place][1])
        more = []
        for record in records_in(self._log, {place: span}):
            more.append(as_segment(record))
            journal.note(record)
            if journal.sent[target] >= counter:
                break
        else:
            raise SagaError(f"{place[0]}-{place[1]} does not say of a message that partition {target} took from it")
        shelf_of(self._depot, *place).put(span[0], journal.end, more)

    # -- the rest

    def _services(self, journals: dict[int, _Journal]) -> list[str]:
        """Those that were sent commands, and whose topics are there."""
        topics = {name: self._names.commands(name) for journal in journals.values() for name in journal.services}
        there = self._admin.describe(list(topics.values()))
        return sorted(service for service, topic in topics.items() if topic in there)

    def _consumed(self, service: str) -> dict[TopicPartition, int]:
        keys = list(self._bounds(self._names.commands(service)))
        return self._admin.committed(self._names.group(service), keys)

    def _copy_service(self, service: str, consumed: dict[TopicPartition, int]) -> None:
        """Its commands that were not consumed then, and its memory, which knows of those that are by now."""
        commands = self._names.commands(service)
        spans = {key: (max(start, consumed.get(key, 0)), end) for key, (start, end) in self._bounds(commands).items()}
        self._copy(commands, spans)
        ledger = self._names.ledger(service)
        if self._admin.describe([ledger]):
            self._copy(ledger, self._bounds(ledger))

    def _copy_inputs(self, journals: dict[int, _Journal], bounds: dict[str, Bounds]) -> None:
        for role, topic in input_topics(self._names).items():
            spans = {}
            for key, (start, end) in bounds[topic].items():
                consumed = max(0, journals[key[1]].positions.get(role, 0))
                if start > consumed and start != end:
                    raise SagaError(f"{topic}-{key[1]} begins at {start}, and was consumed up to {consumed} only")
                spans[key] = (max(start, consumed), max(start, consumed, end))
            self._copy(topic, spans)

    def _copy(self, topic: str, spans: Bounds) -> None:
        self._tell(f"{topic}: {sum(end - first for first, end in spans.values())} records")
        for key, (first, end) in spans.items():
            records = map(as_segment, records_in(self._log, {key: (first, end)}))
            shelf_of(self._depot, *key).put(first, end, records)
            self._spans.append((*key, first, end))

    def _bounds(self, topic: str) -> Bounds:
        return self._admin.ends([(topic, number) for number in self._numbers])


def _roles(services: Iterable[str]) -> list[str]:
    """The default names of all topics whose names a restored installation must have too."""
    of_services = [f"{service}.{kind}" for service in services for kind in ("commands", "ledger")]
    return [f"saga.{kind}" for kind in ("journal", *ROLES, "lifecycle", "answers", "dead-letters")] + of_services
