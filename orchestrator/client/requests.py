"""What a client writes: starts, attaches and cancels for the inbox, a person's decisions for the operations, and

completions of pending work for the services' commands.

Checked before it is sent: what no worker could take would come back only as a dead letter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from orchestrator.baggage import write_baggage
from orchestrator.choices import chosen
from orchestrator.correlation import START, TOLD, id_of, publish
from orchestrator.durations import Duration, instant, milliseconds
from orchestrator.errors import DefinitionError, InvalidRequest
from orchestrator.model.budget import MAX_BYTES
from orchestrator.model.ids import partition_of
from orchestrator.model.messages import Conflict, Outcome, Override, ReplyAddress, Reuse
from orchestrator.topics import TopicNames
from orchestrator.wire import headers as h
from orchestrator.wire import inputs as wi
from orchestrator.wire.completions import completion_headers, read_token
from orchestrator.wire.promises import read_token as read_promise_token

_JSON = "application/json"
_MAX_BY_BYTES = 256

Act = Literal["cancel", "terminate", "pause", "resume", "compensate"]

HeaderValues = Mapping[str, str | int | None]


@dataclass(frozen=True, slots=True)
class Request:
    """One record to append. Sent again as it is, it is the same message: it carries its message id."""

    topic: str
    partition: int
    key: bytes
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Begin:
    """When a saga begins: at a time (milliseconds since 1970), so long after the start is decided, or at once."""

    at_ms: int | None = None
    after_ms: int | None = None

    def headers(self) -> dict[str, str | int | None]:
        return {h.START_AT: self.at_ms, h.START_DELAY_MS: self.after_ms}


NOW = Begin()


def begin_of(start_at: datetime | None, start_delay: Duration | None) -> Begin:
    """Raises `InvalidRequest` where both are given, or what is given is no time."""
    if start_at is not None and start_delay is not None:
        raise InvalidRequest("start_at and start_delay exclude each other")
    try:
        return Begin(
            None if start_at is None else instant(start_at), None if start_delay is None else milliseconds(start_delay)
        )
    except DefinitionError as error:
        raise InvalidRequest(str(error)) from None


class Requests:
    """Makes requests for `partitions` partitions. Every method raises `InvalidRequest`."""

    def __init__(self, topics: TopicNames, partitions: int) -> None:
        self._topics = topics
        self._inbox = topics.inbox
        self._operations = topics.operations
        self._partitions = partitions

    def start(
        self,
        saga_type: str,
        saga_id: str,
        payload: bytes,
        message_id: str,
        reply: ReplyAddress | None,
        traceparent: str | None,
        signal: tuple[str, bytes] | None = None,
        reuse: Reuse | None = None,
        conflict: Conflict = Conflict.USE_EXISTING,
        begin: Begin = NOW,
        note: bytes = b"",
        *,
        baggage: Mapping[str, str] | None = None,
    ) -> Request:
        """`payload` is the saga's input as JSON, at most 256 KiB; `signal` a name and its JSON, that go in headers.

        `note` is what lists show of it (`wire.notes`).
        """
        try:
            carried = write_baggage(baggage or {})
        except ValueError as error:
            raise InvalidRequest(f"saga {saga_id!r}: {error}") from None
        _check_size(payload, f"the input of saga {saga_id!r}")
        conflict = chosen(Conflict, conflict, "conflict", InvalidRequest)
        headers: HeaderValues = {
            h.SAGA_TYPE: saga_type,
            h.MESSAGE_ID: message_id,
            **_answer_to(reply),
            h.CONTENT_TYPE: _JSON,
            h.TRACEPARENT: traceparent,
            h.SIGNAL: None if signal is None else signal[0],
            h.SIGNAL_VALUE: None if signal is None else signal[1].decode(),
            h.REUSE: None if reuse is None else chosen(Reuse, reuse, "reuse", InvalidRequest),
            h.CONFLICT: conflict if conflict is not Conflict.USE_EXISTING else None,
            **begin.headers(),
            h.BAGGAGE: carried,
            h.NOTE: note.decode() or None,
        }
        return self._request(self._inbox, saga_id, headers, payload)

    def reschedule(
        self, saga_id: str, message_id: str, begin: Begin, run: str | None, by: str, reply: ReplyAddress | None = None
    ) -> Request:
        if begin == NOW:
            raise InvalidRequest(f"when should saga {saga_id!r} begin? Give start_at or start_delay")
        headers = _act("reschedule", message_id, run, "", by) | begin.headers() | _answer_to(reply)
        return self._request(self._inbox, saga_id, headers)

    def attach(self, saga_type: str, saga_id: str, message_id: str, reply: ReplyAddress) -> Request:
        headers: HeaderValues = {
            h.INPUT_TYPE: "attach",
            h.SAGA_TYPE: saga_type,
            h.MESSAGE_ID: message_id,
            h.REPLY_TO: reply.topic,
            h.REPLY_PARTITION: reply.partition,
            h.CORRELATION_ID: reply.correlation_id,
        }
        return self._request(self._inbox, saga_id, headers)

    def act(
        self,
        kind: Act,
        saga_id: str,
        message_id: str,
        run: str | None,
        reason: str,
        by: str,
        reply: ReplyAddress | None = None,
    ) -> Request:
        """What a person asks of one saga; a cancel goes behind what the same person sent before."""
        topic = self._inbox if kind == "cancel" else self._operations
        return self._request(topic, saga_id, _act(kind, message_id, run, reason, by) | _answer_to(reply))

    def pause_rule(
        self, partition: int, rule: str, standing: bool, message_id: str, reason: str, by: str, reply: ReplyAddress
    ) -> Request:
        """Pauses, or no longer, in one partition all that the rule names."""
        if not 0 <= partition < self._partitions:
            raise InvalidRequest(f"there is no partition {partition}: they are 0 to {self._partitions - 1}")
        headers = _act("pause" if standing else "resume", message_id, None, reason, by) | _answer_to(reply)
        written = tuple(h.write_headers(headers | {wi.RULE: rule}))
        return Request(self._operations, partition, rule.encode(), None, written)

    def signal(self, saga_id: str, message_id: str, name: str, payload: bytes, run: str | None, by: str) -> Request:
        """`payload` is what comes along as JSON, at most 256 KiB."""
        _check_size(payload, f"the signal for saga {saga_id!r}")
        headers = _act("signal", message_id, run, "", by) | {h.SIGNAL: name, h.CONTENT_TYPE: _JSON}
        return self._request(self._inbox, saga_id, headers, payload)

    def signal_by_key(self, address: str, key: str, message_id: str, payload: bytes, ttl_ms: int) -> Request:
        """A signal by its address, such as `Order.paid`, for who listens for the key. `payload` is JSON, some 6 KiB."""
        _check_id(key, "a business key", wi.MAX_SAGA_ID_BYTES)
        if ttl_ms < 0:
            raise InvalidRequest("a signal is kept for no less than 0 seconds")
        told = (TOLD, publish(payload, ttl_ms))
        saga_type, state = START
        return self.start(
            saga_type, id_of(address, key), state, message_id, None, None, told, reuse=Reuse.ALLOW_DUPLICATE
        )

    def query(
        self, saga_type: str | None, saga_id: str, message_id: str, name: str, payload: bytes, reply: ReplyAddress
    ) -> Request:
        """`payload` holds the arguments by name as JSON, at most 256 KiB."""
        _check_size(payload, f"the query for saga {saga_id!r}")
        headers: HeaderValues = {
            h.INPUT_TYPE: "query",
            h.QUERY: name,
            h.SAGA_TYPE: saga_type,
            h.MESSAGE_ID: message_id,
            h.REPLY_TO: reply.topic,
            h.REPLY_PARTITION: reply.partition,
            h.CORRELATION_ID: reply.correlation_id,
            h.CONTENT_TYPE: _JSON,
        }
        return self._request(self._inbox, saga_id, headers, payload)

    def update(
        self,
        saga_id: str,
        message_id: str,
        update_id: str,
        name: str,
        payload: bytes,
        reply: ReplyAddress | None,
        saga_type: str = "",
    ) -> Request:
        """`payload` holds the arguments by name as JSON, at most 256 KiB; `saga_type` starts the saga if need be."""
        _check_size(payload, f"the update for saga {saga_id!r}")
        headers: HeaderValues = {
            h.INPUT_TYPE: "update",
            h.UPDATE: name,
            h.UPDATE_ID: update_id,
            h.MESSAGE_ID: message_id,
            **_answer_to(reply),
            h.SAGA_TYPE: saga_type or None,
            h.CONTENT_TYPE: _JSON,
        }
        return self._request(self._inbox, saga_id, headers, payload)

    def settle(
        self,
        saga_id: str,
        message_id: str,
        promise: str,
        payload: bytes,
        error: tuple[str, str] | None = None,
        run: str | None = None,
        by: str = "",
    ) -> Request:
        """Keeps a promise with its result as JSON, at most 256 KiB; or with an error's type and message fails it."""
        return self._settle(saga_id, {**_act("promise", message_id, run, "", by), h.PROMISE: promise}, payload, error)

    def settle_by_token(
        self, token: str, message_id: str, payload: bytes, error: tuple[str, str] | None, by: str
    ) -> Request | None:
        """The same by the promise's token; None for what is none."""
        try:
            saga_id = read_promise_token(token).saga_id
        except ValueError:
            return None
        return self._settle(
            saga_id, {**_act("promise", message_id, None, "", by), h.PROMISE_TOKEN: token}, payload, error
        )

    def _settle(
        self, saga_id: str, headers: dict[str, str | int | None], payload: bytes, error: tuple[str, str] | None
    ) -> Request:
        _check_size(payload, f"the promise's result for saga {saga_id!r}")
        if error is None:
            return self._request(self._inbox, saga_id, headers | {h.CONTENT_TYPE: _JSON}, payload)
        failure = {h.OUTCOME: Outcome.FAILURE.value, h.ERROR_TYPE: h.shorten(error[0], 256) or "Failure"}
        return self._request(self._inbox, saga_id, headers | failure | {h.ERROR_MESSAGE: h.shorten(error[1]) or None})

    def unpark(
        self,
        saga_id: str,
        message_id: str,
        action: Override,
        step: int,
        payload: bytes | None,
        run: str | None,
        reason: str,
        by: str,
        reply: ReplyAddress | None = None,
    ) -> Request:
        """`step` 0: whatever the saga is parked at. `payload`: the step's result, or what to retry it with, as JSON."""
        if step < 0:
            raise InvalidRequest(f"there is no step {step}; 0 means whatever saga {saga_id!r} is parked at")
        if action is Override.SET_RESULT and payload is None:
            raise InvalidRequest("set-result needs a payload, the step's result as JSON")
        if action is Override.RETRY and payload is not None and not step:
            raise InvalidRequest("another payload is for one step: name it")
        if action is Override.SKIP and payload is not None:
            raise InvalidRequest("skip takes no payload")
        _check_size(payload or b"", f"the result for saga {saga_id!r}")
        headers = _act(action, message_id, run, reason, by) | {h.STEP: step or None} | _answer_to(reply)
        return self._request(self._operations, saga_id, headers, payload)

    def run_again(
        self,
        kind: Literal["restart", "redrive"],
        saga_id: str,
        message_id: str,
        payload: bytes | None,
        run: str | None,
        reason: str,
        by: str,
        reply: ReplyAddress | None = None,
    ) -> Request:
        """`payload` is the input as JSON, None for the one it had."""
        _check_size(payload or b"", f"the input for saga {saga_id!r}")
        headers = _act(kind, message_id, run, reason, by) | _answer_to(reply)
        return self._request(self._operations, saga_id, headers, payload)

    def set_back(
        self,
        saga_id: str,
        message_id: str,
        to: int,
        target: str | None,
        run: str | None,
        reason: str,
        by: str,
        reply: ReplyAddress | None = None,
    ) -> Request:
        """A reset to a step; with a target a fork of what the saga did before that step."""
        if to < 1:
            raise InvalidRequest(f"there is no step {to}; the first is 1")
        if target is not None:
            _check_id(target, "the new saga's id", wi.MAX_SAGA_ID_BYTES)
        headers = _act("reset" if target is None else "fork", message_id, run, reason, by) | _answer_to(reply)
        return self._request(self._operations, saga_id, headers | {h.STEP: to, wi.TARGET: target})

    def move_version(
        self,
        saga_id: str,
        message_id: str,
        version: int,
        run: str | None,
        reason: str,
        by: str,
        reply: ReplyAddress | None = None,
    ) -> Request:
        """`version` 0: the newest."""
        if not 0 <= version < 2**31:
            raise InvalidRequest(f"there is no version {version}; they count from 1, and 0 means the newest")
        headers = _act("move-version", message_id, run, reason, by) | {wi.VERSION: version} | _answer_to(reply)
        return self._request(self._operations, saga_id, headers)

    def complete(
        self, token: str, outcome: Outcome, payload: bytes, error_type: str = "", error_message: str = ""
    ) -> Request:
        """Ends pending work; `payload` is the command's reply as JSON, at most 256 KiB."""
        try:
            address = read_token(token)
            headers = tuple(completion_headers(address, outcome, error_type, error_message))
            key = address.saga_id.encode()
        except ValueError as error:
            raise InvalidRequest(str(error)) from None
        _check_size(payload, f"the result for saga {address.saga_id!r}")
        return Request(self._topics.commands(address.service), address.partition, key, payload, headers)

    def _request(self, topic: str, saga_id: str, headers: HeaderValues, value: bytes | None = None) -> Request:
        key = _check_id(saga_id, "a saga id", wi.MAX_SAGA_ID_BYTES)
        _check_id(headers[h.MESSAGE_ID], "a message id", wi.MAX_MESSAGE_ID_BYTES)
        written = tuple(h.write_headers({h.SAGA_ID: saga_id, **headers}))
        size = sum(len(name) + len(content) for name, content in written)
        # The engine adds a few when it forwards a record.
        if size > h.MAX_HEADER_BYTES // 2:
            raise InvalidRequest(
                f"the headers for saga {saga_id!r} have {size} bytes, at most {h.MAX_HEADER_BYTES // 2}"
            )
        return Request(topic, partition_of(saga_id, self._partitions), key, value, written)


def _act(kind: str, message_id: str, run: str | None, reason: str, by: str) -> dict[str, str | int | None]:
    return {
        h.INPUT_TYPE: kind,
        h.MESSAGE_ID: message_id,
        h.SAGA_RUN: run,
        wi.REASON: h.shorten(reason) or None,
        wi.BY: h.shorten(by, _MAX_BY_BYTES) or None,
    }


def _answer_to(reply: ReplyAddress | None) -> dict[str, str | int | None]:
    if reply is None:
        return {}
    return {h.REPLY_TO: reply.topic, h.REPLY_PARTITION: reply.partition, h.CORRELATION_ID: reply.correlation_id}


def _check_id(value: str | int | None, what: str, limit: int) -> bytes:
    try:
        encoded = str(value or "").encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{what} must be encodable as UTF-8: {value!r}") from None
    if not encoded or b"\0" in encoded or len(encoded) > limit:
        raise InvalidRequest(f"{what} has 1 to {limit} bytes of UTF-8 and no NUL, not {str(value)[:40]!r}")
    return encoded


def _check_size(payload: bytes, what: str) -> None:
    if len(payload) > MAX_BYTES:
        raise InvalidRequest(f"{what} has {len(payload)} bytes, at most {MAX_BYTES}; store it and pass a reference")
