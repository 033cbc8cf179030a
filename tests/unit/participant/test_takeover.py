"""Participants that follow one another on a partition: by crash, by a rebalance, in good order, at the same time."""

from __future__ import annotations

import pytest

from orchestrator.log.base import Failure
from orchestrator.participant.ledger import LedgerView
from orchestrator.wire.ledger import Release

from .world import LATER, LEDGER, SUCCESS, HoldingLink, Member, World

L_PLUS_H_MS = (5_000 + 30_000) * 105 // 100


def crashed_while_running(world: World, link: HoldingLink | None = None) -> Member:
    """A member that took a command and died while its handler ran."""
    member = world.member(link=link)
    world.send()
    world.run()
    assert member.running() == [("order-7", "do", 1)]
    member.die()
    return member


def test_after_a_crash_no_handler_starts_before_the_lease_and_the_limit_of_the_dead_one_have_passed() -> None:
    world = World()
    crashed_while_running(world)
    second = world.member()
    world.pass_time(L_PLUS_H_MS - 100, every_ms=500)
    assert second.running() == []
    world.pass_time(1_000, every_ms=100)
    assert second.running() == [("order-7", "do", 1)]
    second.finish()
    world.run()
    assert world.outcomes() == [("do", 1, "success")]
    assert world.committed() == 1


def test_who_waits_for_the_handlers_of_a_dead_one_says_so(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    crashed_while_running(world)
    assert caplog.messages == []
    world.member()
    world.pass_time(L_PLUS_H_MS + 1_000, every_ms=500)
    (said,) = caplog.messages
    assert "partition 0" in said
    assert "no command is taken for 37 s" in said


def test_a_new_owner_waits_for_the_limits_of_the_one_before_not_for_its_own() -> None:
    world = World(handler_limit_ms=100_000)
    crashed_while_running(world)
    world.settings = type(world.settings)(handler_limit_ms=1_000)
    second = world.member()
    world.pass_time(100_000, every_ms=1_000)
    assert second.running() == []
    world.pass_time(12_000, every_ms=1_000)
    assert second.running() == [("order-7", "do", 1)]


def test_a_recorded_outcome_survives_and_its_handler_does_not_run_again() -> None:
    world = World()
    link = HoldingLink()
    first = world.member(link=link)
    world.send()
    world.run()
    link.holds = lambda topic: topic != LEDGER
    first.finish()
    world.run()
    assert world.ledger_kinds() == ["Claim", "Execution"]
    first.die()
    second = world.member()
    world.pass_time(L_PLUS_H_MS + 1_000)
    assert second.running() == []
    world.run()
    assert world.outcomes() == [("do", 1, "success")]
    assert world.committed() == 1


def test_after_a_graceful_stop_nobody_waits() -> None:
    world = World()
    first = world.member()
    world.send("a")
    world.run()
    first.finish()
    world.run()
    first.stop()
    assert isinstance(world.ledger()[-1], Release)
    second = world.member()
    world.send("b")
    world.run()
    assert second.running() == [("b", "do", 1)]


def test_a_rebalance_lets_running_handlers_end_and_their_outcomes_count() -> None:
    world = World(partitions=2)
    first = world.member()
    world.send("a", partition=0)
    world.send("b", partition=1)
    world.run()
    assert len(first.held) == 2
    second = world.member()
    world.run()
    world.send("b", "undo", partition=1)
    world.pass_time(3_000)
    assert second.running() == []
    first.finish(index=1)
    world.run()
    # The outcome is recorded and answered by the first, released, and the undo runs at the second.
    assert world.outcomes("b")[0] == ("do", 1, "success")
    assert world.ledger_kinds(1) == ["Claim", "Execution", "Release", "Claim"]
    assert second.running() == [("b", "undo", 1)]
    assert first.running() == [("a", "do", 1)]


def test_the_revoked_one_starts_nothing_that_waited() -> None:
    world = World(partitions=2, concurrency=1)
    first = world.member()
    world.send("b", partition=1)
    world.run()
    world.send("b", "undo", partition=1)
    world.send("c", partition=1)
    world.run()
    second = world.member()
    world.run()
    first.finish()
    world.run()
    assert first.running() == []
    assert second.running() == [("b", "undo", 1)]


def test_a_partition_that_comes_back_while_its_handler_runs_waits_for_that() -> None:
    world = World()
    first = world.member()
    world.send()
    world.run()
    world.log.expire(first.reader)
    world.run()
    world.send(direction="undo")
    world.pass_time(3_000)
    assert first.running() == [("order-7", "do", 1)]
    first.finish()
    world.run()
    assert world.ledger_kinds() == ["Claim", "Execution", "Release", "Claim"]
    assert first.running() == [("order-7", "undo", 1)]


def test_handlers_start_only_under_the_lease() -> None:
    world = World(lease_ms=5_000)
    link = HoldingLink()
    member = world.member(link=link)
    world.run()
    link.holds_request = lambda kind: kind == "commit"
    world.pass_time(4_000)
    world.send("in time")
    world.run(5)
    assert member.running() == [("in time", "do", 1)]
    world.pass_time(2_000)
    world.send("too late")
    world.pass_time(60_000)
    assert member.running() == [("in time", "do", 1)]
    # A commit that was sent long ago proves nothing about now.
    link.holds_request = lambda kind: False
    _, perform, _ = link.requests[0]
    perform()
    member.step()
    assert member.running() == [("in time", "do", 1)]
    world.pass_time(6_000)
    assert member.running() == [("in time", "do", 1), ("too late", "do", 1)]


def test_a_member_that_the_group_threw_out_starts_nothing_though_it_was_not_told() -> None:
    world = World(lease_ms=5_000, handler_limit_ms=5_000)
    link = HoldingLink()
    first = world.member(link=link)
    world.run()
    link.holds_request = lambda kind: kind == "group"
    world.log.expire(first.reader)
    second = world.member()
    world.pass_time(4_000)
    world.pass_time(2_000)
    world.send("late")
    world.pass_time(20_000)
    assert first.running() == []
    assert second.running() == [("late", "do", 1)]


def test_a_late_write_of_a_dead_instance_is_dropped_by_everybody() -> None:
    world = World()
    link = HoldingLink()
    first = world.member(link=link)
    world.send()
    world.run()
    link.holds = lambda topic: topic == LEDGER
    first.finish()
    world.run()
    first.die()
    late = link.held[0]
    second = world.member()
    world.pass_time(L_PLUS_H_MS + 1_000)
    assert second.running() == [("order-7", "do", 1)]
    late.land()
    second.finish(LATER)
    world.run()
    # Its record took the place of the second's: that one claims again, finds what counts, and goes on.
    assert world.ledger_kinds() == ["Claim", "Claim", "Execution", "Execution", "Claim"]
    assert world.outcomes() == [("do", 1, "retry")]
    assert second.engine.counters.epochs_lost == 1
    view = LedgerView(10**12)
    for record in world.log.records(LEDGER, 0):
        view.apply(record)
    entry = view.memory.get(("order-7", "1-10-0", 1))
    assert entry is not None
    assert entry.do is not None
    assert entry.do.reply == LATER


def test_a_late_write_that_lands_before_the_next_claim_counts() -> None:
    world = World()
    link = HoldingLink()
    first = world.member(link=link)
    world.send()
    world.run()
    link.holds = lambda topic: topic == LEDGER
    first.finish()
    world.run()
    first.die()
    second = world.member()
    world.pass_time(1_000)
    link.held[0].land()
    world.pass_time(L_PLUS_H_MS + 1_000)
    assert second.running() == []
    assert world.outcomes() == [("do", 1, "success")]


def test_a_slow_instance_whose_partition_was_claimed_answers_nothing_it_could_not_record() -> None:
    world = World(lease_ms=1_000, handler_limit_ms=1_000)
    first = world.member()
    world.send()
    world.run()
    world.log.expire(first.reader)
    first.alive = False  # stopped, and continued much later
    second = world.member()
    world.pass_time(5_000, every_ms=100)
    assert second.running() == [("order-7", "do", 1)]
    first.alive = True
    first.finish(SUCCESS)
    world.run()
    assert world.outcomes() == []
    second.finish(LATER)
    world.run()
    assert world.outcomes() == [("do", 1, "retry")]


@pytest.mark.parametrize("lands", [True, False])
def test_an_outcome_whose_acknowledgement_is_lost_is_settled_by_claiming_again(lands: bool) -> None:
    world = World()
    link = HoldingLink()
    member = world.member(link=link)
    world.send()
    world.run()
    link.holds = lambda topic: topic == LEDGER
    member.finish()
    world.run()
    sent = link.held.pop()
    link.holds = lambda topic: False
    if lands:
        sent.land()
    sent.fail(Failure.UNKNOWN_OUTCOME)
    world.run(60)
    # The handler is not run again, and nobody waits for his own claim.
    assert member.running() == []
    assert world.outcomes() == [("do", 1, "success")]
    assert world.ledger_kinds() == ["Claim", "Execution", "Claim"] if lands else ["Claim", "Claim", "Execution"]
    assert world.committed() == 1


def test_while_it_claims_again_commands_wait_and_running_handlers_count() -> None:
    world = World()
    link = HoldingLink()
    member = world.member(link=link)
    world.send("a")
    world.send("b")
    world.run()
    link.holds = lambda topic: topic == LEDGER
    member.finish()
    world.run()
    link.held.pop().fail(Failure.UNKNOWN_OUTCOME)
    world.run()
    assert len(link.held) == 1  # the new claim
    world.send("c")
    world.send("b", "undo")
    member.finish()
    world.run()
    assert member.running() == []
    link.release()
    world.run()
    assert member.running() == [("c", "do", 1), ("b", "undo", 1)]
    assert sorted(world.outcomes()) == [("do", 1, "success")] * 2


def test_a_claim_whose_acknowledgement_is_lost_is_made_again_with_another_nonce() -> None:
    world = World()
    link = HoldingLink(lambda topic: topic == LEDGER)
    member = world.member(link=link)
    world.send()
    world.run()
    link.held[0].land()
    link.held[0].report(with_offset=False)
    link.held.clear()
    link.holds = lambda topic: False
    world.run(100)
    assert member.running() == [("order-7", "do", 1)]
    nonces = [body.nonce for body in world.ledger()]  # type: ignore[union-attr]
    assert len(set(nonces)) == 2


def test_a_claim_acknowledged_after_the_partition_was_taken_away_is_released() -> None:
    world = World()
    link = HoldingLink(lambda topic: topic == LEDGER)
    first = world.member(link=link)
    world.run()
    second = world.member()
    world.run()
    # The only partition stays with the first until it leaves.
    first.engine.stop()
    world.run()
    link.release()
    world.run()
    assert world.ledger_kinds() == ["Claim", "Release"]
    assert first.engine.stopped
    first.reader.close()
    world.send()
    world.run()
    assert second.running() == [("order-7", "do", 1)]


def test_who_leaves_while_waiting_does_not_speak_for_the_one_he_waited_for() -> None:
    world = World()
    crashed_while_running(world)
    link = HoldingLink()
    second = world.member(link=link)
    world.pass_time(L_PLUS_H_MS + 1_000)
    assert second.running() == [("order-7", "do", 1)]
    second.finish()
    world.run()
    second.stop()
    # This one was cleared, so its release covers the dead one's claim too.
    assert world.ledger()[-1] == Release(1, True)
    third = world.member()
    world.send("next")
    world.run()
    assert third.running() == [("next", "do", 1)]


def test_a_release_that_comes_while_waiting_ends_the_wait() -> None:
    world = World()
    link = HoldingLink()
    first = world.member(link=link)
    world.send("a")
    world.run()
    first.finish()
    world.run()
    link.holds = lambda topic: topic == LEDGER
    first.engine.stop()
    world.run()
    world.log.expire(first.reader)
    first.alive = False
    second = world.member()
    world.send("b")
    world.pass_time(3_000)
    assert second.running() == []
    link.held[0].land()
    world.run(3)
    assert second.running() == [("b", "do", 1)]


def test_two_claimants_at_once_come_to_one_owner() -> None:
    world = World(lease_ms=1_000, handler_limit_ms=1_000)
    link = HoldingLink()
    first = world.member(link=link)
    world.send("a")
    world.run()
    link.holds_request = lambda kind: kind == "group"
    world.log.expire(first.reader)
    second = world.member()
    world.pass_time(5_000, every_ms=100)
    first.finish()
    world.run()
    link.holds_request = lambda kind: False
    for _, perform, _ in link.requests:
        perform()
    world.send("b")
    world.pass_time(10_000, every_ms=100)
    for member in (first, second):
        while member.held:
            member.finish()
    world.pass_time(10_000, every_ms=100)
    assert ("do", 1, "success") in world.outcomes("a")
    assert world.outcomes("b") == [("do", 1, "success")]
