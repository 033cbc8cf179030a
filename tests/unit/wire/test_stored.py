"""The store's entries: what is written is what is read, and equal states give equal bytes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.model.events import Cause, RunFollows, Status, StepKind, Undone, UnknownCause
from orchestrator.model.messages import Input, Parent, ReplyAddress
from orchestrator.model.retries import RetryPolicy
from orchestrator.model.state import OPEN, UNDO_NOW, UNDO_OPEN, Pause, SagaState, Step, StepStatus
from orchestrator.wire.avro import UnreadableRecord
from orchestrator.wire.stored import (
    StoredPartition,
    read_partition,
    read_run,
    read_step,
    write_partition,
    write_run,
    write_step,
)
from wire.values import MAX, values_of

QUICK = settings(max_examples=100, deadline=None, derandomize=True)
DERIVED = {"steps", "updates", "outcomes", "local", "open", "undo_open", "undo_now", "undo_stack", "locks"}
"""Of a run: what is made of its steps."""
PASSING = {"changed", "forgotten", "dropped_steps", "dropped_timers", "new_due", "old_due"}
PASSING |= {"stored_local", "stored_paused", "stored_waiting"}
"""Of a run: what only says how the store differs."""

HINTS: dict[str, dict[str, Any]] = {
    "Step": {
        "after": int,
        "attempt": int,
        "cancel_sent": bool,
        "terminate_sent": bool,
        "cause": UnknownCause | None,
        "command": str,
        "deadline_ms": int | None,
        "details": bytes,
        "due_ms": int | None,
        "ended": int,
        "error_message": str,
        "error_type": str,
        "heartbeat_ms": int | None,
        "held": bool,
        "kind": StepKind,
        "partition": int,
        "payload": bytes,
        "pivot": bool,
        "resolved": int,
        "resolved_at_ms": int,
        "result": bytes,
        "retry": RetryPolicy | None,
        "service": str,
        "schedule_to_start_ms": int | None,
        "since_ms": int,
        "run": str,
        "seed": str,
        "start_to_close_ms": int | None,
        "started_ms": int,
        "status": StepStatus,
        "undo_attempt": int,
        "undo_command": str | None,
        "undo_payload": bytes | None,
        "undo_retry": RetryPolicy | None,
    },
    "SagaState": {
        "ballast": int,
        "migrates_from": int,
        "not_begun_ms": int | None,
        "note": bytes,
        "begin_ms": int | None,
        "began_ms": int,
        "baggage": str | None,
        "cancel": Cause | None,
        "cancel_at_ms": int,
        "cancel_resolved": int,
        "cause": Cause | None,
        "continue_due": bool,
        "due_ms": int | None,
        "ended_at_ms": int,
        "error_message": str,
        "error_type": str,
        "parent": Parent | None,
        "parent_gone": bool,
        "released": int,
        "payload": bytes,
        "phase": Status,
        "follows": RunFollows | None,
        "pinned": bool,
        "forced": bool,
        "keep": int,
        "pivot_done": bool,
        "previous_run": str,
        "result": bytes,
        "run": str,
        "run_timeout_ms": int | None,
        "timeout_ms": int | None,
        "saga_type": str,
        "sequence": int,
        "started_at_ms": int,
        "started_by": str,
        "stays": bool,
        "traceparent": str | None,
        "undo_asked": bool,
        "undone": Undone | None,
        "undos_done": int,
        "undos_skipped": int,
        "version": int,
    },
}


def fields_of(name: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({field: values_of(hint) for field, hint in HINTS[name].items()})


def step_with(values: dict[str, Any], sequence: int = 3) -> Step:
    step = Step(sequence, StepStatus.RUNNING, 0)
    for name, value in values.items():
        setattr(step, name, value)
    return step


def test_the_tests_know_every_field() -> None:
    assert set(HINTS["Step"]) | {"sequence"} == set(Step.__slots__)
    kept = {"saga_id", "waiters", "parked", "paused", "mailbox", "signals", "promises", "asked", "callers", "keys"}
    assert set(HINTS["SagaState"]) | kept | DERIVED | PASSING == set(SagaState.__slots__)


@QUICK
@given(fields_of("Step"))
def test_a_step_survives_field_by_field(values: dict[str, Any]) -> None:
    step = step_with(values)
    read = read_step(3, write_step(step))
    for name in Step.__slots__:
        was, now = getattr(step, name), getattr(read, name)
        assert now == was
        assert type(now) is type(was), name
    assert write_step(read) == write_step(step)


@QUICK
@given(
    fields_of("SagaState"),
    st.lists(values_of(ReplyAddress), max_size=2),
    st.dictionaries(st.integers(0, MAX), st.text(max_size=5), max_size=3),
    st.lists(values_of(Input), max_size=3),
    st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=5)), max_size=3),
    st.none() | st.builds(Pause, st.text(max_size=5), st.text(max_size=5), st.text(max_size=5), st.integers(0, MAX)),
    st.dictionaries(st.text(max_size=5), st.tuples(st.binary(max_size=5), st.text(), st.text()), max_size=3),
    st.dictionaries(st.integers(1, MAX), st.lists(values_of(ReplyAddress), max_size=2), max_size=2),
    st.dictionaries(st.integers(1, MAX), values_of(Parent), max_size=2),
    st.sets(st.text(max_size=5), max_size=3),
)
def test_a_run_survives_field_by_field(
    values: dict[str, Any],
    waiters: list[ReplyAddress],
    parked: dict[int, str],
    mailbox: list[Input],
    signals: list[tuple[str, bytes]],
    paused: Pause | None,
    promises: dict[str, tuple[bytes, str, str]],
    asked: dict[int, list[ReplyAddress]],
    callers: dict[int, Parent],
    keys: set[str],
) -> None:
    state = SagaState("s", "1-10-0")
    kept = {"waiters": waiters, "parked": parked, "mailbox": mailbox, "signals": signals, "paused": paused}
    kept |= {"promises": promises, "asked": asked, "callers": callers, "keys": keys}
    for name, value in {**values, **kept}.items():
        setattr(state, name, value)
    read = read_run("s", write_run(state), [])
    for name in set(SagaState.__slots__) - DERIVED - PASSING:
        was, now = getattr(state, name), getattr(read, name)
        assert now == was
        assert type(now) is type(was), name
    assert write_run(read) == write_run(state)


def test_what_is_kept_beside_the_steps_is_made_of_them() -> None:
    state = SagaState("s", "1-10-0")
    state.phase = Status.RUNNING
    state.cancel_resolved = 2
    steps = []
    for sequence, status in enumerate(StepStatus, 1):
        step = Step(sequence, status, 0, undo_command="release")
        steps.append(step)
    steps[0].resolved, steps[1].resolved = 3, 1
    read = read_run("s", write_run(state), steps)
    assert read.outcomes == [2, 0, 1]
    assert read.open == {step.sequence for step in steps if step.status in OPEN}
    assert read.undo_open == {step.sequence for step in steps if step.status in UNDO_OPEN}
    assert read.undo_now == [step.sequence for step in steps if step.status in UNDO_NOW]


def test_an_unknown_step_without_an_undo_is_nobodys_business() -> None:
    state = SagaState("s", "1-10-0")
    state.phase = Status.RUNNING
    assert read_run("s", write_run(state), [Step(1, StepStatus.UNKNOWN, 0)]).undo_now == []


PARTITIONS = st.builds(
    StoredPartition,
    offset=st.integers(-1, MAX),
    record_hash=st.binary(max_size=32),
    nonce=st.binary(max_size=16),
    claim_offset=st.integers(-1, MAX),
    chain=st.binary(min_size=32, max_size=32),
    input_positions=st.dictionaries(st.sampled_from(("inbox", "replies")), st.integers(-1, MAX)),
    internal_taken=st.dictionaries(st.sampled_from("0123"), st.integers(0, MAX)),
    effects_open=st.lists(st.tuples(st.integers(0, MAX), st.integers(0, 99)), max_size=3).map(tuple),
    sent_nonce=st.binary(max_size=16),
    clock_ms=st.integers(0, MAX),
)


@QUICK
@given(PARTITIONS)
def test_a_partition_survives(stored: StoredPartition) -> None:
    assert read_partition(write_partition(stored)) == stored


def test_equal_partitions_give_equal_bytes_whatever_the_order_of_their_entries() -> None:
    one = StoredPartition(input_positions={"inbox": 1, "replies": 2})
    other = StoredPartition(input_positions={"replies": 2, "inbox": 1})
    assert write_partition(one) == write_partition(other)


@pytest.mark.parametrize("data", [b"", b"{", b"{}", b"[]", b"[1,2,3]", b"\xff\xfe"])
def test_a_damaged_entry_is_noticed(data: bytes) -> None:
    for read in (read_partition, lambda data: read_step(1, data), lambda data: read_run("s", data, [])):
        with pytest.raises(UnreadableRecord):
            read(data)
