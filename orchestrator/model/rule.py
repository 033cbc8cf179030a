"""Rule R: which records of a journal partition count. A pure function of the log's prefix, used by every reader.

A claim whose nonce was never seen becomes current and the next expected seq is 0; a decision counts only if its nonce
is current and its seq the expected one; all else is dropped, by every reader, for ever. Accepted records are chained by
hash: a decision that fits by nonce and seq but not by the chain means the log was truncated or rewritten, and the
reader halts. Only the envelope is read, so that all versions of the software agree.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha256

NO_HASH = bytes(32)


class Kind(IntEnum):
    """The kinds of journal records."""

    GENESIS = 0
    CLAIM = 1
    DECISION = 2
    FORMAT_RAISED = 3


class JournalHalted(Exception):
    """The journal is not what it was: truncated, rewritten, recreated, without genesis. Nothing may be decided."""


@dataclass(slots=True)
class Rule:
    """What a reader knows after a prefix: who may write, the next seq, the chain's hash, every nonce seen."""

    nonce: bytes = b""
    claim_offset: int = -1
    expected_seq: int = 0
    chain: bytes = NO_HASH
    nonces: set[bytes] = field(default_factory=set)

    def accept(
        self, kind: int, nonce: bytes, seq: int, prev_hash: bytes, offset: int, value: bytes, chain: bytes | None = None
    ) -> bool:
        """Whether the record at `offset` counts; moves on if so. Raises `JournalHalted`.

        `value` is the whole record as it stands in the log: its hash continues the chain. `chain` is `chained` of the
        chain before and `value`, where the caller has computed it already.
        """
        if kind == Kind.GENESIS:
            if offset != 0:
                return False
        elif kind == Kind.CLAIM:
            if nonce in self.nonces:
                return False
            self._need_genesis(offset)
            self.nonces.add(nonce)
            self.nonce, self.claim_offset, self.expected_seq = nonce, offset, 0
        else:
            if nonce != self.nonce or seq != self.expected_seq or not nonce:
                return False
            if prev_hash != self.chain:
                raise JournalHalted(
                    f"the record at offset {offset} does not follow what was read before it: "
                    "the journal was truncated or rewritten"
                )
            self.expected_seq = seq + 1
        self.chain = chained(self.chain, value) if chain is None else chain
        return True

    def _need_genesis(self, offset: int) -> None:
        if self.chain == NO_HASH:
            raise JournalHalted(f"the journal has no genesis before offset {offset}: it was cut or never initialized")

    def copy(self) -> Rule:
        """An independent copy."""
        return Rule(self.nonce, self.claim_offset, self.expected_seq, self.chain, set(self.nonces))


def chained(chain: bytes, value: bytes) -> bytes:
    """The chain's hash after one more accepted record: SHA-256 over the hash so far and the record, 32 bytes."""
    return sha256(chain + value).digest()
