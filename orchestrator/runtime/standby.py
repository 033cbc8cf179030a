"""Warm stores of partitions that others own: who is granted one of them begins near its journal's end.

A worker tails the journals of all partitions that it does not own, for nobody knows to whom the group will give those
of a worker that dies, and its members cannot tell the group. A standby is the worker's `Stores`: it hands a store over
when the engine opens it, and takes it up again once the engine has given its partition up. What it writes is what any
reader of the journal writes, so nobody has to trust it: the take-over checks the store as ever.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Lock

from orchestrator.errors import BUGS
from orchestrator.log.base import Ends, Failure, Reader, ReadFailed, Record
from orchestrator.model.rule import JournalHalted
from orchestrator.runtime.replica import Replica, StoreStale
from orchestrator.store.base import Store, StoreBroken, StoreBusy, StoreFull, Stores
from orchestrator.wire.avro import UnreadableRecord
from orchestrator.wire.stored import UnreadableEntry

log = logging.getLogger(__name__)

READ_AT_ONCE = 100
"""Records of one step, some 5 ms: the engine may wait so long for a store, and while some are flushed."""
LOOK_EVERY_MS = 250
"""How often a partition is taken up, one at a time: to open a store may take long, and nobody waits for that."""
FLUSH_EVERY_MS = 1_000
ASK_EVERY_MS = 10_000
AGAIN_MS = 60_000
"""After which a partition is taken up again that could not be followed."""
BUSY_MS = 1_000
"""After which a store is tried again that somebody else has open, or that is being restored."""
MAX_WARM = 500
"""Runs of one partition that stay in memory from one flush to the next."""


class _Tail:
    """One partition that is followed."""

    __slots__ = ("replica", "store")

    def __init__(self, store: Store) -> None:
        self.store = store
        self.replica = Replica(store)


class Standby:
    """A worker's stores. Those of the `partitions` that are not `owned` are kept near the end of their journals.

    `step` and `close` belong to one thread, `open` and `wipe` to the engine's. `lag` says how many records of each
    partition that is followed were unread when last asked.
    """

    def __init__(
        self,
        stores: Stores,
        new_reader: Callable[[], Reader],
        journal: str,
        partitions: int,
        owned: Callable[[int], bool],
    ) -> None:
        self.lag: dict[int, int] = {}
        self._stores = stores
        self._new_reader = new_reader
        self._reader = new_reader()
        self._journal = journal
        self._partitions = partitions
        self._owned = owned
        self._lock = Lock()
        self._tails: dict[int, _Tail] = {}
        self._not_before_ms: dict[int, int] = {}
        self._taking: int | None = None
        """The partition whose store is being opened, without the lock."""
        self._unusable = False
        self._look_at_ms = self._flush_at_ms = self._ask_at_ms = 0

    @property
    def followed(self) -> frozenset[int]:
        """The partitions whose stores are being kept warm."""
        return frozenset(self._tails)

    def next_offset(self, partition: int) -> int:
        """Of the journal record that is read next; 0 where the partition is not followed."""
        tail = self._tails.get(partition)
        return 0 if tail is None else tail.replica.next_offset

    def open(self, partition: int) -> Store:
        """As of the stores below, with all that was read. Raises `StoreBusy` while the standby itself opens it."""
        with self._lock:
            if partition == self._taking:
                raise StoreBusy(f"the store of partition {partition} is being opened by the standby")
            self._hand_over(partition)
            return self._stores.open(partition)

    def wipe(self, partition: int) -> None:
        with self._lock:
            self._hand_over(partition)
            self._stores.wipe(partition)

    def step(self, mono_ms: int) -> bool:
        """Reads on, takes up what the worker does not own. Whether there is more to do at once."""
        if self._unusable:
            self._reader, self._unusable = self._new_reader(), False
        with self._lock:
            happenings = self._reader.poll(READ_AT_ONCE)
            for happening in happenings:
                if isinstance(happening, Record):
                    self._follow(happening, mono_ms)
                elif isinstance(happening, Ends):
                    self._note_ends(happening)
                elif isinstance(happening, ReadFailed):
                    self._read_failed(happening, mono_ms)
            if mono_ms >= self._flush_at_ms:
                self._flush_at_ms = mono_ms + FLUSH_EVERY_MS
                for number in list(self._tails):
                    self._flush(number, mono_ms)
            if self._tails and mono_ms >= self._ask_at_ms:
                self._ask_at_ms = mono_ms + ASK_EVERY_MS
                self._reader.ask_ends([(self._journal, number) for number in self._tails], None)
        if mono_ms >= self._look_at_ms:
            self._look_at_ms = mono_ms + LOOK_EVERY_MS
            self._take_up(mono_ms)
        return len(happenings) >= READ_AT_ONCE

    def close(self) -> None:
        with self._lock:
            for number in list(self._tails):
                self._hand_over(number)
            self._reader.close()

    # -- one partition

    def _take_up(self, mono_ms: int) -> None:
        with self._lock:
            wanted = (number for number in range(self._partitions) if self._is_wanted(number, mono_ms))
            self._taking = number = next(wanted, None)
        if number is None:
            return
        store, tail = None, None
        broken: Exception | None = None
        try:
            store = self._stores.open(number)
            tail = _Tail(store)
        except StoreBusy:
            self._not_before_ms[number] = mono_ms + BUSY_MS
        except (StoreBroken, UnreadableRecord) as error:
            broken = error
        finally:
            with self._lock:
                self._taking = None
                if tail is not None and not self._owned(number):
                    self._tails[number] = tail
                    self._reader.assign(self._journal, number, tail.replica.first_offset)
                elif store is not None:
                    store.close()
                if broken is not None:
                    self._begin_anew(number, mono_ms, broken)

    def _is_wanted(self, number: int, mono_ms: int) -> bool:
        followed = number in self._tails or self._owned(number)
        return not followed and mono_ms >= self._not_before_ms.get(number, 0)

    def _follow(self, record: Record, mono_ms: int) -> None:
        tail = self._tails.get(record.partition)
        if tail is None:
            return
        try:
            tail.replica.feed(record.offset, record.timestamp_ms, record.value)
        except (StoreBroken, StoreStale, UnreadableEntry) as broken:
            self._begin_anew(record.partition, mono_ms, broken)
        except (JournalHalted, UnreadableRecord) as halted:
            self._give_up(record.partition, mono_ms, str(halted))
        except BUGS as error:
            log.exception("standby of partition %d", record.partition)
            self._give_up(record.partition, mono_ms, f"{type(error).__name__}: {error}")

    def _flush(self, number: int, mono_ms: int) -> None:
        replica = self._tails[number].replica
        try:
            replica.flush()
        except StoreBroken as broken:
            self._begin_anew(number, mono_ms, broken)
        if len(replica.executions) > MAX_WARM:
            replica.executions.clear()

    def _note_ends(self, ends: Ends) -> None:
        for (_, number), end in ends.offsets.items():
            if number in self._tails:
                self.lag[number] = max(0, end - self._tails[number].replica.next_offset)

    def _read_failed(self, failed: ReadFailed, mono_ms: int) -> None:
        if failed.failure is Failure.FATAL:
            log.warning("the standby's reader is unusable, another takes its place: %s", failed.detail)
            for number in list(self._tails):
                self._hand_over(number)
            self._reader.close()
            self._unusable = True
            self._look_at_ms = mono_ms + ASK_EVERY_MS
        elif failed.partition not in self._tails:
            return
        elif failed.failure is Failure.OUT_OF_RANGE:
            self._begin_anew(failed.partition, mono_ms, f"its journal was cut: {failed.detail}")
        else:
            self._give_up(failed.partition, mono_ms, f"{failed.failure.value} {failed.detail}")

    def _hand_over(self, number: int) -> None:
        """Somebody else opens the store: what was read goes into it before."""
        if number in self._tails:
            try:
                self._tails[number].replica.flush()
            except StoreBroken as broken:
                log.warning("standby of partition %d: what was read last is read again: %s", number, broken)
            self._let_go(number)

    def _let_go(self, number: int) -> None:
        """As the store stands: where a record could not be applied, what is in memory may be half of it."""
        tail = self._tails.pop(number)
        self.lag.pop(number, None)
        self._reader.unassign(self._journal, number)
        tail.store.close()

    def _give_up(self, number: int, mono_ms: int, reason: str) -> None:
        """For a while. Whoever owns the partition finds the same, and says what to do."""
        log.warning("standby of partition %d: not followed: %s", number, reason)
        if number in self._tails:
            self._let_go(number)
        self._not_before_ms[number] = mono_ms + AGAIN_MS

    def _begin_anew(self, number: int, mono_ms: int, reason: str | Exception) -> None:
        if isinstance(reason, StoreFull):
            self._give_up(number, mono_ms, str(reason))
            return
        self._give_up(number, mono_ms, f"its store is wiped: {reason}")
        try:
            self._stores.wipe(number)
        except StoreBroken as broken:
            log.warning("standby of partition %d: %s", number, broken)
