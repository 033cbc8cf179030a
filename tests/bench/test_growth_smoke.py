"""`python -m tests.bench.growth` runs and says what it promises to say."""

import pytest

from tests.bench.growth import Size, measure


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_tiny_run_has_every_stage_and_both_paces() -> None:
    result = measure(Size(40, 60, orders=20, rounds=2, rest_s=0.1))
    assert [(row["kind"], row["sagas"]) for row in result["stages"]] == [
        ("finished", 40),
        ("waiting", 60),
        ("sleeping", 60),
    ]
    for row in result["stages"]:
        assert row["store_bytes_each"] > 0
        assert row["journal_bytes_each"] > 0
        assert row["takeover_ms"] > 0
    assert list(result["pace"]) == ["waiting", "sleeping"]
    for row in result["pace"].values():
        assert row["time_ratio"] > 0
        assert row["empty"]["decisions_per_second"]["median"] > 0
        assert row["full"]["decision_us"]["median"] > 0
