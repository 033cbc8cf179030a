"""Ledger records and dead letters as bytes."""

from __future__ import annotations

import pytest

from orchestrator.model.messages import Outcome
from orchestrator.topics import TopicNames
from orchestrator.wire.avro import DatumCodec, UnreadableRecord
from orchestrator.wire.commands import Postponed, ReplyMessage
from orchestrator.wire.dead_letters import dead_letter_headers
from orchestrator.wire.ledger import Claim, Execution, Release, read_record, write_record

RECORDS = [
    Claim(bytes(range(16)), "host-1", 5_000, 30_000),
    Release(7, True),
    Release(0, False),
    Execution(7, "order-7", "1-2-3", 4, False, 1, ReplyMessage(Outcome.SUCCESS, b'{"a":1}')),
    Execution(7, "Zoë", "1-2-3", 4, True, 9, ReplyMessage(Outcome.RETRY, b"", "Busy", "später", 700)),
    Execution(7, "order-7", "1-2-3", 4, True, 9, ReplyMessage(Outcome.FAILURE, b"", "No", "")),
    Execution(7, "order-7", "1-2-3", 4, False, 1, Postponed(b"k.00")),
]
NUMBERS = [0, 1, -1, 63, 64, -64, -65, 1023, 1024, 8191, 8192, 2**31, -(2**31), 2**63 - 1, -(2**63)]


@pytest.mark.parametrize("record", RECORDS)
def test_a_record_comes_back_as_it_was(record: Claim | Execution | Release) -> None:
    value = write_record(record)
    assert value[:2] == b"\xc3\x01"
    assert read_record(value) == record


@pytest.mark.parametrize("number", NUMBERS)
def test_executions_are_written_as_the_schema_says(number: int) -> None:
    codec = DatumCodec("LedgerRecord")
    for size in (0, 1, 63, 64, 1024, 70_000):
        payload, text = b"\xff" * size, "ü" * size
        reply = ReplyMessage(Outcome.RETRY, payload, text, "because", number)
        record = Execution(number, text, "1-2-3", number, number > 0, number, reply)
        fields = {**record._asdict(), **reply._asdict(), "outcome": "retry"}
        assert write_record(record)[10:] == codec.encode({"body": ("orchestrator.LedgerOutcome", fields)})
        assert read_record(write_record(record)) == record


def test_a_record_is_small() -> None:
    assert len(write_record(RECORDS[3])) < 60


@pytest.mark.parametrize("record", RECORDS)
def test_damaged_bytes_are_never_something_else_silently_cut(record: Claim | Execution | Release) -> None:
    value = write_record(record)
    for cut in range(len(value)):
        with pytest.raises(UnreadableRecord):
            read_record(value[:cut])
    with pytest.raises(UnreadableRecord):
        read_record(value + b"\0")
    with pytest.raises(UnreadableRecord, match="begins with"):
        read_record(value[:3] + b"?" + value[4:])


def test_what_is_no_ledger_record() -> None:
    for value in (None, b"", b"{}", b"\xc3\x01"):
        with pytest.raises(UnreadableRecord):
            read_record(value)


def test_dead_letter_headers_keep_the_original_and_say_why_twice() -> None:
    original = ((("trace", b"\xff")), ("kafka_dlt-original-offset", b"older"))
    headers = dead_letter_headers("payments.commands", 3, 2**40, 1_700_000_000_000, original, "x" * 5000, "Malformed")
    assert tuple(headers[:2]) == original
    last = dict(headers)
    assert last["__connect.errors.topic"] == last["kafka_dlt-original-topic"] == b"payments.commands"
    assert last["__connect.errors.partition"] == b"3"
    assert last["__connect.errors.offset"] == str(2**40).encode()
    assert int.from_bytes(last["kafka_dlt-original-partition"], "big") == 3
    assert len(last["kafka_dlt-original-partition"]) == 4
    assert int.from_bytes(last["kafka_dlt-original-offset"], "big") == 2**40
    assert int.from_bytes(last["kafka_dlt-original-timestamp"], "big") == 1_700_000_000_000
    assert last["__connect.errors.exception.class.name"] == last["kafka_dlt-exception-fqcn"] == b"Malformed"
    assert len(last["kafka_dlt-exception-message"]) == 1024


def test_dead_letter_reasons_may_quote_what_is_no_text() -> None:
    headers = dict(dead_letter_headers("t", 0, 0, 0, (), "bad \udcff", "X"))
    assert headers["__connect.errors.exception.message"] == b"bad ?"


def test_topic_names_have_a_prefix_and_may_be_replaced() -> None:
    names = TopicNames("test-", {"payments.commands": "pay", "saga.inbox": "in"})
    assert names.inbox == "in"
    assert names.replies == "test-saga.replies"
    assert names.commands("payments") == "pay"
    assert names.ledger("payments") == "test-payments.ledger"
    assert names.group("payments") == "test-payments"
    assert TopicNames().dead_letters == "saga.dead-letters"
