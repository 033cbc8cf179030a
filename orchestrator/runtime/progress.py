"""What a reader of a journal partition carries from record to record, and how the store remembers it.

The owner and every other reader move it by the same code: their stores are equal byte for byte at equal offsets.
"""

from __future__ import annotations

from collections import deque
from hashlib import sha256

from orchestrator.model.events import CircuitClosed, CircuitOpened, Decision, InputForwarded, InputSent, PauseRuleSet
from orchestrator.model.rule import Kind, Rule
from orchestrator.runtime.pauses import note_rule
from orchestrator.store import keys
from orchestrator.store.base import Change, Store
from orchestrator.wire.journal import Envelope
from orchestrator.wire.stored import StoredPartition, read_partition, write_partition

_INTERNAL = (InputForwarded, InputSent)


class Progress:
    """The partition's own state: rule R, positions, marks, counters of internal messages.

    `trail` holds rule R's position after each accepted record beyond `effects_sent`: the search for open effects starts
    at one of them.
    """

    def __init__(self, store: Store) -> None:
        data = store.get(keys.PARTITION)
        self.at = StoredPartition() if data is None else read_partition(data)
        at = self.at
        self.nonces = {key[1:]: int.from_bytes(value, "big") for key, value in store.scan(keys.NONCES)}
        self.rule = Rule(at.nonce, at.claim_offset, at.expected_seq, at.chain, set(self.nonces))
        self.trail: deque[tuple[int, bytes, int, int]] = deque()
        self._value: bytes | None = None
        """The last record moved over; None while there was none since the store was opened."""
        self._fresh_nonces: list[bytes] = []

    def rule_at_mark(self) -> Rule:
        """Rule R as it stood right after `effects_sent`. Its chain is unknown: use it to tell what counted, only."""
        at = self.at
        nonces = {nonce for nonce, offset in self.nonces.items() if offset <= at.effects_sent}
        return Rule(at.sent_nonce, at.sent_claim_offset, at.sent_expected_seq, b"unknown", nonces)

    def step(self, offset: int, timestamp_ms: int, value: bytes, envelope: Envelope, decision: Decision | None) -> None:
        """Moves over one accepted record; `rule` has moved over it already."""
        at, rule = self.at, self.rule
        at.offset, self._value = offset, value
        if timestamp_ms > at.clock_ms:
            at.clock_ms = timestamp_ms
        if rule.nonce != at.nonce:
            at.nonce = rule.nonce
            self.nonces[rule.nonce] = offset
            self._fresh_nonces.append(rule.nonce)
        at.claim_offset, at.expected_seq, at.chain = rule.claim_offset, rule.expected_seq, rule.chain
        trail = self.trail
        trail.append((offset, rule.nonce, rule.claim_offset, rule.expected_seq))
        if envelope.input_positions:
            at.input_positions = envelope.input_positions
        if envelope.effects_sent > at.effects_sent:
            at.effects_sent = sent = envelope.effects_sent
            while trail and trail[0][0] <= sent:
                _, at.sent_nonce, at.sent_claim_offset, at.sent_expected_seq = trail.popleft()
        if envelope.kind >= Kind.DECISION:
            at.effects_open = envelope.effects_open
        if decision is not None:
            if decision.internal_counter >= 0:
                at.internal_taken[str(decision.internal_partition)] = decision.internal_counter
            for event in decision.events:
                if type(event) in _INTERNAL:
                    at.internal_sent[str(event.target)] = event.counter  # type: ignore[union-attr]
                elif type(event) is CircuitOpened:
                    at.circuits[event.service] = decision.at_ms
                elif type(event) is CircuitClosed:
                    at.circuits.pop(event.service, None)
                elif type(event) is PauseRuleSet:
                    note_rule(at.paused, event, decision.at_ms)

    def changes(self) -> list[Change]:
        """The partition's own entries as of the last record."""
        if self._value is not None:
            self.at.record_hash = sha256(self._value).digest()
        changes: list[Change] = [(keys.PARTITION, write_partition(self.at))]
        for nonce in self._fresh_nonces:
            changes.append((keys.nonce(nonce), keys.number(self.nonces[nonce])))
        self._fresh_nonces.clear()
        return changes
