"""`python -m tests.bench.soak` runs and says what it promises to say."""

import pytest

from tests.bench.soak import Sample, by_saga, counted, measure, slopes


def test_slopes_leave_out_what_fills_first() -> None:
    samples = [Sample(0, 0, {"a": 0.0}), Sample(1800, 500, {"a": 90.0}), Sample(3600, 1_000_500, {"a": 92.0})]
    settled = counted(samples, 20)
    assert slopes(settled) == {"a": {"mb_per_hour": 4.0, "first_mb": 90.0, "last_mb": 92.0, "most_mb": 92.0}}
    assert by_saga(settled, "a") == 2.0


@pytest.mark.slow
@pytest.mark.broker
@pytest.mark.timeout(180)
def test_a_tiny_run_measures_everything() -> None:
    result = measure(0.1, 0, 20)
    assert result["sagas"] > 100
    assert set(result["slopes"]) == {
        *("worker memory", "services memory", "broker memory"),
        *("topics", "stores", "snapshots", "archive"),
    }
    assert all(result["slopes"][name]["last_mb"] > 0 for name in ("worker memory", "topics", "stores"))
