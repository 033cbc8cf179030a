"""`python -m tests.bench.maps` runs and says what it promises to say."""

from tests.bench.maps import measure


def test_a_short_map_has_one_run_and_all_its_events() -> None:
    (row,) = measure([200])
    assert (row["items"], row["runs"]) == (200, 1)
    assert row["most_events"] > 400  # each item's step is scheduled, and succeeds
    assert row["seconds"] > 0
    assert row["peak_mb"] > row["grown_mb"] >= 0
