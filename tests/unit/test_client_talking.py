"""A client talks to a saga: signals, promises, queries, updates."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
from pydantic import ValidationError

from orchestrator.client import Client
from orchestrator.errors import InvalidRequest, QueryFailed, SagaNotFound, StartRejected, UpdateFailed, UpdateRejected
from orchestrator.model.events import Status
from orchestrator.model.ids import partition_of
from orchestrator.wire import headers as h
from orchestrator.wire.promises import is_genuine, read_token, write_token
from orchestrator.wire.tokens import TokenKeys
from tests.expense import Approval, Decision, Expense
from tests.shop_world import PARTITIONS, OrderFulfilment, World, drive

T = TypeVar("T")


@pytest.fixture
def world() -> World:
    return World()


def using(world: World, work: Callable[[Client], Awaitable[T]]) -> T:
    async def main() -> T:
        async with Client(world.log, world.topics, PARTITIONS) as client:
            return await work(client)

    return drive(world, main())


def bare(world: World, saga_id: str, value: bytes, **headers: str) -> None:
    """A record as any producer can write it."""
    given = h.write_headers({name.replace("_", "-"): text for name, text in headers.items()})
    number, appender = partition_of(saga_id, PARTITIONS), world.log.appender()
    appender.append(world.topics.inbox, number, value, key=saga_id.encode(), headers=given, token=None)


def token_of(world: World, saga_id: str) -> str:
    """The token that the service was sent for a saga."""
    records = [record for record in world.records(world.topics.commands("shipping")) if record.key == saga_id.encode()]
    token: str = json.loads(records[0].value or b"")["token"]
    return token


def letters(world: World) -> str:
    """Why there are dead letters."""
    found = [value or b"" for letter in world.records(world.topics.dead_letters) for _, value in letter.headers]
    return b" ".join(found).decode(errors="replace")


# -- signals


def test_a_signal_reaches_the_saga(world: World) -> None:
    async def work(client: Client) -> str:
        handle = await client.start(Expense, 900, id="e-1")
        await handle.signal(Expense.decided, Decision(by="ann"))
        return await handle.result()

    assert using(world, work) == "900 approved by ann"


def test_a_signal_sent_twice_under_one_message_id_is_one(world: World) -> None:
    async def work(client: Client) -> str:
        await client.signal("e-1", Expense.noted, "dear", message_id="note-1")
        await client.signal("e-1", Expense.noted, "dear", message_id="note-1")
        handle = await client.start(Expense, 900, id="e-1")
        await handle.signal(Expense.decided, Decision(by="ann", approved=False))
        return await handle.result()

    assert using(world, work) == "900 denied by ann"
    assert world.engine.counters["duplicates"] == 1


def test_a_signal_before_the_start_survives_the_owner_and_its_store(world: World) -> None:
    async def early(client: Client) -> None:
        await client.signal("e-1", Expense.decided, Decision(by="ann"))

    using(world, early)
    world.settle()
    assert world.status("e-1") is Status.NOT_STARTED
    world.crash()
    world.settle()

    async def start(client: Client) -> str:
        with pytest.raises(SagaNotFound):
            await (await client.attach(Expense, "e-1")).result()
        return await (await client.start(Expense, 900, id="e-1")).result()

    assert using(world, start) == "900 approved by ann"


def test_a_signal_for_nobody_is_forgotten_after_its_time(world: World) -> None:
    async def early(client: Client) -> None:
        await client.signal("e-1", Expense.decided, Decision(by="ann"))

    using(world, early)
    world.settle()
    world.advance(86_400_000)
    send = using(world, lambda client: client.start(Expense, 900, id="e-1"))
    world.settle()
    assert not send.done
    assert world.status("e-1") is Status.RUNNING


def test_a_signal_with_the_start_goes_in_one_record(world: World) -> None:
    async def work(client: Client) -> str:
        handle = await client.start(Expense, 900, id="e-1", signal=(Expense.decided, Decision(by="Zoë")))
        return await handle.result()

    assert using(world, work) == "900 approved by Zoë"
    assert len(world.records(world.topics.inbox)) == 1


def test_a_signal_that_does_not_fit_is_refused_before_it_is_sent(world: World) -> None:
    async def work(client: Client) -> None:
        handle = await client.start(Expense, 900, id="e-1")
        with pytest.raises(ValidationError):
            await handle.signal(Expense.decided, "yes")  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest, match="the headers for saga"):
            await client.start(Expense, 1, id="e-2", signal=(Expense.noted, "x" * 9_000))

    using(world, work)
    assert len(world.records(world.topics.inbox)) == 1


def test_any_producer_can_start_with_a_signal_and_send_one(world: World) -> None:
    bare(world, "e-1", b"900", saga_type="Expense", signal="noted", signal_value='"dear"')
    bare(world, "e-1", b'{"by": "ann"}', input_type="signal", signal="decided")
    world.settle()
    assert world.status("e-1") is Status.COMPLETED


def test_a_start_with_a_signal_that_the_saga_lacks_is_rejected_and_says_so(world: World) -> None:
    async def work(client: Client) -> None:
        handle = await client.start(OrderFulfilment, {"id": "o-1"}, id="o-1", signal=(Expense.noted, "x"))  # type: ignore[arg-type]
        with pytest.raises(StartRejected, match="no signal 'noted'"):
            await handle.result()

    using(world, work)
    assert "no signal 'noted'" in letters(world)


def test_outside_of_the_loop_nothing_is_lost() -> None:
    world = World()

    async def main() -> None:
        async with Client(world.log, world.topics, PARTITIONS) as client:
            await client.signal("e-1", Expense.decided, Decision(by="ann"))

    asyncio.run(main())
    bare(world, "e-1", b"900", saga_type="Expense")
    world.settle()
    assert world.status("e-1") is Status.COMPLETED


# -- promises


def test_promises_are_kept_by_token_and_by_name(world: World) -> None:
    async def work(client: Client) -> str:
        handle = await client.start(Approval, 900, id="a-1")
        await handle.complete_promise(Approval.approved, Decision(by="bob"), key="auditor")
        while not world.records(world.topics.commands("shipping")):
            await asyncio.sleep(0)
        await client.complete(token_of(world, "a-1"), Decision(by="ann"))
        await client.complete(token_of(world, "a-1"), Decision(by="too late"))
        return await handle.result()

    assert using(world, work) == "900 approved by ann and bob"


def test_a_promise_is_failed_by_token_and_by_name(world: World) -> None:
    async def work(client: Client) -> list[str]:
        one, two = await client.start_many(Approval, [("a-1", 1), ("a-2", 2)])
        await two.fail_promise(Approval.approved, "Denied", "too dear", key="auditor")
        while len(world.records(world.topics.commands("shipping"))) < 2:
            await asyncio.sleep(0)
        await client.fail(token_of(world, "a-1"), "Unwilling", "ask another")
        return [await one.result(), await two.result()]

    assert using(world, work) == ["Unwilling: ask another", "Denied: too dear"]


def test_a_token_that_was_changed_settles_nothing_and_can_be_found(world: World) -> None:
    bare(world, "a-1", b"900", saga_type="Approval")
    world.settle()
    token = token_of(world, "a-1")
    address = read_token(token)
    forged = write_token(TokenKeys({"k": b"1" * 16}), *address[:3])
    other = write_token(TokenKeys({"k": b"0" * 16}), address.saga_id, address.run, "approved/auditor")
    assert is_genuine(TokenKeys({"new": b"2" * 16, "k": b"0" * 16}), token), "the former key is still good"
    assert not is_genuine(TokenKeys({"new": b"2" * 16}), token)
    assert not is_genuine(TokenKeys({"k": b"0" * 16}), "nonsense")
    bare(world, "a-1", b'{"by": "eve"}', input_type="promise", promise_token=forged)
    bare(world, "a-1", b'{"by": "eve"}', input_type="promise", promise_token="nonsense")
    world.settle()
    assert world.status("a-1") is Status.RUNNING
    assert "the promise token is forged" in letters(world)
    assert "not a token of a promise" in letters(world)
    bare(world, "a-1", b'{"by": "ann"}', input_type="promise", promise_token=token)
    bare(world, "a-1", b'{"by": "bob"}', input_type="promise", promise_token=other)
    world.settle()
    assert world.status("a-1") is Status.COMPLETED


def test_a_token_finds_its_saga_from_any_partition_and_without_a_key(world: World) -> None:
    bare(world, "a-1", b"900", saga_type="Approval")
    bare(world, "a-1", b'{"by": "bob"}', input_type="promise", promise="approved/auditor")
    world.settle()
    headers = h.write_headers({h.INPUT_TYPE: "promise", h.PROMISE_TOKEN: token_of(world, "a-1")})
    astray = (partition_of("a-1", PARTITIONS) + 1) % PARTITIONS
    world.log.appender().append(world.topics.inbox, astray, b'{"by": "ann"}', headers=headers, token=None)
    world.settle()
    assert world.status("a-1") is Status.COMPLETED


def test_any_producer_can_fail_a_promise_by_name(world: World) -> None:
    bare(world, "a-1", b"900", saga_type="Approval")
    bare(world, "a-1", b"", input_type="promise", promise="approved/boss", outcome="failure", error_type="Denied")
    bare(world, "a-1", b"", input_type="promise", promise="approved/boss", outcome="retry")
    bare(world, "a-1", b'"yes"', input_type="promise", promise="approved/auditor")
    world.settle()
    assert world.status("a-1") is Status.COMPLETED
    assert "must be success or failure, not 'retry'" in letters(world)
    assert "the result of the promise approved/auditor does not fit" in letters(world)


def test_what_is_no_token_at_all_is_refused_before_it_is_sent(world: World) -> None:
    async def work(client: Client) -> None:
        with pytest.raises(InvalidRequest, match="not a token"):
            await client.complete("nonsense")
        with pytest.raises(InvalidRequest, match="written as JSON"):
            await client.complete("nonsense", object())

    using(world, work)


# -- queries


def test_a_query_sees_what_its_client_said_before_also_after_the_end(world: World) -> None:
    async def work(client: Client) -> list[str]:
        handle = await client.start(Expense, 900, id="e-1")
        told = [await handle.query(Expense.who, "nobody")]
        await handle.signal(Expense.decided, Decision(by="ann"))
        told.append(await handle.query(Expense.who, otherwise="nobody"))
        await handle.result()
        told.append(await client.query("e-1", Expense.who, "nobody"))
        return told

    assert using(world, work) == ["nobody", "ann", "ann"]


def test_a_query_of_a_saga_that_only_the_store_knows_and_of_none(world: World) -> None:
    bare(world, "e-1", b"900", saga_type="Expense", signal="decided", signal_value='{"by": "ann"}')
    world.settle()
    world.crash()
    world.settle()

    async def work(client: Client) -> str:
        with pytest.raises(SagaNotFound):
            await client.query("nobody", Expense.who, "x")
        with pytest.raises(QueryFailed, match="no query 'who'; its queries: none"):
            await client.query((await client.start(Approval, 1)).id, Expense.who, "x")
        return await client.query("e-1", Expense.who, "nobody")

    assert using(world, work) == "ann"


def test_a_query_is_answered_only_by_who_can_still_write(world: World) -> None:
    """An owner that was fenced may know too little: its answer waits for a record that never counts."""
    bare(world, "e-1", b"900", saga_type="Expense")
    world.settle()
    answers = len(world.records(world.topics.answers))
    number = partition_of("e-1", PARTITIONS)
    partition = world.engine.tenures[number].partition
    assert partition is not None
    journaled = partition.writer.next_offset
    reply = {"reply_to": world.topics.answers, "reply_partition": "0", "correlation_id": "c"}
    for _ in range(3):
        bare(world, "e-1", b'{"otherwise": "x"}', input_type="query", query="who", **reply)
    while partition.writer.next_offset == journaled:
        assert len(world.records(world.topics.answers)) == answers, "not before its record is there"
        world.step()
    world.settle()
    assert len(world.records(world.topics.answers)) == answers + 3
    assert partition.writer.next_offset <= journaled + 2, "three queries share a record; another says all was sent"


def test_a_lost_answer_to_a_query_is_asked_for_again(world: World) -> None:
    async def work(client: Client) -> str:
        handle = await client.start(Expense, 900, id="e-1")
        await handle.query(Expense.who, "x")
        question = asyncio.ensure_future(handle.query(Expense.who, "nobody"))
        while not any(h.QUERY in dict(record.headers) for record in world.records(world.topics.inbox)[1:]):
            await asyncio.sleep(0)
        world.crash()
        return await question

    assert using(world, work) == "nobody"


def test_a_query_needs_somebody_to_tell(world: World) -> None:
    bare(world, "e-1", b"{}", input_type="query", query="who")
    bare(world, "e-1", b"{}", input_type="query", query="who", reply_to="elsewhere", reply_partition="0")
    world.settle()
    assert "a query needs the header 'reply-to'" in letters(world)
    assert "answers go to saga.answers" in letters(world)


# -- updates


def test_an_update_gives_its_result_and_what_is_refused_leaves_no_trace(world: World) -> None:
    async def work(client: Client) -> list[object]:
        handle = await client.start(Expense, 900, id="e-1")
        told: list[object] = [
            await handle.update(Expense.raise_to, 1000),
            await handle.update(Expense.raise_to, cents=7),
        ]
        with pytest.raises(UpdateRejected, match="more than nothing"):
            await handle.update(Expense.raise_to, 0)
        with pytest.raises(SagaNotFound):
            await client.update("nobody", Expense.raise_to, 1)
        await handle.signal(Expense.decided, Decision(by="ann"))
        return [*told, await handle.result()]

    assert using(world, work) == [900, 1000, "7 approved by ann"]
    assert not world.records(world.topics.dead_letters)


def test_an_update_is_admitted_then_accepted_then_completed(world: World) -> None:
    async def work(client: Client) -> str:
        handle = await client.start(Expense, 900, id="e-1")
        update = await handle.start_update(Expense.wait_for, "dear")
        await update.accepted()
        failing = await handle.start_update(Expense.wait_for, "cheap")
        await failing.accepted()
        await handle.signal(Expense.noted, "dear")
        await handle.signal(Expense.noted, "dear")
        with pytest.raises(UpdateFailed, match="Unheard: dear"):
            await failing.result()
        return await update.result()

    assert using(world, work) == "dear"


def test_an_update_id_of_ones_own_is_done_once_and_survives_the_owner(world: World) -> None:
    async def first(client: Client) -> None:
        await client.start(Expense, 900, id="e-1")
        await (await client.start_update_as("u-1", "e-1", Expense.wait_for, "dear")).accepted()

    using(world, first)
    world.crash()

    async def again(client: Client) -> list[object]:
        update = await client.start_update_as("u-1", "e-1", Expense.wait_for, "dear")
        await update.accepted()
        await client.signal("e-1", Expense.noted, "dear")
        told: list[object] = [await update.result()]
        raised = [await client.start_update_as("u-2", "e-1", Expense.raise_to, cents) for cents in (5, 6)]
        return told + [await each.result() for each in raised]

    assert using(world, again) == ["dear", 900, 900]


def test_an_update_of_a_bare_producer_that_is_refused_is_told_to_nobody_or_to_whom_it_says(world: World) -> None:
    bare(world, "e-1", b"900", saga_type="Expense")
    bare(world, "e-1", b'{"cents": 0}', input_type="update", update="raise_to")
    bare(
        world, "e-1", b'{"cents": 1}', input_type="update", update="raise_to", reply_to="elsewhere", reply_partition="0"
    )
    bare(world, "e-1", b'{"cents": 5}', input_type="update", update="raise_to")
    bare(world, "e-1", b'{"by": "ann"}', input_type="signal", signal="decided")
    world.settle()
    assert world.status("e-1") is Status.COMPLETED
    assert "answers go to saga.answers" in letters(world)
    assert "more than nothing" in letters(world)
