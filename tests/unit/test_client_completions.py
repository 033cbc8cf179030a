"""Pending work completed by a client: what it sends where, and what it refuses to send."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from pydantic import BaseModel

from orchestrator.client import Client
from orchestrator.errors import InvalidRequest
from orchestrator.log.base import Record, TopicSpec
from orchestrator.log.memory import MemoryLog
from orchestrator.model.effects import Command
from orchestrator.model.messages import Outcome
from orchestrator.topics import TopicNames
from orchestrator.wire.commands import ReplyMessage, command_headers, read_command
from orchestrator.wire.completions import write_token

TOPICS = TopicNames("t-", {"payments.commands": "pay"})
COMMAND = Command("order-ü", "1-2-3", "Order", 4, "do", 5, "payments", "charge", 2, b"{}", None, None)
HEADERS = command_headers(
    COMMAND, epoch=7, reply_to="saga.replies", reply_partition=3, token="k.00", sent_at_ms=1_700_000_000_000
)
TOKEN = write_token("payments", 2, read_command(HEADERS, b"{}"))


class Receipt(BaseModel):
    payment_id: str


def sent_by(work: Callable[[Client], Awaitable[None]]) -> list[Record]:
    log = MemoryLog(lambda: 1_700_000_000_000)
    log.create(TopicSpec("pay", 3, 1, {}))

    async def main() -> None:
        async with Client(log, TOPICS, 1) as client:
            await work(client)

    asyncio.run(main())
    return [record for partition in range(3) for record in log.records("pay", partition)]


def test_a_completion_goes_to_the_partition_of_its_command_and_says_which_one_it_is() -> None:
    (record,) = sent_by(lambda client: client.complete(TOKEN, Receipt(payment_id="p-1")))
    assert (record.partition, record.key, record.value) == (2, "order-ü".encode(), b'{"payment_id":"p-1"}')
    command = read_command(HEADERS, b"{}")
    completion = read_command(record.headers, record.value)
    assert completion.completion == ReplyMessage(Outcome.SUCCESS, b'{"payment_id":"p-1"}')
    assert completion.echoed == command.echoed
    assert (completion.unit, completion.reply_to, completion.reply_partition) == (command.unit, "saga.replies", 3)


def test_work_that_had_no_effect_is_failed() -> None:
    (record,) = sent_by(lambda client: client.fail(TOKEN, "CardDeclined", "too much"))
    reply = read_command(record.headers, record.value).completion
    assert reply == ReplyMessage(Outcome.FAILURE, b"", "CardDeclined", "too much")


@pytest.mark.parametrize("result", [object(), "x" * 300_000])
def test_a_result_that_no_reply_could_hold_is_refused(result: object) -> None:
    with pytest.raises(InvalidRequest, match="result"):
        sent_by(lambda client: client.complete(TOKEN, result))


def test_what_is_no_token_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="not a token"):
        sent_by(lambda client: client.complete("saga.operations"))
