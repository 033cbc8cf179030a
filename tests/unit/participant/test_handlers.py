"""How handlers are registered, and what becomes of what they return and raise."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from pydantic import BaseModel

from orchestrator.errors import DefinitionError
from orchestrator.model.messages import Outcome
from orchestrator.participant import Failure, HandlerContext, Participant, RetryLater
from orchestrator.participant.work import Work
from orchestrator.service import Service, command
from orchestrator.wire.commands import ReplyMessage, reply_headers
from orchestrator.wire.headers import MAX_ERROR_MESSAGE_BYTES

from .test_rules import command as make_command


class Charge(BaseModel):
    cents: int


class Receipt(BaseModel):
    payment_id: str


class Payments(Service):
    charge = command(Charge, Receipt)
    refund = command(Charge)


class Other(Service):
    charge = command(Charge, Receipt)


def work(payload: bytes = b'{"cents":5}', name: str = "charge", *, unsure: bool = False) -> Work:
    message = make_command()._replace(payload=payload, command_type=name)
    made = Work(None, None, message)  # type: ignore[arg-type]
    made.unsure = unsure
    return made


def answer(function: Any, made: Work | None = None) -> Any:
    participant = Participant(Payments)
    participant.handles(Payments.charge)(function)
    return participant.perform(made or work())


def answer_async(function: Any, limit_s: float = 5.0) -> Any:
    participant = Participant(Payments)
    participant.handles(Payments.charge)(function)
    return asyncio.run(participant.perform_async(work(), limit_s))


def test_what_a_handler_returns_is_the_reply() -> None:
    def charge(request: Charge) -> Receipt:
        return Receipt(payment_id=f"p-{request.cents}")

    async def charge_async(request: Charge) -> Receipt:
        await asyncio.sleep(0)
        return Receipt(payment_id=f"p-{request.cents}")

    expected = ReplyMessage(Outcome.SUCCESS, b'{"payment_id":"p-5"}')
    assert answer(charge) == expected
    assert answer_async(charge_async) == expected


def test_a_command_without_a_reply_type_answers_null() -> None:
    participant = Participant(Payments)

    @participant.handles(Payments.refund)
    def refund(request: Charge) -> None:
        return None

    assert participant.perform(work(name="refund")) == ReplyMessage(Outcome.SUCCESS, b"null")


def test_a_handler_may_take_its_context() -> None:
    seen: list[HandlerContext] = []

    def charge(request: Charge, context: HandlerContext) -> Receipt:
        seen.append(context)
        return Receipt(payment_id="p")

    answer(charge)
    context = seen[0]
    assert (context.saga_id, context.run, context.step, context.saga_type) == ("order-7", "1-10-0", 1, "Order")
    assert (context.attempt, context.direction, context.idempotency_key) == (1, "do", "order-7/1-10-0/1/do")
    assert context.deadline_ms is None
    assert context.connection is None


def test_an_async_handler_that_waits_for_nothing_needs_no_loop() -> None:
    async def charge(request: Charge) -> Receipt:
        return Receipt(payment_id="p")

    async def waits(request: Charge) -> Receipt:
        await asyncio.sleep(0)
        return Receipt(payment_id="p")

    assert answer(charge).outcome is Outcome.SUCCESS
    assert answer(waits).error_type == "RuntimeError"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Failure("CardDeclined", "no"), ReplyMessage(Outcome.FAILURE, b"", "CardDeclined", "no")),
        (Failure(""), ReplyMessage(Outcome.FAILURE, b"", "Failure", "")),
        (RetryLater(), ReplyMessage(Outcome.RETRY, b"", "RetryLater", "")),
        (RetryLater(1.5, "Busy", "soon"), ReplyMessage(Outcome.RETRY, b"", "Busy", "soon", 1500)),
        (RetryLater(-1), ReplyMessage(Outcome.RETRY, b"", "RetryLater", "", 0)),
        (ConnectionError("gone"), ReplyMessage(Outcome.RETRY, b"", "ConnectionError", "gone")),
        (SystemExit(3), ReplyMessage(Outcome.RETRY, b"", "SystemExit", "3")),
    ],
)
def test_what_a_handler_raises(error: BaseException, expected: ReplyMessage) -> None:
    def charge(request: Charge) -> Receipt:
        raise error

    async def charge_async(request: Charge) -> Receipt:
        raise error

    assert answer(charge) == expected
    if not isinstance(error, SystemExit):
        assert answer_async(charge_async) == expected


def test_an_async_handler_is_cancelled_at_its_limit() -> None:
    async def charge(request: Charge) -> Receipt:
        await asyncio.Event().wait()
        raise AssertionError

    assert answer_async(charge, 0.01).error_type == "HandlerTimeout"


def test_its_own_timeout_is_its_own() -> None:
    async def charge(request: Charge) -> Receipt:
        raise TimeoutError("the bank")

    assert answer_async(charge).error_type == "TimeoutError"


@pytest.mark.parametrize("payload", [b"", b"junk", b"{}", b'{"cents":"many"}', b"\xff"])
def test_a_request_that_is_none_never_ran_and_is_a_failure(payload: bytes) -> None:
    def charge(request: Charge) -> Receipt:
        raise AssertionError

    reply = answer(charge, work(payload))
    assert (reply.outcome, reply.error_type) == (Outcome.FAILURE, "BadRequest")
    assert "many" not in reply.error_message  # values may be nobody's business
    # Unless an earlier execution, of other code, may have had its effect.
    assert answer(charge, work(payload, unsure=True)).outcome is Outcome.RETRY


def test_a_command_nobody_knows_is_a_failure() -> None:
    participant = Participant(Payments)
    reply = participant.perform(work(name="x" * 500))
    assert (reply.outcome, reply.error_type) == (Outcome.FAILURE, "UnknownCommand")
    assert participant.perform(work(name="x", unsure=True)).outcome is Outcome.RETRY


def test_a_reply_of_the_wrong_type_is_unknown_for_the_effect_is_there() -> None:
    def charge(request: Charge) -> Any:
        return "p-1"

    assert (answer(charge).outcome, answer(charge).error_type) == (Outcome.RETRY, "BadReply")


def test_error_texts_always_fit_into_headers() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise ValueError

    for error in (OSError("\udcff" * 5000), Odd(), Failure("é" * 500, "\udc80" + "ü" * 5000)):

        def charge(request: Charge, error: Exception = error) -> Receipt:
            raise error

        reply = answer(charge)
        headers = dict(reply_headers(make_command(), reply))
        assert len(headers.get("error-message", b"")) <= MAX_ERROR_MESSAGE_BYTES


def test_registration_is_checked() -> None:
    participant = Participant(Payments)

    def charge(request: Charge) -> Receipt:
        raise AssertionError

    participant.handles(Payments.charge)(charge)
    with pytest.raises(DefinitionError, match="has a handler already"):
        participant.handles(Payments.charge)(charge)
    with pytest.raises(DefinitionError, match="no command of Payments"):
        participant.handles(Other.charge)(charge)
    with pytest.raises(DefinitionError, match="refund"):
        participant.check()
    for wrong in (lambda: None, lambda a, b, c: None, lambda a, *, b: None):
        with pytest.raises(DefinitionError, match="takes the request"):
            participant.register(Payments.refund, wrong)
    participant.register(Payments.refund, partial(lambda store, request: None, "store"))
    participant.check()


def test_what_counts_as_taking_the_context() -> None:
    participant = Participant(Payments)
    participant.register(Payments.charge, lambda request, retries=3: Receipt(payment_id=str(retries)))
    assert participant.perform(work()).payload == b'{"payment_id":"3"}'
    participant.register(Payments.refund, lambda *everything: None if len(everything) == 2 else everything)
    assert participant.perform(work(name="refund")).outcome is Outcome.SUCCESS


def test_an_async_handler_and_an_inbox_do_not_go_together() -> None:
    class Nothing:
        def prepare(self) -> None: ...

        def process(self, *_: Any) -> Any: ...

        def close(self) -> None: ...

    participant = Participant(Payments, inbox=Nothing())

    async def charge(request: Charge) -> Receipt:
        raise AssertionError

    with pytest.raises(DefinitionError, match="plain function"):
        participant.handles(Payments.charge)(charge)
