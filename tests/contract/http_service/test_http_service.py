"""Each response of an HTTP service, and what the participant answers for it. The server is a real one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from pydantic import BaseModel

from orchestrator.connectors.http import HttpService
from orchestrator.connectors.http.responses import FAILURES, MAX_BODY_BYTES, MAX_RETRY_AFTER_S
from orchestrator.errors import DefinitionError
from orchestrator.model.messages import Outcome
from orchestrator.participant.work import Work
from orchestrator.service import Service, command
from orchestrator.wire.commands import CommandMessage, ReplyMessage

from .server import Answer, Remote, http_server


class Charge(BaseModel):
    order_id: str
    cents: int


class Receipt(BaseModel):
    payment_id: str


class Payments(Service):
    charge = command(Charge, Receipt)
    refund = command(Charge)


ROUTES = {"charge": "POST /charges", "refund": "DELETE /charges/{order_id}"}
PROBLEM = {"Content-Type": "application/problem+json; charset=utf-8"}


@pytest.fixture
def remote() -> Iterator[Remote]:
    with http_server() as running:
        yield running


def work(name: str = "charge", order_id: str = "o-7") -> Work:
    payload = Charge(order_id=order_id, cents=5).model_dump_json().encode()
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    message = CommandMessage(
        "order-ä",
        "1-2-0",
        "Order",
        name,
        3,
        "do",
        2,
        "order-ä/1-2-0/3/do",
        payload,
        "saga.replies",
        0,
        0,
        None,
        traceparent,
    )
    return Work(None, None, message)  # type: ignore[arg-type]


def answer(remote: Remote, made: Work | None = None, **settings: Any) -> ReplyMessage:
    async def perform() -> ReplyMessage:
        service = HttpService(Payments, **{"base_url": remote.url, "routes": ROUTES, **settings})
        try:
            return await service.perform_async(made or work(), 30.0)
        finally:
            await service.aclose()

    return asyncio.run(perform())


def test_a_command_becomes_a_request_and_its_response_the_reply(remote: Remote) -> None:
    remote.answer = lambda asked: Answer(201, b'{"payment_id": "p-1", "more": 1}')
    reply = answer(remote, headers={"Authorization": lambda: "Bearer t"})
    assert reply == ReplyMessage(Outcome.SUCCESS, b'{"payment_id":"p-1"}')
    (asked,) = remote.asked
    assert (asked.method, asked.path) == ("POST", "/charges")
    assert json.loads(asked.body) == {"order_id": "o-7", "cents": 5}
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["idempotency-key"] == "order-%C3%A4/1-2-0/3/do"
    assert asked.headers["saga-id"] == "order-%C3%A4"
    assert asked.headers["saga-run"] == "1-2-0"
    assert asked.headers["saga-attempt"] == "2"
    assert asked.headers["traceparent"].startswith("00-0af7651916cd43dd")
    assert asked.headers["authorization"] == "Bearer t"


def test_a_command_without_a_reply_ignores_the_body_and_fills_its_path(remote: Remote) -> None:
    remote.answer = lambda asked: Answer(204, b"")
    reply = answer(remote, work("refund", "a/b ?"))
    assert reply == ReplyMessage(Outcome.SUCCESS, b"null")
    assert (remote.asked[0].method, remote.asked[0].path) == ("DELETE", "/charges/a%2Fb%20%3F")


@pytest.mark.parametrize("order_id", ["", ".", ".."])
def test_a_field_that_would_make_another_path_is_not_sent(remote: Remote, order_id: str) -> None:
    reply = answer(remote, work("refund", order_id))
    assert (reply.outcome, reply.error_type) == (Outcome.RETRY, "BadPath")
    assert not remote.asked


@pytest.mark.parametrize("body", [b"", b"null", b"{}", b"<html>", b'{"payment_id": 7}', b"[" * 100_000])
def test_a_success_whose_body_does_not_fit_is_no_failure(remote: Remote, body: bytes) -> None:
    remote.answer = lambda asked: Answer(200, body)
    reply = answer(remote)
    assert (reply.outcome, reply.error_type) == (Outcome.RETRY, "BadReply")


def test_a_body_beyond_what_a_reply_may_hold_is_not_read_to_its_end(remote: Remote) -> None:
    remote.answer = lambda asked: Answer(200, b" " * (MAX_BODY_BYTES + 1))
    reply = answer(remote)
    assert (reply.outcome, reply.error_type) == (Outcome.RETRY, "BadReply")


@pytest.mark.parametrize(
    ("headers", "body", "error_type", "message"),
    [
        (PROBLEM, {"type": "https://x.test/problems/card-declined", "detail": "no funds"}, "CardDeclined", "no funds"),
        (PROBLEM, {"type": "CardDeclined", "title": "Card declined"}, "CardDeclined", "Card declined"),
        (PROBLEM, {"type": "urn:problem:card_declined/"}, "CardDeclined", "HTTP 422"),
        (PROBLEM, {"type": "about:blank", "title": "No funds"}, "NoFunds", "No funds"),
        (PROBLEM, {"title": 7}, "Unprocessable", "HTTP 422"),
        (PROBLEM, ["no", "object"], "Unprocessable", "HTTP 422"),
        ({"Content-Type": "text/html"}, "<html>", "Unprocessable", "HTTP 422"),
    ],
)
def test_a_refusal_is_a_failure_of_the_type_that_a_problem_document_names(
    remote: Remote, headers: dict[str, str], body: Any, error_type: str, message: str
) -> None:
    remote.answer = lambda asked: Answer(422, json.dumps(body).encode(), headers)
    reply = answer(remote)
    assert reply.outcome is Outcome.FAILURE
    assert reply.error_type.startswith(error_type)
    assert reply.error_message == message


@pytest.mark.parametrize("status", [400, 402, 405, 410, 412, 413, 415, 422, 499])
def test_statuses_that_assert_no_effect_are_failures(remote: Remote, status: int) -> None:
    remote.answer = lambda asked: Answer(status, b"{")
    assert answer(remote).outcome is Outcome.FAILURE


@pytest.mark.parametrize("status", [302, 401, 403, 404, 407, 408, 409, 421, 425, 429, 500, 501, 502, 503, 504, 599])
def test_all_other_statuses_are_tried_again(remote: Remote, status: int) -> None:
    remote.answer = lambda asked: Answer(status, b"{")
    reply = answer(remote)
    assert (reply.outcome, reply.retry_after_ms) == (Outcome.RETRY, None)
    assert len(remote.asked) == 1


def test_the_statuses_of_failures_can_be_set(remote: Remote) -> None:
    remote.answer = lambda asked: Answer(409)
    assert answer(remote, failures=FAILURES | {409}).error_type == "Conflict"
    assert answer(remote, failures=FAILURES | {409}).outcome is Outcome.FAILURE
    remote.answer = lambda asked: Answer(422)
    assert answer(remote, failures={409}).outcome is Outcome.RETRY


NOW = datetime(2030, 5, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "after_ms"),
    [
        ("7", 7_000),
        (" 0 ", 0),
        ("999999", int(MAX_RETRY_AFTER_S) * 1_000),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90_000),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0),
        ("soon", None),
        ("-3", None),
        ("1.5", None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(remote: Remote, status: int, header: str, after_ms: int | None) -> None:
    remote.answer = lambda asked: Answer(status, b"", {"Retry-After": header})
    reply = answer(remote, now_s=NOW.timestamp)
    assert (reply.outcome, reply.retry_after_ms) == (Outcome.RETRY, after_ms)


def test_no_answer_in_time_is_tried_again(remote: Remote) -> None:
    remote.answer = lambda asked: Answer(hangs=True)
    reply = answer(remote, timeout_s=0.2)
    assert reply.outcome is Outcome.RETRY
    assert reply.error_type in ("Timeout", "ReadTimeout")


def test_a_connection_that_breaks_or_is_refused_is_tried_again(remote: Remote) -> None:
    remote.answer = lambda asked: Answer(cut=True)
    reply = answer(remote)
    assert (reply.outcome, reply.error_type) == (Outcome.RETRY, "RemoteProtocolError")
    reply = answer(remote, base_url="http://127.0.0.1:1")
    assert (reply.outcome, reply.error_type) == (Outcome.RETRY, "ConnectError")


def test_one_client_serves_all_requests_of_a_loop(remote: Remote) -> None:
    remote.answer = lambda asked: Answer(200, b'{"payment_id": "p"}')

    async def main() -> None:
        service = HttpService(Payments, base_url=remote.url, routes=ROUTES)
        first = await service.perform_async(work(), 30.0)
        client = service._http()
        rest = await asyncio.gather(*(service.perform_async(work(), 30.0) for _ in range(20)))
        assert {each.outcome for each in (first, *rest)} == {Outcome.SUCCESS}
        assert service._http() is client
        await service.aclose()

    asyncio.run(main())
    assert len(remote.asked) == 21


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"routes": {"charge": "POST /charges"}}, "no handler for refund"),
        ({"routes": {**ROUTES, "void": "POST /x"}}, "no command 'void'"),
        ({"routes": {**ROUTES, "charge": "charges"}}, "a route is like"),
        ({"routes": {**ROUTES, "charge": "POST /{nothing}"}}, "no field 'nothing'"),
        ({"routes": {**ROUTES, "charge": "POST /{order_id"}}, "braces"),
        ({"base_url": "payments:8000"}, "base_url"),
        ({"base_url": "http://x/?a=b"}, "base_url"),
        ({"headers": {"Idempotency-Key": "x"}}, "set by the connector"),
        ({"failures": {503}}, "503"),
        ({"failures": {429}}, "429"),
        ({"timeout_s": 0}, "positive"),
    ],
)
def test_wrong_declarations_are_found_at_once(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DefinitionError, match=complaint):
        HttpService(Payments, **{"base_url": "http://x", "routes": ROUTES, **settings})
