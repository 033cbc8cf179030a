"""The way in: records of the four input topics become inputs, in the order of each topic; bad ones become dead letters.

A bad record holds its topic's partition back until its dead letter is acknowledged, a few milliseconds: so its position
never passes it before it can be found again, and nothing after it is consumed twice.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.log.base import Appender, Delivery, Failure, LogFull, Passed, Record
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.budget import MAX_BYTES
from orchestrator.model.ids import partition_of
from orchestrator.wire import headers as h
from orchestrator.wire.dead_letters import SHORTENED, dead_letter_headers
from orchestrator.wire.headers import MalformedMessage, read_headers
from orchestrator.wire.inputs import INBOX, INTERNAL, OPERATIONS, REPLIES, ROLES, Passage, read_input, read_passage

if TYPE_CHECKING:
    from orchestrator.runtime.partition_config import PartitionConfig

RETRY_MS = 500
"""The pause before a dead letter is sent again that its topic did not take."""
_ORDER = (OPERATIONS, INTERNAL, REPLIES, INBOX)
"""Who goes first: operators never queue behind starts, and what is under way not behind what is new."""

Given = msg.Input | msg.SetPauseRule | msg.Query
"""What a record may be."""


@dataclass(slots=True)
class Taken:
    """One record as read: an input for this partition, or one to forward to `target`."""

    role: str
    record: Record
    input: Given | None
    saga_id: str
    passage: Passage | None = None
    target: int | None = None
    token: str = ""
    forwarded_headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(slots=True, eq=False)
class DeadLetter:
    """A dead letter under way; its role's partition waits for it. Not `whole`: the topic did not take it like that."""

    role: str
    record: Record
    reason: str
    kind: str
    passage: Passage | None
    saga_id: str = ""
    refusal: ev.AttachRefused | None = None
    """What the rejected start's sender is told, to be journaled."""
    poison: Given | None = None
    """What was taken and could not be decided: once this stands, its saga is set aside."""
    whole: bool = True
    retry_at_ms: int = 0


def decision_of(
    at_ms: int, saga_id: str, run: str, events: tuple[ev.Event, ...], message_id: str, taken: Taken | DeadLetter | None
) -> ev.Decision:
    """What a record caused or, without one, an input of the engine's own."""
    if taken is None:
        return ev.Decision(saga_id, run, at_ms, events, message_id)
    passage = (-1, -1) if taken.passage is None else (taken.passage.source, taken.passage.counter)
    return ev.Decision(saga_id, run, at_ms, events, message_id, taken.role, taken.record.offset, *passage)


def forwarding_of(at_ms: int, taken: Taken, sent: dict[str, int]) -> ev.Decision:
    """That a record goes on to another partition, by the next number of those sent there, which it counts."""
    assert taken.target is not None
    counter = sent[str(taken.target)] = sent.get(str(taken.target), 0) + 1
    value = taken.record.value or b""
    event = ev.InputForwarded(taken.target, counter, taken.role, value, taken.forwarded_headers)
    return decision_of(at_ms, taken.saga_id, "", (event,), "", taken)


class Intake:
    """The four queues of a partition. `positions` are the next offsets to take, as the journal will record them."""

    def __init__(
        self,
        number: int,
        config: PartitionConfig,
        positions: Mapping[str, int],
        internal_taken: dict[str, int],
        token: Any,
        outward: Appender,
        counters: Counter[str] | None = None,
    ) -> None:
        self.positions = {role: positions.get(role, -1) for role in ROLES}
        self.waiting = 0
        self.waiting_bytes = 0
        self.counters: Counter[str] = Counter() if counters is None else counters
        self._number = number
        self._config = config
        self._taken = {int(source): counter for source, counter in internal_taken.items()}
        self._token = token
        self._outward = outward
        self._queues: dict[str, deque[Record | Passed]] = {role: deque() for role in ROLES}
        self._blocked: dict[str, DeadLetter] = {}
        self._unsent: deque[DeadLetter] = deque()
        self._now_ms = 0

    def put(self, role: str, record: Record | Passed) -> None:
        """Queues a record, or that offsets without any were passed: the position goes there when all before is done.

        The first one of a topic that was never read tells where it begins.
        """
        if self.positions[role] < 0:
            self.positions[role] = record.offset
        self._queues[role].append(record)
        self.waiting += 1
        if isinstance(record, Record):
            self.waiting_bytes += len(record.value or b"")

    def depths(self) -> dict[str, int]:
        """How many records of each topic wait."""
        return {role: len(queue) for role, queue in self._queues.items()}

    def consumed(self, role: str) -> int:
        """The offset up to which the topic is consumed."""
        return max(0, self.positions[role])

    def next(self) -> Taken | None:
        """The next record that can be decided; bad ones on the way go to the dead letters."""
        for role in _ORDER if self.waiting else ():
            queue = self._queues[role]
            while queue and role not in self._blocked:
                record = queue.popleft()
                self.waiting -= 1
                if isinstance(record, Passed):
                    self.positions[role] = record.offset
                    continue
                self.waiting_bytes -= len(record.value or b"")
                taken = self._read(role, record)
                if taken is not None:
                    return taken
        return None

    def next_due_ms(self) -> int | None:
        """When `tick` may have something to do."""
        return self._unsent[0].retry_at_ms if self._unsent else None

    @property
    def ready(self) -> bool:
        """Whether `next` may have something now."""
        return self.waiting > 0 and any(queue and role not in self._blocked for role, queue in self._queues.items())

    @property
    def blocked(self) -> bool:
        """Whether something waits until a dead letter is acknowledged."""
        return bool(self._blocked)

    def done(self, taken: Taken | DeadLetter) -> None:
        """The record is decided: its position goes along with the next journal record."""
        self.positions[taken.role] = taken.record.offset + 1
        if taken.passage is not None:
            self._taken[taken.passage.source] = taken.passage.counter

    def reject(
        self,
        taken: Taken,
        reason: str,
        kind: str,
        refusal: ev.AttachRefused | None = None,
        *,
        poison: Given | None = None,
    ) -> None:
        """Sends the record to the dead letters."""
        letter = DeadLetter(taken.role, taken.record, reason, kind, taken.passage, taken.saga_id, refusal)
        letter.poison = poison
        self._reject(letter)

    def dead_letter_delivered(self, letter: DeadLetter, delivery: Delivery) -> bool:
        """Goes on behind an acknowledged dead letter, and says so; one that failed is sent again by a later `tick`."""
        if delivery.failure is not None:
            if letter.whole and delivery.failure is Failure.TOO_LARGE:
                # The reason and the place are worth more than the bytes: nothing may hold the topic for ever.
                letter.whole = False
            else:
                letter.retry_at_ms = self._now_ms + RETRY_MS
            self._unsent.append(letter)
            return False
        self.counters["dead_letters"] += 1
        del self._blocked[letter.role]
        self.positions[letter.role] = letter.record.offset + 1
        if letter.passage is not None:
            self._taken[letter.passage.source] = letter.passage.counter
        return True

    def _read(self, role: str, record: Record) -> Taken | None:
        passage: Passage | None = None
        try:
            headers = read_headers(record.headers, h.MAX_HEADER_BYTES + (h.PASSAGE_BYTES if role == INTERNAL else 0))
            if role == INTERNAL:
                passage = read_passage(headers)
                if not self._is_next(passage):
                    self.positions[role] = record.offset + 1
                    return None
            given = read_input(role, record, headers)
            _check_address(given, self._config.topics.answers)
        except MalformedMessage as error:
            self._reject(DeadLetter(role, record, str(error), "MalformedMessage", passage))
            return None
        if isinstance(given, msg.SetPauseRule):
            return Taken(role, record, given, "")
        target = partition_of(given.saga_id, self._config.partitions)
        if target == self._number:
            return Taken(role, record, given, given.saga_id, passage, None, _token(headers))
        if role == INTERNAL:
            reason = f"it belongs to partition {target} and was forwarded before"
            self._reject(DeadLetter(role, record, reason, "Misrouted", passage))
            return None
        if len(record.value or b"") > MAX_BYTES:
            reason = f"{len(record.value or b'')} bytes are too many to forward to partition {target}"
            reply_to = getattr(given, "reply_to", None)
            refusal = None if reply_to is None else ev.AttachRefused(reply_to, ev.Refusal.REJECTED, reason)
            self._reject(DeadLetter(role, record, reason, "TooLarge", None, given.saga_id, refusal))
            return None
        forwarded = record.headers
        if isinstance(given, msg.EXTERNAL) and h.MESSAGE_ID not in headers:
            forwarded = (*forwarded, (h.MESSAGE_ID, given.message_id.encode()))
        return Taken(role, record, None, given.saga_id, None, target, "", tuple(forwarded))

    def _is_next(self, passage: Passage) -> bool:
        """Of each source the next counter only: repeats are dropped, and what follows a gap until it is filled."""
        last = self._taken.get(passage.source, 0)
        if passage.counter > last + 1:
            self.counters["gaps"] += 1
        return passage.counter == last + 1

    def _reject(self, letter: DeadLetter) -> None:
        self._blocked[letter.role] = letter
        self._unsent.append(letter)
        self._send_unsent()

    def tick(self, now_ms: int) -> None:
        """Sends dead letters that could not be sent before."""
        self._now_ms = now_ms
        if self._unsent:
            self._send_unsent()

    def _send_unsent(self) -> None:
        while self._unsent and self._unsent[0].retry_at_ms <= self._now_ms:
            letter = self._unsent[0]
            record = letter.record
            own = record.headers if letter.whole else (SHORTENED,)
            try:
                self._outward.append(
                    self._config.topics.dead_letters,
                    self._number,
                    record.value if letter.whole else None,
                    key=record.key if letter.whole else None,
                    headers=dead_letter_headers(
                        record.topic,
                        record.partition,
                        record.offset,
                        record.timestamp_ms,
                        own,
                        letter.reason,
                        letter.kind,
                    ),
                    token=(self._token, letter),
                )
            except LogFull:
                return
            self._unsent.popleft()


def _token(headers: Mapping[str, str]) -> str:
    return headers.get(h.REPLY_TOKEN) or headers.get(h.PROMISE_TOKEN, "")


def _check_address(given: Given, answers: str) -> None:
    """Raises `MalformedMessage`: an owner may write where its clients may not, and answers into no journal for them."""
    address: msg.ReplyAddress | None = getattr(given, "reply_to", None)
    if address is not None and address.topic != answers:
        raise MalformedMessage(f"header {h.REPLY_TO!r}: answers go to {answers}, not to {address.topic[:40]!r}")
