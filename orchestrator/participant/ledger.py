"""The memory of a service without a database: one ledger partition, as every reader folds it.

A claim is named by its offset. A record carries the claim it was written under and counts unless a higher claim stands
before it: so what a dead or slow participant's client still delivers after the next claim changes nothing, for anybody.
A release counts wherever it stands; it says that no handler runs under the claim any more.
"""

from __future__ import annotations

from typing import NamedTuple

from orchestrator.log.base import Record
from orchestrator.participant.rules import Entry, record
from orchestrator.participant.work import Unit
from orchestrator.wire.commands import Ending
from orchestrator.wire.ledger import Claim, Execution, read_record


class Memory:
    """Entries by unit, each kept for `retention_ms` after its last change."""

    def __init__(self, retention_ms: int) -> None:
        self._retention_ms = retention_ms
        # Ordered by last change: a changed entry moves to the end.
        self._entries: dict[Unit, tuple[int, Entry]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, unit: Unit) -> Entry | None:
        found = self._entries.get(unit)
        return None if found is None else found[1]

    def note(self, unit: Unit, undo: bool, attempt: int, reply: Ending, stamp_ms: int) -> None:
        """One more outcome, accepted by the broker at `stamp_ms`."""
        found = self._entries.pop(unit, None)
        self._entries[unit] = (stamp_ms, record(None if found is None else found[1], undo, attempt, reply))

    def forget(self, now_ms: int) -> None:
        """Drops what is older than the retention."""
        limit = now_ms - self._retention_ms
        entries = self._entries
        while entries:
            unit = next(iter(entries))
            if entries[unit][0] >= limit:
                return
            del entries[unit]


class OpenClaim(NamedTuple):
    """A claim that no release covers. Its owner's handlers may run for `wait_ms` after it lost the partition."""

    nonce: bytes
    owner: str
    wait_ms: int


class LedgerView:
    """What the ledger says up to `position`, the offset to be read next."""

    def __init__(self, retention_ms: int) -> None:
        self.memory = Memory(retention_ms)
        self.position = 0
        self.current = -1
        """The highest claim so far; -1: none."""
        self.open_claims: dict[int, OpenClaim] = {}

    def apply(self, entry: Record) -> None:
        """One more record. Raises `UnreadableRecord`; then the position stays before it."""
        body = read_record(entry.value)
        if isinstance(body, Execution):
            # A claim may have been cut off the log's start; a record under it proves that it was there.
            if body.claim >= self.current:
                self.current = body.claim
                unit = (body.saga_id, body.run, body.sequence)
                self.memory.note(unit, body.undo, body.attempt, body.reply, entry.timestamp_ms)
        elif isinstance(body, Claim):
            self.current = entry.offset
            self.open_claims[entry.offset] = OpenClaim(body.nonce, body.owner, body.lease_ms + body.handler_limit_ms)
        else:
            self.open_claims.pop(body.claim, None)
            if body.earlier:
                for claim in [claim for claim in self.open_claims if claim < body.claim]:
                    del self.open_claims[claim]
        self.position = entry.offset + 1
