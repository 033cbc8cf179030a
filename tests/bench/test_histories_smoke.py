"""`python -m tests.bench.histories` runs and says what it promises to say."""

from tests.bench.histories import measure


def test_a_tiny_run_has_a_row_for_each_length() -> None:
    result = measure([60, 40], 20)
    assert [row["events"] for row in result["by_length"]] == [40, 60]
    for row in result["by_length"]:
        assert row["decision_us"]["p50"] > 0
        assert row["floor_us"]["p50"] > 0
        assert row["bytes"] > 0
