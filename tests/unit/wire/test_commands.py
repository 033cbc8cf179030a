"""Commands, completions and replies as headers: whatever the names' order and case, as the contract says."""

from __future__ import annotations

import random

import pytest

from orchestrator.model.effects import Command
from orchestrator.model.messages import Outcome
from orchestrator.wire import commands as wc
from orchestrator.wire import headers as h
from orchestrator.wire.commands import ReplyMessage, command_headers, read_command, reply_headers
from orchestrator.wire.headers import MalformedMessage

COMMAND = Command("ördér", "1-2-3", "Order", 4, "undo", 5, "payments", "refund", 0, b"{}", 99, "00-ab-cd-01")
SENT = command_headers(COMMAND, epoch=7, reply_to="saga.replies", reply_partition=3, token="k.00", sent_at_ms=17)


def test_a_command_comes_back_as_it_was_sent() -> None:
    command = read_command(SENT, b"{}")
    assert command[:13] == (
        *("ördér", "1-2-3", "Order", "refund", 4, "undo", 5, "ördér/1-2-3/4/undo", b"{}", "saga.replies", 3, 17, 99),
    )
    assert (command.traceparent, command.reply_token, command.completion) == ("00-ab-cd-01", b"k.00", None)
    assert read_command(SENT, None).payload == b""


def test_a_reply_echoes_what_came_and_says_how_it_ended() -> None:
    found = dict(SENT)
    reply = ReplyMessage(Outcome.RETRY, b"", "Busy", "später", 700)
    added = [("outcome", b"retry"), ("error-type", b"Busy"), ("error-message", "später".encode())]
    echoed = [(name, found[name]) for name in h.ECHOED if name in found]
    assert reply_headers(read_command(SENT, b""), reply) == [*echoed, *added, ("retry-after-ms", b"700")]


def test_order_case_repetition_and_strange_headers_change_nothing() -> None:
    expected = read_command(SENT, b"{}")
    for seed in range(50):
        drawn = random.Random(seed)
        pairs = [(name.upper() if drawn.random() < 0.3 else name, content) for name, content in SENT]
        pairs += [("trace", b"\xff\x00"), ("", b"")]
        drawn.shuffle(pairs)
        name, _ = drawn.choice(SENT)
        assert read_command([(name, b"\xff"), *pairs], b"{}") == expected


def test_what_may_be_left_out() -> None:
    optional = {h.DIRECTION, h.ATTEMPT, h.SAGA_TYPE, h.SENT_AT, h.DEADLINE, h.TRACEPARENT, h.EPOCH, h.REPLY_TOKEN}
    command = read_command([pair for pair in SENT if pair[0] not in optional], b"")
    assert (command.direction, command.attempt, command.saga_type, command.sent_at_ms) == ("do", 1, "", 0)
    assert (command.deadline_ms, command.traceparent, command.reply_token) == (None, None, b"")


@pytest.mark.parametrize(
    "name", [h.SAGA_ID, h.SAGA_RUN, h.COMMAND_TYPE, h.STEP, h.IDEMPOTENCY_KEY, h.REPLY_TO, h.REPLY_PARTITION]
)
def test_what_must_be_there(name: str) -> None:
    without = [pair for pair in SENT if pair[0] != name]
    for headers in (without, [*without, (name, b"")], [*without, (name, b"\xff")]):
        with pytest.raises(MalformedMessage, match=name):
            read_command(headers, b"")
    with pytest.raises(MalformedMessage):
        read_command([], b"")


@pytest.mark.parametrize("content", [b"+1", b" 1", b"1_0", b"1.0", b"x", b"1" * 19, "१".encode(), b"--1"])
def test_numbers_are_plain_digits(content: bytes) -> None:
    for name in (h.STEP, h.ATTEMPT, h.REPLY_PARTITION, h.SENT_AT, h.DEADLINE):
        with pytest.raises(MalformedMessage, match=name):
            read_command([*SENT, (name, content)], b"")
    assert read_command([*SENT, (h.STEP, b"-5")], b"").sequence == -5


def test_directions_and_sizes() -> None:
    for content in (b"", b"Do", b"redo"):
        with pytest.raises(MalformedMessage, match="do or undo"):
            read_command([*SENT, (h.DIRECTION, content)], b"")
    with pytest.raises(MalformedMessage, match="at most"):
        read_command([*SENT, ("more", b"x" * h.MAX_HEADER_BYTES)], b"")


def test_a_record_with_an_outcome_is_a_completion() -> None:
    done = read_command([*SENT, (h.OUTCOME, b"success")], b"1")
    assert done.completion == ReplyMessage(Outcome.SUCCESS, b"1")
    refused = read_command([*SENT, (h.OUTCOME, b"failure"), (h.ERROR_TYPE, b"No"), (h.ERROR_MESSAGE, b"why")], b"")
    assert refused.completion == ReplyMessage(Outcome.FAILURE, b"", "No", "why")
    for content in (b"retry", b"", b"done", b"\xff"):
        with pytest.raises(MalformedMessage, match="completed by success or failure"):
            read_command([*SENT, (h.OUTCOME, content)], b"")


def test_layouts_do_not_pile_up() -> None:
    for number in range(2_000):
        read_command([*SENT, (f"x-{number}", b"")], b"")
    assert len(wc._layouts) <= wc._MAX_LAYOUTS
