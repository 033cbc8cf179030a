"""`python -m tests.bench.recovery` measures what it says it does. How long it takes is nobody's promise here."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.checker.check import check
from tests.bench.recovery import Recovery
from tests.e2e.shop import Shop

DECISIONS = 400


@pytest.fixture
def shop(broker: str, prefix: str, tmp_path: Path) -> Iterator[Shop]:
    made = Shop(broker, prefix, tmp_path, partitions=1, workers=1)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_journal_is_recovered_with_its_store_and_without(shop: Shop) -> None:
    told: list[str] = []
    result = Recovery(shop, told.append).run(DECISIONS)
    print(json.dumps(result))
    assert result["decisions"] >= DECISIONS
    for case in ("intact_store", "lost_store"):
        assert 0 < result[case]["claim_ms"] <= result[case]["first_decision_ms"]
    assert result["lost_store"]["decisions_per_second"] > 0
    assert told
    verdict = check(shop.evidence())
    assert verdict.violations == []
    assert verdict.sagas == result["sagas"] + 2
