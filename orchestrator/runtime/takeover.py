"""Becoming the owner of a partition: read to the end, check, claim, read up to the claim.

Only then are state and positions exact. A claim through the same producer and partition stands behind everything that
was sent there before; a claim whose fate is unknown is followed by another with a new nonce.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from orchestrator.log.base import Appender, Delivery, LogFull, Reader
from orchestrator.model.rule import JournalHalted
from orchestrator.runtime.replica import Replica
from orchestrator.wire.journal import Claim, Genesis, claim_record, genesis_record

CLAIM_AGAIN_MS = 200


class _Stage(Enum):
    END = "asking for the end"
    READ = "reading"
    GENESIS = "writing the genesis"
    CLAIM = "claiming"
    UP_TO_CLAIM = "reading up to the claim"


@dataclass(frozen=True, slots=True)
class Owner:
    """Who claims, and with what: the body of the claim, a source of nonces (16 random bytes each), the genesis."""

    claim: Claim
    nonce: Callable[[], bytes]
    genesis: Callable[[], Genesis]


class Takeover:
    """One attempt. `done` once the claim is read; `replica` then stands exactly at it."""

    def __init__(
        self, journal_topic: str, partition: int, replica: Replica, reader: Reader, appender: Appender, owner: Owner
    ) -> None:
        self.number = partition
        self.replica = replica
        self.done = False
        self.closed = False
        self.nonce = b""
        self._topic = journal_topic
        self._reader = reader
        self._appender = appender
        self._owner = owner
        self._stage = _Stage.END
        self._target = 0
        self._again_at_ms: int | None = None
        reader.assign(journal_topic, partition, replica.first_offset)
        reader.ask_ends([(journal_topic, partition)], (self, "end"))

    def __str__(self) -> str:
        return self._stage.value

    def ends(self, what: Any, offsets: Any, mono_ms: int) -> None:
        """The journal's end offset; None where the broker did not answer."""
        if self.closed or self._stage is not _Stage.END:
            return
        end = None if offsets is None else offsets.get((self._topic, self.number))
        if end is None:
            self._again_at_ms = mono_ms + CLAIM_AGAIN_MS
            return
        if end <= self.replica.progress.at.offset:
            raise JournalHalted(
                f"the journal ends at offset {end}, but offset {self.replica.progress.at.offset} was confirmed: "
                "it was truncated or created anew"
            )
        self._target = end
        self._stage = _Stage.READ
        self._advance(mono_ms)

    def record(self, offset: int, timestamp_ms: int, value: bytes | None, mono_ms: int) -> None:
        """One journal record. Raises what `Replica.feed` raises."""
        if self.done or self.closed or (self._stage is _Stage.UP_TO_CLAIM and offset >= self._target):
            return
        self.replica.feed(offset, timestamp_ms, value)
        self._advance(mono_ms)

    def delivered(self, what: Any, delivery: Delivery, mono_ms: int) -> None:
        """The report of a genesis or a claim."""
        if self.closed:
            return
        if what == "genesis":
            # Whether ours or another's stands first, the end tells.
            self._stage = _Stage.END
            self._reader.ask_ends([(self._topic, self.number)], (self, "end"))
        elif what == self.nonce:
            if delivery.failure is not None or delivery.offset is None:
                self._again_at_ms = mono_ms + CLAIM_AGAIN_MS
                return
            self._target = delivery.offset + 1
            self._stage = _Stage.UP_TO_CLAIM
            self._advance(mono_ms)

    def tick(self, mono_ms: int) -> None:
        """Tries again what failed."""
        if self._again_at_ms is None or mono_ms < self._again_at_ms:
            return
        self._again_at_ms = None
        if self._stage is _Stage.END:
            self._reader.ask_ends([(self._topic, self.number)], (self, "end"))
        elif self._stage is _Stage.GENESIS:
            self._write_genesis(mono_ms)
        elif self._stage is _Stage.CLAIM:
            self._claim(mono_ms)

    def close(self) -> None:
        """Gives up or is done: nothing that comes later counts."""
        self.closed = True
        self._reader.unassign(self._topic, self.number)

    def _advance(self, mono_ms: int) -> None:
        if self._stage is _Stage.READ and self.replica.next_offset >= self._target:
            if self._target == 0:
                self._write_genesis(mono_ms)
            else:
                self._claim(mono_ms)
        elif self._stage is _Stage.UP_TO_CLAIM and self.replica.next_offset >= self._target:
            rule = self.replica.progress.rule
            if rule.nonce != self.nonce or self.replica.progress.at.offset != self._target - 1:
                raise JournalHalted(f"the claim at offset {self._target - 1} was acknowledged but is not there")
            self.replica.flush()
            self.done = True

    def _write_genesis(self, mono_ms: int) -> None:
        self._stage = _Stage.GENESIS
        self._append(genesis_record(self._owner.genesis()), "genesis", mono_ms)

    def _claim(self, mono_ms: int) -> None:
        self._stage = _Stage.CLAIM
        self.nonce = self._owner.nonce()
        self._append(claim_record(self.nonce, self._owner.claim), self.nonce, mono_ms)

    def _append(self, value: bytes, what: Any, mono_ms: int) -> None:
        try:
            self._appender.append(self._topic, self.number, value, token=(self, what))
        except LogFull:
            self._again_at_ms = mono_ms + CLAIM_AGAIN_MS
