"""What a participant tells of a handler before it ends: that it began, that it is alive, how far it got."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from orchestrator.errors import InvalidRequest
from orchestrator.log.base import Failure
from orchestrator.participant import HandlerContext

from .test_handlers import Charge, Receipt, answer
from .world import LATER, REPLIES, SUCCESS, HoldingLink, Member, World


class Progress(BaseModel):
    row: int


def at_work(heartbeat_ms: int | None, details: bytes = b"") -> tuple[World, Member]:
    world = World()
    member = world.member()
    world.send(heartbeat_ms=heartbeat_ms, details=details)
    world.run()
    assert member.running() == [("order-7", "do", 1)]
    return world, member


def beats(world: World) -> list[bytes]:
    return [told.payload for told in world.told() if told.outcome == "heartbeat"]


def test_a_command_that_asks_for_nothing_is_told_nothing_before_its_end() -> None:
    world, member = at_work(None)
    member.held[0].tell(b'"half"')
    world.pass_time(10_000)
    assert world.told() == []


@pytest.mark.parametrize("heartbeat_ms", [0, 3_000])
def test_the_begin_of_a_handler_is_told_once(heartbeat_ms: int) -> None:
    world, _ = at_work(heartbeat_ms)
    world.pass_time(10_000)
    assert world.told() == [("order-7", 1, "do", 1, "heartbeat", "", b"")]


def test_a_handlers_heartbeats_are_told_at_most_three_times_per_timeout() -> None:
    world, member = at_work(3_000)
    for number in range(1, 31):
        member.held[0].tell(b"%d" % number)
        world.pass_time(100, every_ms=50)
    assert beats(world)[0] == b""
    assert 3 <= len(beats(world)[1:]) <= 4
    world.pass_time(2_000, every_ms=50)
    assert beats(world)[-1] == b"30"


def test_an_engine_looks_for_heartbeats_without_being_told() -> None:
    world, member = at_work(3_000)
    assert member.engine.due_ms <= world.now_ms + 350


def test_a_sign_of_life_keeps_the_details_that_were_not_told_yet() -> None:
    world, member = at_work(3_000)
    member.held[0].tell(b'"half"')
    member.held[0].tell(b"")
    world.pass_time(2_000, every_ms=100)
    assert beats(world) == [b"", b'"half"']


def test_what_was_said_last_goes_before_the_wish_for_another_attempt() -> None:
    world, member = at_work(60_000)
    member.held[0].tell(b'"half"')
    member.finish(LATER)
    world.run()
    assert [(told.outcome, told.payload) for told in world.told()][1:] == [("heartbeat", b'"half"'), ("retry", b"")]


def test_who_has_succeeded_has_no_more_to_say() -> None:
    world, member = at_work(60_000)
    member.held[0].tell(b'"half"')
    member.finish(SUCCESS)
    world.run()
    assert [told.outcome for told in world.told()] == ["heartbeat", "success"]


def test_a_begin_that_kafka_did_not_take_is_told_again() -> None:
    world = World()
    link = HoldingLink(lambda topic: topic == REPLIES)
    member = world.member(link=link)
    world.send(heartbeat_ms=0)
    world.run()
    assert member.running()
    assert link.held
    link.held.pop().fail(Failure.UNKNOWN_OUTCOME)
    link.holds = lambda topic: False
    world.pass_time(3_000)
    assert beats(world) == [b""]


def test_a_handler_says_how_far_it_got_and_the_next_attempt_reads_it() -> None:
    read: list[Progress | None] = []

    def charge(request: Charge, context: HandlerContext) -> Receipt:
        read.append(context.heartbeat_details(Progress))
        context.heartbeat(Progress(row=7))
        context.heartbeat()
        return Receipt(payment_id="p-1")

    world = World()
    member = world.member()
    world.send(payload=b'{"cents":5}', heartbeat_ms=1_000)
    world.send(payload=b'{"cents":5}', heartbeat_ms=1_000, details=b'{"row":7}', saga_id="order-8")
    world.run()
    for work in member.held:
        answer(charge, work)
        assert work.beat == (b'{"row":7}',)
    assert read == [None, Progress(row=7)]


def test_details_that_are_too_large_are_an_error_of_the_handler() -> None:
    context = HandlerContext("s", "r", 1, "T", 1, "do", "k", None, None)
    context.heartbeat({"row": 1})  # nobody asked: it goes nowhere
    with pytest.raises(InvalidRequest, match="have 5002 bytes, at most 4096"):
        context.heartbeat("x" * 5_000)
    with pytest.raises(InvalidRequest, match="cannot be written as JSON"):
        context.heartbeat(object())
