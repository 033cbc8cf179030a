"""Ledger records: the memory of a service that has no database.

Each is an Avro `LedgerRecord` in single-object encoding: C3 01, the schema's 8-byte CRC-64-AVRO, the datum. A reader
that does not know the fingerprint must not claim the partition, for a newer participant may own it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from orchestrator.model.messages import Outcome
from orchestrator.wire.avro import NAMESPACE, DatumCodec, UnreadableRecord, fingerprint
from orchestrator.wire.commands import ReplyMessage

NONCE_BYTES = 16

_CODEC = DatumCodec("LedgerRecord")
_MARK = b"\xc3\x01" + fingerprint("LedgerRecord")
_CLAIM, _OUTCOME, _RELEASE = (f"{NAMESPACE}.{name}" for name in ("LedgerClaim", "LedgerOutcome", "LedgerRelease"))


class Claim(NamedTuple):
    """A participant takes over the partition; the record's offset is the claim's name. Durations in milliseconds."""

    nonce: bytes
    owner: str
    lease_ms: int
    handler_limit_ms: int


class Execution(NamedTuple):
    """How one execution of a command ended, written under the claim at offset `claim`."""

    claim: int
    saga_id: str
    run: str
    sequence: int
    undo: bool
    attempt: int
    reply: ReplyMessage


class Release(NamedTuple):
    """No handler runs under this claim any more, `earlier`: nor under any before it."""

    claim: int
    earlier: bool


def write_record(body: Claim | Execution | Release) -> bytes:
    """One ledger record as bytes."""
    if isinstance(body, Execution):
        reply = body.reply
        datum: tuple[str, dict[str, Any]] = (
            _OUTCOME,
            {
                "claim": body.claim,
                "saga_id": body.saga_id,
                "run": body.run,
                "sequence": body.sequence,
                "undo": body.undo,
                "attempt": body.attempt,
                "outcome": reply.outcome.value,
                "payload": reply.payload,
                "error_type": reply.error_type,
                "error_message": reply.error_message,
                "retry_after_ms": reply.retry_after_ms,
            },
        )
    else:
        datum = (_CLAIM if isinstance(body, Claim) else _RELEASE, body._asdict())
    return _MARK + _CODEC.encode({"body": datum})


def read_record(value: bytes | None) -> Claim | Execution | Release:
    """A ledger record from its bytes. Raises `UnreadableRecord`."""
    if value is None or value[: len(_MARK)] != _MARK:
        raise UnreadableRecord(f"not a ledger record this software knows: begins with {(value or b'')[:10].hex()!r}")
    name, fields = _CODEC.decode(value[len(_MARK) :])["body"]
    if name == _CLAIM:
        return Claim(**fields)
    if name == _RELEASE:
        return Release(**fields)
    try:
        outcome = Outcome(fields["outcome"])
    except ValueError as error:
        raise UnreadableRecord(f"not a ledger record this software knows: {error}") from None
    reply = ReplyMessage(
        outcome, fields["payload"], fields["error_type"], fields["error_message"], fields["retry_after_ms"]
    )
    return Execution(
        fields["claim"],
        fields["saga_id"],
        fields["run"],
        fields["sequence"],
        fields["undo"],
        fields["attempt"],
        reply,
    )
