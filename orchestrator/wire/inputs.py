"""Inputs as records: what clients, participants and operators write, and how it is read.

A start needs a key (the saga id) and the header `saga-type`; everything else has a default, so that `kcat` can start a
saga. A forwarded input is the original record with headers that say where it came from.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from orchestrator.baggage import MAX_BAGGAGE_BYTES
from orchestrator.model import messages as msg
from orchestrator.model.events import InputHeld
from orchestrator.model.frozen import frozen
from orchestrator.model.ids import MAX_SAGA_ID_BYTES as MAX_SAGA_ID_BYTES
from orchestrator.model.ids import problem_of
from orchestrator.model.messages import Conflict, Outcome, Override, ReplyAddress, Reuse
from orchestrator.model.pauses import check_rule
from orchestrator.topics import TopicNames
from orchestrator.wire import headers as h
from orchestrator.wire.avro import Codec, UnreadableRecord
from orchestrator.wire.headers import MalformedMessage
from orchestrator.wire.notes import read_note
from orchestrator.wire.promises import read_token

INBOX = "inbox"
REPLIES = "replies"
INTERNAL = "internal"
OPERATIONS = "operations"
ROLES = (INBOX, REPLIES, INTERNAL, OPERATIONS)
"""The four input topics of a partition, by role."""


def input_topics(names: TopicNames) -> dict[str, str]:
    """The topics by role."""
    return {
        INBOX: names.inbox,
        REPLIES: names.replies,
        INTERNAL: names.internal,
        OPERATIONS: names.operations,
    }


FORWARDED_FROM = "forwarded-from"
SAGA = "saga"
"""Instead of a topic's role: the record was made by a saga's owner, see `write_message`."""
MESSAGE = "message"
"""The input type of a record on `saga.operations` whose value is what a saga has for another: it was redriven."""
COUNTER = "internal-counter"
VERSION = "version"
TARGET = "target"
"""Of a fork: the id of the saga that begins."""
BY = "by"
REASON = "reason"
RULE = "rule"
MAX_MESSAGE_ID_BYTES = 512


class Incoming(Protocol):
    """What is read of a record besides its headers."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...


@frozen
class Passage:
    """How an internal message travelled: the partition that sent it and its number among those for this partition."""

    source: int
    counter: int


def read_passage(headers: dict[str, str]) -> Passage:
    """Raises `MalformedMessage`."""
    return Passage(h.whole_number(headers, h.SOURCE_PARTITION), h.whole_number(headers, COUNTER))


def read_input(role: str, record: Incoming, headers: dict[str, str]) -> msg.Input | msg.SetPauseRule | msg.Query:
    """The input in a record of the topic with this role. Raises `MalformedMessage`."""
    if role == INTERNAL:
        role = h.need(headers, FORWARDED_FROM)
        if role == SAGA:
            return _read_message(record)
    elif role == OPERATIONS and RULE in headers:
        return _pause_rule(record, headers)
    if h.PROMISE_TOKEN in headers and role == INBOX:
        headers = _named_by_token(headers)
    saga_id = _saga_id(record, headers)
    if role == REPLIES:
        return _reply(saga_id, record, headers)
    if role == OPERATIONS:
        return _operation(saga_id, record, headers)
    if role == INBOX:
        return _inbox(saga_id, record, headers)
    raise MalformedMessage(f"header {FORWARDED_FROM!r}: {role[:40]!r} is no input topic")


_HELD = Codec(InputHeld)


def write_message(given: msg.Input) -> bytes:
    """What one saga has for another, as the value of a record on `saga.internal`: Avro, as in the journal."""
    return _HELD.encode(InputHeld(given))


def _read_message(record: Incoming) -> msg.Input:
    try:
        given: msg.Input = _HELD.decode(record.value or b"").input
    except UnreadableRecord as error:
        raise MalformedMessage(f"no message of a saga: {error}") from None
    return given


def _named_by_token(headers: dict[str, str]) -> dict[str, str]:
    """With the saga, the run and the promise that the token names."""
    try:
        address = read_token(headers[h.PROMISE_TOKEN])
    except ValueError as error:
        raise MalformedMessage(f"header {h.PROMISE_TOKEN!r}: {error}") from None
    return {**headers, h.SAGA_ID: address.saga_id, h.SAGA_RUN: address.run, h.PROMISE: address.name}


def _saga_id(record: Incoming, headers: dict[str, str]) -> str:
    saga_id = headers.get(h.SAGA_ID)
    if not saga_id:
        try:
            saga_id = (record.key or b"").decode()
        except UnicodeDecodeError:
            raise MalformedMessage("the key is not UTF-8; the saga id belongs there or into 'saga-id'") from None
    if not saga_id:
        raise MalformedMessage("no saga id: give it as the record's key or in the header 'saga-id'")
    return check_saga_id(saga_id)


def check_saga_id(saga_id: str) -> str:
    """The same id. Raises `MalformedMessage`."""
    if (problem := problem_of(saga_id)) is not None:
        raise MalformedMessage(problem)
    return saga_id


def _message_id(record: Incoming, headers: dict[str, str]) -> str:
    given = headers.get(h.MESSAGE_ID)
    if not given:
        return f"{record.topic}-{record.partition}-{record.offset}"
    if "\0" in given or len(given.encode()) > MAX_MESSAGE_ID_BYTES:
        raise MalformedMessage(f"header {h.MESSAGE_ID!r} has at most {MAX_MESSAGE_ID_BYTES} bytes and no NUL")
    return given


def _reply_to(headers: dict[str, str]) -> ReplyAddress | None:
    topic = headers.get(h.REPLY_TO)
    if not topic:
        return None
    partition = h.whole_number(headers, h.REPLY_PARTITION)
    if not 0 <= partition < 2**31:
        raise MalformedMessage(f"header {h.REPLY_PARTITION!r}: there is no partition {partition}")
    correlation_id = headers.get(h.CORRELATION_ID, "")
    if len(correlation_id.encode()) > MAX_MESSAGE_ID_BYTES:
        raise MalformedMessage(f"header {h.CORRELATION_ID!r} has at most {MAX_MESSAGE_ID_BYTES} bytes")
    return ReplyAddress(topic, partition, correlation_id)


_KINDS = ("start", "attach", "cancel", "signal", "reschedule", "promise", "query", "update")


def _inbox(saga_id: str, record: Incoming, headers: dict[str, str]) -> msg.Input | msg.Query:
    kind = headers.get(h.INPUT_TYPE, "start")
    message_id = _message_id(record, headers)
    if kind == "start":
        saga_type = h.need(headers, h.SAGA_TYPE)
        signal, value = headers.get(h.SIGNAL) or None, headers.get(h.SIGNAL_VALUE, "null").encode()
        baggage = headers.get(h.BAGGAGE) or None
        if baggage is not None and len(baggage.encode()) > MAX_BAGGAGE_BYTES:
            raise MalformedMessage(f"header {h.BAGGAGE!r} has at most {MAX_BAGGAGE_BYTES} bytes")
        return msg.Start(
            saga_id,
            message_id,
            saga_type,
            record.value or b"",
            _reply_to(headers),
            headers.get(h.TRACEPARENT),
            signal,
            b"" if signal is None else value,
            Reuse(_one_of(headers, h.REUSE, Reuse)) if headers.get(h.REUSE) else None,
            Conflict(_one_of(headers, h.CONFLICT, Conflict)) if headers.get(h.CONFLICT) else Conflict.USE_EXISTING,
            *_begin(headers),
            baggage,
            _note(headers),
        )
    if kind == "reschedule":
        begin = _begin(headers)
        if begin == (None, None):
            raise MalformedMessage(f"to reschedule needs the header {h.START_AT!r} or {h.START_DELAY_MS!r}")
        run, by = headers.get(h.SAGA_RUN) or None, headers.get(BY, "")
        return msg.Reschedule(saga_id, message_id, *begin, run, by, _reply_to(headers))
    if kind == "attach":
        reply_to = _reply_to(headers)
        if reply_to is None:
            raise MalformedMessage(f"to attach needs the header {h.REPLY_TO!r}")
        return msg.Attach(saga_id, message_id, reply_to, headers.get(h.SAGA_TYPE) or None)
    if kind == "cancel":
        return _cancel(saga_id, message_id, headers)
    if kind == "signal":
        name, run = h.need(headers, h.SIGNAL), headers.get(h.SAGA_RUN) or None
        return msg.Signal(saga_id, message_id, name, record.value or b"", run, headers.get(BY, ""))
    if kind == "query":
        reply_to, name = _reply_to(headers), h.need(headers, h.QUERY)
        if reply_to is None:
            raise MalformedMessage(f"a query needs the header {h.REPLY_TO!r}")
        return msg.Query(saga_id, message_id, reply_to, name, record.value or b"", headers.get(h.SAGA_TYPE) or None)
    if kind == "update":
        update_id = headers.get(h.UPDATE_ID) or message_id
        given = h.need(headers, h.UPDATE), record.value or b"", _reply_to(headers), headers.get(h.SAGA_TYPE, "")
        return msg.Update(saga_id, message_id, update_id, *given)
    if kind == "promise":
        return _settle(saga_id, message_id, record, headers)
    raise MalformedMessage(f"header {h.INPUT_TYPE!r}: {kind[:40]!r} is none of {', '.join(_KINDS)}")


def _settle(saga_id: str, message_id: str, record: Incoming, headers: dict[str, str]) -> msg.Settle:
    name, run, by = h.need(headers, h.PROMISE), headers.get(h.SAGA_RUN) or None, headers.get(BY, "")
    outcome = headers.get(h.OUTCOME, Outcome.SUCCESS)
    if outcome == Outcome.SUCCESS:
        return msg.Settle(saga_id, message_id, name, record.value or b"null", run=run, by=by)
    if outcome != Outcome.FAILURE:
        raise MalformedMessage(f"header {h.OUTCOME!r} must be success or failure, not {outcome[:40]!r}")
    error_type = h.shorten(headers.get(h.ERROR_TYPE) or "Failure", 256)
    error_message = h.shorten(headers.get(h.ERROR_MESSAGE, ""))
    return msg.Settle(saga_id, message_id, name, b"", error_type, error_message, run, by)


def _begin(headers: dict[str, str]) -> tuple[int | None, int | None]:
    """When a saga begins: milliseconds since 1970, or from when the start is decided. At most one of them."""
    given = [h.whole_number(headers, name) if name in headers else None for name in (h.START_AT, h.START_DELAY_MS)]
    at_ms, after_ms = given
    if at_ms is not None and after_ms is not None:
        raise MalformedMessage(f"the headers {h.START_AT!r} and {h.START_DELAY_MS!r} exclude each other")
    if min(at_ms or 0, after_ms or 0) < 0:
        raise MalformedMessage("a saga begins at no time before 1970, and not earlier than now")
    return at_ms, after_ms


def _one_of(headers: dict[str, str], name: str, values: type[StrEnum]) -> str:
    given = headers[name]
    if given not in values._value2member_map_:
        raise MalformedMessage(f"header {name!r}: {given[:40]!r} is none of {', '.join(values)}")
    return given


def _note(headers: dict[str, str]) -> bytes:
    note = headers.get(h.NOTE, "").encode()
    if note:
        try:
            read_note(note)
        except ValueError as error:
            raise MalformedMessage(f"header {h.NOTE!r}: {error}") from None
    return note


def _cancel(saga_id: str, message_id: str, headers: dict[str, str]) -> msg.Cancel:
    run, reason = headers.get(h.SAGA_RUN) or None, h.shorten(headers.get(REASON, ""))
    return msg.Cancel(saga_id, message_id, run, reason, headers.get(BY, ""), _reply_to(headers))


def _operation(saga_id: str, record: Incoming, headers: dict[str, str]) -> msg.Input:
    kind = h.need(headers, h.INPUT_TYPE)
    message_id = _message_id(record, headers)
    run = headers.get(h.SAGA_RUN) or None
    reason, by, reply_to = h.shorten(headers.get(REASON, "")), headers.get(BY, ""), _reply_to(headers)
    if kind == "terminate":
        return msg.Terminate(saga_id, message_id, run, reason, by, reply_to)
    if kind == "pause":
        return msg.Pause(saga_id, message_id, run, reason, by, reply_to)
    if kind == "resume":
        return msg.Resume(saga_id, message_id, run, reason, by, reply_to)
    if kind == "compensate":
        return msg.Compensate(saga_id, message_id, run, reason, by, reply_to)
    if kind == "cancel":
        return _cancel(saga_id, message_id, headers)
    if kind == "restart":
        return msg.Restart(saga_id, message_id, record.value, run, reason, by or "operator", reply_to)
    if kind == "redrive":
        return msg.Redrive(saga_id, message_id, run, reason, by or "operator", reply_to, record.value)
    if kind == "reset":
        to = h.whole_number(headers, h.STEP)
        return msg.Reset(saga_id, message_id, to, run, reason, by or "operator", reply_to)
    if kind == "fork":
        to, target = h.whole_number(headers, h.STEP), check_saga_id(h.need(headers, TARGET))
        return msg.Fork(saga_id, message_id, to, target, run, reason, by or "operator", reply_to)
    if kind == "move-version":
        version = h.whole_number(headers, VERSION)
        return msg.MoveVersion(saga_id, message_id, version, run, reason, by or "operator", reply_to)
    if kind in Override._value2member_map_:
        sequence = h.whole_number(headers, h.STEP, 0)
        action, by = Override(kind), by or "operator"
        return msg.Unpark(saga_id, message_id, action, sequence, record.value, run, reason, by, reply_to)
    if kind == MESSAGE:
        given = _read_message(record)
        check_saga_id(given.saga_id)
        return given
    raise MalformedMessage(f"header {h.INPUT_TYPE!r}: {kind[:40]!r} is no operation")


def _pause_rule(record: Incoming, headers: dict[str, str]) -> msg.SetPauseRule:
    kind, rule = h.need(headers, h.INPUT_TYPE), h.need(headers, RULE)
    if kind not in ("pause", "resume"):
        raise MalformedMessage(f"header {h.INPUT_TYPE!r}: a rule is paused or resumed, not {kind[:40]!r}")
    try:
        check_rule(rule)
    except ValueError as error:
        raise MalformedMessage(f"header {RULE!r}: {error}") from None
    message_id, reason = _message_id(record, headers), h.shorten(headers.get(REASON, ""))
    return msg.SetPauseRule(message_id, rule, kind == "pause", reason, headers.get(BY, ""), _reply_to(headers))


_OUTCOMES = {outcome.value: outcome for outcome in Outcome}


def _check_details(details: bytes) -> None:
    """They go back out as a header."""
    if len(details) > h.MAX_DETAILS_BYTES:
        raise MalformedMessage(f"a heartbeat's value has {len(details)} bytes, at most {h.MAX_DETAILS_BYTES}")
    try:
        details.decode()
    except UnicodeDecodeError:
        raise MalformedMessage("a heartbeat's value is text in UTF-8, such as JSON") from None


def _reply(saga_id: str, record: Incoming, headers: dict[str, str]) -> msg.Reply:
    outcome = h.need(headers, h.OUTCOME)
    if outcome not in _OUTCOMES:
        known = "success, failure, retry or heartbeat"
        raise MalformedMessage(f"header {h.OUTCOME!r} must be {known}, not {outcome[:40]!r}")
    direction = headers.get(h.DIRECTION, "do")
    if direction not in ("do", "undo"):
        raise MalformedMessage(f"header {h.DIRECTION!r} must be do or undo, not {direction[:40]!r}")
    if outcome == Outcome.HEARTBEAT:
        _check_details(record.value or b"")
    retry_after = h.whole_number(headers, h.RETRY_AFTER_MS, -1) if h.RETRY_AFTER_MS in headers else -1
    return msg.Reply(
        saga_id,
        h.need(headers, h.SAGA_RUN),
        h.whole_number(headers, h.STEP),
        direction == "undo",
        h.whole_number(headers, h.ATTEMPT, 1),
        _OUTCOMES[outcome],
        record.value or b"",
        h.shorten(headers.get(h.ERROR_TYPE, ""), 256),
        h.shorten(headers.get(h.ERROR_MESSAGE, "")),
        retry_after if retry_after >= 0 else None,
    )
