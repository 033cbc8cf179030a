"""All partitions of one worker: what the group grants is taken over, what it revokes is handed back.

The group decides who should own a partition, the journal alone who does. `step` does everything there is to do and
returns; the worker's loop and the simulator call it alike.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from orchestrator.log.base import (
    Appender,
    Committed,
    Ends,
    Failure,
    Granted,
    Reader,
    ReadFailed,
    Record,
    Revoked,
)
from orchestrator.model.rule import JournalHalted
from orchestrator.runtime.journal_writer import EpochLost
from orchestrator.runtime.partition import Partition, PartitionConfig
from orchestrator.runtime.replica import Replica, StoreStale
from orchestrator.runtime.takeover import Owner, Takeover
from orchestrator.runtime.tally import Tally
from orchestrator.store.base import Store, StoreBroken, StoreBusy, Stores
from orchestrator.wire.avro import UnreadableRecord
from orchestrator.wire.inputs import INBOX, INTERNAL, OPERATIONS, REPLIES

log = logging.getLogger(__name__)

COMMIT_EVERY_MS = 1_000
LEAVE_WITHIN_MS = 2_000
"""How long a graceful hand-over waits for what is unconfirmed."""
MAX_WIPES = 3
"""Stores of one partition that may turn out broken before the partition is set aside for an operator."""
MAX_READ_FAILURES = 3


class Phase(Enum):
    """Where a partition of this worker stands."""

    WAITING = "waiting"
    PROVING = "proving membership"
    TAKING_OVER = "taking over"
    OWNING = "owning"
    LEAVING = "leaving"
    HALTED = "halted"


@dataclass(slots=True)
class Clients:
    """The four clients of a worker: group member for the inputs, reader of journals, one appender each way."""

    inputs: Reader
    journals: Reader
    journal: Appender
    outward: Appender


class Tenure:
    """One granted partition, through as many epochs as it takes."""

    __slots__ = (
        "begin_at_ms",
        "granted",
        "halted_because",
        "leave_by_ms",
        "number",
        "partition",
        "paused",
        "phase",
        "poison",
        "read_failures",
        "store",
        "taken_over_ms",
        "takeover",
        "wipes",
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.phase = Phase.WAITING
        self.granted = True
        self.begin_at_ms = 0
        self.leave_by_ms = 0
        self.store: Store | None = None
        self.takeover: Takeover | None = None
        self.partition: Partition | None = None
        self.poison: Counter[tuple[str, int]] = Counter()
        self.paused = False
        self.wipes = 0
        self.read_failures = 0
        self.halted_because = ""
        self.taken_over_ms = 0


class Engine:
    """The partitions of one worker. `jitter` gives a number from 0 to 1, to keep two owners from claiming in turns."""

    def __init__(
        self,
        config: PartitionConfig,
        clients: Clients,
        stores: Stores,
        owner: Owner,
        jitter: Callable[[], float],
        heartbeat_ms: int = 500,
    ) -> None:
        self.config = config
        self.tenures: dict[int, Tenure] = {}
        self.epochs_lost = 0
        self.counters: Counter[str] = Counter()
        self.tally = Tally()
        self._clients = clients
        self._stores = stores
        self._owner = owner
        self._jitter = jitter
        self._heartbeat_ms = heartbeat_ms
        topics = config.topics
        self._role_topics = {
            INBOX: topics.inbox,
            REPLIES: topics.replies,
            INTERNAL: topics.internal,
            OPERATIONS: topics.operations,
        }
        self._roles = {topic: role for role, topic in self._role_topics.items()}
        self._commit_at_ms = 0
        self._leaving = False
        self._mono_ms = 0

    def step(self, mono_ms: int) -> bool:
        """Everything there is to do now. Returns whether anything happened, so that a caller knows when to wait."""
        self._mono_ms = mono_ms
        busy = self._read_inputs(mono_ms)
        busy |= self._read_journals(mono_ms)
        for appender in (self._clients.journal, self._clients.outward):
            for delivery in appender.poll():
                busy = True
                target, what = delivery.token
                self._guarded(target.number, target.delivered, what, delivery, mono_ms)
        for tenure in list(self.tenures.values()):
            self._advance(tenure, mono_ms)
            busy |= tenure.partition is not None and tenure.partition.intake.ready
        if mono_ms >= self._commit_at_ms:
            self._commit_at_ms = mono_ms + COMMIT_EVERY_MS
            self._commit_positions()
        return busy

    def next_due_in_ms(self, mono_ms: int, limit_ms: int) -> int:
        """How long the caller may wait for something to happen, at most `limit_ms`."""
        wait = limit_ms
        for tenure in self.tenures.values():
            partition = tenure.partition
            if partition is not None:
                due = partition.next_due_ms()
                if due is not None:
                    wait = min(wait, max(0, due - partition.now_ms(mono_ms)))
        return wait

    def leave(self, mono_ms: int) -> None:
        """Begins to hand everything back; `left` tells when it is done."""
        self._leaving = True
        for tenure in list(self.tenures.values()):
            self._revoke(tenure, mono_ms)

    @property
    def left(self) -> bool:
        return self._leaving and not self.tenures

    # -- what the log says

    def _read_inputs(self, mono_ms: int) -> bool:
        happenings = self._clients.inputs.poll()
        for happening in happenings:
            if isinstance(happening, Record):
                tenure = self.tenures.get(happening.partition)
                if tenure is not None and tenure.partition is not None and tenure.phase is Phase.OWNING:
                    tenure.partition.take(self._roles[happening.topic], happening)
            elif isinstance(happening, Granted):
                for _, number in happening.partitions:
                    self._grant(number, mono_ms)
            elif isinstance(happening, Revoked):
                for _, number in happening.partitions:
                    if number in self.tenures:
                        self._revoke(self.tenures[number], mono_ms, lost=happening.lost)
            elif isinstance(happening, Ends):
                self._ends(happening)
            elif isinstance(happening, Committed):
                self._committed(happening, mono_ms)
            else:
                self._input_failed(happening, mono_ms)
        return bool(happenings)

    def _read_journals(self, mono_ms: int) -> bool:
        happenings = self._clients.journals.poll()
        for happening in happenings:
            if isinstance(happening, Record):
                tenure = self.tenures.get(happening.partition)
                if tenure is not None and tenure.takeover is not None:
                    record = happening
                    self._guarded(
                        record.partition,
                        tenure.takeover.record,
                        record.offset,
                        record.timestamp_ms,
                        record.value,
                        mono_ms,
                    )
            elif isinstance(happening, Ends):
                takeover, what = happening.token
                offsets = None if happening.failure is not None else happening.offsets
                self._guarded(takeover.number, takeover.ends, what, offsets, mono_ms)
            elif isinstance(happening, ReadFailed):
                if happening.failure is Failure.FATAL:
                    raise RuntimeError(f"the journal reader is unusable: {happening.detail}")
                tenure = self.tenures.get(happening.partition)
                if tenure is not None and tenure.phase is Phase.TAKING_OVER:
                    self._journal_failed(tenure, happening, mono_ms)
        return bool(happenings)

    def _journal_failed(self, tenure: Tenure, failed: ReadFailed, mono_ms: int) -> None:
        if failed.failure is Failure.OUT_OF_RANGE:
            self._halt(tenure, f"the journal was cut or truncated where it must be read: {failed.detail}")
        else:
            self._end_epoch(tenure, mono_ms, f"the journal cannot be read: {failed.failure.value} {failed.detail}")

    def _input_failed(self, failed: ReadFailed, mono_ms: int) -> None:
        if failed.failure is Failure.FATAL:
            raise RuntimeError(f"the group member is unusable: {failed.detail}")
        tenure = self.tenures.get(failed.partition)
        if tenure is None or tenure.phase is not Phase.OWNING:
            return
        tenure.read_failures += 1
        reason = f"{failed.topic} cannot be read: {failed.failure.value} {failed.detail}"
        if failed.failure is Failure.OUT_OF_RANGE and tenure.read_failures >= MAX_READ_FAILURES:
            self._halt(tenure, f"{reason}; inputs that were not consumed are gone, or the topic was created anew")
        else:
            self._end_epoch(tenure, mono_ms, reason)

    def _ends(self, ends: Ends) -> None:
        number, partition = ends.token
        tenure = self.tenures.get(number)
        if tenure is None or tenure.partition is not partition or partition is None:
            return
        if ends.failure is not None:
            partition.ends_failed()
        else:
            partition.ends({self._roles[topic]: offset for (topic, _), offset in ends.offsets.items()})

    def _committed(self, committed: Committed, mono_ms: int) -> None:
        if committed.token is None:
            return
        tenure = self.tenures.get(committed.token)
        if tenure is None or tenure.phase is not Phase.PROVING:
            return
        if committed.failure is None:
            tenure.phase = Phase.WAITING
            tenure.begin_at_ms = mono_ms + int(self._heartbeat_ms * (0.5 + self._jitter()))
        else:
            tenure.begin_at_ms = mono_ms + 1_000

    # -- tenures

    def _grant(self, number: int, mono_ms: int) -> None:
        tenure = self.tenures.get(number)
        if tenure is None:
            tenure = self.tenures[number] = Tenure(number)
            tenure.begin_at_ms = mono_ms
        tenure.granted = True

    def _revoke(self, tenure: Tenure, mono_ms: int, *, lost: bool = False) -> None:
        tenure.granted = False
        if tenure.phase is Phase.OWNING and not lost:
            self._stop_inputs(tenure)
            tenure.phase = Phase.LEAVING
            tenure.leave_by_ms = mono_ms + LEAVE_WITHIN_MS
        elif tenure.phase is not Phase.LEAVING or lost:
            self._close(tenure)
            del self.tenures[tenure.number]

    def _advance(self, tenure: Tenure, mono_ms: int) -> None:
        if tenure.phase is Phase.OWNING:
            assert tenure.partition is not None
            self._guarded(tenure.number, tenure.partition.step, mono_ms)
            self._after_step(tenure)
        elif tenure.phase is Phase.WAITING and mono_ms >= tenure.begin_at_ms:
            self._begin(tenure, mono_ms)
        elif tenure.phase is Phase.TAKING_OVER:
            assert tenure.takeover is not None
            tenure.takeover.tick(mono_ms)
            if tenure.takeover.done:
                self._guarded(tenure.number, self._own, tenure, mono_ms)
        elif tenure.phase is Phase.PROVING and mono_ms >= tenure.begin_at_ms:
            tenure.begin_at_ms = mono_ms + 10_000
            self._prove(tenure)
        elif tenure.phase is Phase.LEAVING:
            self._go_on_leaving(tenure, mono_ms)

    def _begin(self, tenure: Tenure, mono_ms: int) -> None:
        try:
            tenure.store = self._stores.open(tenure.number)
            replica = Replica(tenure.store)
        except StoreBusy as busy:
            log.warning("partition %d: %s", tenure.number, busy)
            tenure.begin_at_ms = mono_ms + 1_000
            return
        except (StoreBroken, UnreadableRecord) as broken:
            self._wipe(tenure, mono_ms, str(broken))
            return
        tenure.phase = Phase.TAKING_OVER
        tenure.taken_over_ms = mono_ms
        tenure.takeover = Takeover(
            self.config.topics.journal,
            tenure.number,
            replica,
            self._clients.journals,
            self._clients.journal,
            self._owner,
        )

    def _own(self, tenure: Tenure, mono_ms: int) -> None:
        takeover = tenure.takeover
        assert takeover is not None
        takeover.close()
        tenure.takeover = None
        partition = Partition(
            tenure.number,
            self.config,
            takeover.replica,
            takeover.nonce,
            self._clients.journal,
            self._clients.outward,
            mono_ms,
            tenure.poison,
            self.counters,
            self.tally,
        )
        tenure.partition = partition
        tenure.phase = Phase.OWNING
        tenure.taken_over_ms = mono_ms - tenure.taken_over_ms
        self.counters["takeovers"] += 1
        self.counters["takeover_ms"] += tenure.taken_over_ms
        for role, topic in self._role_topics.items():
            self._clients.inputs.assign(topic, tenure.number, partition.intake.consumed(role))
        log.info("owning partition %d from journal offset %d", tenure.number, partition.progress.at.offset)

    def _after_step(self, tenure: Tenure) -> None:
        partition = tenure.partition
        if partition is None or tenure.phase is not Phase.OWNING:
            return
        if partition.asks_ends:
            partition.asks_ends = False
            asked = [(self._role_topics[role], tenure.number) for role in (REPLIES, INTERNAL, OPERATIONS)]
            self._clients.inputs.ask_ends(asked, (tenure.number, partition))
        if partition.congested != tenure.paused:
            tenure.paused = partition.congested
            change = self._clients.inputs.pause if tenure.paused else self._clients.inputs.resume
            change(self.config.topics.inbox, tenure.number)

    def _go_on_leaving(self, tenure: Tenure, mono_ms: int) -> None:
        partition = tenure.partition
        if partition is None:
            return
        self._guarded(tenure.number, partition.step, mono_ms)
        if tenure.partition is None:
            return
        if mono_ms < tenure.leave_by_ms:
            if not partition.quiet:
                return
            partition.mark()
            if partition.writer.pending:
                partition.writer.flush()
                return
        self._close(tenure)
        if tenure.granted and not self._leaving:
            tenure.phase, tenure.begin_at_ms = Phase.WAITING, mono_ms
        else:
            del self.tenures[tenure.number]

    def _guarded(self, number: int, call: Callable[..., Any], *arguments: Any) -> None:
        """Runs something for one partition; what goes wrong there ends its epoch and nobody else's."""
        tenure = self.tenures.get(number)
        mono_ms = self._mono_ms
        try:
            call(*arguments)
        except EpochLost as lost:
            if tenure is not None:
                self._end_epoch(tenure, mono_ms, str(lost))
        except JournalHalted as halted:
            if tenure is not None:
                self._halt(tenure, str(halted))
        except (StoreBroken, StoreStale) as broken:
            if tenure is not None:
                self._wipe(tenure, mono_ms, str(broken))
        except UnreadableRecord as unreadable:
            if tenure is not None:
                self._halt(tenure, str(unreadable))
        except Exception as error:
            if tenure is None or tenure.partition is None:
                raise
            log.exception("partition %d: an input or timer could not be decided", number)
            self._end_epoch(tenure, mono_ms, f"{type(error).__name__}: {error}")

    def _end_epoch(self, tenure: Tenure, mono_ms: int, reason: str) -> None:
        self.epochs_lost += 1
        log.warning("partition %d: epoch ended: %s", tenure.number, reason)
        leaving = tenure.phase is Phase.LEAVING
        self._close(tenure)
        if leaving:
            self.tenures.pop(tenure.number, None)
            return
        tenure.phase = Phase.PROVING
        tenure.begin_at_ms = mono_ms + 10_000
        self._prove(tenure)

    def _prove(self, tenure: Tenure) -> None:
        """Who lost an epoch shows first that the group still counts it in."""
        place = (self.config.topics.inbox, tenure.number)
        self._clients.inputs.commit({place: (0, "member")}, tenure.number)

    def _halt(self, tenure: Tenure, reason: str) -> None:
        log.critical("partition %d HALTED: %s", tenure.number, reason)
        self._close(tenure)
        tenure.phase = Phase.HALTED
        tenure.halted_because = reason

    def _wipe(self, tenure: Tenure, mono_ms: int, reason: str) -> None:
        tenure.wipes += 1
        self.counters["store_wipes"] += 1
        log.warning("partition %d: store wiped: %s", tenure.number, reason)
        self._close(tenure)
        if tenure.wipes > MAX_WIPES:
            self._halt(tenure, f"its store was wiped {MAX_WIPES} times and is broken again: {reason}")
            return
        self._stores.wipe(tenure.number)
        tenure.phase, tenure.begin_at_ms = Phase.WAITING, mono_ms

    def _stop_inputs(self, tenure: Tenure) -> None:
        for topic in self._role_topics.values():
            self._clients.inputs.unassign(topic, tenure.number)
        tenure.paused = False

    def _close(self, tenure: Tenure) -> None:
        if tenure.takeover is not None:
            tenure.takeover.close()
            tenure.takeover = None
        if tenure.partition is not None:
            if tenure.phase is Phase.OWNING:
                self._stop_inputs(tenure)
            tenure.partition.close()
            tenure.partition = None
        if tenure.store is not None:
            tenure.store.close()
            tenure.store = None

    def _commit_positions(self) -> None:
        """For lag tools and as a witness of the journal's content; never read for positions."""
        offsets = {}
        for tenure in self.tenures.values():
            partition = tenure.partition
            if partition is None or tenure.phase is not Phase.OWNING:
                continue
            at = partition.progress.at
            for role, topic in self._role_topics.items():
                position = at.input_positions.get(role, -1)
                if position >= 0:
                    witness = f"{at.offset}:{at.chain[:8].hex()}" if role == INBOX else ""
                    offsets[topic, tenure.number] = (position, witness)
        if offsets:
            self._clients.inputs.commit(offsets)
