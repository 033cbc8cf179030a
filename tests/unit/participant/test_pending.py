"""Work that is completed later by token: what is recorded, what is told, and when."""

from __future__ import annotations

import pytest

from orchestrator.errors import Pending
from orchestrator.log.base import Failure
from orchestrator.model.messages import Outcome
from orchestrator.participant import HandlerContext, rules
from orchestrator.participant.rules import IGNORE, REJECT, Answer, Entry, Keep, Recorded
from orchestrator.wire.commands import CommandMessage, Postponed, ReplyMessage
from orchestrator.wire.completions import read_token, write_token
from orchestrator.wire.ledger import Execution

from .test_handlers import Charge, Receipt, answer, answer_async
from .world import LEDGER, LETTERS, REPLIES, SERVICE, SUCCESS, HoldingLink, Member, World

TOKEN = b"k.00"
PENDING = Postponed(TOKEN)
DONE = ReplyMessage(Outcome.SUCCESS, b'{"payment_id":"p-9"}')


def token_of(member: Member, index: int = 0) -> str:
    work = member.held[index]
    return write_token(SERVICE, work.record.partition, work.command)


def postponed(world: World, member: Member) -> str:
    """A command whose handler has left its work to be completed later; its token."""
    world.send()
    world.run()
    token = token_of(member)
    member.finish(PENDING)
    world.run()
    return token


# -- handlers


def test_a_handler_raises_pending_and_hands_its_token_out() -> None:
    tokens: list[str] = []

    def charge(request: Charge, context: HandlerContext) -> Receipt:
        tokens.append(context.token)
        raise Pending

    async def charge_async(request: Charge) -> Receipt:
        raise Pending

    world = World()
    member = world.member()
    world.send(payload=b'{"cents":5}')
    world.run()
    work = member.held[0]
    assert answer(charge, work) == Postponed(TOKEN)
    assert answer_async(charge_async) == Postponed(b"")
    address = read_token(tokens[0])
    assert (address.service, address.partition, address.saga_id) == ("payments", 0, "order-7")


def test_an_inbox_decides_about_completions() -> None:
    world = World()
    member = world.member(ledger=False)
    world.send()
    world.run()
    token = token_of(member)
    member.finish(PENDING)
    world.run()
    assert (world.told(), world.committed()) == ([], 1)
    for _ in range(3):
        world.complete(token)
    # One after the other, for they are of one unit.
    for decision in (None, Answer(DONE, 4), IGNORE, REJECT):
        world.run()
        assert len(member.held) == 1
        member.finish(decision)
    world.run()
    assert world.outcomes() == [("do", 4, "success")]
    assert len(world.log.records(LETTERS, 0)) == 1
    assert world.committed() == 4


def test_what_is_no_token_is_refused() -> None:
    for text in ("", "x", "ö", "bnVsbA", "W10", "WzEsMiwzXQ"):
        with pytest.raises(ValueError, match="not a token"):
            read_token(text)


# -- pending is recorded, and answers every attempt by silence


def test_pending_is_recorded_and_nothing_is_told() -> None:
    world = World()
    member = world.member()
    postponed(world, member)
    assert world.told() == []
    last = world.ledger()[-1]
    assert isinstance(last, Execution)
    assert (last.attempt, last.reply) == (1, PENDING)
    assert world.committed() == 1
    assert member.engine.counters.outcomes["pending"] == 1


def test_it_commits_only_when_the_ledger_has_it() -> None:
    world = World()
    link = HoldingLink()
    member = world.member(link=link)
    world.send()
    world.run()
    link.holds = lambda topic: topic == LEDGER
    member.finish(PENDING)
    world.run()
    assert world.committed() == 0
    link.release()
    world.run()
    assert world.committed() == 1


def test_every_attempt_is_answered_by_silence_and_the_highest_is_remembered() -> None:
    world = World()
    member = world.member()
    token = postponed(world, member)
    for attempt in (1, 3, 2):
        world.send(attempt=attempt)
    world.run()
    assert (member.running(), world.told()) == ([], [])
    assert world.committed() == 4
    attempts = [body.attempt for body in world.ledger() if isinstance(body, Execution)]
    assert attempts == [1, 3]
    world.complete(token)
    world.run()
    # A failure counts only if it answers the highest attempt; so does whatever completes it.
    assert world.outcomes() == [("do", 3, "success")]


def test_who_comes_next_knows_of_it() -> None:
    world = World()
    first = world.member()
    token = postponed(world, first)
    first.stop()
    second = world.member()
    world.send(attempt=2)
    world.run(40)
    assert (second.running(), world.told()) == ([], [])
    world.complete(token)
    world.run()
    assert world.outcomes() == [("do", 2, "success")]


# -- its completion goes through the memory


@pytest.mark.parametrize(("outcome", "why"), [(Outcome.SUCCESS, ""), (Outcome.FAILURE, "CardDeclined")])
def test_a_completion_is_recorded_then_told_then_committed(outcome: Outcome, why: str) -> None:
    world = World()
    link = HoldingLink()
    member = world.member(link=link)
    token = postponed(world, member)
    link.holds = lambda topic: topic in (LEDGER, REPLIES)
    world.complete(token, outcome, b"1", why)
    world.run()
    assert [sent.topic for sent in link.held] == [LEDGER]
    link.held[0].land()
    link.held[0].report()
    world.run()
    assert [sent.topic for sent in link.held] == [LEDGER, REPLIES]
    assert world.committed() == 1
    link.release()
    world.run()
    told = world.told()[0]
    assert (told.outcome, told.error_type, told.payload, told.attempt) == (outcome, why, b"1", 1)
    assert world.committed() == 2


def test_the_first_completion_counts_and_a_repeat_hears_the_same() -> None:
    world = World()
    member = world.member()
    token = postponed(world, member)
    world.complete(token)
    world.complete(token, Outcome.FAILURE, b"", "Late")
    world.run()
    assert world.outcomes() == [("do", 1, "success")] * 2
    assert world.committed() == 3
    assert sum(isinstance(body, Execution) for body in world.ledger()) == 2


def test_a_completion_that_was_recorded_and_not_told_is_told_by_the_next_owner() -> None:
    world = World()
    link = HoldingLink()
    first = world.member(link=link)
    token = postponed(world, first)
    world.send(attempt=2)
    world.run()
    link.holds = lambda topic: topic == REPLIES
    world.complete(token)
    world.run()
    first.die()
    world.member()
    world.pass_time(60_000)
    assert world.outcomes() == [("do", 2, "success")]


def test_a_completion_that_overtakes_its_handler_waits_for_it() -> None:
    world = World()
    member = world.member()
    world.send()
    world.run()
    world.complete(token_of(member))
    world.run()
    assert world.told() == []
    member.finish(PENDING)
    world.run()
    assert world.outcomes() == [("do", 1, "success")]


def test_a_completion_under_a_lost_claim_is_recorded_under_the_next() -> None:
    world = World()
    link = HoldingLink()
    member = world.member(link=link)
    token = postponed(world, member)
    link.holds = lambda topic: topic == LEDGER
    world.complete(token)
    world.run()
    link.held[0].fail(Failure.UNKNOWN_OUTCOME)
    link.held.clear()
    link.release()
    world.run(40)
    assert member.engine.counters.epochs_lost == 1
    assert world.outcomes() == [("do", 1, "success")]
    assert world.ledger_kinds() == ["Claim", "Execution", "Claim", "Execution"]


def test_a_higher_attempt_after_a_completed_failure_runs() -> None:
    world = World()
    member = world.member()
    token = postponed(world, member)
    world.complete(token, Outcome.FAILURE, b"", "Busy")
    world.send(attempt=2)
    world.run()
    assert member.running() == [("order-7", "do", 2)]


def test_what_is_not_pending_or_of_another_token_is_a_dead_letter() -> None:
    world = World()
    member = world.member()
    token = postponed(world, member)
    address = read_token(token)
    for name, value in (("reply-token", "k.01"), ("step", "9")):
        forged = address._replace(headers={**address.headers, name: value})
        world.send_completion(forged)
    world.run()
    assert world.told() == []
    assert len(world.log.records(LETTERS, 0)) == 2
    world.complete(token)
    world.run()
    assert world.outcomes() == [("do", 1, "success")]


def test_work_is_not_completed_by_retry() -> None:
    world = World()
    member = world.member()
    token = postponed(world, member)
    world.complete(token, Outcome.RETRY)
    world.run()
    assert world.told() == []
    assert len(world.log.records(LETTERS, 0)) == 1


# -- an undo does not wait, and a completion behind it is only recorded


def test_an_undo_runs_at_once_and_a_completion_behind_it_is_only_recorded() -> None:
    world = World()
    member = world.member()
    token = postponed(world, member)
    world.send(direction="undo")
    world.run()
    assert member.running() == [("order-7", "undo", 1)]
    world.complete(token)
    world.run()
    member.finish()
    world.run()
    assert world.outcomes() == [("undo", 1, "success")]
    assert world.committed() == 3
    last = world.ledger()[-1]
    assert isinstance(last, Execution)
    assert (last.undo, last.reply) == (False, DONE)
    world.complete(token)
    world.run()
    assert world.outcomes() == [("undo", 1, "success")]
    assert world.committed() == 4


def test_an_attempt_behind_the_undo_of_pending_work_is_refused() -> None:
    world = World()
    member = world.member()
    postponed(world, member)
    world.send(direction="undo")
    world.run()
    member.finish()
    world.send(attempt=2)
    world.run()
    assert member.running() == []
    assert world.told()[-1].error_type == "Undone"


def test_an_undo_may_be_pending_itself() -> None:
    world = World()
    member = world.member()
    world.send(direction="undo")
    world.run()
    token = token_of(member)
    member.finish(PENDING)
    world.run()
    world.complete(token)
    world.run()
    assert world.outcomes() == [("undo", 1, "success")]


# -- the rules by themselves


def completion(reply: ReplyMessage = DONE, token: bytes = TOKEN, attempt: int = 1) -> CommandMessage:
    return CommandMessage(
        "order-7",
        "1-10-0",
        "Order",
        "charge",
        1,
        "do",
        attempt,
        "order-7/1-10-0/1/do",
        b"",
        "saga.replies",
        0,
        0,
        None,
        None,
        (("reply-token", token),),
        reply,
    )


def test_the_rules_for_completions() -> None:
    pending = Entry(Recorded(2, PENDING))
    assert rules.decide(completion(), None) is REJECT
    assert rules.decide(completion(), Entry(undo=Recorded(1, SUCCESS), undone=True)) is REJECT
    assert rules.decide(completion(token=b"other"), pending) is REJECT
    assert rules.decide(completion(), pending) == Keep(2, DONE, True)
    assert rules.decide(completion(), pending._replace(undone=True)) == Keep(2, DONE, False)
    assert rules.decide(completion(), Entry(Recorded(2, SUCCESS))) == Answer(SUCCESS, 2)
    assert rules.decide(completion(), Entry(Recorded(2, SUCCESS), undone=True)) is IGNORE


def test_the_reply_to_a_completion_names_the_attempt_that_it_answers() -> None:
    assert completion().at_attempt(3).echoed == (("reply-token", TOKEN), ("attempt", b"3"))
    assert completion().at_attempt(1) == completion()
