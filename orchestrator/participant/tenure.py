"""One participant's hold on one ledger partition, from its grant to its release.

1. Read the ledger to its end.
2. While a claim stands there that no release covers, wait for its release: that participant may still run handlers,
   and what they end with shall count. After the L + H of that claim (counted from the grant) none of them runs.
3. Once the group has confirmed the membership, append a claim and read up to it. Now the memory is exact, and nothing
   that an older claim's client still delivers will ever count.
4. If a claim came in between, wait for its release or L + H once more. Then handlers may start, under the lease.
5. Each outcome is appended and counts only when it is *confirmed*: all before it are, and its offset is
   claim + 1 + its number. Anything else (an error, no offset, a gap) ends the epoch, and all begins again at 1;
   outcomes that were not confirmed are kept and judged by what the ledger says then. Outcomes that come up while groups
   of them are under way wait, and leave together when one is confirmed.
6. At the end, when no handler runs any more, append a release.

Waiting comes before claiming, so that handlers which run while a partition moves still get their outcomes recorded.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from orchestrator.log.base import Delivery, Ends, Reader, Record
from orchestrator.participant.ledger import LedgerView
from orchestrator.participant.settings import DRIFT_PERCENT, ParticipantSettings
from orchestrator.participant.work import Work
from orchestrator.wire.avro import UnreadableRecord
from orchestrator.wire.ledger import Claim, Execution, Release, write_record

ENDS_TIMEOUT_MS = 5_000
"""A question for the ledger's end that was not answered so long is asked again."""

GROUP = 400
"""Outcomes in one group."""
GROUPS_UNDER_WAY = 2
"""One being written by the broker, one on its way. More would only make the groups smaller."""

LOCATE_INTERVAL_MS = 10
"""Between two looks whether the log's start is known."""


class Phase(Enum):
    LOCATING = "asks where the ledger begins"
    READING = "reads the ledger"
    WAITING = "waits for the handlers of the participant before"
    CLAIMING = "claims"
    CATCHING_UP = "reads up to its claim"
    HOLDING = "holds the partition"
    UNREADABLE = "found a record that it does not know"
    RELEASED = "has let go"


Append = Callable[[str, int, bytes | None, bytes | None, list[tuple[str, bytes]], Any], None]
"""Topic, partition, value, key, headers, and (function, argument), called with the argument and the delivery."""


LOGGER = logging.getLogger("orchestrator.participant")
_WAITS = (
    "%s, partition %d: a participant ended without saying so and its handlers may still run: no command is taken for "
    "%.0f s, its lease and the time limit of its handlers"
)


class LogStart(Protocol):
    """The offset at which a partition's log begins; None: not known yet, ask again. Does not block."""

    def __call__(self, topic: str, partition: int) -> int | None: ...


@dataclass(slots=True)
class Desk:
    """What a tenure works with: the log, the settings, and what the engine wants to hear."""

    reader: Reader
    append: Append
    log_start: LogStart
    ledger_topic: str
    owner: str
    new_nonce: Callable[[], bytes]
    settings: ParticipantSettings
    accepted: Callable[[Work], None]
    held: Callable[[int], None]
    """The memory of this partition has become exact."""
    lost: Callable[[int, str], None]
    now: Callable[[], int]
    nonces: set[bytes] = field(default_factory=set)
    """Those of all own claims: their handlers are known and need not be waited for."""
    waiting: list[Tenure] = field(default_factory=list)
    """Those that have outcomes to be sent."""

    def flush(self) -> None:
        """Sends what waits, as far as groups may be under way."""
        waiting, self.waiting = self.waiting, []
        for tenure in waiting:
            tenure.flush()


class Tenure:
    """See the module. `advance` moves it on; may be called at any time and often."""

    def __init__(self, desk: Desk, number: int, now_ms: int) -> None:
        self.desk = desk
        self.number = number
        self.phase = Phase.LOCATING
        self.view = LedgerView(desk.settings.retention_ms)
        self.unrecorded: deque[Work] = deque()
        """Ended, and their outcome is not confirmed, nor on its way."""
        self.clear = False
        """No handler of another claim runs any more."""
        self._since_ms = now_ms
        self._proven_ms = -1
        self._claim = -1
        self._claims: list[int] = []
        self._cleared = -1
        """The highest claim made here under which `clear` was reached."""
        self._nonce = b""
        self._next = 0
        self._queued: deque[tuple[int, Work]] = deque()
        self._sent: deque[tuple[int, Work]] = deque()
        self._groups: deque[int] = deque()
        """The last offset of each group under way."""
        self._target: int | None = None
        self._asked_ms = -ENDS_TIMEOUT_MS
        self._retry_ms = 0
        self.closing = False

    @property
    def unconfirmed(self) -> int:
        """Outcomes on their way to the ledger."""
        return len(self._queued) + len(self._sent)

    @property
    def exact(self) -> bool:
        """Whether the memory holds everything that counts, so that commands may be judged by it."""
        return self.phase is Phase.HOLDING

    def renewal_ms(self) -> int:
        """When the lease is to be renewed: well before it ends, and at once for a new claim."""
        return self._proven_ms + self.desk.settings.renew_interval_ms if self._proven_ms >= self._since_ms else 0

    def renewed(self, sent_ms: int) -> None:
        """The group took a commit for this partition that was sent at `sent_ms`: nobody else owned it then."""
        self._proven_ms = max(self._proven_ms, sent_ms)

    @property
    def lease_end_ms(self) -> int:
        """Until when handlers may be started."""
        return self._proven_ms + self.desk.settings.lease_ms if self._proven_ms >= 0 else -1

    def may_start(self, now_ms: int) -> bool:
        return self.clear and self.phase is Phase.HOLDING and now_ms < self.lease_end_ms

    def due_ms(self) -> int | None:
        """When `advance` has something to do that no news announces."""
        now_ms = self.desk.now()
        if self.phase is Phase.LOCATING:
            return max(self._retry_ms, now_ms + LOCATE_INTERVAL_MS)
        if self.phase is Phase.READING and self._target is None:
            return self._asked_ms + ENDS_TIMEOUT_MS
        if self.phase is Phase.WAITING or (self.phase is Phase.HOLDING and not self.clear):
            due_ms = max(self._clear_ms(), self._retry_ms)
            # Past that it waits for the answer to a commit.
            return due_ms if due_ms > now_ms else None
        return None

    def advance(self, now_ms: int) -> None:
        """Does what is to be done next, as far as it goes."""
        if self.phase is Phase.LOCATING and now_ms >= self._retry_ms:
            self._locate()
        if self.phase is Phase.READING:
            self._read_to_end()
        # Membership is proven after the epoch's begin: who was thrown out of the group does not claim.
        proven = self._proven_ms >= self._since_ms
        if self.phase is Phase.WAITING and proven and now_ms >= max(self._clear_ms(), self._retry_ms):
            self._append_claim()
        if self.phase is Phase.CATCHING_UP and self._target is not None and self.view.position >= self._target:
            self._hold()
        if self.phase is Phase.HOLDING and not self.clear:
            if self.view.current > self._claim:
                self._lose("another claim follows ours")
            elif now_ms >= self._clear_ms():
                self._clear()

    def _clear(self) -> None:
        self.clear = True
        self._cleared = self._claim
        # What was waited for once is over for good.
        nonces, claims = self.desk.nonces, self.view.open_claims
        self.view.open_claims = {offset: claim for offset, claim in claims.items() if claim.nonce in nonces}
        self.desk.reader.unassign(self.desk.ledger_topic, self.number)

    def _locate(self) -> None:
        start = self.desk.log_start(self.desk.ledger_topic, self.number)
        if start is None:
            return
        self.view.position = max(start, self.view.position)
        self._begin_reading()

    def _begin_reading(self) -> None:
        self.desk.reader.assign(self.desk.ledger_topic, self.number, self.view.position)
        self.phase = Phase.READING
        self._target = None
        self._asked_ms = self.desk.now() - ENDS_TIMEOUT_MS

    def _read_to_end(self) -> None:
        if self._target is None:
            if self.desk.now() >= self._asked_ms + ENDS_TIMEOUT_MS:
                self._asked_ms = self.desk.now()
                self.desk.reader.ask_ends([(self.desk.ledger_topic, self.number)], (self._ends, None))
        elif self.view.position >= self._target:
            self.phase = Phase.WAITING
            self._retry_ms = 0
            wait_ms = self._clear_ms() - self.desk.now()
            if wait_ms > 0:
                LOGGER.warning(_WAITS, self.desk.ledger_topic, self.number, wait_ms / 1000)

    def _ends(self, _: None, ends: Ends) -> None:
        if self.phase is Phase.READING and self._target is None:
            # Without an answer, it is asked again after the timeout.
            self._target = ends.offsets.get((self.desk.ledger_topic, self.number))

    def _clear_ms(self) -> int:
        """From when on no handler of another claim can run: 0 if there is none to wait for."""
        waits = [claim.wait_ms for claim in self.view.open_claims.values() if claim.nonce not in self.desk.nonces]
        return self._since_ms + max(waits) * (100 + DRIFT_PERCENT) // 100 if waits else 0

    def _append_claim(self) -> None:
        settings = self.desk.settings
        self._nonce = self.desk.new_nonce()
        self.desk.nonces.add(self._nonce)
        claim = Claim(self._nonce, self.desk.owner, settings.lease_ms, settings.handler_limit_ms)
        self.phase = Phase.CLAIMING
        self.desk.append(
            self.desk.ledger_topic, self.number, write_record(claim), None, [], (self._claimed, self._nonce)
        )

    def _claimed(self, nonce: bytes, delivery: Delivery) -> None:
        if self.phase is Phase.RELEASED and delivery.offset is not None and delivery.failure is None:
            # The partition was taken away meanwhile; nobody shall wait for handlers that never were.
            self._append_release(Release(delivery.offset, False))
        if self.phase is not Phase.CLAIMING or nonce != self._nonce:
            return
        if delivery.failure is not None or delivery.offset is None:
            # It may have landed, or still will: the next one has a nonce of its own.
            self.phase = Phase.WAITING
            self._retry_ms = self.desk.now() + self.desk.settings.retry_interval_ms
            return
        self._claim = delivery.offset
        self._claims.append(delivery.offset)
        self._next = delivery.offset + 1
        self._target = delivery.offset + 1
        self.phase = Phase.CATCHING_UP

    def _hold(self) -> None:
        seen = self.view.open_claims.get(self._claim)
        if self.view.current != self._claim or seen is None or seen.nonce != self._nonce:
            self._lose("another claim follows ours")
            return
        self.phase = Phase.HOLDING
        self.desk.held(self.number)

    def read(self, record: Record) -> None:
        """A record of the ledger partition."""
        if self.phase is Phase.UNREADABLE or record.offset < self.view.position:
            return
        try:
            self.view.apply(record)
        except UnreadableRecord as error:
            # A newer participant may own the partition: claim nothing, answer nothing.
            self._lose(f"offset {record.offset}: {error}")
            self.phase = Phase.UNREADABLE
            self.desk.reader.unassign(self.desk.ledger_topic, self.number)

    def read_failed(self) -> None:
        """Reading the ledger stopped; it begins again at the log's start, where that has moved."""
        if self.phase in (Phase.UNREADABLE, Phase.RELEASED) or (self.phase is Phase.HOLDING and self.clear):
            return
        if self.phase is Phase.HOLDING:
            self._lose("the ledger cannot be read")
        self.phase = Phase.LOCATING
        self._retry_ms = self.desk.now() + self.desk.settings.retry_interval_ms

    def record(self, work: Work) -> None:
        """The outcome of a work: it leaves with the next flush, and counts when `accepted` is called."""
        if self.phase is not Phase.HOLDING:
            if not self.closing:
                self.unrecorded.append(work)
            return
        if not self._queued:
            self.desk.waiting.append(self)
        self._queued.append((self._next, work))
        self._next += 1

    def flush(self) -> None:
        """Sends the waiting outcomes as groups, as far as groups may be under way."""
        queued, append, topic = self._queued, self.desk.append, self.desk.ledger_topic
        while queued and len(self._groups) < GROUPS_UNDER_WAY:
            for _ in range(min(GROUP, len(queued))):
                offset, work = sent = queued.popleft()
                self._sent.append(sent)
                token = (self._confirm, (self._claim, offset))
                append(topic, self.number, _outcome(self._claim, work), None, [], token)
            self._groups.append(self._sent[-1][0])

    def _confirm(self, expected: tuple[int, int], delivery: Delivery) -> None:
        claim, offset = expected
        if claim != self._claim or self.phase is not Phase.HOLDING:
            return
        if delivery.failure is not None or delivery.offset != offset or self._sent[0][0] != offset:
            self._lose(f"offset {offset}: {delivery.failure} {delivery.offset} {delivery.detail}")
            return
        work = self._sent.popleft()[1]
        self._make_room(offset)
        command = work.command
        reply = work.reply
        assert reply is not None
        self.view.memory.note(work.unit, command.direction == "undo", command.attempt, reply, delivery.timestamp_ms)
        self.desk.accepted(work)

    def _make_room(self, offset: int) -> None:
        """What stands at `offset` is confirmed: if it ends a group, the next one may leave."""
        if self._groups[0] == offset:
            self._groups.popleft()
            if self._queued:
                self.desk.waiting.append(self)

    def _lose(self, why: str) -> None:
        """The epoch is over; all begins again, unless the partition is given up anyway."""
        if not self.closing:
            self.unrecorded.extend(work for _, work in (*self._sent, *self._queued))
        self._sent.clear()
        self._queued.clear()
        self._groups.clear()
        self._claim = -1
        self._since_ms = self.desk.now()
        self.clear = False
        self.desk.lost(self.number, why)
        if self.closing:
            self.phase = Phase.WAITING
        else:
            self._begin_reading()

    def release(self) -> None:
        """No handler runs any more and none will: says so in the ledger, for each claim made here."""
        nonces = self.desk.nonces
        own = {offset for offset, claim in self.view.open_claims.items() if claim.nonce in nonces} | set(self._claims)
        # What was cleared had waited for all before it.
        bodies = [Release(claim, claim == self._cleared) for claim in sorted(own) if claim >= self._cleared]
        if self.phase is not Phase.UNREADABLE:
            for body in bodies:
                self._append_release(body)
        self.desk.reader.unassign(self.desk.ledger_topic, self.number)
        self.phase = Phase.RELEASED

    def _append_release(self, body: Release) -> None:
        self.desk.append(self.desk.ledger_topic, self.number, write_record(body), None, [], (self._released, None))

    def _released(self, _: None, delivery: Delivery) -> None:
        """Whatever became of it: without it, the next owner waits."""


def _outcome(claim: int, work: Work) -> bytes:
    """The ledger record of a work that has ended."""
    command, reply = work.command, work.reply
    assert reply is not None
    unit = command.saga_id, command.run, command.sequence
    return write_record(Execution(claim, *unit, command.direction == "undo", command.attempt, reply))
