"""Rule R, clause by clause: which records of a journal partition count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.model.rule import NO_HASH, JournalHalted, Kind, Rule, chained

A, B = b"a" * 16, b"b" * 16
NOBODY = bytes(16)


class Log:
    """Records as they come, fed to one rule."""

    def __init__(self) -> None:
        self.rule = Rule()
        self.offset = -1

    def feed(self, kind: int, nonce: bytes = NOBODY, seq: int = -1, prev: bytes | None = None) -> bool:
        self.offset += 1
        chain = self.rule.chain if prev is None else prev
        return self.rule.accept(kind, nonce, seq, chain, self.offset, b"value %d" % self.offset)


def begun(*nonces: bytes) -> Log:
    log = Log()
    log.feed(Kind.GENESIS)
    for nonce in nonces:
        assert log.feed(Kind.CLAIM, nonce)
    return log


def test_the_genesis_counts_at_the_beginning_only() -> None:
    log = Log()
    assert log.feed(Kind.GENESIS)
    assert log.rule.chain == chained(NO_HASH, b"value 0")
    before = log.rule.copy()
    assert not log.feed(Kind.GENESIS)
    assert log.rule == before


def test_a_claim_makes_its_nonce_current_and_expects_seq_0() -> None:
    log = begun(A)
    assert (log.rule.nonce, log.rule.claim_offset, log.rule.expected_seq) == (A, 1, 0)


def test_a_claim_of_a_nonce_seen_before_is_dropped() -> None:
    log = begun(A, B)
    assert not log.feed(Kind.CLAIM, A)
    assert log.rule.nonce == B
    assert not log.feed(Kind.CLAIM, B)
    assert log.rule.claim_offset == 2


def test_a_claim_without_a_genesis_halts() -> None:
    log = Log()
    log.offset = 41
    with pytest.raises(JournalHalted, match="no genesis before offset 42"):
        log.feed(Kind.CLAIM, A)


@pytest.mark.parametrize("kind", [Kind.DECISION, Kind.FORMAT_RAISED])
def test_decisions_of_the_current_claim_count_in_their_order(kind: Kind) -> None:
    log = begun(A)
    assert [log.feed(kind, A, seq) for seq in range(3)] == [True, True, True]
    assert log.rule.expected_seq == 3


@pytest.mark.parametrize("seq", [-1, 1, 3, 4])
def test_a_decision_of_another_seq_is_dropped(seq: int) -> None:
    log = begun(A)
    log.feed(Kind.DECISION, A, 0)
    log.feed(Kind.DECISION, A, 1)
    before = log.rule.copy()
    assert not log.feed(Kind.DECISION, A, seq)
    assert log.rule == before
    assert log.feed(Kind.DECISION, A, 2)


def test_a_decision_of_an_older_claim_is_dropped_for_ever() -> None:
    log = begun(A)
    log.feed(Kind.DECISION, A, 0)
    log.feed(Kind.CLAIM, B)
    assert not log.feed(Kind.DECISION, A, 1)
    assert not log.feed(Kind.DECISION, A, 0)
    assert log.feed(Kind.DECISION, B, 0)


def test_a_decision_before_any_claim_is_dropped() -> None:
    log = begun()
    assert not log.feed(Kind.DECISION, NOBODY, 0)
    assert not log.feed(Kind.DECISION, b"", 0)


def test_a_decision_that_fits_but_for_the_chain_halts() -> None:
    log = begun(A)
    log.feed(Kind.DECISION, A, 0)
    with pytest.raises(JournalHalted, match="truncated or rewritten"):
        log.feed(Kind.DECISION, A, 1, prev=bytes(32))


def test_a_decision_that_does_not_count_is_not_asked_for_its_chain() -> None:
    log = begun(A, B)
    assert not log.feed(Kind.DECISION, A, 0, prev=bytes(32))


def test_every_record_that_counts_and_no_other_continues_the_chain() -> None:
    log = begun(A)
    before = log.rule.chain
    log.feed(Kind.CLAIM, A)
    log.feed(Kind.DECISION, B, 0)
    assert log.rule.chain == before
    log.feed(Kind.DECISION, A, 0)
    assert log.rule.chain == chained(before, b"value 4")
    assert len(log.rule.chain) == 32


def test_a_copy_is_independent() -> None:
    log = begun(A)
    copy = log.rule.copy()
    log.feed(Kind.CLAIM, B)
    assert copy.nonce == A
    assert copy.nonces == {A}


@given(st.lists(st.tuples(st.sampled_from(Kind), st.sampled_from((A, B, b"c" * 16)), st.integers(-1, 3))))
def test_two_readers_of_one_prefix_agree_wherever_the_second_joins(records: list[tuple[Kind, bytes, int]]) -> None:
    log = begun()
    followers: list[Rule] = []
    for kind, nonce, seq in records:
        chain = log.rule.chain
        counted = log.feed(kind, nonce, seq)
        value = b"value %d" % log.offset
        assert {f.accept(kind, nonce, seq, chain, log.offset, value) for f in followers} <= {counted}
        assert all(follower == log.rule for follower in followers)
        followers.append(log.rule.copy())
