"""Restoring a backup into a cluster that has nothing of the installation yet."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from threading import Event

from orchestrator.acls import PUBLISHERS
from orchestrator.backup.manifest import Manifest, read_manifest, shelf_of
from orchestrator.backup.rebasing import rebased_journal, rebased_ledger
from orchestrator.depot import Depot
from orchestrator.errors import SagaError
from orchestrator.log.base import Committed, Log, LogFull, TopicPartition
from orchestrator.model.ids import partition_of, run_numbers
from orchestrator.model.state import SagaState
from orchestrator.provisioning import apply, plan
from orchestrator.runtime.identity import pinned_topics
from orchestrator.runtime.lifecycle import position_metadata
from orchestrator.runtime.replica import Replica
from orchestrator.store.rocks import RocksStores
from orchestrator.topics import TopicNames
from orchestrator.wire.commands import CommandMessage, read_command
from orchestrator.wire.headers import MalformedMessage, read_headers
from orchestrator.wire.inputs import read_passage
from orchestrator.wire.lifecycle import place_of
from orchestrator.wire.segments import SegmentRecord

WITHIN_S = 60.0
"""A write is given up where nothing is acknowledged for so long."""

_Entry = tuple[bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]
"""Key, value, headers."""


class Restore:
    """One restore of what is in `depot`. `tell` hears what is being written.

    `check` and `run` raise `SagaError` where the backup does not fit or is damaged in a way that can be told, else
    `SegmentDamaged`, `DepotFailed`, `UnreadableRecord`, `JournalHalted`, `AdminFailed`.
    """

    def __init__(self, log_: Log, names: TopicNames, depot: Depot, tell: Callable[[str], None]) -> None:
        self.manifest: Manifest = read_manifest(depot)
        self.records = 0
        self.left_out = 0
        """Commands and messages of which the journals know nothing: sent after the journals were copied."""
        self._log = log_
        self._names = names
        self._depot = depot
        self._tell = tell

    def check(self, partitions: int) -> None:
        """Whether it can be restored here; nothing is written."""
        manifest = self.manifest
        if manifest.partitions != partitions:
            raise SagaError(
                f"the backup has {manifest.partitions} partitions: set `partitions` to that, not {partitions}"
            )
        for role, topic in manifest.topics.items():
            if self._names.name(role) != topic:
                raise SagaError(
                    f"the backup's topic {topic} would be {self._names.name(role)} here: set `prefix`, `topics`"
                )
        with closing(self._log.admin()) as admin:
            there = admin.describe(list(manifest.topics.values()))
            keys = [(topic, number) for topic, state in there.items() for number in range(state.partitions)]
            written = sorted({topic for (topic, _), (_, end) in admin.ends(keys).items() if end})
        if written:
            raise SagaError(f"{', '.join(written)}: not empty; a backup is restored where there is nothing of it")

    def run(
        self,
        replication: int,
        now_ms: int,
        services: Iterable[str] = (),
        *,
        incarnation: int | None = None,
        fsync: bool = False,
    ) -> None:
        """Creates the topics and writes everything, the journals last: without them no worker finds anything.

        `services` are those that may not have been called yet: the backup knows of the others. A backup that was
        restored before needs an `incarnation` that no restore of it has had.
        """
        manifest, names = self.manifest, self._names
        all_services = {*manifest.services, *services}
        specs = plan(names, partitions=manifest.partitions, replication=replication, services=all_services, fsync=fsync)
        with closing(self._log.admin()) as admin:
            apply(admin, specs)
            pinned = admin.describe(pinned_topics(names))
        ids = {topic: state.topic_id for topic, state in pinned.items()}
        positions: dict[TopicPartition, tuple[int, str]] = {}
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="saga-restore-"))
            stores = RocksStores(Path(folder))
            replicas = [Replica(stack.enter_context(closing(stores.open(n)))) for n in range(manifest.partitions)]
            for number, replica in enumerate(replicas):
                # As its next owner will read it: what cannot be owned is not written.
                _, end = manifest.of_topic(names.journal)[names.journal, number]
                published = min(end, manifest.published.get(str(number), 0))
                for offset, value in enumerate(self._rebased(number, ids, now_ms, incarnation)):
                    replica.feed(offset, now_ms, value)
                    if offset == published - 1:
                        rule = replica.progress.rule
                        beside = position_metadata(rule.nonce, rule.expected_seq)
                        positions[names.journal, number] = published, beside
                replica.flush()
            for topic in (names.inbox, names.replies, names.operations, names.dead_letters):
                self._write_all(topic, lambda _, records: map(_entry, records))
            self._write_all(
                names.lifecycle,
                lambda _, records: (_entry(record) for record in records if self._was_published(record)),
            )
            self._write_all(
                names.internal,
                lambda target, records: (_entry(r) for r in records if self._is_sent(r, target, replicas)),
            )
            for service in manifest.services:
                self._write_all(names.ledger(service), lambda _, records: _values(rebased_ledger(records)))
                self._write_all(
                    names.commands(service),
                    lambda _, records: (_entry(record) for record in records if self._is_known(record, replicas)),
                )
            for number in range(manifest.partitions):
                self._tell(f"{names.journal}-{number}")
                self._write((names.journal, number), _values(self._rebased(number, ids, now_ms, incarnation)))
        self._commit(names.prefix + PUBLISHERS, positions)

    def _rebased(self, number: int, ids: dict[str, str], now_ms: int, incarnation: int | None) -> Iterator[bytes]:
        """A partition's journal as it will stand."""
        manifest, topic = self.manifest, self._names.journal
        first, end = manifest.of_topic(topic)[topic, number]
        records = shelf_of(self._depot, topic, number).read(first, end)
        return rebased_journal(records, manifest.partitions, ids, now_ms, incarnation)

    def _is_known(self, record: SegmentRecord, replicas: list[Replica]) -> bool:
        """Whether the journals know of a command. What is none is left to the service to refuse."""
        try:
            command = read_command(record.headers, record.value)
            state = replicas[partition_of(command.saga_id, len(replicas))].state(command.saga_id)
            known = state is not None and _is_scheduled(command, state)
        except (MalformedMessage, ValueError):
            return True
        self.left_out += not known
        return known

    def _is_sent(self, record: SegmentRecord, target: int, replicas: list[Replica]) -> bool:
        """Whether the sender's journal knows of a message; it gives the numbers behind to others."""
        try:
            headers = read_headers(record.headers)
            passage = read_passage(headers)
        except MalformedMessage:
            return True
        counters = replicas[passage.source].progress.at.internal_sent if passage.source < len(replicas) else {}
        sent = passage.counter <= counters.get(str(target), -1)
        self.left_out += not sent
        return sent

    def _was_published(self, record: SegmentRecord) -> bool:
        """Whether an event is below where publishing goes on; those behind it come again, or never happened here."""
        place = place_of(record.headers)
        if place is None:
            return True
        _, partition, offset = place
        spans = self.manifest.of_topic(self._names.journal)
        _, end = spans.get((self._names.journal, partition), (0, 0))
        return offset < min(end, self.manifest.published.get(str(partition), 0))

    def _commit(self, group: str, positions: dict[TopicPartition, tuple[int, str]]) -> None:
        """What was published is not published again."""
        if not positions:
            return
        wake = Event()
        with closing(self._log.reader(group, wake=wake)) as reader:
            for (topic, number), (offset, _) in positions.items():
                reader.assign(topic, number, offset)
                reader.pause(topic, number)
            reader.commit(positions, "published")
            while True:
                for happening in reader.poll():
                    if isinstance(happening, Committed):
                        if happening.failure is not None:
                            raise SagaError(f"group {group}: its positions were not taken: {happening.detail}")
                        return
                if not wake.wait(WITHIN_S):
                    raise SagaError(f"group {group}: its positions were not taken within {WITHIN_S:.0f} s")
                wake.clear()

    def _write_all(self, topic: str, entries: Callable[[int, Iterable[SegmentRecord]], Iterable[_Entry]]) -> None:
        spans = self.manifest.of_topic(topic)
        self._tell(f"{topic}: {sum(end - first for first, end in spans.values())} records")
        for (_, number), (first, end) in spans.items():
            records = shelf_of(self._depot, topic, number).read(first, end)
            self._write((topic, number), entries(number, records))

    def _write(self, place: TopicPartition, entries: Iterable[_Entry]) -> None:
        """Appends in order, from offset 0 on; anything else that happens there ends it."""
        wake = Event()
        appender = self._log.appender(wake=wake)
        written = 0

        def gather() -> None:
            nonlocal written
            deliveries = appender.poll()
            for delivery in deliveries:
                if delivery.failure is not None or delivery.offset != written:
                    why = delivery.detail or f"it came to offset {delivery.offset}, somebody else writes there"
                    raise SagaError(
                        f"{place[0]}-{place[1]}: record {written} was not written ({why}); delete all topics of the "
                        "installation and restore again"
                    )
                written += 1
            if not deliveries:
                if not wake.wait(WITHIN_S):
                    raise SagaError(f"{place[0]}-{place[1]}: nothing was acknowledged for {WITHIN_S:.0f} s")
                wake.clear()

        try:
            for key, value, headers in entries:
                while True:
                    try:
                        appender.append(*place, value, token=None, key=key, headers=headers)
                        break
                    except LogFull:
                        gather()
            while appender.pending:
                gather()
        finally:
            appender.close(2.0)
        self.records += written


def _is_scheduled(command: CommandMessage, state: SagaState) -> bool:
    """Whether the journal has this attempt at doing or undoing a step; of former runs it did, of later ones not."""
    if state.run != command.run and not state.is_own(command.run, command.sequence):
        return run_numbers(command.run) < run_numbers(state.run)
    step = state.steps.get(command.sequence)
    return step is not None and command.attempt <= (step.undo_attempt if command.direction == "undo" else step.attempt)


def _entry(record: SegmentRecord) -> _Entry:
    return record.key, record.value, record.headers


def _values(values: Iterable[bytes]) -> Iterable[_Entry]:
    return ((None, value, ()) for value in values)
