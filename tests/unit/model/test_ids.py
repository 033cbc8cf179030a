"""Identity: what must agree with Kafka's own clients, and what must never be the same twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.model.ids import epoch_number, idempotency_key, murmur2, partition_of, run_id
from orchestrator.model.retries import RetryPolicy


@pytest.mark.parametrize(
    ("text", "signed"),
    [
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("a-little-bit-longer-string", -1486304829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        ("abc", 479470107),
    ],
)
def test_murmur2_agrees_with_kafkas_own_vectors(text: str, signed: int) -> None:
    assert murmur2(text.encode()) == signed % 2**32


def test_murmur2_takes_any_bytes() -> None:
    assert {len(f"{murmur2(b'x' * n):x}") <= 8 for n in range(20)} == {True}
    assert murmur2(b"") == murmur2(b"")


@given(st.text(), st.integers(1, 1_000))
def test_a_partition_is_one_there_is(key: str, partitions: int) -> None:
    assert partition_of(key, partitions) == (murmur2(key.encode()) & 0x7FFFFFFF) % partitions
    assert 0 <= partition_of(key, partitions) < partitions


def test_keys_spread_over_all_partitions() -> None:
    counts = [0] * 12
    for n in range(12_000):
        counts[partition_of(f"order-{n}", 12)] += 1
    assert min(counts) > 900


def test_the_idempotency_key_knows_no_attempt() -> None:
    assert idempotency_key("order-7", "1-10-0", 3, "undo") == "order-7/1-10-0/3/undo"


def test_a_run_is_named_by_where_it_began() -> None:
    assert run_id(2, 10, 0) == "2-10-0"


@given(st.integers(0, 2**19 - 1), st.integers(0, 2**44 - 1), st.integers(0, 2**19 - 1), st.integers(0, 2**44 - 1))
def test_later_epochs_are_greater_numbers_of_64_bits(a: int, b: int, c: int, d: int) -> None:
    assert (epoch_number(a, b) < epoch_number(c, d)) == ((a, b) < (c, d))
    assert epoch_number(a, b) < 2**63


@given(
    st.builds(
        RetryPolicy,
        st.integers(0, 10**12),
        st.floats(1, 1e6),
        st.integers(0, 10**12),
        st.integers(0, 100),
    ),
    st.integers(1, 10_000),
)
def test_the_wait_between_attempts_never_exceeds_its_maximum(policy: RetryPolicy, attempt: int) -> None:
    assert 0 <= policy.interval_ms(attempt) <= policy.maximum_interval_ms


def test_the_wait_grows_by_its_coefficient() -> None:
    policy = RetryPolicy(100, 3.0, 2_000)
    assert [policy.interval_ms(attempt) for attempt in range(1, 6)] == [100, 300, 900, 2_000, 2_000]


def test_attempts_are_used_up_by_their_number_or_by_the_error() -> None:
    policy = RetryPolicy(maximum_attempts=3, non_retryable_error_types=("Fatal",))
    assert [policy.exhausted(attempt, "Busy") for attempt in (1, 2, 3, 4)] == [False, False, True, True]
    assert policy.exhausted(1, "Fatal")
    assert not RetryPolicy().exhausted(10**9, "Busy")
