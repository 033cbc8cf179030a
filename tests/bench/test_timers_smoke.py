"""`python -m tests.bench.timers` runs and says what it promises to say. What it says about time is nobody's promise."""

import pytest

from orchestrator.broker import SHORT_LIVED
from tests.bench.timers import measure


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_tiny_run_times_every_timer() -> None:
    result = measure(5, 1.0, 2.0, 0.0, SHORT_LIVED)
    assert result["timers"] == 5
    assert 0 <= result["least_ms"] <= result["lateness_ms"]["p50"] <= result["lateness_ms"]["p99"]
