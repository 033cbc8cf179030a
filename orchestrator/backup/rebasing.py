"""Records of a backup as they must stand in another cluster. Pure.

A journal keeps its offsets, for much refers to them. What changes: its genesis has a higher incarnation, so that
epochs are higher than any before, and the topics it is made for now; positions begin at zero, for only what was not
consumed is copied; and what counts is chained anew. What did not count is copied too and does not count again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from orchestrator.errors import SagaError
from orchestrator.model.rule import Kind, Rule, chained
from orchestrator.wire.journal import Genesis, genesis_record, read_envelope, read_genesis, write_envelope
from orchestrator.wire.ledger import Claim, Execution, Release, read_record, write_record
from orchestrator.wire.segments import SegmentRecord


def rebased_journal(
    records: Iterable[SegmentRecord],
    partitions: int,
    topic_ids: Mapping[str, str],
    now_ms: int,
    incarnation: int | None = None,
) -> Iterator[bytes]:
    """The values of a journal's records from offset 0 on; None: the next incarnation.

    Raises `UnreadableRecord`, `JournalHalted`, `SagaError` where the incarnation is no higher than it was.
    """
    rule, chain = Rule(), Rule().chain
    for record in records:
        value = record.value or b""
        envelope = read_envelope(value)
        if rule.accept(envelope.kind, envelope.nonce, envelope.seq, envelope.prev_hash, record.offset, value):
            if envelope.kind == Kind.GENESIS:
                before = read_genesis(envelope).incarnation
                if incarnation is not None and incarnation <= before:
                    raise SagaError(f"incarnation {incarnation}: the backup is of {before}, so it must be higher")
                value = genesis_record(Genesis(incarnation or before + 1, partitions, topic_ids, now_ms))
            elif envelope.kind != Kind.CLAIM:
                positions = dict.fromkeys(envelope.input_positions, 0)
                value = write_envelope(replace(envelope, prev_hash=chain, input_positions=positions))
            chain = chained(chain, value)
        yield value


def rebased_ledger(records: Iterable[SegmentRecord]) -> Iterator[bytes]:
    """What counts of a service's ledger, under one claim that nobody holds. Raises `UnreadableRecord`.

    Claims are named by their offsets, and those are others in another topic.
    """
    current = -1
    yield write_record(Claim(bytes(16), "restored from a backup", 0, 0))
    for record in records:
        body = read_record(record.value)
        if isinstance(body, Claim):
            current = record.offset
        elif isinstance(body, Execution) and body.claim >= current:
            current = body.claim
            yield write_record(body._replace(claim=0))
    yield write_record(Release(0, earlier=True))
