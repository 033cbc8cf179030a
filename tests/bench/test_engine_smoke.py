"""`python -m tests.bench.engine` runs and says what it promises to say."""

from tests.bench.engine import Case, measure


def test_a_tiny_run_has_a_row_for_each_case() -> None:
    cases = [Case(), Case(processes=2, partitions=2), Case(types=3)]
    result = measure(20, cases, rounds=1)
    told = [(row["processes"], row["partitions"], row["types"]) for row in result["cases"]]
    assert told == [(1, 4, 1), (2, 2, 1), (1, 4, 3)]
    for row in result["cases"]:
        assert row["engine_ms_per_saga"]["median"] > 0
        assert row["decisions_per_second"]["median"] > 0
