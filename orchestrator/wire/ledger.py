"""Ledger records: the memory of a service that has no database.

Each is an Avro `LedgerRecord` in single-object encoding: C3 01, the schema's 8-byte CRC-64-AVRO, the datum. A reader
that does not know the fingerprint must not claim the partition, for a newer participant may own it.
"""

from __future__ import annotations

from typing import NamedTuple

from orchestrator.model.messages import Outcome
from orchestrator.wire.avro import NAMESPACE, DatumCodec, UnreadableRecord, fingerprint
from orchestrator.wire.commands import Ending, Postponed, ReplyMessage

NONCE_BYTES = 16

_CODEC = DatumCodec("LedgerRecord")
_MARK = b"\xc3\x01" + fingerprint("LedgerRecord")
_CLAIM, _RELEASE = (f"{NAMESPACE}.{name}" for name in ("LedgerClaim", "LedgerRelease"))
_PENDING = "pending"


class Claim(NamedTuple):
    """A participant takes over the partition; the record's offset is the claim's name. Durations in milliseconds."""

    nonce: bytes
    owner: str
    lease_ms: int
    handler_limit_ms: int


class Execution(NamedTuple):
    """How one execution of a command ended, written under the claim at offset `claim`.

    What was postponed is written as the outcome `pending` with the token as its payload.
    """

    claim: int
    saga_id: str
    run: str
    sequence: int
    undo: bool
    attempt: int
    reply: Ending


class Release(NamedTuple):
    """No handler runs under this claim any more, `earlier`: nor under any before it."""

    claim: int
    earlier: bool


def write_record(body: Claim | Execution | Release) -> bytes:
    """One ledger record as bytes."""
    if isinstance(body, Execution):
        return _write_execution(body)
    return _MARK + _CODEC.encode({"body": (_CLAIM if isinstance(body, Claim) else _RELEASE, body._asdict())})


def _write_execution(body: Execution) -> bytes:
    """By hand what the codec would write, in a quarter of the time: there is one for every command."""
    claim, saga_id, run, sequence, undo, attempt, reply = body
    outcome: str
    if isinstance(reply, Postponed):
        outcome, payload, error_type, error_message, retry_after_ms = _PENDING, reply.token, "", "", None
    else:
        outcome, payload, error_type, error_message, retry_after_ms = reply
    saga_bytes, run_bytes = saga_id.encode(), run.encode()
    return b"".join(
        (
            _EXECUTION_MARK,
            _long(claim),
            _long(len(saga_bytes)),
            saga_bytes,
            _long(len(run_bytes)),
            run_bytes,
            _long(sequence),
            _TRUE if undo else _ZERO,
            _long(attempt),
            _OUTCOMES[outcome],
            _long(len(payload)),
            payload,
            _text(error_type) if error_type else _ZERO,
            _text(error_message) if error_message else _ZERO,
            _ZERO if retry_after_ms is None else _SECOND + _long(retry_after_ms),
        )
    )


def _long(number: int) -> bytes:
    """Avro's zigzag and variable-length encoding."""
    if 0 <= number < _KNOWN:
        return _LONGS[number]
    return _encode_long(number)


def _encode_long(number: int) -> bytes:
    rest = number << 1 if number >= 0 else ~(number << 1)
    encoded = bytearray()
    while rest >= 0x80:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


def _text(text: str) -> bytes:
    encoded = text.encode()
    return _long(len(encoded)) + encoded


_KNOWN = 1024
_LONGS = [_encode_long(number) for number in range(_KNOWN)]
_ZERO, _TRUE, _SECOND = b"\x00", b"\x01", b"\x02"
"""Also an empty text, and the first and the second of two alternatives."""
_OUTCOMES = {outcome: _text(outcome) for outcome in (*(each.value for each in Outcome), _PENDING)}
_EXECUTION_MARK = _MARK + _ZERO
"""The schema's mark, and the first of the body's alternatives."""


def read_record(value: bytes | None) -> Claim | Execution | Release:
    """A ledger record from its bytes. Raises `UnreadableRecord`."""
    if value is None or value[: len(_MARK)] != _MARK:
        raise UnreadableRecord(f"not a ledger record this software knows: begins with {(value or b'')[:10].hex()!r}")
    name, fields = _CODEC.decode(value[len(_MARK) :])["body"]
    if name == _CLAIM:
        return Claim(**fields)
    if name == _RELEASE:
        return Release(**fields)
    reply: Ending
    if fields["outcome"] == _PENDING:
        reply = Postponed(fields["payload"])
    else:
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
