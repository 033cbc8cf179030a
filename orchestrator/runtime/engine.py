"""All partitions of one worker: what the group grants is taken over, what it revokes is handed back.

The group decides who should own a partition, the journal alone who does. `step` does everything there is to do and
returns; the worker's loop and the simulator call it alike.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.errors import BUGS, Disconnected
from orchestrator.log.base import Committed, Ends, Failure, Granted, Passed, ReadFailed, Record, Revoked, TopicPartition
from orchestrator.log.gathered import GatheredAppender
from orchestrator.model.rule import JournalHalted
from orchestrator.model.state import SagaState
from orchestrator.runtime.claim_watch import ClaimWatch
from orchestrator.runtime.clients import Clients
from orchestrator.runtime.identity import recreated
from orchestrator.runtime.journal_writer import EpochLost
from orchestrator.runtime.lifecycle import Feed
from orchestrator.runtime.local_steps import InlineRunner, LocalSteps, Runner
from orchestrator.runtime.materialize import load_state
from orchestrator.runtime.partition import Partition
from orchestrator.runtime.partition_config import PartitionConfig
from orchestrator.runtime.replica import Replica, StoreStale
from orchestrator.runtime.takeover import Owner, Places, Takeover
from orchestrator.runtime.tally import Tally
from orchestrator.runtime.tenure import Phase, Tenure
from orchestrator.runtime.trimmer import Holdings
from orchestrator.store.base import StoreBroken, StoreBusy, StoreFull, Stores
from orchestrator.wire.avro import UnreadableRecord
from orchestrator.wire.inputs import input_topics
from orchestrator.wire.stored import UnreadableEntry

log = logging.getLogger(__name__)

COMMIT_EVERY_MS = 1_000
READ_AT_ONCE = 500
MANY, SOON_MS = 1_000, 2
"""Nothing tells that effects were acknowledged. Where there are many, or others wait for it, one looks this often."""
LEAVE_WITHIN_MS = 2_000
"""How long a graceful hand-over waits for what is unconfirmed."""
MAX_WIPES = 3
"""Stores of one partition that may turn out broken before the partition is set aside for an operator."""
FULL_AGAIN_MS = 10_000
"""After which a partition is taken over again whose store could not be written for want of room."""
MAX_READ_FAILURES = 3
"""Times an input topic may turn out unreadable, with nothing of it read in between, before the partition halts."""


class Engine:
    """The partitions of one worker. `jitter` gives a number from 0 to 1, to keep two owners from claiming in turns.

    `runner` calls the functions of local steps, without one in the engine's own thread.

    `feeds` gets a feed for each partition that is owned, for `Lifecycle`; None where nobody publishes. `holdings` is
    replaced every second and `topic_ids` may be at any time: so other threads hear and tell.
    """

    def __init__(
        self,
        config: PartitionConfig,
        clients: Clients,
        stores: Stores,
        owner: Owner,
        jitter: Callable[[], float],
        heartbeat_ms: int = 500,
        feeds: dict[int, Feed] | None = None,
        runner: Runner | None = None,
    ) -> None:
        self.config = config
        self.local = LocalSteps(runner or InlineRunner())
        self.holdings = Holdings({}, frozenset())
        self.lag: Mapping[tuple[int, str], int] = {}
        self.topic_ids: Mapping[str, str] = {}
        """The ids that the topics were last seen to have; a partition made for others is halted."""
        self.altered = ""
        """What was changed about the topics that no partition can go on with, and what to do; set by other threads."""
        self.tenures: dict[int, Tenure] = {}
        self.epochs_lost = 0
        self.counters: Counter[str] = Counter()
        self.tally = Tally()
        self._clients = clients
        self._journal = GatheredAppender(clients.journal)
        self._outward = GatheredAppender(clients.outward)
        self._stores = stores
        self._owner = owner
        self._jitter = jitter
        self._heartbeat_ms = heartbeat_ms
        self._feeds = feeds
        self._compared: Mapping[str, str] = self.topic_ids
        topics = config.topics
        self._role_topics = input_topics(topics)
        self._roles = {topic: role for role, topic in self._role_topics.items()}
        # The first question has to find the group's coordinator: by the first take-over it is known.
        clients.inputs.ask_committed([(topics.inbox, 0)], None)
        self._commit_at_ms = 0
        self._leaving = False
        self._mono_ms = 0

    def step(self, mono_ms: int) -> bool:
        """Everything there is to do now. Returns whether there is more, though nothing new may come."""
        self._mono_ms = mono_ms
        read = max(self._read_inputs(mono_ms), self._read_journals(mono_ms))
        happened, more = read > 0, read >= READ_AT_ONCE
        for appender in (self._journal, self._outward):
            for delivery in appender.poll():
                happened = True
                if delivery.failure is Failure.FATAL:
                    raise Disconnected(f"the worker's producer is unusable, start it again: {delivery.detail}")
                target, what = delivery.token
                self._guarded(target.number, target.delivered, what, delivery, mono_ms)
            appender.send()
        happened |= self.local.step(self._guarded)
        for tenure in list(self.tenures.values()):
            partition, before = tenure.partition, tenure.phase
            if partition is None or before is not Phase.OWNING or not partition.rests(mono_ms):
                self._advance(tenure, mono_ms)
                self._journal.send()
                self._outward.send()
                more |= tenure.partition is not None and tenure.partition.ready
                # Who takes over or leaves goes from one thing to the next.
                more |= tenure.phase is not before or (happened and before is not Phase.OWNING)
            if self._feeds is not None:
                more |= self._resolve(tenure)
        more |= self.local.ready
        if self.topic_ids is not self._compared or self.altered:
            self._compare_topics()
        if mono_ms >= self._commit_at_ms:
            self._commit_at_ms = mono_ms + COMMIT_EVERY_MS
            self._commit_positions(mono_ms)
        return more

    def next_due_in_ms(self, mono_ms: int, limit_ms: int) -> int:
        """How long the caller may wait for something to happen, at most `limit_ms`."""
        tenures = self.tenures.values()
        owned = [each.partition for each in tenures if each.phase is Phase.OWNING and each.partition]
        awaited = any(each.phase is Phase.LEAVING for each in tenures) or any(each.intake.blocked for each in owned)
        if self._outward.waiting or self._outward.pending >= (1 if awaited else MANY):
            limit_ms = min(limit_ms, SOON_MS)
        return min([limit_ms, *(partition.due_in_ms(mono_ms) for partition in owned)])

    def leave(self, mono_ms: int) -> None:
        """Begins to hand everything back; `left` tells when it is done."""
        self._leaving = True
        for tenure in list(self.tenures.values()):
            self._revoke(tenure, mono_ms)

    @property
    def left(self) -> bool:
        return self._leaving and not self.tenures

    # -- what the log says

    def _read_inputs(self, mono_ms: int) -> int:
        happenings = self._clients.inputs.poll(READ_AT_ONCE)
        for happening in happenings:
            if isinstance(happening, (Record, Passed)):
                tenure = self.tenures.get(happening.partition)
                if tenure is not None and tenure.partition is not None and tenure.phase is Phase.OWNING:
                    if tenure.unreadable:
                        tenure.unreadable.pop(happening.topic, None)
                    tenure.partition.take(self._roles[happening.topic], happening)
            elif isinstance(happening, Granted):
                for _, number in happening.partitions:
                    self._grant(number, mono_ms)
            elif isinstance(happening, Revoked):
                for _, number in happening.partitions:
                    if number in self.tenures:
                        self._revoke(self.tenures[number], mono_ms, lost=happening.lost)
            elif isinstance(happening, Ends):
                self._ends(happening, mono_ms)
            elif isinstance(happening, Committed):
                self._committed(happening, mono_ms)
            else:
                self._input_failed(happening, mono_ms)
        return len(happenings)

    def _read_journals(self, mono_ms: int) -> int:
        happenings = self._clients.journals.poll(READ_AT_ONCE)
        for happening in happenings:
            if isinstance(happening, Record):
                tenure = self.tenures.get(happening.partition)
                if tenure is not None and tenure.takeover is not None:
                    at = happening
                    self._guarded(at.partition, tenure.takeover.record, at.offset, at.timestamp_ms, at.value, mono_ms)
            elif isinstance(happening, Ends):
                asker, what = happening.token  # a take-over or a watch
                offsets = None if happening.failure is not None else happening.offsets
                self._guarded(asker.number, asker.ends, what, offsets, mono_ms)
            elif isinstance(happening, ReadFailed):
                if happening.failure is Failure.FATAL:
                    raise Disconnected(f"the worker's reader is unusable, start it again: {happening.detail}")
                tenure = self.tenures.get(happening.partition)
                if tenure is not None and tenure.phase is Phase.TAKING_OVER:
                    self._journal_failed(tenure, happening, mono_ms)
        return len(happenings)

    def _journal_failed(self, tenure: Tenure, failed: ReadFailed, mono_ms: int) -> None:
        if failed.failure is Failure.OUT_OF_RANGE and tenure.takeover is not None:
            self._guarded(tenure.number, tenure.takeover.out_of_range)
        else:
            self._end_epoch(tenure, mono_ms, f"the journal cannot be read: {failed.failure.value} {failed.detail}")

    def _input_failed(self, failed: ReadFailed, mono_ms: int) -> None:
        if failed.failure is Failure.FATAL:
            raise Disconnected(f"the worker's group member is unusable, start it again: {failed.detail}")
        if failed.partition < 0:
            raise Disconnected(f"the worker may not own partitions: {failed.detail}")
        tenure = self.tenures.get(failed.partition)
        if tenure is None or tenure.phase is not Phase.OWNING:
            return
        tenure.unreadable[failed.topic] += 1
        reason = f"{failed.topic} cannot be read: {failed.failure.value} {failed.detail}"
        if failed.failure is Failure.OUT_OF_RANGE and tenure.unreadable[failed.topic] >= MAX_READ_FAILURES:
            self._halt(tenure, f"{reason}; inputs that were not consumed are gone, or the topic was created anew")
        else:
            self._end_epoch(tenure, mono_ms, reason)

    def _ends(self, ends: Ends, mono_ms: int) -> None:
        if ends.token is None:
            return
        number, partition = ends.token
        if isinstance(number, Takeover):
            self._guarded(number.number, number.witnessed, ends, mono_ms)
            return
        tenure = self.tenures.get(number)
        if tenure is None or tenure.partition is not partition or partition is None:
            return
        offsets = {self._roles[topic]: offset for (topic, _), offset in ends.offsets.items()}
        partition.ends(None if ends.failure is not None else offsets)

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
            assert tenure.partition is not None
            tenure.partition.local.leaving = True
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
        except (StoreBusy, StoreFull) as unusable:
            log.warning("partition %d: %s", tenure.number, unusable)
            tenure.begin_at_ms = mono_ms + (1_000 if isinstance(unusable, StoreBusy) else FULL_AGAIN_MS)
            return
        except (StoreBroken, UnreadableRecord) as broken:
            self._wipe(tenure, mono_ms, str(broken))
            return
        tenure.phase = Phase.TAKING_OVER
        tenure.taken_over_ms = mono_ms
        topics, clients = self.config.topics, self._clients
        places = Places(topics.journal, topics.inbox, clients.journals, clients.inputs, self._journal)
        tenure.takeover = Takeover(tenure.number, replica, self._owner, places)

    def _own(self, tenure: Tenure, mono_ms: int) -> None:
        takeover = tenure.takeover
        assert takeover is not None
        self._end_takeover(tenure, takeover)
        partition = Partition(
            tenure.number,
            self.config,
            takeover.replica,
            takeover.nonce,
            self._journal,
            self._outward,
            mono_ms,
            tenure.poison,
            self.counters,
            self.tally,
            self.local,
        )
        tenure.partition = partition
        tenure.watch = ClaimWatch(partition, self._clients.journals, mono_ms)
        tenure.phase = Phase.OWNING
        tenure.topic_ids = takeover.topic_ids
        if self._feeds is not None:
            progress = partition.progress
            at = progress.at
            partition.feed = Feed(tenure.number, takeover.nonce, at.offset, progress.nonces, at.incarnation)
            self._feeds[tenure.number] = partition.feed
        tenure.taken_over_ms = mono_ms - tenure.taken_over_ms
        self.counters["takeovers"] += 1
        self.counters["takeover_ms"] += tenure.taken_over_ms
        for role, topic in self._role_topics.items():
            self._clients.inputs.assign(topic, tenure.number, partition.intake.consumed(role))
        partition.begin(takeover.replica)
        log.info("owning partition %d from journal offset %d", tenure.number, partition.progress.at.offset)

    def _after_step(self, tenure: Tenure) -> None:
        partition = tenure.partition
        if partition is None or tenure.phase is not Phase.OWNING:
            return
        if partition.timers.asks_ends:
            partition.timers.asks_ends = False
            asked = [(topic, tenure.number) for topic in self._role_topics.values()]
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
        if tenure.partition is not None and mono_ms < tenure.leave_by_ms:
            if not partition.quiet:
                return
            self._guarded(tenure.number, partition.mark)
        if tenure.partition is None:
            if self.tenures.get(tenure.number) is tenure and not (tenure.granted and not self._leaving):
                del self.tenures[tenure.number]
            return
        if mono_ms < tenure.leave_by_ms and partition.writer.pending:
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
        except StoreFull as full:
            if tenure is not None:
                self._end_epoch(tenure, mono_ms, str(full), FULL_AGAIN_MS)
        except (StoreBroken, StoreStale, UnreadableEntry) as broken:
            if tenure is not None:
                self._wipe(tenure, mono_ms, str(broken))
        except UnreadableRecord as unreadable:
            if tenure is not None:
                self._halt(tenure, str(unreadable))
        except BUGS as error:
            if tenure is None:
                raise
            log.exception("partition %d: an input or timer could not be decided", number, extra={"partition": number})
            self._end_epoch(tenure, mono_ms, f"{type(error).__name__}: {error}")

    def _end_epoch(self, tenure: Tenure, mono_ms: int, reason: str, pause_ms: int = 0) -> None:
        self.epochs_lost += 1
        log.warning("partition %d: epoch ended: %s", tenure.number, reason, extra={"partition": tenure.number})
        leaving = tenure.phase is Phase.LEAVING
        self._close(tenure)
        if leaving and (self._leaving or not tenure.granted):
            self.tenures.pop(tenure.number, None)
            return
        tenure.phase = Phase.PROVING
        tenure.begin_at_ms = mono_ms + (pause_ms or 10_000)
        if not pause_ms:
            self._prove(tenure)

    def _prove(self, tenure: Tenure) -> None:
        """Who lost an epoch shows first that the group still counts it in, by a commit that says nothing new."""
        place = (self.config.topics.inbox, tenure.number)
        self._clients.inputs.commit({place: tenure.committed}, tenure.number)

    def _halt(self, tenure: Tenure, reason: str) -> None:
        log.critical("partition %d HALTED: %s", tenure.number, reason, extra={"partition": tenure.number})
        self._close(tenure)
        tenure.phase = Phase.HALTED
        tenure.halted_because = reason

    def _wipe(self, tenure: Tenure, mono_ms: int, reason: str) -> None:
        tenure.wipes += 1
        self.counters["store_wipes"] += 1
        log.warning("partition %d: store wiped: %s", tenure.number, reason, extra={"partition": tenure.number})
        self._close(tenure)
        if tenure.wipes > MAX_WIPES:
            what = f"its store was wiped {MAX_WIPES} times and is broken again: {reason}"
            self._halt(tenure, f"{what}. Look after the disk, then start the worker again")
            return
        self._stores.wipe(tenure.number)
        tenure.phase, tenure.begin_at_ms = Phase.WAITING, mono_ms

    def _stop_inputs(self, tenure: Tenure) -> None:
        for topic in self._role_topics.values():
            self._clients.inputs.unassign(topic, tenure.number)
        tenure.paused = False

    def _close(self, tenure: Tenure) -> None:
        if tenure.takeover is not None:
            self._end_takeover(tenure, tenure.takeover)
        if tenure.partition is not None:
            if tenure.phase is Phase.OWNING:
                self._stop_inputs(tenure)
            tenure.partition.close()
            tenure.partition = tenure.watch = None
            if self._feeds is not None:
                self._feeds.pop(tenure.number, None)
        if tenure.store is not None:
            tenure.store.close()
            tenure.store = None

    def _end_takeover(self, tenure: Tenure, takeover: Takeover) -> None:
        takeover.close()
        tenure.takeover = None
        tenure.committed = takeover.committed or tenure.committed

    def _commit_positions(self, mono_ms: int) -> None:
        offsets: dict[TopicPartition, tuple[int, str]] = {}
        confirmed = {}
        for tenure in self.tenures.values():
            if tenure.phase is Phase.OWNING and tenure.partition is not None and tenure.watch is not None:
                offsets |= tenure.positions_to_commit(tenure.partition, self._role_topics)
                confirmed[tenure.number] = dict(tenure.partition.progress.at.input_positions)
                tenure.watch.tick(mono_ms)
        if offsets:
            self._clients.inputs.commit(offsets)
        self.holdings = Holdings(confirmed, frozenset(service for service, _, _ in self.tally.steps if service))

    # -- for other threads

    def _resolve(self, tenure: Tenure) -> bool:
        partition = tenure.partition
        feed = None if partition is None else partition.feed
        if partition is None or feed is None or feed.gap is None or not feed.gap.unresolved:
            return False

        def find(saga_id: str, run: str) -> SagaState | None:
            execution = partition.runs.live.get(saga_id)
            state = load_state(partition.store, saga_id) if execution is None else execution.state
            return state if state is not None and state.run == run else None

        self._guarded(tenure.number, feed.resolve, find)
        return True

    def _compare_topics(self) -> None:
        self._compared = current = self.topic_ids
        for tenure in list(self.tenures.values()):
            problem = self.altered or (recreated(tenure.topic_ids, current) if tenure.phase is Phase.OWNING else "")
            if problem and tenure.phase not in (Phase.HALTED, Phase.LEAVING):
                self._halt(tenure, problem)
