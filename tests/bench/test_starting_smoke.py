"""`python -m tests.bench.starting` runs and says what it promises to say, but for what it says about time."""

import pytest

from orchestrator.broker import SHORT_LIVED
from tests.bench.starting import measure


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_tiny_run_starts_a_worker_and_lets_it_rest() -> None:
    result = measure(1, 0.5, SHORT_LIVED)
    assert result["help_ms"]["median"] > 0
    assert result["first_decision_ms"]["median"] > 0
    assert result["idle_cpu_ms_per_second"].keys() == {"owner", "participants"}
