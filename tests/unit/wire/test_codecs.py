"""Values, bytes, values: every dataclass that is journaled comes back as it was, and damage is noticed."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from enum import StrEnum
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.rule import Kind
from orchestrator.wire import journal
from orchestrator.wire.avro import Codec, DatumCodec, UnreadableRecord, fingerprint, load_schema
from orchestrator.wire.journal import Claim, Envelope, Genesis, UnknownRecord, read_envelope, write_envelope
from wire.values import MAX, values_of

QUICK = settings(max_examples=40, deadline=None, derandomize=True)
EVENTS: tuple[type, ...] = ev.Event.__args__
INPUTS: tuple[type, ...] = msg.Input.__args__
DECISIONS = values_of(ev.Decision)
SCHEMAS = sorted(each.name.removesuffix(".avsc") for each in files("orchestrator.schemas.v1").iterdir())


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
def test_every_event_survives_the_journal(kind: type) -> None:
    @QUICK
    @given(values_of(kind))
    def check(event: ev.Event) -> None:
        decision = ev.Decision("s", "1-10-0", 7, (event,))
        body = journal.write_decision(decision)
        assert journal.read_decision(envelope_of(body)) == decision

    check()


@pytest.mark.parametrize("kind", INPUTS, ids=lambda kind: kind.__name__)
def test_every_input_survives_being_held(kind: type) -> None:
    codec = Codec(ev.InputHeld)

    @QUICK
    @given(values_of(kind))
    def check(held: msg.Input) -> None:
        assert codec.decode(codec.encode(ev.InputHeld(held))) == ev.InputHeld(held)

    check()


def envelope_of(body: bytes) -> Envelope:
    return Envelope(Kind.DECISION, body_fingerprint=journal.DECISION_FINGERPRINT, body=body)


@QUICK
@given(DECISIONS)
def test_a_decision_survives_whole_and_equal_ones_give_equal_bytes(decision: ev.Decision) -> None:
    body = journal.write_decision(decision)
    read = journal.read_decision(envelope_of(body))
    assert read == decision
    assert read is not None
    assert journal.write_decision(read) == body


@QUICK
@given(DECISIONS, st.data())
def test_a_decision_that_was_cut_or_lengthened_is_noticed(decision: ev.Decision, data: st.DataObject) -> None:
    body = journal.write_decision(decision)
    cut = body[: data.draw(st.integers(1, len(body) - 1))]
    with pytest.raises(UnreadableRecord):
        journal.read_decision(envelope_of(body + b"\0"))
    with pytest.raises(UnreadableRecord):
        journal.read_decision(envelope_of(cut))


@QUICK
@given(st.binary(max_size=60))
def test_no_bytes_lead_to_any_other_error(data: bytes) -> None:
    for read in (lambda: journal.read_decision(envelope_of(data)), lambda: read_envelope(data)):
        try:
            read()
        except UnreadableRecord:
            continue


def test_values_of_enumerations_that_newer_software_wrote_are_unreadable() -> None:
    datum = DatumCodec("CancelRequested").encode({"cause": "abducted", "reason": "", "by": ""})
    with pytest.raises(UnreadableRecord, match="abducted"):
        Codec(ev.CancelRequested).decode(datum)


def test_a_number_beyond_64_bits_is_not_written() -> None:
    with pytest.raises(Exception, match=r".+"):
        journal.write_decision(ev.Decision("s", "r", MAX + 1, ()))


ENVELOPES = st.builds(
    Envelope,
    st.sampled_from([int(kind) for kind in Kind if kind is not Kind.FORMAT_RAISED]),
    st.binary(min_size=16, max_size=16),
    st.integers(-1, MAX),
    st.binary(max_size=32),
    st.dictionaries(st.sampled_from(("inbox", "replies", "internal", "operations")), st.integers(-1, MAX)),
    st.integers(-1, MAX),
    st.lists(st.tuples(st.integers(0, MAX), st.integers(0, 1_000)), max_size=4).map(tuple),
    st.just(1),
    st.binary(max_size=8),
    st.binary(max_size=50),
)


@QUICK
@given(ENVELOPES)
def test_an_envelope_survives(envelope: Envelope) -> None:
    assert read_envelope(write_envelope(envelope)) == envelope


@pytest.mark.parametrize("change", [{"kind": Kind.FORMAT_RAISED}, {"kind": 9}, {"format": 2}])
def test_a_record_of_newer_software_is_known_as_such(change: dict[str, Any]) -> None:
    with pytest.raises(UnknownRecord, match="run the version that wrote it"):
        read_envelope(write_envelope(replace(Envelope(Kind.DECISION), **change)))


def test_a_record_without_a_value_is_unreadable() -> None:
    with pytest.raises(UnreadableRecord):
        read_envelope(None)


def test_a_decision_of_another_schema_is_not_guessed_at() -> None:
    with pytest.raises(UnknownRecord, match="0011223344556677"):
        journal.read_decision(Envelope(Kind.DECISION, body_fingerprint=bytes.fromhex("0011223344556677"), body=b"x"))


def test_a_mark_holds_no_decision() -> None:
    assert journal.read_decision(Envelope(Kind.DECISION)) is None


def test_a_genesis_and_a_claim_survive() -> None:
    genesis = Genesis(3, 12, {"saga.inbox": "id-1", "ß": ""}, 1_700_000_000_000)
    envelope = read_envelope(journal.genesis_record(genesis))
    assert (envelope.kind, journal.read_genesis(envelope)) == (Kind.GENESIS, genesis)
    claim = Claim("worker-1", "http://10.0.0.1:8080", ("Order", "Refund"), "0.1.0")
    envelope = read_envelope(journal.claim_record(b"n" * 16, claim))
    assert (envelope.kind, envelope.nonce, journal.read_claim(envelope)) == (Kind.CLAIM, b"n" * 16, claim)
    assert envelope.body_fingerprint == fingerprint("Claim")
    for read in (journal.read_genesis, journal.read_claim):
        with pytest.raises(UnreadableRecord):
            read(Envelope(Kind.CLAIM, body=b"\xff"))


def test_a_schema_that_is_not_there_is_unreadable() -> None:
    with pytest.raises(UnreadableRecord, match="no schema 'Nothing' of format 1"):
        load_schema("Nothing")


@pytest.mark.parametrize("name", SCHEMAS)
def test_no_schema_holds_itself_so_no_bytes_nest_deeper_than_it_does(name: str) -> None:
    schema = load_schema(name)
    table = schema.get("__named_schemas", {})

    def look(part: Any, within: frozenset[str]) -> None:
        if isinstance(part, str):
            assert part not in within, f"{part} holds itself"
            if part in table:
                look(table[part], within)
        elif isinstance(part, list):
            for each in part:
                look(each, within)
        else:
            inside = within | {part["name"]} if "name" in part else within
            for each in part.get("fields", ()):
                look(each["type"], inside)
            for each in (part[key] for key in ("items", "values") if key in part):
                look(each, inside)

    look({**schema, "__named_schemas": None}, frozenset())


def test_fingerprints_are_those_of_avros_single_object_encoding() -> None:
    assert len(fingerprint("Decision")) == 8
    assert fingerprint("Decision") != fingerprint("Envelope")


def test_a_header_may_come_more_than_once() -> None:
    event = ev.InputForwarded(1, 2, "inbox", b"v", (("a", b"1"), ("a", b"2")))
    codec = Codec(ev.InputForwarded)
    assert codec.decode(codec.encode(event)) == event


def datum_of(value: Any) -> Any:
    """A value as fastavro takes it; records of a union by name."""
    if is_dataclass(value):
        return {field.name: datum_of(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [named(item) for item in value]
    return str(value) if isinstance(value, StrEnum) else value


def named(item: Any) -> Any:
    if isinstance(item, tuple) and isinstance(item[0], str):
        return {"name": item[0], "value": item[1]}
    if isinstance(item, tuple):
        return {"offset": item[0], "index": item[1]}
    if isinstance(item, EVENTS + INPUTS):
        return f"orchestrator.{type(item).__name__}", datum_of(item)
    return datum_of(item)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(DECISIONS)
def test_the_bytes_of_a_decision_are_those_of_the_avro_library(decision: ev.Decision) -> None:
    given = [event.input for event in decision.events if isinstance(event, ev.InputHeld | ev.InputSent)]
    datum = datum_of(decision)
    for name, event in datum["events"]:
        if name in ("orchestrator.InputHeld", "orchestrator.InputSent"):
            event["input"] = named(given.pop(0))
            if event["input"][0] == "orchestrator.Start":
                event["input"][1]["inherited"] = [inherited for _, inherited in event["input"][1]["inherited"]]
    assert journal.write_decision(decision) == DatumCodec("Decision").encode(datum)


@QUICK
@given(values_of(Envelope), st.binary(min_size=16, max_size=16))
def test_the_bytes_of_an_envelope_are_those_of_the_avro_library(envelope: Envelope, nonce: bytes) -> None:
    envelope = replace(envelope, nonce=nonce)
    assert write_envelope(envelope) == DatumCodec("Envelope").encode(datum_of(envelope))


@pytest.mark.parametrize("number", [0, 1, -1, 63, 64, -64, -65, 8191, 8192, MAX, -MAX - 1])
def test_numbers_of_every_size(number: int) -> None:
    event = ev.WaitExpired(number)
    data = Codec(ev.WaitExpired).encode(event)
    assert data == DatumCodec("WaitExpired").encode({"sequence": number})
    assert Codec(ev.WaitExpired).decode(data) == event


def test_a_number_beyond_64_bits_is_neither_written_nor_read() -> None:
    with pytest.raises(ValueError, match="does not fit 64 bits"):
        Codec(ev.WaitExpired).encode(ev.WaitExpired(MAX + 1))
    for data in (b"\xff" * 9 + b"\x7f", b"\x80" * 11 + b"\x01"):
        with pytest.raises(UnreadableRecord, match="more than 64 bits"):
            Codec(ev.WaitExpired).decode(data)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x01", "a negative length"),
        (b"\xff\x01", "a negative length"),
        (b"\xfe\xff\xff\xff\x0f", "index out of range"),
        (b"\x02\xff", "invalid start byte"),
        (b"\x00\x00\x00\x00", "too many|instead of"),
        (b"", "index out of range"),
    ],
)
def test_damaged_bytes_are_unreadable(data: bytes, why: str) -> None:
    with pytest.raises(UnreadableRecord, match=why):
        Codec(ev.SagaUnparked).decode(data)


def test_arrays_and_maps_in_blocks_with_their_size_are_read_too() -> None:
    """Other writers may split them, and say how many bytes a block has."""
    whole = Envelope(Kind.DECISION, input_positions={"a": 1, "b": 2}, effects_open=((1, 2), (3, 4)))
    data = write_envelope(whole)
    a_map = b"\x04\x02a\x02\x02b\x04\x00"
    an_array = b"\x04\x02\x04\x06\x08\x00"
    assert a_map in data
    assert an_array in data
    split = data.replace(a_map, b"\x01\x06\x02a\x02\x02\x02b\x04\x00")
    split = split.replace(an_array, b"\x02\x02\x04\x01\x04\x06\x08\x00")
    assert read_envelope(split) == whole
