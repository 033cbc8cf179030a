"""The writer of one epoch: numbers, chains and sends decisions, and confirms them in order.

Confirmation of decision n, exactly: 0..n-1 are confirmed, and its offset is claim + 1 + n. A gap, a missing offset or
any error ends the epoch at once; nothing is retried inside one. That decisions leave in groups is the appender's affair
(`log.gathered`).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from orchestrator.log.base import Appender, Delivery, LogFull
from orchestrator.model.rule import Kind, chained
from orchestrator.wire.avro import FORMAT
from orchestrator.wire.journal import DECISION_FINGERPRINT, Envelope, write_envelope

MAX_RECORD_BYTES = 1_040_000
"""What the journal takes, less what Kafka adds: its `max.message.bytes` is 1,048,588."""


class DecisionTooLarge(Exception):
    """The journal would not take it. Nothing was sent; deciding the same input again comes to the same."""


class EpochLost(Exception):
    """The epoch is over: somebody else claimed the partition, or the fate of a record is unknown. Claim again."""


@dataclass(slots=True)
class Pending:
    """A decision that is not confirmed. `rest` is what its confirmation will do, as it was when it was decided."""

    offset: int
    value: bytes
    envelope: Envelope
    chain: bytes
    """Rule R's chain after it."""
    rest: Any
    timestamp_ms: int = 0
    """When the broker appended it, once that is known."""


class JournalWriter:
    """Appends to one journal partition under one claim. `chain` is rule R's after the claim."""

    def __init__(
        self, appender: Appender, topic: str, partition: int, nonce: bytes, claim_offset: int, chain: bytes, token: Any
    ) -> None:
        self._appender = appender
        self._topic = topic
        self._partition = partition
        self._nonce = nonce
        self._next = claim_offset + 1
        self._seq = 0
        self._chain = chain
        self._token = token
        self._queued: deque[Pending] = deque()
        self._sent: deque[Pending] = deque()
        self.pending_bytes = 0

    @property
    def next_offset(self) -> int:
        """The offset that the next decision will have, if this epoch lasts."""
        return self._next

    @property
    def pending(self) -> int:
        """Decisions that are not confirmed."""
        return len(self._queued) + len(self._sent)

    @property
    def queued(self) -> bool:
        """Whether decisions wait to be sent."""
        return bool(self._queued)

    def submit(
        self,
        body: bytes,
        input_positions: dict[str, int],
        effects_sent: int,
        effects_open: tuple[tuple[int, int], ...],
        rest: Any,
    ) -> None:
        """Takes one decision, to leave with the next `flush`; an empty body makes a mark. Raises `DecisionTooLarge`."""
        envelope = Envelope(
            Kind.DECISION,
            self._nonce,
            self._seq,
            self._chain,
            input_positions,
            effects_sent,
            effects_open,
            FORMAT,
            DECISION_FINGERPRINT if body else b"",
            body,
        )
        value = write_envelope(envelope)
        if len(value) > MAX_RECORD_BYTES:
            raise DecisionTooLarge(f"the decision has {len(value)} bytes, at most {MAX_RECORD_BYTES} fit the journal")
        self._chain = chained(self._chain, value)
        self._queued.append(Pending(self._next, value, envelope, self._chain, rest))
        self.pending_bytes += len(value)
        self._next += 1
        self._seq += 1

    def flush(self) -> None:
        """Hands the waiting decisions to the appender, as far as it has room."""
        queued, sent, append = self._queued, self._sent, self._appender.append
        while queued:
            pending = queued[0]
            try:
                append(self._topic, self._partition, pending.value, token=(self._token, pending))
            except LogFull:
                return
            sent.append(queued.popleft())

    def delivered(self, pending: Pending, delivery: Delivery) -> Pending:
        """Confirms the oldest decision under way. Raises `EpochLost`."""
        if not self._sent or self._sent[0] is not pending:
            raise EpochLost("a report came out of order")
        if delivery.failure is not None or delivery.offset is None:
            raise EpochLost(f"the fate of offset {pending.offset} is unknown: {delivery.failure} {delivery.detail}")
        if delivery.offset != pending.offset:
            raise EpochLost(
                f"offset {delivery.offset} instead of {pending.offset}: another owner claimed the partition"
            )
        self._sent.popleft()
        self.pending_bytes -= len(pending.value)
        pending.timestamp_ms = delivery.timestamp_ms
        return pending
