"""Journal records: the frozen envelope and its versioned body.

Rule R reads the envelope alone. The body names its schema by fingerprint: a reader that lacks it must not go on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from orchestrator.model.events import Decision
from orchestrator.model.frozen import frozen
from orchestrator.model.rule import Kind
from orchestrator.wire.avro import FORMAT, Codec, DatumCodec, UnreadableRecord, fingerprint

NONCE_BYTES = 16


@frozen
class Envelope:
    """One journal record. `effects_open` lists (journal offset, event index); the rest as in `Envelope.avsc`."""

    kind: int
    nonce: bytes = bytes(NONCE_BYTES)
    seq: int = -1
    prev_hash: bytes = b""
    input_positions: Mapping[str, int] = field(default_factory=dict)
    effects_sent: int = -1
    effects_open: tuple[tuple[int, int], ...] = ()
    format: int = FORMAT
    body_fingerprint: bytes = b""
    body: bytes = b""


@frozen
class Genesis:
    """The body of a journal's first record: what the partition was made for."""

    incarnation: int
    partitions: int
    topic_ids: Mapping[str, str]
    created_at_ms: int


@frozen
class Claim:
    """The body of a claim: who owns the partition from here on, where to reach them, and what they can run."""

    owner: str
    address: str
    saga_types: tuple[str, ...]
    version: str


class UnknownRecord(UnreadableRecord):
    """A journal record of a kind or format that this software does not know. It must not claim, and never skips it."""


_KINDS = frozenset((Kind.GENESIS, Kind.CLAIM, Kind.DECISION))
"""The kinds of format 1. FORMAT_RAISED is reserved: it would say that what follows is of a format unknown here."""
_ENVELOPE = Codec(Envelope)
_DECISION = Codec(Decision)
_GENESIS = DatumCodec("Genesis")
_CLAIM = DatumCodec("Claim")
_DECISION_FINGERPRINT = fingerprint("Decision")
_GENESIS_FINGERPRINT = fingerprint("Genesis")
_CLAIM_FINGERPRINT = fingerprint("Claim")


def write_envelope(envelope: Envelope) -> bytes:
    """The record's value."""
    return _ENVELOPE.encode(envelope)


def read_envelope(value: bytes | None) -> Envelope:
    """Raises `UnreadableRecord`; `UnknownRecord` where newer software wrote it."""
    envelope: Envelope = _ENVELOPE.decode(value or b"")
    if envelope.kind not in _KINDS or envelope.format > FORMAT:
        raise UnknownRecord(
            f"journal record of kind {envelope.kind}, format {envelope.format}: this software knows formats up to "
            f"{FORMAT}; run the version that wrote it"
        )
    return envelope


def genesis_record(genesis: Genesis) -> bytes:
    """The value of the record at offset 0."""
    body = _GENESIS.encode(
        {
            "incarnation": genesis.incarnation,
            "partitions": genesis.partitions,
            "topic_ids": genesis.topic_ids,
            "created_at_ms": genesis.created_at_ms,
        }
    )
    return write_envelope(Envelope(Kind.GENESIS, body_fingerprint=_GENESIS_FINGERPRINT, body=body))


def claim_record(nonce: bytes, claim: Claim) -> bytes:
    """The value of a claim."""
    body = _CLAIM.encode(
        {
            "owner": claim.owner,
            "address": claim.address,
            "saga_types": list(claim.saga_types),
            "version": claim.version,
        }
    )
    return write_envelope(Envelope(Kind.CLAIM, nonce, body_fingerprint=_CLAIM_FINGERPRINT, body=body))


def write_decision(decision: Decision) -> bytes:
    """The body of a decision."""
    return _DECISION.encode(decision)


DECISION_FINGERPRINT = _DECISION_FINGERPRINT


def read_decision(envelope: Envelope) -> Decision | None:
    """The decision in an envelope of that kind; None for a mark without events. Raises `UnreadableRecord`."""
    if not envelope.body:
        return None
    if envelope.body_fingerprint != _DECISION_FINGERPRINT:
        raise UnknownRecord(
            f"a decision of schema {envelope.body_fingerprint.hex()}, which this software does not have"
        )
    decision: Decision = _DECISION.decode(envelope.body)
    return decision


def read_genesis(envelope: Envelope) -> Genesis:
    """Raises `UnreadableRecord`."""
    datum = _GENESIS.decode(envelope.body)
    return Genesis(datum["incarnation"], datum["partitions"], datum["topic_ids"], datum["created_at_ms"])


def read_claim(envelope: Envelope) -> Claim:
    """Raises `UnreadableRecord`."""
    datum = _CLAIM.decode(envelope.body)
    return Claim(datum["owner"], datum["address"], tuple(datum["saga_types"]), datum["version"])
