"""Becoming the owner of a partition: read to the end, check, claim, read up to the claim.

Before it claims, it looks for what cannot be survived, only detected: a journal shorter than or different from what the
group's commits witness, and topics that were created anew. And where runs are under way whose code the owner before it
had and it has not, it waits for a while: the group may yet give the partition to a worker that has the code.

Only after the claim are state and positions exact. A claim through the same producer and partition stands behind
everything that was sent there before; a claim whose fate is unknown is followed by another with a new nonce.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from orchestrator.log.base import Appender, Delivery, Ends, Failure, LogFull, Reader
from orchestrator.model.frozen import frozen
from orchestrator.model.rule import JournalHalted, Kind
from orchestrator.model.versions import name_needed
from orchestrator.runtime.identity import recreated
from orchestrator.runtime.journal_writer import EpochLost
from orchestrator.runtime.replica import Replica, StoreStale
from orchestrator.runtime.witness import Witness, read_witness
from orchestrator.store import keys
from orchestrator.wire.journal import (
    Claim,
    Genesis,
    claim_record,
    genesis_record,
    read_claim,
    read_envelope,
    read_genesis,
)
from orchestrator.wire.stored import read_run

log = logging.getLogger(__name__)

CLAIM_AGAIN_MS = 200
CLAIM_WAIT_MS = 30_000
MAX_WITNESS_FAILURES = 5
"""Times that the group's coordinator may fail to answer before the take-over goes on without its witness."""


class _Stage(Enum):
    END = "asking for the end"
    READ = "reading"
    YIELD = "leaving it to a worker that has the code"
    GENESIS = "writing the genesis"
    CLAIM = "claiming"
    UP_TO_CLAIM = "reading up to the claim"


@frozen
class Owner:
    """Who claims, and with what: the body of the claim, a source of nonces (16 random bytes each), the genesis.

    `topic_ids` gives the ids that the topics have now, as far as known. `claim_wait_ms` is how long a partition with
    runs of unknown types is left to others.
    """

    claim: Claim
    nonce: Callable[[], bytes]
    genesis: Callable[[], Genesis]
    topic_ids: Callable[[], Mapping[str, str]] = dict
    claim_wait_ms: int = CLAIM_WAIT_MS


@dataclass(frozen=True, slots=True)
class Places:
    """Where a take-over reads and writes: the journal, and the inbox, for which the group commits the witness."""

    journal: str
    inbox: str
    journals: Reader
    member: Reader
    appender: Appender


class Takeover:
    """One attempt. `done` once the claim is read; `replica` then stands exactly at it.

    `topic_ids` are then those that the journal was made for. `committed` is what the group had for the inbox, if heard.
    """

    def __init__(self, partition: int, replica: Replica, owner: Owner, places: Places) -> None:
        self.number = partition
        self.replica = replica
        self.done = False
        self.closed = False
        self.nonce = b""
        self.topic_ids: Mapping[str, str] = {}
        self.committed: tuple[int, str] | None = None
        self._topic = places.journal
        self._reader = places.journals
        self._places = places
        self._owner = owner
        self._stage = _Stage.END
        self._stored_offset = replica.progress.at.offset
        self._witness: Witness | None = None
        self._heard_witness = False
        self._witness_failures = 0
        self._ask_witness_at_ms: int | None = None
        self._chains: dict[int, bytes] = {}
        """Until the witness is heard of, the chain after each record: one of them is to be compared."""
        self._end: int | None = None
        self._end_is_later = False
        """Whether the end was asked for after the witness was heard: then the journal can only be shorter if cut."""
        self._target = 0
        self._out_of_range = False
        self._log_start: int | None = None
        self._again_at_ms: int | None = None
        self._last_claim: Claim | None = None
        self._has_yielded = False
        self._reader.assign(self._topic, partition, replica.first_offset)
        self._ask_witness()
        self._ask_end()

    def __str__(self) -> str:
        return self._stage.value

    def witnessed(self, answer: Ends, mono_ms: int) -> None:
        """What the group has committed for the inbox. Raises `StoreStale`, `JournalHalted`."""
        if self.closed or self._heard_witness:
            return
        place = (self._places.inbox, self.number)
        if answer.failure is not None:
            self._witness_failures += 1
            if self._witness_failures < MAX_WITNESS_FAILURES:
                self._ask_witness_at_ms = mono_ms + CLAIM_AGAIN_MS
                return
            log.warning("partition %d: taken over without a witness: %s", self.number, answer.detail)
        elif place in answer.offsets:
            self.committed = (answer.offsets[place], answer.metadata.get(place, ""))
            self._witness = read_witness(self.committed[1])
        self._heard_witness = True
        witness = self._witness
        if witness is not None and witness.offset in self._chains:
            self._check_witness(witness, self._chains[witness.offset])
        self._chains.clear()
        self._begin_to_read(mono_ms)

    def out_of_range(self) -> None:
        """What should be read is not there: cut off, if the journal begins behind it, else truncated."""
        self._out_of_range, self._log_start = True, None
        self._ask_start()

    def ends(self, what: Any, offsets: Any, mono_ms: int) -> None:
        """The journal's end, or start; None where the broker did not answer. Raises `JournalHalted`, `StoreStale`."""
        if self.closed or self._stage is not _Stage.END:
            return
        if what == "start":
            self._log_start = None if offsets is None else offsets.get((self._topic, self.number))
            self._ask_end()
            return
        self._end = None if offsets is None else offsets.get((self._topic, self.number))
        if self._end is None:
            self._again_at_ms = mono_ms + CLAIM_AGAIN_MS
        else:
            self._begin_to_read(mono_ms)

    def _begin_to_read(self, mono_ms: int) -> None:
        """Once both are known: the end as it was after the witness, and what it must at least be."""
        end, witness = self._end, self._witness
        if end is None or not self._heard_witness or self._stage is not _Stage.END:
            return
        if end <= self._stored_offset:
            raise JournalHalted(
                f"the journal ends at offset {end}, but offset {self._stored_offset} was confirmed: "
                f"it was truncated or created anew. {_REMEDY}"
            )
        if witness is not None and end <= witness.offset:
            if not self._end_is_later:
                self._ask_end()
                return
            raise JournalHalted(
                f"the journal ends at offset {end}, but the group's commit for {self._places.inbox} says that offset "
                f"{witness.offset} was confirmed: it was truncated or created anew. {_REMEDY}"
            )
        if self._out_of_range:
            at = self.replica.next_offset
            if self._log_start is None:
                self._ask_start()
                return
            if self._log_start <= at:
                raise JournalHalted(
                    f"offset {at} cannot be read, though the journal has offsets {self._log_start} to {end - 1}: "
                    f"it was truncated or written anew. {_REMEDY}"
                )
            raise StoreStale(
                f"the journal was cut above offset {at}, where this store goes on: set `snapshots` and `archive` as "
                "the worker has them that cut it"
            )
        self._target = end
        self._stage = _Stage.READ
        self._advance(mono_ms)

    def record(self, offset: int, timestamp_ms: int, value: bytes | None, mono_ms: int) -> None:
        """One journal record. Raises what `Replica.feed` raises."""
        if self.done or self.closed or (self._stage is _Stage.UP_TO_CLAIM and offset >= self._target):
            return
        if self._stage is _Stage.CLAIM and self.replica.progress.rule.nonce == self.nonce:
            return  # our claim is read and its report still to come: what follows it is not for the take-over
        counted = self.replica.feed(offset, timestamp_ms, value)
        if counted is not None and counted[0].kind == Kind.CLAIM:
            self._last_claim = read_claim(counted[0])
        if not self._heard_witness:
            self._chains[offset] = self.replica.progress.rule.chain
        elif self._witness is not None and offset == self._witness.offset:
            self._check_witness(self._witness, self.replica.progress.rule.chain)
        self._advance(mono_ms)

    def _check_witness(self, witness: Witness, chain: bytes) -> None:
        if witness.offset < self._stored_offset or witness.confirms(chain):
            return
        if witness.offset == self._stored_offset:
            raise StoreStale(f"the group's witness says otherwise of offset {witness.offset}")
        raise JournalHalted(
            f"what the journal holds up to offset {witness.offset} is not what the group's commit for "
            f"{self._places.inbox} witnesses ({witness}): it was truncated and written anew. {_REMEDY}"
        )

    def delivered(self, what: Any, delivery: Delivery, mono_ms: int) -> None:
        """The report of a genesis or a claim. Raises `EpochLost` where the journal may not be written."""
        if self.closed:
            return
        if delivery.failure is Failure.UNAUTHORIZED:
            raise EpochLost(f"the journal may not be written: {delivery.detail}")
        if what == "genesis":
            # Whether ours or another's stands first, the end tells.
            self._ask_end()
        elif what == self.nonce:
            if delivery.failure is not None or delivery.offset is None:
                self._again_at_ms = mono_ms + CLAIM_AGAIN_MS
                return
            self._target = delivery.offset + 1
            self._stage = _Stage.UP_TO_CLAIM
            self._advance(mono_ms)

    def tick(self, mono_ms: int) -> None:
        """Tries again what failed, goes on after a pause."""
        if self._ask_witness_at_ms is not None and mono_ms >= self._ask_witness_at_ms:
            self._ask_witness_at_ms = None
            self._ask_witness()
        if self._again_at_ms is None or mono_ms < self._again_at_ms:
            return
        self._again_at_ms = None
        if self._stage in (_Stage.END, _Stage.YIELD):
            self._ask_end()
        elif self._stage is _Stage.GENESIS:
            self._write_genesis(mono_ms)
        elif self._stage is _Stage.CLAIM:
            self._claim(mono_ms)

    def close(self) -> None:
        """Gives up or is done: nothing that comes later counts."""
        self.closed = True
        self._reader.unassign(self._topic, self.number)

    def _ask_witness(self) -> None:
        self._places.member.ask_committed([(self._places.inbox, self.number)], (self, "witness"))

    def _ask_start(self) -> None:
        self._stage = _Stage.END
        self._reader.ask_starts([(self._topic, self.number)], (self, "start"))

    def _ask_end(self) -> None:
        self._stage = _Stage.END
        self._end_is_later = self._heard_witness
        self._reader.ask_ends([(self._topic, self.number)], (self, "end"))

    def _advance(self, mono_ms: int) -> None:
        if self._stage is _Stage.READ and self.replica.next_offset >= self._target:
            if self._target == 0:
                self._write_genesis(mono_ms)
            else:
                self._compare_topics()
                if not self._yields(mono_ms):
                    self._claim(mono_ms)
        elif self._stage is _Stage.UP_TO_CLAIM and self.replica.next_offset >= self._target:
            rule = self.replica.progress.rule
            if rule.nonce != self.nonce or self.replica.progress.at.offset != self._target - 1:
                raise JournalHalted(f"the claim at offset {self._target - 1} was acknowledged but is not there")
            self.replica.flush()
            self.done = True

    def _compare_topics(self) -> None:
        self.replica.flush()
        genesis = self.replica.store.get(keys.GENESIS)
        if genesis is None:
            raise StoreStale("the store has no genesis")
        made_for = read_genesis(read_envelope(genesis))
        partitions = self._owner.genesis().partitions
        if made_for.partitions != partitions:
            raise JournalHalted(
                f"the journal was made for {made_for.partitions} partitions, not {partitions}: "
                f"saga ids would move to others. Set `partitions` to {made_for.partitions}; all saga topics must have "
                "as many"
            )
        self.topic_ids = made_for.topic_ids
        if problem := recreated(self.topic_ids, self._owner.topic_ids()):
            raise JournalHalted(problem)

    def _yields(self, mono_ms: int) -> bool:
        """Whether to wait, once: for a worker with the code that the owner before had and this one lacks.

        Only liveness hangs on it. The group may move the partition meanwhile, above all while versions are being
        rolled out; if it does not, this worker claims and the runs wait for code.
        """
        claim = self._last_claim
        if self._has_yielded or claim is None or claim.owner == self._owner.claim.owner:
            return False
        missing = set(claim.saga_types) - set(self._owner.claim.saga_types)
        found = self._live_type(missing) if missing else None
        if found is None:
            return False
        log.warning(
            "partition %d: runs of %s are under way, whose code %s had and this worker lacks: waiting %d ms for a "
            "worker that has it",
            self.number,
            found,
            claim.owner,
            self._owner.claim_wait_ms,
        )
        self._has_yielded = True
        self._stage = _Stage.YIELD
        self._again_at_ms = mono_ms + self._owner.claim_wait_ms
        return True

    def _live_type(self, types: set[str]) -> str | None:
        """One of the types, or versions of one, that a run which has not ended needs."""
        names = {name.partition("@")[0].encode() for name in types}
        for key, value in self.replica.store.scan(keys.RUNS):
            # Most runs are of other types: looking for the name costs a hundredth of reading the run.
            if any(name in value for name in names):
                run = read_run(key[1:].decode(), value, [])
                if name_needed(run) in types and not run.ended:
                    return name_needed(run)
        return None

    def _write_genesis(self, mono_ms: int) -> None:
        self._stage = _Stage.GENESIS
        self._append(genesis_record(self._owner.genesis()), "genesis", mono_ms)

    def _claim(self, mono_ms: int) -> None:
        if self._stage is _Stage.CLAIM:
            # What was passed over after a claim of unknown fate is read after all.
            self._reader.assign(self._topic, self.number, self.replica.next_offset)
        self._stage = _Stage.CLAIM
        self.nonce = self._owner.nonce()
        self._append(claim_record(self.nonce, self._owner.claim), self.nonce, mono_ms)

    def _append(self, value: bytes, what: Any, mono_ms: int) -> None:
        try:
            self._places.appender.append(self._topic, self.number, value, token=(self, what))
        except LogFull:
            self._again_at_ms = mono_ms + CLAIM_AGAIN_MS


_REMEDY = (
    "Stop all workers, then restore all saga topics from one backup; or, if no saga is to be kept, delete them all and "
    "the workers' state directories and run `saga topics apply`"
)
