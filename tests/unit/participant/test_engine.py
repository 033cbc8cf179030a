"""What a participant does with commands, one instance at a time."""

from __future__ import annotations

import pytest

from orchestrator.log.base import TopicSpec
from orchestrator.model.messages import Outcome
from orchestrator.participant.outbound import EngineFailed
from orchestrator.wire.commands import ReplyMessage

from .world import COMMANDS, DECLINED, LATER, LEDGER, LETTERS, REPLIES, SUCCESS, HoldingLink, World


def test_a_command_is_run_recorded_answered_and_committed() -> None:
    world = World()
    member = world.member()
    world.send()
    world.run()
    assert member.running() == [("order-7", "do", 1)]
    assert world.committed() == 0
    member.finish(SUCCESS)
    world.run()
    assert world.outcomes() == [("do", 1, "success")]
    assert world.told()[0].payload == SUCCESS.payload
    assert world.ledger_kinds() == ["Claim", "Execution"]
    assert world.committed() == 1
    assert member.engine.counters.outcomes == {"success": 1, "failure": 0, "retry": 0, "pending": 0}


def test_the_ledger_comes_first_then_the_reply_then_the_commit() -> None:
    world = World()
    link = HoldingLink()
    member = world.member(link=link)
    world.send()
    world.run()
    link.holds = lambda topic: True
    member.finish()
    world.run()
    assert [sent.topic for sent in link.held] == [LEDGER]
    link.held[0].land()
    world.run()
    assert [sent.topic for sent in link.held] == [LEDGER]  # landed is not yet acknowledged
    link.held[0].report()
    world.run()
    assert [sent.topic for sent in link.held] == [LEDGER, REPLIES]
    assert world.committed() == 0
    link.held[1].land()
    link.held[1].report()
    world.run()
    assert world.committed() == 1


def test_a_recorded_success_answers_every_attempt() -> None:
    world = World()
    member = world.member()
    world.send(attempt=2)
    world.run()
    member.finish()
    for attempt in (1, 2, 3):
        world.send(attempt=attempt)
    world.run()
    assert member.running() == []
    assert world.outcomes() == [("do", 2, "success"), ("do", 1, "success"), ("do", 2, "success"), ("do", 3, "success")]
    assert member.engine.counters.duplicates == 3


@pytest.mark.parametrize("reply", [DECLINED, LATER])
def test_a_recorded_failure_answers_up_to_its_attempt_and_a_higher_one_runs(reply: ReplyMessage) -> None:
    world = World()
    member = world.member()
    world.send(attempt=2)
    world.run()
    member.finish(reply)
    world.send(attempt=1)
    world.run()
    assert member.running() == []
    assert [told.error_type for told in world.told()] == [reply.error_type] * 2
    world.send(attempt=3)
    world.run()
    assert member.running() == [("order-7", "do", 3)]
    member.finish()
    world.run()
    assert world.outcomes()[-1] == ("do", 3, "success")


def test_a_second_attempt_waits_for_the_first_and_does_not_join_it() -> None:
    world = World()
    member = world.member()
    world.send(attempt=1)
    world.send(attempt=2)
    world.run()
    assert member.running() == [("order-7", "do", 1)]
    member.finish(LATER)
    world.run()
    assert member.running() == [("order-7", "do", 2)]
    member.finish()
    world.run()
    assert world.outcomes() == [("do", 1, "retry"), ("do", 2, "success")]


def test_an_undo_waits_until_the_do_has_ended() -> None:
    world = World()
    member = world.member()
    world.send()
    world.send(direction="undo")
    world.run()
    assert member.running() == [("order-7", "do", 1)]
    member.finish(LATER)
    world.run()
    assert member.running() == [("order-7", "undo", 1)]
    member.finish()
    world.run()
    assert world.outcomes() == [("do", 1, "retry"), ("undo", 1, "success")]


def test_an_undo_waits_until_the_outcome_of_the_do_is_in_the_ledger() -> None:
    world = World()
    link = HoldingLink()
    member = world.member(link=link)
    world.send()
    world.send(direction="undo")
    world.run()
    link.holds = lambda topic: topic == LEDGER
    member.finish()
    world.run()
    assert member.running() == []
    link.release()
    world.run()
    assert member.running() == [("order-7", "undo", 1)]


def test_an_undo_runs_though_its_do_is_not_known_and_keeps_it_from_ever_running() -> None:
    world = World()
    member = world.member()
    world.send(direction="undo")
    world.run()
    member.finish()
    world.send(attempt=1)
    world.send(attempt=5)
    world.run()
    assert member.running() == []
    assert [told.error_type for told in world.told()] == ["", "Undone", "Undone"]
    assert world.outcomes() == [("undo", 1, "success"), ("do", 1, "retry"), ("do", 5, "retry")]
    assert member.engine.counters.refused == {"Undone": 2}


@pytest.mark.parametrize("reply", [DECLINED, LATER])
def test_an_undo_that_failed_still_keeps_the_do_away_and_its_next_attempt_runs(reply: ReplyMessage) -> None:
    world = World()
    member = world.member()
    world.send(direction="undo")
    world.run()
    member.finish(reply)
    world.send()
    world.send(direction="undo")
    world.run()
    assert member.running() == []
    world.send(direction="undo", attempt=2)
    world.run()
    assert member.running() == [("order-7", "undo", 2)]


def test_other_units_run_beside_and_offsets_commit_without_gaps() -> None:
    world = World()
    member = world.member()
    world.send("a")
    world.send("b")
    world.send("a", sequence=2)
    world.run()
    assert [saga for saga, _, _ in member.running()] == ["a", "b", "a"]
    member.finish(index=1)
    world.run()
    member.finish(index=1)
    world.run()
    assert world.committed() == 0
    assert len(world.told()) == 2
    member.finish()
    world.run()
    assert world.committed() == 3


def test_runs_of_one_saga_id_do_not_share_a_memory() -> None:
    world = World()
    member = world.member()
    world.send(run="1-10-0")
    world.run()
    member.finish()
    world.send(run="1-99-0")
    world.run()
    assert member.running() == [("order-7", "do", 1)]


def test_concurrency_is_bounded_and_partitions_take_turns() -> None:
    world = World(partitions=2, concurrency=2)
    member = world.member()
    for index in range(4):
        world.send(f"a{index}", partition=0)
    world.run()
    for index in range(4):
        world.send(f"b{index}", partition=1)
    world.run()
    assert len(member.held) == 2
    member.finish()
    world.run()
    member.finish()
    world.run()
    assert {saga[0] for saga, _, _ in member.running()} == {"a", "b"}


def test_a_full_window_pauses_its_partition_only() -> None:
    world = World(partitions=2, concurrency=100, window=4)
    member = world.member()
    world.run()
    world.send("hangs", partition=0)
    for index in range(20):
        world.send(f"a{index}", partition=0)
    for _ in range(40):
        world.run(2)
        for work in [work for work in member.held if work.command.saga_id != "hangs"]:
            member.finish(index=member.held.index(work))
    # A poll may bring more than the window holds; then it stops.
    answered = len(world.told())
    world.send("later", partition=0)
    world.send("other", partition=1)
    world.run()
    assert member.running() == [("hangs", "do", 1), ("other", "do", 1)]
    assert len(world.told()) == answered
    member.finish()
    world.run()
    assert ("later", "do", 1) in member.running()


def test_a_hanging_handler_is_reported_once_and_stops_nobody() -> None:
    world = World(handler_limit_ms=1_000)
    member = world.member()
    world.send("hangs")
    world.run()
    world.send("fine")
    world.pass_time(3_000)
    assert member.running() == [("hangs", "do", 1), ("fine", "do", 1)]
    member.finish(index=1)
    world.run()
    assert world.outcomes("fine") == [("do", 1, "success")]
    assert [work.command.saga_id for work in world.overdue][:1] == ["hangs"]
    assert member.engine.counters.overdue == len(world.overdue)


def test_what_is_no_command_becomes_a_dead_letter_and_the_partition_goes_on() -> None:
    world = World()
    member = world.member()
    world.send_raw(b"\x00\xff\xfe", [("trace", b"\xff")], key=b"odd")
    world.send_raw(None)
    world.send("fine")
    world.run()
    assert member.running() == [("fine", "do", 1)]
    letters = world.log.records(LETTERS, 0)
    assert [(letter.key, letter.value) for letter in letters] == [(b"odd", b"\x00\xff\xfe"), (b"k", None)]
    headers = dict(letters[0].headers)
    assert headers["trace"] == b"\xff"
    assert headers["__connect.errors.topic"] == COMMANDS.encode()
    assert headers["kafka_dlt-original-offset"] == bytes(8)
    assert b"saga-id" in headers["kafka_dlt-exception-message"]
    assert world.committed() == 2


def test_a_dead_letter_is_acknowledged_before_the_offset_commits() -> None:
    world = World()
    world.log.delete(LETTERS)
    member = world.member()
    world.send_raw(b"junk")
    world.send("fine")
    world.run()
    member.finish()
    world.pass_time(5_000)
    assert world.outcomes() == [("do", 1, "success")]
    assert world.committed() == 0
    world.log.create(TopicSpec(LETTERS, 1, 1, {}))
    world.pass_time(2_000)
    assert world.committed() == 2
    assert len(world.log.records(LETTERS, 0)) == 1


@pytest.mark.parametrize(
    ("reply_to", "attempt", "sequence"), [("elsewhere", 1, 1), (LETTERS, 1, 1), (REPLIES, 0, 1), (REPLIES, 1, -1)]
)
def test_impossible_numbers_and_addresses_are_dead_letters(reply_to: str, attempt: int, sequence: int) -> None:
    world = World()
    member = world.member()
    world.send(reply_to=reply_to, attempt=attempt, sequence=sequence)
    world.run()
    assert member.running() == []
    assert len(world.log.records(LETTERS, 0)) == 1


def test_a_reply_topic_that_never_appears_makes_a_dead_letter_after_the_outcome_is_recorded() -> None:
    world = World(reply_tries=3)
    member = world.member()
    world.log.delete(REPLIES)
    world.send()
    world.run()
    member.finish()
    world.pass_time(5_000)
    assert world.ledger_kinds() == ["Claim", "Execution"]
    assert len(world.log.records(LETTERS, 0)) == 1
    assert world.committed() == 1
    world.log.create(TopicSpec(REPLIES, 1, 1, {}))
    world.send()
    world.run()
    assert world.outcomes() == [("do", 1, "success")]


def test_a_reply_of_unknown_fate_is_sent_again() -> None:
    world = World()
    link = HoldingLink()
    member = world.member(link=link)
    world.send()
    world.run()
    link.holds = lambda topic: topic == REPLIES
    member.finish()
    world.run()
    link.held[0].land()
    link.held[0].report(with_offset=False)
    world.run(3)
    link.release()
    world.run(30)
    assert world.outcomes() == [("do", 1, "success")] * 2
    assert world.committed() == 1


def test_a_reply_too_large_to_send_is_answered_as_unknown() -> None:
    world = World(max_reply_bytes=10)
    member = world.member()
    world.send()
    world.run()
    member.finish(ReplyMessage(Outcome.SUCCESS, b"x" * 11))
    world.run()
    assert [(told.outcome, told.error_type, told.payload) for told in world.told()] == [("retry", "ReplyTooLarge", b"")]


def test_a_full_appender_is_back_pressure_and_loses_nothing() -> None:
    world = World(concurrency=50)
    link = HoldingLink()
    member = world.member(link=link, bound=3)
    world.run()
    for index in range(30):
        world.send(f"s{index}")
    world.run()
    link.holds = lambda topic: True
    for _ in range(30):
        member.finish()
    world.run()
    assert len(link.held) == 3
    world.send("one more")
    world.run()
    assert member.running() == []
    link.release()
    world.run(60)
    assert member.running() == [("one more", "do", 1)]
    assert sorted(told.saga_id for told in world.told()) == sorted(f"s{index}" for index in range(30))
    assert world.committed() == 30


def test_a_do_whose_deadline_passed_is_not_run_but_an_undo_is() -> None:
    world = World()
    member = world.member()
    world.run()
    world.send("a", deadline_ms=world.now_ms - 1)
    world.send("b", direction="undo", deadline_ms=world.now_ms - 1)
    world.run()
    assert member.running() == [("b", "undo", 1)]
    assert [(told.outcome, told.error_type) for told in world.told()] == [("retry", "DeadlineExceeded")]
    assert world.ledger_kinds() == ["Claim"]


def test_a_do_that_waited_for_room_beyond_its_deadline_is_not_run() -> None:
    world = World(concurrency=1)
    member = world.member()
    world.send("first")
    world.run()
    world.send("second", deadline_ms=world.now_ms + 1_000)
    world.pass_time(2_000)
    member.finish()
    world.run()
    assert member.running() == []
    assert [told.error_type for told in world.told("second")] == ["DeadlineExceeded"]


def test_a_command_too_old_for_the_memory_is_refused_and_what_is_known_is_still_answered() -> None:
    world = World(retention_ms=1_000_000)
    member = world.member()
    world.send("known")
    world.run()
    member.finish()
    world.run()
    old_ms = world.now_ms - 500_001
    world.send("late", sent_at_ms=old_ms)
    world.send("late", "undo", sent_at_ms=old_ms)
    world.send("known", sent_at_ms=old_ms)
    world.send("young", sent_at_ms=world.now_ms - 400_000)
    world.run()
    assert [told.error_type for told in world.told("late")] == ["Expired", "Expired"]
    assert world.outcomes("known")[-1] == ("do", 1, "success")
    assert member.running() == [("young", "do", 1)]


def test_the_memory_forgets_after_its_retention() -> None:
    world = World(retention_ms=10_000)
    member = world.member()
    world.send()
    world.run()
    member.finish()
    world.pass_time(15_000)
    world.send()
    world.run()
    assert member.running() == [("order-7", "do", 1)]


def test_without_a_committed_offset_it_starts_at_the_log_start_and_commits_that() -> None:
    world = World()
    world.send("trimmed")
    world.send("kept")
    world.log.admin().trim({(COMMANDS, 0): 1})
    member = world.member()
    world.run()
    assert member.running() == [("kept", "do", 1)]
    assert world.committed() == 1


def test_a_position_outside_the_log_moves_to_its_start_and_is_counted() -> None:
    world = World()
    first = world.member()
    for index in range(5):
        world.send(f"s{index}")
    world.run()
    for _ in range(5):
        first.finish()
    world.run()
    first.stop()
    assert world.committed() == 5
    world.send("lost")
    world.send("new")
    world.log.admin().trim({(COMMANDS, 0): 6})
    second = world.member()
    world.pass_time(3_000)
    assert second.running() == [("new", "do", 1)]
    assert second.engine.counters.repositioned == 1


def test_a_missing_ledger_partition_keeps_the_command_partition_paused() -> None:
    world = World()
    world.log.delete(LEDGER)
    member = world.member()
    world.send()
    world.pass_time(5_000)
    assert member.running() == []
    world.log.create(TopicSpec(LEDGER, 1, 1, {}))
    world.pass_time(3_000)
    assert member.running() == [("order-7", "do", 1)]


def test_a_ledger_record_of_a_newer_software_keeps_the_participant_from_claiming() -> None:
    world = World()
    world.log.appender().append(LEDGER, 0, b"\xc3\x01newer...", token=None)
    member = world.member()
    world.send()
    world.pass_time(100_000, every_ms=5_000)
    assert member.running() == []
    assert len(world.log.records(LEDGER, 0)) == 1


def test_a_client_that_cannot_be_used_any_more_ends_the_engine() -> None:
    from orchestrator.log.base import Failure, ReadFailed

    world = World()
    member = world.member()
    world.run()
    member.reader._news.append(ReadFailed("", -1, Failure.FATAL, "gone"))
    with pytest.raises(EngineFailed, match="gone"):
        member.engine.step()


def test_a_graceful_stop_finishes_releases_and_commits() -> None:
    world = World()
    member = world.member()
    world.send("a")
    world.send("a", "undo")
    world.send("b")
    world.run()
    member.engine.stop()
    world.run()
    assert not member.engine.stopped
    member.finish()
    world.run()
    assert not member.engine.stopped
    member.finish()
    world.run()
    assert member.engine.stopped
    assert world.ledger_kinds() == ["Claim", "Execution", "Execution", "Release"]
    # The undo was not begun: it and what stands behind it is for the next one, who answers from memory.
    assert world.committed() == 1
    assert world.outcomes() == [("do", 1, "success")] * 2


def test_a_handler_that_was_never_started_is_started_later() -> None:
    world = World()
    member = world.member()
    world.send()
    world.run()
    member.finish(None)
    world.run()
    assert member.running() == [("order-7", "do", 1)]
    assert member.engine.counters.outcomes == {"success": 0, "failure": 0, "retry": 0, "pending": 0}


def test_due_ms_lies_ahead() -> None:
    world = World()
    member = world.member()
    for _ in range(50):
        member.step()
        assert world.now_ms < member.engine.due_ms <= world.now_ms + world.settings.renew_interval_ms
        world.now_ms = member.engine.due_ms
