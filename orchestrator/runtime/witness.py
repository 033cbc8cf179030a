"""What the group's commits say of a journal: how far it was, and the hash of what counts up to there.

It is kept by the brokers beside the journal, so it outlives a journal that was truncated, rewritten or created anew,
and every store. A witness behind the journal is no alarm: commits come late and a former owner's may come last.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Witness:
    """The journal offset that was confirmed last, and the first 8 bytes of rule R's chain after it."""

    offset: int
    chain: bytes

    def __str__(self) -> str:
        return f"{self.offset}:{self.chain.hex()}"

    def confirms(self, chain: bytes) -> bool:
        """Whether a chain's hash, 32 bytes, is the one."""
        return chain[:8] == self.chain


def witness_of(offset: int, chain: bytes) -> Witness:
    """The witness of a journal whose last record that counts is at `offset`."""
    return Witness(offset, chain[:8])


def read_witness(metadata: str) -> Witness | None:
    """The witness in a commit's metadata; None if it holds none."""
    offset, _, chain = metadata.partition(":")
    try:
        witness = Witness(int(offset), bytes.fromhex(chain))
    except ValueError:
        return None
    return witness if witness.offset >= 0 and len(witness.chain) == 8 else None
