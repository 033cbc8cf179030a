"""Who owned a partition from when to when: told by the raw journal alone, in the brokers' append times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.checker.evidence import Raw
from orchestrator.log.base import Record
from orchestrator.model.rule import Kind, Rule
from orchestrator.wire.journal import Envelope, read_claim, read_envelope


@dataclass(frozen=True, slots=True)
class Appended:
    """One accepted record: when, by whom (the name in its claim), and whether it is the claim itself."""

    at_ms: int
    owner: str
    is_claim: bool


@dataclass(slots=True)
class Tenure:
    """What one accepted claim began. `first_ms`: of its first accepted decision, None if it has none; `last_ms`: of

    its last accepted record, the claim at least. Milliseconds since 1970, by the broker.
    """

    owner: str
    claim_ms: int
    first_ms: int | None
    last_ms: int

    def is_of(self, pid: int) -> bool:
        """Whether a worker process of this number claimed."""
        return self.owner.endswith(f"-{pid}")


@dataclass(frozen=True, slots=True)
class Again:
    """The first accepted claim and the first accepted decision of a partition's next owner, in broker time."""

    claim_ms: int
    decision_ms: int


Tenures = Mapping[int, Sequence[Tenure]]
"""By partition, in the order of the journal."""


def counted(records: Iterable[Record]) -> Iterator[tuple[Record, Envelope, str]]:
    """The records of one journal partition that count under rule R, with the name of the owner that each is of."""
    rule, owner = Rule(), ""
    for record in records:
        envelope = read_envelope(record.value)
        if not rule.accept(
            envelope.kind, envelope.nonce, envelope.seq, envelope.prev_hash, record.offset, record.value or b""
        ):
            continue
        if envelope.kind == Kind.CLAIM:
            owner = read_claim(envelope).owner
        yield record, envelope, owner


def accepted(records: Iterable[Record]) -> Iterator[Appended]:
    """The claims and decisions of one journal partition that count under rule R."""
    for record, envelope, owner in counted(records):
        if envelope.kind in (Kind.CLAIM, Kind.DECISION):
            yield Appended(record.timestamp_ms, owner, envelope.kind == Kind.CLAIM)


def tenures(journal: Raw) -> dict[int, list[Tenure]]:
    """Every tenure of every partition; reads the journal once."""
    found: dict[int, list[Tenure]] = {}
    for partition, records in journal.items():
        held = found[partition] = []
        for each in accepted(records):
            if each.is_claim:
                held.append(Tenure(each.owner, each.at_ms, None, each.at_ms))
                continue
            last = held[-1]
            last.last_ms = each.at_ms
            if last.first_ms is None:
                last.first_ms = each.at_ms
    return found


def owned_by(held: Tenures, pid: int, at_ms: int) -> set[int]:
    """The partitions whose last claim up to `at_ms` is of the worker process `pid`."""
    found = set()
    for partition, each in held.items():
        before = [tenure for tenure in each if tenure.claim_ms <= at_ms]
        if before and before[-1].is_of(pid):
            found.add(partition)
    return found


def taken_over(held: Tenures, pid: int, at_ms: int) -> dict[int, Again]:
    """For each partition that the worker process `pid` had lost after `at_ms`: when the next owner went on."""
    found = {}
    for partition in owned_by(held, pid, at_ms):
        later = [tenure for tenure in held[partition] if tenure.claim_ms > at_ms and not tenure.is_of(pid)]
        first = next((tenure.first_ms for tenure in later if tenure.first_ms is not None), None)
        if first is not None:
            found[partition] = Again(later[0].claim_ms, first)
    return found
