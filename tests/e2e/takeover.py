"""When each partition decides again after a fault: told by the raw journal, in the brokers' append times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.checker.evidence import Raw
from orchestrator.log.base import Record
from orchestrator.model.rule import Kind, Rule
from orchestrator.wire.journal import read_claim, read_envelope


@dataclass(frozen=True, slots=True)
class Appended:
    """One accepted record: when, by whom (the name in its claim), and whether it is the claim itself."""

    at_ms: int
    owner: str
    is_claim: bool


@dataclass(frozen=True, slots=True)
class Again:
    """The first accepted claim and the first accepted decision of a partition's next owner, in broker time."""

    claim_ms: int
    decision_ms: int


def accepted(records: Sequence[Record]) -> Iterator[Appended]:
    """The claims and decisions of one journal partition that count under rule R."""
    rule, owner = Rule(), ""
    for record in records:
        envelope = read_envelope(record.value)
        if not rule.accept(
            envelope.kind, envelope.nonce, envelope.seq, envelope.prev_hash, record.offset, record.value or b""
        ):
            continue
        if envelope.kind == Kind.CLAIM:
            owner = read_claim(envelope).owner
        if envelope.kind in (Kind.CLAIM, Kind.DECISION):
            yield Appended(record.timestamp_ms, owner, envelope.kind == Kind.CLAIM)


def owned_by(journal: Raw, pid: int, at_ms: int) -> set[int]:
    """The partitions whose last claim up to `at_ms` is of the worker process `pid`."""
    found = set()
    for partition, records in journal.items():
        owners = [each.owner for each in accepted(records) if each.is_claim and each.at_ms <= at_ms]
        if owners and owners[-1].endswith(f"-{pid}"):
            found.add(partition)
    return found


def taken_over(journal: Raw, pid: int, at_ms: int) -> dict[int, Again]:
    """For each partition that the worker process `pid` had lost after `at_ms`: when the next owner went on."""
    found = {}
    for partition in owned_by(journal, pid, at_ms):
        claim_ms = 0
        for each in accepted(journal[partition]):
            if each.at_ms <= at_ms or each.owner.endswith(f"-{pid}"):
                continue
            if each.is_claim:
                claim_ms = claim_ms or each.at_ms
            else:
                found[partition] = Again(claim_ms, each.at_ms)
                break
    return found


def decided_again(journal: Raw, at_ms: int) -> dict[int, int]:
    """For each partition with a decision after `at_ms`, the time of the first one."""
    found = {}
    for partition, records in journal.items():
        later = (each.at_ms for each in accepted(records) if not each.is_claim and each.at_ms > at_ms)
        first = next(later, None)
        if first is not None:
            found[partition] = first
    return found
