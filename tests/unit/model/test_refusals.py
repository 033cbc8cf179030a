"""Who waits for an outcome that will never be is told so, and why: no such saga, another type, a rejected start."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from model.play import INBOX, SAGA_ID, Play
from model.shopping import Plain
from orchestrator import errors
from orchestrator.client import Client
from orchestrator.log.base import Record
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.budget import MAX_BYTES
from orchestrator.model.decide import InputRejected
from orchestrator.model.events import Status
from orchestrator.model.ids import partition_of
from orchestrator.wire.headers import read_headers
from tests.shop_world import PARTITIONS, Greeting, Order, OrderFulfilment, World, drive

LARGE = orjson.dumps("x" * MAX_BYTES)


def started() -> Play:
    play = Play(Plain)
    play.start("tea")
    return play


def refusals(play: Play) -> list[tuple[str, str, str]]:
    return [(answer.status, answer.error_type, answer.error_message) for answer in play.answers]


# -- the core


def test_who_attaches_to_nothing_is_told_that_there_is_nothing() -> None:
    (event,) = Play(Plain).take(msg.Attach(SAGA_ID, "m", INBOX))
    assert event == ev.AttachRefused(INBOX, ev.Refusal.NOT_FOUND, "there is no such saga")


def test_a_start_of_another_type_is_told_so_by_a_kind_of_its_own() -> None:
    play = started()
    play.take(msg.Start(SAGA_ID, "m", "Another", b"{}", INBOX))
    assert refusals(play) == [("REFUSED", "OtherType", "the id belongs to a saga of type Plain")]


def test_who_attaches_with_another_type_does_not_get_the_outcome_of_this_one() -> None:
    play = started()
    play.take(msg.Attach(SAGA_ID, "m", INBOX, "Another"))
    assert refusals(play) == [("REFUSED", "OtherType", "the id belongs to a saga of type Plain")]
    play.refuse(1)
    assert len(play.answers) == 1, "it was not added to those who wait"


@pytest.mark.parametrize("saga_type", [None, "Plain"])
def test_who_attaches_with_its_type_or_none_is_answered_at_the_end(saga_type: str | None) -> None:
    play = started()
    play.take(msg.Attach(SAGA_ID, "m", INBOX, saga_type))
    play.refuse(1)
    assert [answer.status for answer in play.answers] == ["FAILED"]


@pytest.mark.parametrize(
    ("payload", "known", "reason"),
    [
        (b"7", True, "the input does not fit Plain: Input should be a valid string"),
        (LARGE, True, "the input has 262146 bytes, at most 262144; pass a reference"),
        (LARGE, False, "the input has 262146 bytes, at most 262144; pass a reference"),
    ],
)
def test_a_rejected_start_says_what_to_answer(payload: bytes, known: bool, reason: str) -> None:
    play = Play(Plain, known=known)
    with pytest.raises(InputRejected) as caught:
        play.take(msg.Start(SAGA_ID, "m", "Plain", payload, INBOX))
    assert str(caught.value) == reason
    assert caught.value.refusal == ev.AttachRefused(INBOX, ev.Refusal.REJECTED, reason)


def test_a_rejected_start_that_nobody_waits_for_is_a_dead_letter_only() -> None:
    with pytest.raises(InputRejected) as caught:
        Play(Plain).start(7)
    assert caught.value.refusal is None


# -- the owner


def send(world: World, value: bytes, *, partition: int | None = None, **more: str) -> None:
    """A start of saga o-1 by a client without the SDK, which waits at partition 2 of the answers."""
    headers = {
        "saga-id": "o-1",
        "saga-type": "OrderFulfilment",
        "message-id": "m-1",
        "reply-to": world.topics.answers,
        "reply-partition": "2",
        "correlation-id": "c-1",
        **{name.replace("_", "-"): content for name, content in more.items()},
    }
    home = partition_of("o-1", PARTITIONS) if partition is None else partition
    encoded = [(name, content.encode()) for name, content in headers.items()]
    world.log.appender().append(world.topics.inbox, home, value, key=b"o-1", headers=encoded, token=None)
    world.settle()


def answers(world: World) -> list[tuple[int, str, str, str]]:
    """(partition, correlation id, status, error type) of each."""

    def told(record: Record) -> tuple[int, str, str, str]:
        headers = read_headers(record.headers)
        return record.partition, headers["correlation-id"], headers["saga-status"], headers.get("error-type", "")

    return [told(record) for record in world.records(world.topics.answers)]


@pytest.mark.parametrize("value", [b"7", b"x" * (2 << 20)])
def test_a_rejected_start_is_a_dead_letter_and_is_answered(value: bytes) -> None:
    world = World()
    send(world, value)
    assert len(world.records(world.topics.dead_letters)) == 1
    assert answers(world) == [(2, "c-1", "REFUSED", "Rejected")]


def test_a_start_too_large_to_be_forwarded_is_answered_by_whom_it_reached() -> None:
    world = World()
    send(world, LARGE, partition=(partition_of("o-1", PARTITIONS) + 1) % PARTITIONS)
    assert len(world.records(world.topics.dead_letters)) == 1
    assert answers(world) == [(2, "c-1", "REFUSED", "Rejected")]


def test_a_rejected_start_is_consumed_with_its_answer() -> None:
    world = World()
    send(world, b"7")
    world.crash()
    world.advance(60_000)
    assert len(world.records(world.topics.dead_letters)) == 1
    assert {answer[1:] for answer in answers(world)} == {("c-1", "REFUSED", "Rejected")}


def test_a_rejected_start_is_decided_anew_when_it_is_sent_again_under_its_message_id() -> None:
    world = World()
    send(world, b"7")
    send(world, b'{"id":"o-1"}')
    assert world.status("o-1") is Status.COMPLETED
    assert [answer[2:] for answer in answers(world)] == [("REFUSED", "Rejected"), ("COMPLETED", "")]


# -- the client


def run(world: World, work: Any) -> None:
    async def main() -> None:
        async with Client(world.log, world.topics, PARTITIONS, client_id="test", attach_first_s=0.05) as client:
            await work(client)

    drive(world, main())


def test_a_client_whose_start_is_rejected_is_told_so() -> None:
    world = World()

    class Older(Greeting, name="OrderFulfilment"):
        """The same type as another version of its caller has it: its input is a string."""

    async def work(client: Client) -> None:
        await (await client.start(Older, "Ada", id="o-1")).result()

    with pytest.raises(errors.StartRejected, match="the input does not fit OrderFulfilment"):
        run(world, work)


def test_a_client_whose_id_belongs_to_another_type_is_told_so() -> None:
    async def work(client: Client) -> None:
        await client.start(Greeting, "Ada", id="x")
        await (await client.start(OrderFulfilment, Order(id="x"), id="x")).result()

    with pytest.raises(errors.OtherSagaType, match="of type Greeting"):
        run(World(), work)


def test_a_client_that_attaches_with_another_type_never_decodes_its_result() -> None:
    async def work(client: Client) -> None:
        await (await client.start(OrderFulfilment, Order(id="x"), id="x")).result()
        await (await client.attach(Greeting, "x")).result()

    with pytest.raises(errors.OtherSagaType, match="of type OrderFulfilment"):
        run(World(), work)
