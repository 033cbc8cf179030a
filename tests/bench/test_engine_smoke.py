"""`python -m tests.bench.engine` runs and says what it promises to say."""

from tests.bench.engine import measure


def test_a_tiny_run_has_a_row_for_each_number_of_processes() -> None:
    result = measure(20, [1, 2], rounds=1)
    assert [row["processes"] for row in result["by_processes"]] == [1, 2]
    for row in result["by_processes"]:
        assert row["engine_ms_per_saga"] > 0
        assert row["decisions_per_second"]["median"] > 0
