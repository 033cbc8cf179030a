"""Records as inputs: what is needed, what has a default, and what is malformed."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.model import messages as msg
from orchestrator.model.messages import Outcome, Override, ReplyAddress
from orchestrator.wire.headers import (
    MAX_HEADER_BYTES,
    MalformedMessage,
    need,
    read_headers,
    shorten,
    whole_number,
    write_headers,
)
from orchestrator.wire.inputs import (
    INBOX,
    INTERNAL,
    OPERATIONS,
    REPLIES,
    ROLES,
    Passage,
    read_input,
    read_passage,
    write_message,
)


@dataclass
class Record:
    key: bytes | None = b"order-7"
    value: bytes | None = b"{}"
    topic: str = "saga.inbox"
    partition: int = 2
    offset: int = 41


NAMES = (
    "saga-id",
    "saga-run",
    "saga-type",
    "input-type",
    "step",
    "direction",
    "attempt",
    "outcome",
    "reply-to",
    "reply-partition",
    "message-id",
    "retry-after-ms",
    "forwarded-from",
)
REPLY = {"saga-run": "1-10-0", "step": "3", "outcome": "success"}


def malformed(role: str, headers: dict[str, str], record: Record | None = None) -> str:
    with pytest.raises(MalformedMessage) as caught:
        read_input(role, record or Record(), headers)
    return str(caught.value)


# -- starts

REPLY_TO = {"saga-type": "Order", "reply-to": "t", "reply-partition": "0"}


def test_a_start_needs_a_key_and_a_type_only() -> None:
    start = read_input(INBOX, Record(), {"saga-type": "Order"})
    assert start == msg.Start("order-7", "saga.inbox-2-41", "Order", b"{}")


def test_a_start_takes_what_else_is_said() -> None:
    headers = {
        "saga-type": "Order",
        "saga-id": "other",
        "message-id": "m-1",
        "reply-to": "answers",
        "reply-partition": "3",
        "correlation-id": "c",
        "traceparent": "00-trace",
    }
    start = read_input(INBOX, Record(value=None), headers)
    assert start == msg.Start("other", "m-1", "Order", b"", ReplyAddress("answers", 3, "c"), "00-trace")


@pytest.mark.parametrize(
    ("headers", "record", "words"),
    [
        ({}, Record(), "'saga-type' is missing"),
        ({"saga-type": ""}, Record(), "'saga-type' is missing"),
        ({"saga-type": "Order"}, Record(key=None), "no saga id"),
        ({"saga-type": "Order"}, Record(key=b""), "no saga id"),
        ({"saga-type": "Order"}, Record(key=b"\xff"), "the key is not UTF-8"),
        ({"saga-type": "Order"}, Record(key=b"a\0b"), "no NUL"),
        ({"saga-type": "Order"}, Record(key=b"x" * 513), "at most 512 bytes"),
        ({"saga-type": "Order", "saga-id": "ß" * 257}, Record(), "at most 512 bytes"),
        ({"saga-type": "Order", "message-id": "x" * 513}, Record(), "'message-id' has at most 512 bytes"),
        ({"saga-type": "Order", "message-id": "a\0"}, Record(), "no NUL"),
        ({"saga-type": "Order", "reply-to": "t"}, Record(), "'reply-partition' is missing"),
        ({"saga-type": "Order", "reply-to": "t", "reply-partition": "one"}, Record(), "must be a whole number"),
        ({"saga-type": "Order", "reply-to": "t", "reply-partition": "-1"}, Record(), "there is no partition -1"),
        ({"saga-type": "Order", "reply-to": "t", "reply-partition": str(2**31)}, Record(), "there is no partition"),
        ({**REPLY_TO, "correlation-id": "é" * 257}, Record(), "'correlation-id' has at most 512 bytes"),
        ({"input-type": "begin"}, Record(), "'begin' is none of start, attach, cancel"),
        ({"input-type": "attach"}, Record(), "to attach needs the header 'reply-to'"),
        ({"input-type": "retry"}, Record(), "is none of start, attach, cancel"),
    ],
)
def test_a_malformed_client_record_says_what_is_wrong(headers: dict[str, str], record: Record, words: str) -> None:
    assert words in malformed(INBOX, headers, record)


@pytest.mark.parametrize(("name", "begin"), [("start-at", (5, None)), ("start-delay-ms", (None, 5))])
def test_a_start_may_be_delayed_and_moved(name: str, begin: tuple[int | None, int | None]) -> None:
    start = read_input(INBOX, Record(), {"saga-type": "Order", name: "5"})
    assert isinstance(start, msg.Start)
    assert (start.begin_at_ms, start.begin_after_ms) == begin
    moved = read_input(INBOX, Record(), {"input-type": "reschedule", "message-id": "m", "by": "ann", name: "5"})
    assert moved == msg.Reschedule("order-7", "m", *begin, None, "ann")


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"start-at": "soon"}, "'start-at' must be a whole number"),
        ({"start-at": "5", "start-delay-ms": "5"}, "exclude each other"),
        ({"start-delay-ms": "-5"}, "not earlier than now"),
        ({"input-type": "reschedule"}, "to reschedule needs the header 'start-at' or 'start-delay-ms'"),
    ],
)
def test_a_time_to_begin_that_makes_no_sense_is_malformed(headers: dict[str, str], words: str) -> None:
    assert words in malformed(INBOX, {"saga-type": "Order", **headers})


def test_what_a_malformed_header_says_is_not_repeated_at_length() -> None:
    assert len(malformed(INBOX, {"input-type": "x" * 10_000})) < 200


def test_to_attach_and_to_cancel() -> None:
    headers = {"input-type": "attach", "reply-to": "answers", "reply-partition": "0"}
    assert read_input(INBOX, Record(), headers) == msg.Attach(
        "order-7", "saga.inbox-2-41", ReplyAddress("answers", 0, "")
    )
    headers = {"input-type": "cancel", "saga-run": "1-10-0", "reason": "r" * 10_000, "by": "ann"}
    cancel = read_input(INBOX, Record(), headers)
    assert isinstance(cancel, msg.Cancel)
    assert (cancel.run, cancel.by, len(cancel.reason)) == ("1-10-0", "ann", 4_094)
    assert read_input(INBOX, Record(), {"input-type": "cancel"}) == msg.Cancel("order-7", "saga.inbox-2-41")


# -- replies


def test_a_reply_needs_its_run_its_step_and_its_outcome_only() -> None:
    assert read_input(REPLIES, Record(), REPLY) == msg.Reply("order-7", "1-10-0", 3, False, 1, Outcome.SUCCESS, b"{}")


def test_a_reply_takes_what_else_is_said() -> None:
    headers = {
        **REPLY,
        "direction": "undo",
        "attempt": "4",
        "outcome": "retry",
        "error-type": "Busy" * 100,
        "error-message": "later",
        "retry-after-ms": "500",
    }
    reply = read_input(REPLIES, Record(value=None), headers)
    assert isinstance(reply, msg.Reply)
    assert (reply.undo, reply.attempt, reply.outcome, reply.retry_after_ms) == (True, 4, Outcome.RETRY, 500)
    assert len(reply.error_type.encode()) <= 256
    assert (reply.payload, reply.error_message) == (b"", "later")


def test_a_negative_wait_is_none() -> None:
    reply = read_input(REPLIES, Record(), {**REPLY, "retry-after-ms": "-5"})
    assert isinstance(reply, msg.Reply)
    assert reply.retry_after_ms is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"outcome": ""}, "'outcome' is missing"),
        ({"outcome": "perhaps"}, "must be success, failure, retry or heartbeat, not 'perhaps'"),
        ({"outcome": "SUCCESS"}, "must be success, failure, retry or heartbeat"),
        ({"direction": "back"}, "must be do or undo, not 'back'"),
        ({"saga-run": ""}, "'saga-run' is missing"),
        ({"step": ""}, "'step' is missing"),
        ({"step": "three"}, "'step' must be a whole number"),
        ({"step": "1.5"}, "'step' must be a whole number"),
        ({"step": "-"}, "'step' must be a whole number"),
        ({"step": "--1"}, "'step' must be a whole number"),
        ({"step": "１"}, "'step' must be a whole number"),
        ({"step": "1" * 19}, "'step' must be a whole number"),
        ({"attempt": "x"}, "'attempt' must be a whole number"),
        ({"retry-after-ms": "soon"}, "'retry-after-ms' must be a whole number"),
    ],
)
def test_a_malformed_reply_says_what_is_wrong(change: dict[str, str], words: str) -> None:
    assert words in malformed(REPLIES, {**REPLY, **change})


@pytest.mark.parametrize(("value", "words"), [(b"\xff", "text in UTF-8"), (b"x" * 4_097, "4097 bytes, at most 4096")])
def test_a_heartbeat_whose_details_no_header_could_carry_is_malformed(value: bytes, words: str) -> None:
    headers = {**REPLY, "outcome": "heartbeat"}
    with pytest.raises(MalformedMessage, match=words):
        read_input(REPLIES, Record(value=value), headers)
    reply = read_input(REPLIES, Record(value="ß".encode()), headers)
    assert isinstance(reply, msg.Reply)
    assert (reply.outcome, reply.payload) == (Outcome.HEARTBEAT, "ß".encode())


# -- operations


@pytest.mark.parametrize("override", list(Override))
def test_a_person_decides_about_a_parked_saga(override: Override) -> None:
    given_ = read_input(OPERATIONS, Record(value=b"7"), {"input-type": override.value, "step": "3", "reason": "why"})
    assert given_ == msg.Unpark("order-7", "saga.inbox-2-41", override, 3, b"7", None, "why", "operator")


def test_operators_terminate_and_cancel() -> None:
    headers = {"input-type": "terminate", "saga-run": "1-10-0", "reason": "why", "by": "ann"}
    assert read_input(OPERATIONS, Record(), headers) == msg.Terminate(
        "order-7", "saga.inbox-2-41", "1-10-0", "why", "ann"
    )
    assert isinstance(read_input(OPERATIONS, Record(), {"input-type": "cancel"}), msg.Cancel)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "'input-type' is missing"),
        ({"input-type": "start", "saga-type": "Order"}, "'start' is no operation"),
        ({"input-type": "retry", "step": "x"}, "'step' must be a whole number"),
    ],
)
def test_a_malformed_operation_says_what_is_wrong(headers: dict[str, str], words: str) -> None:
    assert words in malformed(OPERATIONS, headers)


# -- internal


@pytest.mark.parametrize("role", [INBOX, REPLIES, OPERATIONS])
def test_a_forwarded_input_is_read_as_one_of_the_topic_it_came_from(role: str) -> None:
    headers = {**REPLY, "saga-type": "Order", "input-type": "cancel"}
    assert read_input(INTERNAL, Record(), {**headers, "forwarded-from": role}) == read_input(role, Record(), headers)


@pytest.mark.parametrize(
    ("headers", "words"),
    [({}, "'forwarded-from' is missing"), ({"forwarded-from": "internal"}, "is no input topic")],
)
def test_an_internal_message_says_where_it_is_from(headers: dict[str, str], words: str) -> None:
    assert words in malformed(INTERNAL, headers)


def test_what_a_saga_has_for_another_is_an_operation_too_when_it_is_redriven() -> None:
    said = msg.Called("order-8", "1-10-0", 3, b"7")
    record = Record(None, write_message(said))
    assert read_input(INTERNAL, record, {"forwarded-from": "saga"}) == said
    headers = {"saga-id": "order-8", "input-type": "message"}
    assert read_input(OPERATIONS, record, headers) == said
    nobody = Record(None, write_message(msg.Called("", "1-10-0", 3, b"7")))
    for wrong in (Record(None, b"no message"), nobody):
        with pytest.raises(MalformedMessage):
            read_input(OPERATIONS, wrong, headers)
    with pytest.raises(MalformedMessage):
        read_input(INBOX, record, headers)


def test_a_passage_is_counted() -> None:
    assert read_passage({"source-partition": "3", "internal-counter": "12"}) == Passage(3, 12)
    for missing in ("source-partition", "internal-counter"):
        headers = {"source-partition": "3", "internal-counter": "12"}
        del headers[missing]
        with pytest.raises(MalformedMessage, match=missing):
            read_passage(headers)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.sampled_from(ROLES),
    st.dictionaries(
        st.sampled_from(NAMES),
        st.sampled_from(("", "start", "cancel", "retry", "undo", "success", "inbox", "-1", "7", "x" * 600)) | st.text(),
    ),
    st.none() | st.binary(max_size=20),
    st.none() | st.binary(max_size=20),
)
def test_whatever_stands_in_a_record_it_is_read_or_called_malformed(
    role: str, headers: dict[str, str], key: bytes | None, value: bytes | None
) -> None:
    try:
        read = read_input(role, Record(key, value), headers)
    except MalformedMessage:
        return
    assert read.saga_id
    assert "\0" not in read.saga_id


# -- headers


def test_the_last_of_repeated_headers_counts_in_any_case() -> None:
    assert read_headers([("Step", b"1"), ("step", b"2"), ("STEP", b"3")]) == {"step": "3"}


def test_headers_that_are_no_text_are_passed_over() -> None:
    assert read_headers([("x", b"\xff"), ("y", None), ("step", b"1"), ("step", b"\xff")]) == {"y": ""}


def test_headers_have_a_limit_in_all() -> None:
    fits = [("a", b"x" * (MAX_HEADER_BYTES - 1))]
    assert read_headers(fits)
    with pytest.raises(MalformedMessage, match="the headers have 16385 bytes"):
        read_headers([*fits, ("b", None)])


def test_headers_are_written_as_text_and_none_is_left_out() -> None:
    assert write_headers({"a": "ß", "b": 7, "c": None}) == [("a", "ß".encode()), ("b", b"7")]


def test_a_header_may_be_needed_or_have_a_default() -> None:
    assert need({"a": "1"}, "a") == "1"
    assert whole_number({}, "a", 5) == 5
    assert whole_number({"a": "-12"}, "a") == -12
    with pytest.raises(MalformedMessage, match="'a' is missing"):
        whole_number({}, "a")


@given(st.text(), st.integers(3, 50))
def test_a_shortened_text_fits_and_is_text(text: str, limit: int) -> None:
    short = shorten(text, limit)
    assert len(short.encode()) <= limit
    assert short == text or short.endswith("…")
